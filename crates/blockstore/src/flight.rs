//! The single flight: one writer of a block, and everyone who waits for it.

use std::task::{Context, Poll, Waker};

use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, Mutex};

/// Settles once, with a result for the waiters or without one; wakes threads and tasks alike.
pub(crate) struct FlightCell<R> {
    state: Mutex<State<R>>,
    settled: Condvar,
}

struct State<R> {
    outcome: Option<Option<R>>,
    wakers: Vec<Waker>,
    /// The thread that computes, where it is known to be one.
    leader: Option<ThreadId>,
}

impl<R: Clone> FlightCell<R> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State { outcome: None, wakers: Vec::new(), leader: None }),
            settled: Condvar::new(),
        }
    }

    pub(crate) fn lead_here(&self) {
        self.state.lock().leader = Some(thread::current().id());
    }

    pub(crate) fn is_led_here(&self) -> bool {
        let state = self.state.lock();
        state.outcome.is_none() && state.leader == Some(thread::current().id())
    }

    /// Settles the flight, if it is not settled yet, and wakes whoever waits.
    pub(crate) fn settle(&self, result: Option<R>) {
        let mut state = self.state.lock();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(result);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.settled.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Blocks until the flight is settled.
    pub(crate) fn wait(&self) -> Option<R> {
        let mut state = self.state.lock();
        loop {
            if let Some(result) = &state.outcome {
                return result.clone();
            }
            state = self.settled.wait(state);
        }
    }

    /// The result, or a promise to wake the task once there is one.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Option<R>> {
        let mut state = self.state.lock();
        if let Some(result) = &state.outcome {
            return Poll::Ready(result.clone());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            state.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::FlightCell;
    use crate::sync::{Arc, thread};
    use std::future::poll_fn;

    #[test]
    fn loom_every_waiter_gets_the_first_outcome() {
        loom::model(|| {
            let flight = Arc::new(FlightCell::new());
            let waiter = {
                let flight = Arc::clone(&flight);
                thread::spawn(move || flight.wait())
            };
            let task = {
                let flight = Arc::clone(&flight);
                thread::spawn(move || loom::future::block_on(poll_fn(|context| flight.poll(context))))
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
            let first = flight.wait();
            assert_eq!(flight.wait(), first, "an outcome never changes");
            remover.join().unwrap();
            writer.join().unwrap();
        });
    }
}
