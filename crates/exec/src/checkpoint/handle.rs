//! Checkpoints that are written later: how they are asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context as Waiting, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::pending::Tee;
use super::{CheckpointInfo, CheckpointName};
use crate::context::Context;
use crate::error::{Cause, Error};
use crate::job::{CANCEL_CHECK, Job, WorksFor};

/// A checkpoint that is written later: with the next action ([`checkpoint_lazily`](crate::Dataset::checkpoint_lazily)),
/// or in the background ([`checkpoint_async`](crate::Dataset::checkpoint_async)).
///
/// Wait for it with [`wait`](Self::wait), [`wait_timeout`](Self::wait_timeout) or `.await` (any executor will do), or ask
/// it now and then with [`result`](Self::result). Cheap to clone; all clones are of one checkpoint.
///
/// Dropping the handle changes nothing: the checkpoint is written all the same. It is given up when it is
/// [cancelled](Self::cancel), and when the last handle of its context and of the context's datasets drops: a program
/// that ends had better wait first.
pub struct CheckpointHandle {
    request: Arc<Request>,
    /// Under which its task waits, if one does.
    number: Option<u64>,
}

impl Clone for CheckpointHandle {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.request))
    }
}

impl Drop for CheckpointHandle {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.request.forget(number);
        }
    }
}

impl CheckpointHandle {
    pub(super) fn new(request: Arc<Request>) -> Self {
        Self { request, number: None }
    }

    /// The checkpoint's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.request.name.as_str()
    }

    /// Whether it is there or given up.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.request.is_settled()
    }

    /// The checkpoint, or why there is none; nothing while that is open.
    ///
    /// # Errors
    /// [`Error::CheckpointFailed`] and [`Error::CheckpointCancelled`]. The dataset works as before, and can be
    /// checkpointed again.
    #[must_use]
    pub fn result(&self) -> Option<Result<CheckpointInfo, Error>> {
        self.request.result()
    }

    /// Waits until it is there. One that is written by the next action waits for that: do not call it on the thread
    /// that is to run the action. Called in a closure of a job, it ends when the job is cancelled.
    ///
    /// # Errors
    /// As [`result`](Self::result); [`Error::Cancelled`] when the job was cancelled that waits.
    pub fn wait(&self) -> Result<CheckpointInfo, Error> {
        let job = Job::current();
        loop {
            if let Some(result) = self.wait_timeout(CANCEL_CHECK) {
                return result;
            }
            if job.as_ref().is_some_and(|job| job.is_halted()) {
                return Err(Error::Cancelled);
            }
        }
    }

    /// Waits as long as that until it is there; nothing if it is still open then. It goes on.
    ///
    /// # Errors
    /// As [`result`](Self::result).
    #[must_use]
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<CheckpointInfo, Error>> {
        self.request.wait(timeout);
        self.result()
    }

    /// Gives it up, unless it is committed. Returns at once; what was written is removed as soon as the writer
    /// notices. Only the result tells whether that came in time.
    pub fn cancel(&self) {
        self.request.cancel("it was cancelled");
    }
}

impl Future for CheckpointHandle {
    type Output = Result<CheckpointInfo, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Waiting<'_>) -> Poll<Self::Output> {
        let Self { request, number } = self.get_mut();
        request.wake_later(number, context.waker());
        // Asked after it: what is settled in between wakes nobody.
        request.result().map_or(Poll::Pending, Poll::Ready)
    }
}

impl fmt::Debug for CheckpointHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointHandle")
            .field("name", &self.name())
            .field("result", &self.result())
            .finish_non_exhaustive()
    }
}

/// A checkpoint that somebody asked for, and what becomes of it.
pub(crate) struct Request {
    pub(super) name: CheckpointName,
    /// How messages call the dataset.
    pub(super) dataset: String,
    /// Halted when it is cancelled; the jobs that work for it are parts of it.
    pub(super) job: Arc<Job>,
    /// What waits for an action, to be told when it is cancelled.
    pub(super) tee: OnceLock<Weak<dyn Tee>>,
    settled: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    outcome: Option<Result<CheckpointInfo, Failure>>,
    why_cancelled: Option<&'static str>,
    /// Of the tasks that wait, by number.
    wakers: BTreeMap<u64, Waker>,
    next_number: u64,
}

