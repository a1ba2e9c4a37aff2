//! Jobs: what one action runs, and what ends it early.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_lineage::NodeId;
use parking_lot::{Condvar, Mutex};

use crate::checkpoint::Tee;

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// The job that this thread works for.
struct Current {
    job: Arc<Job>,
    /// Whether it runs one of its tasks.
    in_task: bool,
}

/// How long a waiter sleeps before it looks whether its job was cancelled.
pub(crate) const CANCEL_CHECK: Duration = Duration::from_millis(20);

/// One run of an action.
#[derive(Debug, Default)]
pub(crate) struct Job {
    halted: AtomicBool,
    cancelled: AtomicBool,
    /// The job that needs this one: one of its tasks started it, or it has to find out something before they can run.
    parent: Option<Arc<Job>>,
    met: Met,
}

/// The datasets a job came across that are written to checkpoints while they are read.
pub(crate) type Tees = BTreeMap<NodeId, Arc<dyn Tee>>;

#[derive(Default)]
struct Met(Mutex<Tees>);

impl fmt::Debug for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.lock().keys()).finish()
    }
}

impl Job {
    /// A job of this thread: of the job it works for, if there is one.
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self { parent: Self::current(), ..Self::default() })
    }

    /// The job that this thread works for.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(|current| current.as_ref().map(|current| Arc::clone(&current.job)))
    }

    /// Whether nobody else needs it but who called the action.
    pub(crate) fn is_outermost(&self) -> bool {
        self.parent.is_none()
    }

    /// Notes that a dataset was read that waits to be checkpointed: for the outermost job, at whose end it is
    /// completed.
    pub(crate) fn meet(&self, dataset: NodeId, tee: Arc<dyn Tee>) {
        let mut outermost = self;
        while let Some(parent) = &outermost.parent {
            outermost = parent;
        }
        let before = outermost.met.0.lock().insert(dataset, tee);
        drop(before);
    }

    /// What was met so far.
    pub(crate) fn take_met(&self) -> Tees {
        std::mem::take(&mut *self.met.0.lock())
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
    CURRENT.with_borrow(|current| current.as_ref().is_some_and(|current| current.in_task))
}

/// Marks this thread as working for a job, until it drops.
pub(crate) struct WorksFor {
    outer: Option<Current>,
}

impl WorksFor {
    /// It runs a task of the job.
    pub(crate) fn task_of(job: &Arc<Job>) -> Self {
        Self::enter(Current { job: Arc::clone(job), in_task: true })
    }

    /// It runs the job itself: jobs it starts are cancelled with it.
    pub(crate) fn job(job: &Arc<Job>) -> Self {
        Self::enter(Current { job: Arc::clone(job), in_task: in_task() })
    }

    fn enter(current: Current) -> Self {
        Self { outer: CURRENT.replace(Some(current)) }
    }
}

impl Drop for WorksFor {
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
            self.changed.wait_for(&mut free, CANCEL_CHECK);
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
