//! The single flight: one writer of a block, and everyone who waits for it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, Mutex};
use crate::waits::{Circular, Leader, Waits};

/// Settles once, with a result for the waiters or without one; wakes threads and tasks alike.
pub(crate) struct FlightCell<R> {
    state: Mutex<State<R>>,
    settled: Condvar,
}

struct State<R> {
    outcome: Option<Option<R>>,
    /// Of the tasks that wait, by the number of their flight.
    wakers: Vec<(u64, Waker)>,
    next_number: u64,
    /// The thread that computes, where it is known to be one.
    leader: Option<ThreadId>,
    /// The same, for those who wait, until it settles.
    followed: Option<Leader>,
}

impl<R: Clone> FlightCell<R> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                outcome: None,
                wakers: Vec::new(),
                next_number: 0,
                leader: None,
                followed: None,
            }),
            settled: Condvar::new(),
        }
    }

    /// This thread computes, until it settles.
    pub(crate) fn lead_here(&self) {
        self.state.lock().leader = Some(thread::current().id());
        // Whoever waits already did not know for whom.
        self.settled.notify_all();
    }

    /// Settles the flight, if it is not settled yet, and wakes whoever waits.
    pub(crate) fn settle(&self, result: Option<R>) {
        let mut state = self.state.lock();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(result);
        let wakers = std::mem::take(&mut state.wakers);
        let followed = state.followed.take();
        drop(state);
        if let Some(leader) = followed {
            leader.lock().take();
        }
        self.settled.notify_all();
        for (_, waker) in wakers {
            // A waker is user code: one that panics must not leave the others asleep.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// Blocks until the flight is settled, or for so long.
    ///
    /// # Errors
    /// When that would never be, because the thread that computes waits for this one.
    pub(crate) fn wait(&self, waits: &Waits, timeout: Option<Duration>) -> Result<Poll<Option<R>>, Circular> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut noted = None;
        let mut state = self.state.lock();
        loop {
            if let Some(result) = &state.outcome {
                return Ok(Poll::Ready(result.clone()));
            }
            if let (None, Some(thread)) = (&noted, state.leader) {
                let leader = state.followed.get_or_insert_with(|| Arc::new(Mutex::new(Some(thread))));
                let leader = Arc::clone(leader);
                drop(state);
                noted = Some(waits.wait_here(leader)?);
                state = self.state.lock();
                continue;
            }
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.settled.wait(state),
                Some(Duration::ZERO) => return Ok(Poll::Pending),
                Some(left) => self.settled.wait_for(state, left),
            };
        }
    }

    /// The result, or a promise to wake the task once there is one. `number` is the caller's, given at the first call.
    pub(crate) fn poll(&self, number: &mut Option<u64>, context: &Context<'_>) -> Poll<Option<R>> {
        // Cloned and dropped without the lock: a waker is user code.
        let waker = context.waker().clone();
        let replaced = {
            let mut state = self.state.lock();
            if let Some(result) = &state.outcome {
                return Poll::Ready(result.clone());
            }
            let number = *number.get_or_insert_with(|| {
                state.next_number += 1;
                state.next_number
            });
            match state.wakers.iter_mut().find(|(of, _)| *of == number) {
                Some((_, before)) => Some(std::mem::replace(before, waker)),
                None => {
                    state.wakers.push((number, waker));
                    None
                }
            }
        };
        drop(replaced);
        Poll::Pending
    }

    /// The task with this number waits no more.
    pub(crate) fn forget(&self, number: u64) {
        let gone = {
            let mut state = self.state.lock();
            let at = state.wakers.iter().position(|(of, _)| *of == number);
            at.map(|at| state.wakers.swap_remove(at))
        };
        drop(gone);
    }

    #[cfg(test)]
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn tasks_waiting(&self) -> usize {
        self.state.lock().wakers.len()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::FlightCell;
    use crate::sync::{Arc, thread};
    use crate::waits::{Circular, Waits};
    use std::future::poll_fn;
    use std::task::Poll;

    fn waited(flight: &FlightCell<u32>, waits: &Waits) -> Option<u32> {
        match flight.wait(waits, None) {
            Ok(Poll::Ready(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn loom_of_threads_that_wait_for_each_other_one_is_told_and_the_other_gets_on() {
        loom::model(|| {
            let flights = Arc::new([FlightCell::<u32>::new(), FlightCell::new()]);
            let waits = Arc::new(Waits::default());
            // Computes one, and asks for the other meanwhile.
            let compute = |mine: usize| {
                let (flights, waits) = (Arc::clone(&flights), Arc::clone(&waits));
                move || {
                    flights[mine].lead_here();
                    let asked = flights[1 - mine].wait(&waits, None);
                    flights[mine].settle(asked.is_ok().then_some(7));
                    asked == Err(Circular)
                }
            };
            let other = thread::spawn(compute(1));
            let told = [compute(0)(), other.join().unwrap()];
            assert!(told[0] != told[1] || !told[0], "{told:?}");
        });
    }

    #[test]
    fn loom_every_waiter_gets_the_first_outcome() {
        loom::model(|| {
            let flight = Arc::new(FlightCell::new());
            let waiter = {
                let flight = Arc::clone(&flight);
                thread::spawn(move || waited(&flight, &Waits::default()))
            };
            let task = {
                let flight = Arc::clone(&flight);
                thread::spawn(move || {
                    let mut number = None;
                    loom::future::block_on(poll_fn(|context| flight.poll(&mut number, context)))
                })
            };
            flight.settle(Some(7));
            flight.settle(None);
            assert_eq!(waiter.join().unwrap(), Some(7));
            assert_eq!(task.join().unwrap(), Some(7));
        });
    }

    #[test]
    fn loom_a_removal_that_races_with_the_writer_leaves_nobody_waiting() {
        loom::model(|| {
            let flight = Arc::new(FlightCell::new());
            let remover = {
                let flight = Arc::clone(&flight);
                thread::spawn(move || flight.settle(None))
            };
            let writer = {
                let flight = Arc::clone(&flight);
                thread::spawn(move || flight.settle(Some(7)))
            };
            let waits = Waits::default();
            let first = waited(&flight, &waits);
            assert_eq!(waited(&flight, &waits), first, "an outcome never changes");
            remover.join().unwrap();
            writer.join().unwrap();
        });
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use super::FlightCell;
    use crate::waits::Waits;

    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Panicking;

    impl Wake for Panicking {
        fn wake(self: Arc<Self>) {
            panic!("a waker panics on purpose");
        }
    }

    #[test]
    fn a_task_is_woken_once_however_often_it_asked_and_not_when_it_waits_no_more() {
        let flight = FlightCell::<u32>::new();
        let [here, gone] = [(); 2].map(|()| Arc::new(Counting(AtomicUsize::new(0))));
        let (mut of_here, mut of_gone) = (None, None);
        for _ in 0..3 {
            assert!(
                flight.poll(&mut of_here, &Context::from_waker(&Waker::from(Arc::clone(&here)))).is_pending()
            );
            assert!(
                flight.poll(&mut of_gone, &Context::from_waker(&Waker::from(Arc::clone(&gone)))).is_pending()
            );
        }
        assert_eq!(flight.tasks_waiting(), 2);
        flight.forget(of_gone.unwrap());
        flight.settle(Some(7));
        assert_eq!((here.0.load(Ordering::Relaxed), gone.0.load(Ordering::Relaxed)), (1, 0));
    }

    #[test]
    fn a_waker_that_panics_leaves_nobody_asleep() {
        let flight = FlightCell::<u32>::new();
        let last = Arc::new(Counting(AtomicUsize::new(0)));
        for waker in [Waker::from(Arc::new(Panicking)), Waker::from(Arc::clone(&last))] {
            assert!(flight.poll(&mut None, &Context::from_waker(&waker)).is_pending());
        }
        flight.settle(None);
        assert_eq!(last.0.load(Ordering::Relaxed), 1);
        assert_eq!(flight.wait(&Waits::default(), None), Ok(Poll::Ready(None)));
    }
}
