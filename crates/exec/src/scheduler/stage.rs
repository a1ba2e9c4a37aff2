//! A stage: one task for each of its partitions, on whichever threads take them.

use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder_lineage::NodeId;
use parking_lot::Mutex;

use super::JobRun;
use crate::checkpoint::Unfinished;
use crate::error::{Cause, Error, TaskError};
use crate::job::{WorksFor, in_task};
use crate::progress::Progress;
use crate::task::{Task, TaskState};

/// How a stage ended that did not fail for good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum StageEnd {
    Complete,
    /// A block it counted on is gone.
    Lost,
    /// The lineage is not what it was planned from.
    Stale,
}

/// The tasks of one stage, and what became of them.
pub(super) struct Stage<'a> {
    run: &'a JobRun<'a>,
    /// What the tasks' partitions are of.
    node: NodeId,
    partitions: &'a [u32],
    work: &'a (dyn Fn(&Task, usize) -> Result<(), TaskError> + Sync),
    nested: bool,
    next: AtomicUsize,
    /// What made the job need another plan, if something did.
    setback: OnceLock<StageEnd>,
    failure: Mutex<Option<Error>>,
    progress: Progress,
}

impl<'a> Stage<'a> {
    pub(super) fn new(
        run: &'a JobRun<'a>,
        label: &str,
        node: NodeId,
        partitions: &'a [u32],
        work: &'a (dyn Fn(&Task, usize) -> Result<(), TaskError> + Sync),
    ) -> Self {
        let nested = in_task();
        Self {
            run,
            node,
            partitions,
            work,
            nested,
            next: AtomicUsize::new(0),
            setback: OnceLock::new(),
            failure: Mutex::new(None),
            progress: run.context.progress(label, if nested { 0 } else { partitions.len() }),
        }
    }

    /// Runs the tasks on the threads of the context, this one among them.
    pub(super) fn run(self) -> Result<StageEnd, Error> {
        let threads = if self.nested { 1 } else { self.run.context.threads().min(self.partitions.len()) };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                let worker = std::thread::Builder::new().name("larder-worker".into());
                // Without the thread, the others do its share.
                if worker.spawn_scoped(scope, || self.drain()).is_err() {
                    break;
                }
            }
            self.drain();
        });
        self.end()
    }

    /// Runs tasks until none is left or the stage is over.
    fn drain(&self) {
        let job = self.run.job;
        while self.setback.get().is_none() && !job.is_halted() {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&partition) = self.partitions.get(index) else { return };
            let slot = if self.nested { None } else { self.run.context.slots().take(job) };
            if !self.nested && slot.is_none() {
                return;
            }
            match self.run_task(index, partition) {
                Ok(()) => self.progress.done(),
                Err(TaskError::Lost) => drop(self.setback.set(StageEnd::Lost)),
                Err(TaskError::Stale) => drop(self.setback.set(StageEnd::Stale)),
                Err(TaskError::Halted | TaskError::Failed(_)) => return,
            }
        }
    }

    /// Runs one task, again if it fails.
    fn run_task(&self, index: usize, partition: u32) -> Result<(), TaskError> {
        let _in_task = WorksFor::task_of(self.run.job);
        let attempts = self.run.context.task_attempts();
        let mut attempt = 1;
        loop {
            let task = TaskState::new(self.run.context, self.run.job, self.node, partition);
            let result = panic::catch_unwind(AssertUnwindSafe(|| (self.work)(&task, index)));
            let unfinished = task.take_unfinished();
            if matches!(result, Ok(Ok(()))) {
                finish_parts(&unfinished);
            }
            drop(unfinished);
            let result = result.unwrap_or_else(|panic| Err(Cause::of_caught(panic).into()));
            let Err(TaskError::Failed(cause)) = result else { return result };
            if self.run.job.is_halted() {
                return Err(TaskError::Halted);
            }
            if attempt >= attempts || cause.is_final() {
                let place = task.place();
                let label = self.run.context.label(place.node);
                self.fail(Error::Task {
                    dataset: if place.map_side { format!("{label}, map side") } else { label },
                    partition: place.partition,
                    attempt,
                    attempts,
                    cause,
                });
                return Err(TaskError::Halted);
            }
            attempt += 1;
        }
    }

    fn fail(&self, error: Error) {
        self.failure.lock().get_or_insert(error);
        self.run.job.halt();
        self.run.context.slots().wake_all();
    }

    fn end(self) -> Result<StageEnd, Error> {
        if let Some(error) = self.failure.into_inner() {
            return Err(error);
        }
        if self.run.job.is_halted() {
            return Err(Error::Cancelled);
        }
        Ok(self.setback.into_inner().unwrap_or(StageEnd::Complete))
    }
}

/// Writes parts of checkpoints to their ends, those first that are computed from others. What fails is left out: the
/// action has its result, and what is missing of a checkpoint is written at the end of the job.
fn finish_parts(unfinished: &[Rc<dyn Unfinished>]) {
    for part in unfinished.iter().rev() {
        let finished = panic::catch_unwind(AssertUnwindSafe(|| part.finish()));
        drop(finished.map_err(Cause::of_caught));
    }
}
