//! Touches, noted without a lock and told to the policy later, in their order.

use crate::policy::Slot;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Touches noted before the policy is told of them. A power of two.
const CAPACITY: u64 = if cfg!(loom) { 4 } else { 512 };

/// Rings, so that threads on different processors do not write to the same one. A power of two. A model has one.
const RINGS: usize = if cfg!(any(loom, shuttle)) { 1 } else { 8 };

/// Which slots were touched, and in which order.
///
/// A reader takes the next index of its thread's ring and leaves its slot there: one atomic addition and one store.
/// Whoever holds the tier's lock tells the policy, before anything else happens to it; and a reader that has filled half
/// of its ring does. So the policy sees the same calls as if each touch had taken the lock: those of one thread in
/// their order, those of different threads, between two other calls, one thread after the other.
///
/// Two things can lose a touch, and cost no more than a block's place in the ranking: a reader that is stopped
/// between taking an index and leaving its slot, and one that is stopped before it has emptied a full ring.
#[derive(Debug)]
pub(super) struct Journal {
    rings: [Ring; RINGS],
}

/// How far each ring was read.
pub(super) type Read = [u64; RINGS];

/// On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Ring {
    next: AtomicU64,
    places: Box<[AtomicU32]>,
}

/// No slot: nothing is noted here, or it was told.
const NONE: u32 = u32::MAX;

impl Journal {
    pub(super) fn new() -> Self {
        Self { rings: std::array::from_fn(|_| Ring::new()) }
    }

    /// Notes a touch. True when it is time to read the journal.
    #[inline]
    pub(super) fn note(&self, slot: Slot) -> bool {
        self.rings.get(ring_of_this_thread()).is_some_and(|ring| ring.note(slot))
    }

    /// Hands out what was noted since `read`, which it moves on. One caller at a time.
    #[inline]
    pub(super) fn read(&self, read: &mut Read, mut touched: impl FnMut(Slot)) {
        for (ring, read) in self.rings.iter().zip(read) {
            ring.read(read, &mut touched);
        }
    }
}

/// Threads take turns.
#[cfg(not(any(loom, shuttle)))]
#[inline]
fn ring_of_this_thread() -> usize {
    static THREADS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    thread_local! {
        static RING: std::cell::Cell<usize> = const { std::cell::Cell::new(RINGS) };
    }
    let ring = RING.get();
    if ring < RINGS {
        return ring;
    }
    let ring = THREADS.fetch_add(1, Ordering::Relaxed) % RINGS;
    RING.set(ring);
    ring
}

#[cfg(any(loom, shuttle))]
fn ring_of_this_thread() -> usize {
    0
}

impl Ring {
    fn new() -> Self {
        Self { next: AtomicU64::new(0), places: (0..CAPACITY).map(|_| AtomicU32::new(NONE)).collect() }
    }

    #[inline]
    fn note(&self, slot: Slot) -> bool {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(place) = self.place(at) {
            place.store(slot.0, Ordering::Relaxed);
        }
        (at + 1).is_multiple_of(CAPACITY / 2)
    }

    #[inline]
    fn read(&self, read: &mut u64, touched: &mut impl FnMut(Slot)) {
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
        self.places.get((at % CAPACITY) as usize)
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::{CAPACITY, Journal, RINGS, Read, Slot};

    fn noted(journal: &Journal, read: &mut Read) -> Vec<u32> {
        let mut slots = Vec::new();
        journal.read(read, |slot| slots.push(slot.0));
        slots
    }

    #[test]
    fn touches_come_out_once_and_in_order() {
        let (journal, mut read) = (Journal::new(), [0; RINGS]);
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
    fn what_several_threads_note_comes_out_in_the_order_of_each() {
        let (journal, mut read) = (Journal::new(), [0; RINGS]);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let journal = &journal;
                scope.spawn(move || {
                    for n in 0..100 {
                        journal.note(Slot(thread * 100 + n));
                    }
                });
            }
        });
        let slots = noted(&journal, &mut read);
        for thread in 0..3 {
            let of_thread: Vec<u32> = slots.iter().copied().filter(|slot| slot / 100 == thread).collect();
            assert_eq!(of_thread, (thread * 100..thread * 100 + 100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn it_asks_to_be_read_twice_a_round_and_keeps_the_latest_when_it_is_not() {
        let (journal, mut read) = (Journal::new(), [0; RINGS]);
        let full = (0..3 * CAPACITY as u32).filter(|slot| journal.note(Slot(*slot))).count();
        assert_eq!(full, 6);
        assert_eq!(
            noted(&journal, &mut read),
            (2 * CAPACITY as u32..3 * CAPACITY as u32).collect::<Vec<_>>()
        );
    }
}