/// Why there will be no checkpoint.
#[derive(Clone)]
pub(super) enum Failure {
    Failed(Arc<Error>),
    Cancelled(&'static str),
}

impl Request {
    pub(super) fn new(name: CheckpointName, dataset: String, job: Arc<Job>) -> Arc<Self> {
        Arc::new(Self {
            name,
            dataset,
            job,
            tee: OnceLock::new(),
            settled: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Tells those who wait what became of it. The first one counts.
    pub(super) fn settle(&self, outcome: Result<CheckpointInfo, Failure>) {
        let mut state = self.state.lock();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        self.settled.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.changed.notify_all();
        for waker in wakers.into_values() {
            // A waker is user code: one that panics must not leave the others asleep.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                drop(Cause::of_caught(panic));
            }
        }
    }

    /// The failure that an error means for those who wait.
    pub(super) fn failure(&self, error: Error) -> Failure {
        match self.state.lock().why_cancelled {
            Some(why) => Failure::Cancelled(why),
            None => Failure::Failed(Arc::new(error)),
        }
    }

    pub(crate) fn cancel(&self, why: &'static str) {
        self.state.lock().why_cancelled.get_or_insert(why);
        self.job.cancel();
        if let Some(tee) = self.tee.get().and_then(Weak::upgrade) {
            tee.withdraw(why);
        }
    }

    /// Waits for it as a job of the context, which can be cancelled.
    pub(super) fn join(self: &Arc<Self>, context: &Context) -> Result<CheckpointInfo, Error> {
        let job = Job::start();
        let _running = context.register(&job);
        let _for_it = WorksFor::job(&job);
        CheckpointHandle::new(Arc::clone(self)).wait()
    }

    fn result(&self) -> Option<Result<CheckpointInfo, Error>> {
        let outcome = self.state.lock().outcome.clone()?;
        let (name, dataset) = (self.name.as_str().to_owned(), self.dataset.clone());
        Some(outcome.map_err(|failure| match failure {
            Failure::Failed(cause) => Error::CheckpointFailed { name, dataset, cause },
            Failure::Cancelled(why) => Error::CheckpointCancelled { name, dataset, why },
        }))
    }

    fn wait(&self, timeout: Duration) {
        // No deadline that a clock can tell is none.
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.state.lock();
        while state.outcome.is_none() {
            match deadline {
                Some(deadline) if self.changed.wait_until(&mut state, deadline).timed_out() => return,
                Some(_) => {}
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// Wakes the task once it is settled. `number` is the caller's, given at the first call.
    fn wake_later(&self, number: &mut Option<u64>, waker: &Waker) {
        // Cloned and dropped without the lock: a waker is user code.
        let waker = waker.clone();
        let replaced = {
            let mut state = self.state.lock();
            if state.outcome.is_some() {
                return;
            }
            let number = *number.get_or_insert_with(|| {
                state.next_number += 1;
                state.next_number
            });
            state.wakers.insert(number, waker)
        };
        drop(replaced);
    }

    /// The task with this number waits no more.
    fn forget(&self, number: u64) {
        let gone = self.state.lock().wakers.remove(&number);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use super::{CheckpointHandle, Failure, Request};
    use crate::job::Job;

    /// Counts, and panics if it must.
    struct Bell {
        rung: AtomicU32,
        breaks: bool,
    }

    impl Bell {
        fn new(breaks: bool) -> Arc<Self> {
            Arc::new(Self { rung: AtomicU32::new(0), breaks })
        }
    }

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.rung.fetch_add(1, Ordering::Relaxed);
            assert!(!self.breaks, "a waker that panics");
        }
    }

    fn is_pending(handle: &mut CheckpointHandle, bell: &Arc<Bell>) -> bool {
        let waker = Waker::from(Arc::clone(bell));
        matches!(Pin::new(handle).poll(&mut Context::from_waker(&waker)), Poll::Pending)
    }

    #[test]
    fn those_who_wait_are_woken_and_those_who_left_are_forgotten() {
        let request = Request::new("squares".into(), "map".to_owned(), Job::start());
        let [broken, left, early, late] = [true, false, false, false].map(Bell::new);
        let handle = || CheckpointHandle::new(Arc::clone(&request));
        let (mut first, mut second) = (handle(), handle());
        assert!(is_pending(&mut first, &broken));
        assert!(is_pending(&mut second, &early));
        assert!(is_pending(&mut second, &late), "the last waker counts");
        assert!(is_pending(&mut second.clone(), &left), "a clone that is dropped while it waits");
        assert_eq!(request.state.lock().wakers.len(), 2);
        assert_eq!(Arc::strong_count(&left), 1);
        request.settle(Err(Failure::Cancelled("it was cancelled")));
        let rung = [&broken, &left, &early, &late].map(|bell| bell.rung.load(Ordering::Relaxed));
        assert_eq!(rung, [1, 0, 0, 1]);
        assert!(!is_pending(&mut first, &early));
    }
}
