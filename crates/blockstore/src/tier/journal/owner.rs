//! Which ring of every journal belongs to which thread.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use super::SHARED;

const _: () = assert!(SHARED < u32::BITS as usize, "a bit for each ring");

/// A bit for each ring that a thread has.
static TAKEN: AtomicU32 = AtomicU32::new(0);
/// And for each that one has or had.
static EVER: AtomicU32 = AtomicU32::new(0);

const UNKNOWN: usize = usize::MAX;

thread_local! {
    static RING: Cell<usize> = const { Cell::new(UNKNOWN) };
    static OWNED: Owned = Owned::take();
}

/// Rings that threads have or had for themselves: the first so many.
#[inline]
pub(super) fn rings_ever_owned() -> usize {
    (u32::BITS - EVER.load(Ordering::Relaxed).leading_zeros()) as usize
}

/// One that no other thread has, or the shared one.
#[inline]
pub(super) fn ring_of_this_thread() -> usize {
    let ring = RING.get();
    if ring == UNKNOWN { first_use() } else { ring }
}

#[cold]
fn first_use() -> usize {
    let ring = OWNED.try_with(|owned| owned.0).unwrap_or(SHARED);
    RING.set(ring);
    ring
}

/// The ring that a thread has until it ends.
struct Owned(usize);

impl Owned {
    fn take() -> Self {
        let with_first_free = |taken: u32| {
            let ring = taken.trailing_ones();
            ((ring as usize) < SHARED).then_some(taken | 1 << ring)
        };
        // The next owner of a ring goes on where the last one stopped, so it has to see that.
        match TAKEN.fetch_update(Ordering::AcqRel, Ordering::Acquire, with_first_free) {
            Ok(taken) => {
                let ring = taken.trailing_ones();
                EVER.fetch_or(1 << ring, Ordering::Relaxed);
                Self(ring as usize)
            }
            Err(_) => Self(SHARED),
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Other destructors of this thread may still read blocks.
        RING.set(SHARED);
        if self.0 < SHARED {
            TAKEN.fetch_and(!(1 << self.0), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::{SHARED, ring_of_this_thread, rings_ever_owned};

    fn rings_of(threads: usize) -> Vec<usize> {
        let all = Barrier::new(threads);
        let ring = || {
            let ring = ring_of_this_thread();
            all.wait();
            assert_eq!(ring_of_this_thread(), ring);
            ring
        };
        thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(ring)).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn threads_have_rings_of_their_own_while_there_are_enough_and_give_them_back() {
        for _ in 0..3 {
            let mut own = rings_of(SHARED + 5);
            own.retain(|ring| *ring != SHARED);
            own.sort_unstable();
            assert!(own.windows(2).all(|two| two[0] < two[1]), "{own:?}");
            // Other tests of this process have some too.
            assert!((SHARED / 2..=SHARED).contains(&own.len()), "{own:?}");
            assert!(own.iter().all(|ring| *ring < rings_ever_owned()));
        }
    }
}
