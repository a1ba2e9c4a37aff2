//! Touches, noted without a lock and told to the policy later, in their order.

#[cfg(not(any(loom, shuttle)))]
mod owner;

/// A model says itself which ring it means, or is about the shared one.
#[cfg(any(loom, shuttle))]
mod owner {
    pub(super) fn rings_ever_owned() -> usize {
        super::SHARED
    }

    pub(super) fn ring_of_this_thread() -> usize {
        super::SHARED
    }
}

use crate::policy::Slot;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Touches noted before the policy is told of them. A power of two.
const CAPACITY: u64 = if cfg!(loom) { 4 } else { 512 };

/// Rings: one for each of the first threads, so that none waits for another to note what it has read, and the last for
/// all that come when those are taken.
const RINGS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 32 };
const SHARED: usize = RINGS - 1;

/// Which slots were touched, and in which order.
///
/// A reader leaves its slot in its thread's ring and moves the ring's index on: two stores. Whoever holds the tier's
/// lock tells the policy, before anything else happens to it; and a reader that has filled half of its ring does. So the
/// policy sees the same calls as if each touch had taken the lock: those of one thread in their order, those of
/// different threads, between two other calls, one thread after the other.
///
/// Two things can lose a touch, and cost no more than a block's place in the ranking: a reader that is stopped before it
/// has emptied a full ring, and in the shared one, where the index is taken first and by an atomic addition, a reader
/// that is stopped between taking it and leaving its slot.
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
        self.note_in(owner::ring_of_this_thread(), slot)
    }

    #[inline]
    fn note_in(&self, ring: usize, slot: Slot) -> bool {
        match self.rings.get(ring) {
            Some(own) if ring < SHARED => own.note(slot),
            Some(shared) => shared.note_shared(slot),
            None => false,
        }
    }

    /// Hands out what was noted since `read`, which it moves on. One caller at a time.
    #[inline]
    pub(super) fn read(&self, read: &mut Read, mut touched: impl FnMut(Slot)) {
        let owned = owner::rings_ever_owned();
        let rings = self.rings.iter().zip(read).enumerate();
        for (_, (ring, read)) in rings.filter(|(index, _)| *index < owned || *index == SHARED) {
            ring.read(read, &mut touched);
        }
    }
}

impl Ring {
    fn new() -> Self {
        Self { next: AtomicU64::new(0), places: (0..CAPACITY).map(|_| AtomicU32::new(NONE)).collect() }
    }

    /// For one thread at a time.
    #[inline]
    fn note(&self, slot: Slot) -> bool {
        let at = self.next.load(Ordering::Relaxed);
        if let Some(place) = self.place(at) {
            place.store(slot.0, Ordering::Relaxed);
        }
        self.next.store(at + 1, Ordering::Release);
        (at + 1).is_multiple_of(CAPACITY / 2)
    }

    #[inline]
    fn note_shared(&self, slot: Slot) -> bool {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(place) = self.place(at) {
            place.store(slot.0, Ordering::Relaxed);
        }
        (at + 1).is_multiple_of(CAPACITY / 2)
    }

    #[inline]
    fn read(&self, read: &mut u64, touched: &mut impl FnMut(Slot)) {
        let end = self.next.load(Ordering::Acquire);
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
    use super::{CAPACITY, Journal, RINGS, Read, SHARED, Slot, owner};

    fn noted(journal: &Journal, read: &mut Read) -> Vec<u32> {
        let mut slots = Vec::new();
        journal.read(read, |slot| slots.push(slot.0));
        slots
    }

    #[test]
    fn touches_come_out_once_and_in_order() {
        for ring in [owner::ring_of_this_thread(), SHARED] {
            let (journal, mut read) = (Journal::new(), [0; RINGS]);
            assert_eq!(noted(&journal, &mut read), []);
            for round in 0..5 {
                let slots: Vec<u32> = (0..CAPACITY as u32 - 1).map(|slot| slot * 7 + round).collect();
                slots.iter().for_each(|slot| {
                    journal.note_in(ring, Slot(*slot));
                });
                assert_eq!(noted(&journal, &mut read), slots);
                assert_eq!(noted(&journal, &mut read), []);
            }
        }
    }

    #[test]
    fn what_several_threads_note_comes_out_in_the_order_of_each() {
        let (journal, mut read) = (Journal::new(), [0; RINGS]);
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let journal = &journal;
                scope.spawn(move || {
                    for n in 0..70 {
                        let slot = Slot(thread * 100 + n);
                        if thread < 3 {
                            journal.note(slot)
                        } else {
                            journal.note_in(SHARED, slot)
                        };
                    }
                });
            }
        });
        let slots = noted(&journal, &mut read);
        for thread in 0..6 {
            let of_thread: Vec<u32> = slots.iter().copied().filter(|slot| slot / 100 == thread).collect();
            assert_eq!(of_thread, (thread * 100..thread * 100 + 70).collect::<Vec<_>>());
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

#[cfg(test)]
#[cfg(loom)]
mod loom_tests {
    use super::{CAPACITY, Journal, RINGS, Slot};
    use crate::sync::{Arc, thread};

    #[test]
    fn loom_what_a_thread_notes_in_its_own_ring_is_read_once_and_in_order() {
        loom::model(|| {
            let journal = Arc::new(Journal::new());
            let notes = {
                let journal = Arc::clone(&journal);
                thread::spawn(move || {
                    for slot in 0..CAPACITY as u32 - 1 {
                        journal.note_in(0, Slot(slot));
                    }
                })
            };
            let (mut read, mut slots) = ([0; RINGS], Vec::new());
            journal.read(&mut read, |slot| slots.push(slot.0));
            notes.join().unwrap();
            journal.read(&mut read, |slot| slots.push(slot.0));
            assert_eq!(slots, (0..CAPACITY as u32 - 1).collect::<Vec<_>>());
        });
    }
}
