//! Touches, noted without a lock and told to the policy later, in their order.

use crate::policy::Slot;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Touches noted before the policy is told of them. A power of two.
const CAPACITY: u64 = if cfg!(loom) { 4 } else { 512 };

/// Which slots were touched, and in which order.
///
/// A reader takes the next index and leaves its slot there: one atomic addition and one store. Whoever holds the
/// tier's lock tells the policy, before anything else happens to it; and a reader that has filled half of the ring
/// does. So the policy sees the same calls in the same order as if each touch had taken the lock.
///
/// Two things can lose a touch, and cost no more than a block's place in the ranking: a reader that is stopped
/// between taking an index and leaving its slot, and one that is stopped before it has emptied a full ring.
#[derive(Debug)]
pub(super) struct Journal {
    next: AtomicU64,
    ring: Box<[AtomicU32]>,
}

/// No slot: nothing is noted here, or it was told.
const NONE: u32 = u32::MAX;

impl Journal {
    pub(super) fn new() -> Self {
        Self { next: AtomicU64::new(0), ring: (0..CAPACITY).map(|_| AtomicU32::new(NONE)).collect() }
    }

    /// Notes a touch. True when it is time to read the journal.
    #[inline]
    pub(super) fn note(&self, slot: Slot) -> bool {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(place) = self.place(at) {
            place.store(slot.0, Ordering::Relaxed);
        }
        (at + 1).is_multiple_of(CAPACITY / 2)
    }

    /// Hands out what was noted since `read`, which it moves on. One caller at a time.
    #[inline]
    pub(super) fn read(&self, read: &mut u64, mut touched: impl FnMut(Slot)) {
        let end = self.next.load(Ordering::Relaxed);
        let start = end.saturating_sub(CAPACITY).max(*read);
        for at in start..end {
            let Some(place) = self.place(at) else { continue };
            let slot = place.load(Ordering::Relaxed);
            if slot != NONE {
                place.store(NONE, Ordering::Relaxed);
                touched(Slot(slot));
            }
        }
        *read = end;
    }

    fn place(&self, at: u64) -> Option<&AtomicU32> {
        self.ring.get((at % CAPACITY) as usize)
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::{CAPACITY, Journal, Slot};

    fn noted(journal: &Journal, read: &mut u64) -> Vec<u32> {
        let mut slots = Vec::new();
        journal.read(read, |slot| slots.push(slot.0));
        slots
    }

    #[test]
    fn touches_come_out_once_and_in_order() {
        let (journal, mut read) = (Journal::new(), 0);
        assert_eq!(noted(&journal, &mut read), []);
        for round in 0..5 {
            let slots: Vec<u32> = (0..CAPACITY as u32 - 1).map(|slot| slot * 7 + round).collect();
            slots.iter().for_each(|slot| {
                journal.note(Slot(*slot));
            });
            assert_eq!(noted(&journal, &mut read), slots);
            assert_eq!(noted(&journal, &mut read), []);
        }
    }

    #[test]
    fn it_asks_to_be_read_twice_a_round_and_keeps_the_latest_when_it_is_not() {
        let (journal, mut read) = (Journal::new(), 0);
        let full = (0..3 * CAPACITY as u32).filter(|slot| journal.note(Slot(*slot))).count();
        assert_eq!(full, 6);
        assert_eq!(
            noted(&journal, &mut read),
            (2 * CAPACITY as u32..3 * CAPACITY as u32).collect::<Vec<_>>()
        );
    }
}
