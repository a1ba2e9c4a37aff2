//! What a dataset must know before its tasks run: found once, by a job over its parent, and kept.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::context::Context;
use crate::error::Error;
use crate::job::{CANCEL_CHECK, Job, in_task};
use crate::node::Prepare;

/// How it is found.
pub(crate) trait Find<V>: Send + Sync {
    fn find(&self, context: &Context) -> Result<V, Error>;
}

/// A value that is found when it is first needed. If finding it fails, the next one who asks tries again.
pub(crate) struct Prepared<V, F> {
    state: Mutex<State<V>>,
    settled: Condvar,
    find: F,
}

enum State<V> {
    Unknown,
    Finding,
    Known(Arc<V>),
}

impl<V, F: Find<V>> Prepared<V, F> {
    pub(crate) fn new(find: F) -> Self {
        Self { state: Mutex::new(State::Unknown), settled: Condvar::new(), find }
    }

    /// The value; found now, if it is not known yet.
    pub(crate) fn get(&self, context: &Context) -> Result<Arc<V>, Error> {
        let claim = match self.look()? {
            Look::Known(value) => return Ok(value),
            Look::ToFind(claim) => claim,
        };
        let found = Arc::new(self.find.find(context)?);
        let value = self.settle(found);
        drop(claim);
        Ok(value)
    }

    /// The value if it is known, or else the right to find it.
    fn look(&self) -> Result<Look<'_, V>, Error> {
        let mut state = self.state.lock();
        loop {
            match &*state {
                State::Known(value) => return Ok(Look::Known(Arc::clone(value))),
                State::Unknown => {
                    *state = State::Finding;
                    let claim = Claim { state: &self.state, settled: &self.settled };
                    return Ok(Look::ToFind(Some(claim)));
                }
                // A task does not wait for another thread to find it: that one's job may be waiting for this task's
                // slot. It finds the same value itself.
                State::Finding if in_task() => return Ok(Look::ToFind(None)),
                State::Finding => {
                    if Job::current().is_some_and(|job| job.is_halted()) {
                        return Err(Error::Cancelled);
                    }
                    self.settled.wait_for(&mut state, CANCEL_CHECK);
                }
            }
        }
    }

    /// Keeps what was found, unless another was faster: then the value is that one's.
    fn settle(&self, found: Arc<V>) -> Arc<V> {
        let mut state = self.state.lock();
        match &*state {
            State::Known(value) => {
                let value = Arc::clone(value);
                drop(state);
                value
            }
            State::Unknown | State::Finding => {
                *state = State::Known(Arc::clone(&found));
                found
            }
        }
    }
}

enum Look<'a, V> {
    Known(Arc<V>),
    /// Without a claim, another thread is finding it too.
    ToFind(Option<Claim<'a, V>>),
}

/// The right to find a value. If it drops before the value is known, the next one who asks gets it.
struct Claim<'a, V> {
    state: &'a Mutex<State<V>>,
    settled: &'a Condvar,
}

impl<V> Drop for Claim<'_, V> {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if matches!(*state, State::Finding) {
            *state = State::Unknown;
        }
        drop(state);
        self.settled.notify_all();
    }
}

impl<V: Send + Sync, F: Find<V>> Prepare for Prepared<V, F> {
    fn is_ready(&self) -> bool {
        matches!(*self.state.lock(), State::Known(_))
    }

    fn run(&self, context: &Context) -> Result<(), Error> {
        self.get(context).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::job::WorksFor;

    /// Counts how often it is asked, and runs a job.
    struct Counted(AtomicU32);

    impl Find<u64> for Counted {
        fn find(&self, context: &Context) -> Result<u64, Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            context.range(0..10, 2)?.count()
        }
    }

    #[test]
    fn what_a_cancelled_job_finds_out_is_cancelled_with_it_and_found_by_the_next() -> Result<(), Error> {
        let context = Context::builder().threads(2).progress(false).build()?;
        let prepared = Prepared::new(Counted(AtomicU32::new(0)));
        let job = Job::start();
        job.cancel();
        let working = WorksFor::job(&job);
        let found = prepared.get(&context);
        assert!(matches!(found, Err(Error::Cancelled)), "{found:?}");
        drop(working);
        assert_eq!((prepared.is_ready(), *prepared.get(&context)?), (false, 10));
        assert_eq!((prepared.is_ready(), *prepared.get(&context)?), (true, 10));
        assert_eq!(prepared.find.0.load(Ordering::Relaxed), 2);
        Ok(())
    }
}
