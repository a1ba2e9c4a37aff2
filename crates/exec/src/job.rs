//! Jobs: what one action runs, and what ends it early.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

thread_local! {
    /// The job whose task this thread runs.
    static CURRENT: RefCell<Option<Arc<Job>>> = const { RefCell::new(None) };
}

/// One run of an action.
#[derive(Debug, Default)]
pub(crate) struct Job {
    halted: AtomicBool,
    cancelled: AtomicBool,
    /// The job one of whose tasks started this one.
    parent: Option<Arc<Job>>,
}

impl Job {
    /// A job of this thread: of the task it runs, if it runs one.
    pub(crate) fn start() -> Arc<Self> {
        let parent = CURRENT.with_borrow(Option::clone);
        Arc::new(Self { parent, ..Self::default() })
    }

    /// Makes the tasks of this job end at their next batch.
    pub(crate) fn halt(&self) {
        self.halted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.halt();
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Relaxed) || self.parent.as_ref().is_some_and(|parent| parent.is_halted())
    }

    /// Whether it was ended from outside rather than by a failure of its own.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
            || self.parent.as_ref().is_some_and(|parent| parent.is_halted())
    }
}

/// Whether this thread runs a task already, so that a job it starts runs on it alone.
pub(crate) fn in_task() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// Marks this thread as running a task of a job, until it drops.
pub(crate) struct InTask {
    outer: Option<Arc<Job>>,
}

impl InTask {
    pub(crate) fn enter(job: &Arc<Job>) -> Self {
        Self { outer: CURRENT.replace(Some(Arc::clone(job))) }
    }
}

impl Drop for InTask {
    fn drop(&mut self) {
        CURRENT.set(self.outer.take());
    }
}

/// The tasks that may run at once, shared by the jobs of a context.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Mutex<usize>,
    changed: Condvar,
}

impl Slots {
    pub(crate) fn new(slots: usize) -> Self {
        Self { free: Mutex::new(slots), changed: Condvar::new() }
    }

    /// Waits for a slot; none if the job ends meanwhile.
    pub(crate) fn take(&self, job: &Job) -> Option<Slot<'_>> {
        let mut free = self.free.lock();
        while *free == 0 {
            if job.is_halted() {
                return None;
            }
            self.changed.wait(&mut free);
        }
        *free -= 1;
        Some(Slot { slots: self })
    }

    /// Wakes those who wait, to look at their jobs.
    pub(crate) fn wake_all(&self) {
        drop(self.free.lock());
        self.changed.notify_all();
    }
}

/// The right to run one task; given back on drop.
pub(crate) struct Slot<'a> {
    slots: &'a Slots,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.slots.free.lock() += 1;
        self.slots.changed.notify_all();
    }
}
