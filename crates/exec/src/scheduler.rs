//! Jobs in stages, stages in tasks.
//!
//! A job is planned from what is resident; map tasks that left no output run first, in the plan's order, and the
//! wanted partitions last. A block that is lost meanwhile makes the job plan again; what was done stays done.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use larder_lineage::{Graph, NodeId, RecomputePlan, Residency};
use parking_lot::Mutex;

use crate::assemble;
use crate::context::Context;
use crate::error::{Cause, Error, TaskError};
use crate::job::{Job, WorksFor, in_task};
use crate::node::{Node, Prepare};
use crate::pipeline::Pipeline;
use crate::progress::Progress;
use crate::task::{Task, TaskState};

/// How often a job is planned anew because blocks it counted on were lost.
const LOST_ROUNDS_MAX: u32 = 16;

/// What a task does with one partition of the dataset an action is about.
pub(crate) type Work<'a, R> = dyn Fn(&Task, u32, Pipeline) -> Result<R, TaskError> + Sync + 'a;

/// How a stage ended that did not fail for good.
#[derive(Clone, Copy, PartialEq)]
enum StageEnd {
    Complete,
    /// Something it counted on is gone.
    Lost,
}

impl Context {
    /// Runs `work` over these partitions of a dataset and returns the results in the order of `partitions`.
    ///
    /// A task may run more than once; one result of each partition counts. Called in a task, it runs on that
    /// thread alone.
    pub(crate) fn run_job<R: Send>(
        &self,
        target: NodeId,
        partitions: &[u32],
        work: &Work<'_, R>,
    ) -> Result<Vec<R>, Error> {
        let job = Job::start();
        let _running = self.register(&job);
        let results: Vec<Mutex<Option<R>>> = partitions.iter().map(|_| Mutex::new(None)).collect();
        for _ in 0..LOST_ROUNDS_MAX {
            let run = JobRun { context: self, job: &job, target };
            if run.round(partitions, &results, work)? == StageEnd::Complete {
                return Ok(results.into_iter().filter_map(Mutex::into_inner).collect());
            }
        }
        let what = "a block";
        Err(Error::LostTooOften { what, dataset: self.label(target), rounds: LOST_ROUNDS_MAX })
    }
}

impl Context {
    /// Runs `work` for each of these partitions of a dataset, without opening them.
    pub(crate) fn run_tasks(
        &self,
        target: NodeId,
        partitions: &[u32],
        work: &(dyn Fn(&Task) -> Result<(), TaskError> + Sync),
    ) -> Result<(), Error> {
        let job = Job::start();
        let _running = self.register(&job);
        let run = JobRun { context: self, job: &job, target };
        run.stage(&self.node(target)?.name(), target, partitions, &|task, _| work(task)).map(drop)
    }
}

impl Context {
    /// Runs code of the user's on this thread, outside of any task: a panic becomes an error.
    pub(crate) fn merge<R>(&self, dataset: NodeId, work: impl FnOnce() -> R) -> Result<R, Error> {
        panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Error::Merge {
            dataset: self.label(dataset),
            cause: Box::new(Cause::of_panic(&*panic)),
        })
    }
}

/// What is to be found out before tasks run, and for which datasets.
type Prepares = Vec<(NodeId, Arc<dyn Prepare>)>;

struct JobRun<'a> {
    context: &'a Context,
    job: &'a Arc<Job>,
    target: NodeId,
}

impl JobRun<'_> {
    /// Plans what is missing and runs it.
    fn round<R: Send>(
        &self,
        partitions: &[u32],
        results: &[Mutex<Option<R>>],
        work: &Work<'_, R>,
    ) -> Result<StageEnd, Error> {
        let missing: Vec<usize> = (0..partitions.len())
            .filter(|&index| results.get(index).is_some_and(|result| result.lock().is_none()))
            .collect();
        let wanted: Vec<u32> = missing.iter().filter_map(|&index| partitions.get(index).copied()).collect();
        let (plan, prepares) = self.plan(&wanted)?;
        for (id, prepare) in prepares {
            let _preparing = WorksFor::job(self.job);
            self.context.merge(id, || prepare.run(self.context))??;
        }
        for stage in plan.shuffles() {
            let Ok(child) = self.context.node(stage.child) else { return Ok(StageEnd::Lost) };
            let Some(shuffle) = child.shuffle(stage.dependency) else { return Ok(StageEnd::Lost) };
            let label = format!("{} (map side)", child.name());
            let end = self.stage(&label, stage.parent, &stage.partitions, &|task, _| {
                let partition = task.partition();
                shuffle
                    .run_map(task, stage.child, partition, &|| assemble::open(task, stage.parent, partition))
            })?;
            if end == StageEnd::Lost {
                return Ok(end);
            }
        }
        let label = self.context.node(self.target)?.name();
        self.stage(&label, self.target, &wanted, &|task, index| {
            let Some(result) = missing.get(index).and_then(|&index| results.get(index)) else {
                return Ok(());
            };
            let partition = task.partition();
            let pipeline = assemble::open(task, self.target, partition)?;
            let done = work(task, partition, pipeline)?;
            *result.lock() = Some(done);
            Ok(())
        })
    }

    fn plan(&self, wanted: &[u32]) -> Result<(RecomputePlan, Prepares), Error> {
        let graph = self.context.graph().lock();
        let plan = graph.plan(self.target, wanted.iter().copied(), &Resident(&graph))?;
        let unprepared = |(id, _)| Some((id, graph.payload(id).ok()?.unprepared()?));
        let prepares = plan.recomputed().filter_map(unprepared).collect();
        Ok((plan, prepares))
    }

    /// Runs a task for each of the partitions of `node` on the threads of the context, this one among them.
    fn stage(
        &self,
        label: &str,
        node: NodeId,
        partitions: &[u32],
        work: &(dyn Fn(&Task, usize) -> Result<(), TaskError> + Sync),
    ) -> Result<StageEnd, Error> {
        if self.job.is_halted() {
            return Err(Error::Cancelled);
        }
        let nested = in_task();
        let stage = Stage {
            run: self,
            node,
            partitions,
            work,
            nested,
            next: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            failure: Mutex::new(None),
            progress: self.context.progress(label, if nested { 0 } else { partitions.len() }),
        };
        let threads = if nested { 1 } else { self.context.threads().min(partitions.len()) };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                let worker = std::thread::Builder::new().name("larder-worker".into());
                // Without the thread, the others do its share.
                if worker.spawn_scoped(scope, || stage.drain()).is_err() {
                    break;
                }
            }
            stage.drain();
        });
        stage.end()
    }
}

/// Answers the planner from the datasets' stored blocks and shuffle outputs, where they are: it is asked under the
/// lock of the graph, where nothing of the user's may drop.
struct Resident<'a>(&'a Graph<Arc<Node>>);

impl Residency for Resident<'_> {
    fn is_resident(&self, node: NodeId, partition: u32) -> bool {
        self.0.payload(node).is_ok_and(|node| node.is_resident(partition))
    }

    fn has_shuffle_output(&self, child: NodeId, dependency: usize, map_partition: u32) -> bool {
        self.0.payload(child).is_ok_and(|node| node.has_shuffle_output(dependency, map_partition))
    }
}

/// The tasks of one stage, and what became of them.
struct Stage<'a> {
    run: &'a JobRun<'a>,
    /// What the tasks' partitions are of.
    node: NodeId,
    partitions: &'a [u32],
    work: &'a (dyn Fn(&Task, usize) -> Result<(), TaskError> + Sync),
    nested: bool,
    next: AtomicUsize,
    lost: AtomicBool,
    failure: Mutex<Option<Error>>,
    progress: Progress,
}

impl Stage<'_> {
    /// Runs tasks until none is left or the stage is over.
    fn drain(&self) {
        let job = self.run.job;
        while !self.lost.load(Ordering::Relaxed) && !job.is_halted() {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(&partition) = self.partitions.get(index) else { return };
            let slot = if self.nested { None } else { self.run.context.slots().take(job) };
            if !self.nested && slot.is_none() {
                return;
            }
            match self.run_task(index, partition) {
                Ok(()) => self.progress.done(),
                Err(TaskError::Lost | TaskError::Stale) => self.lost.store(true, Ordering::Relaxed),
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
            let result = result.unwrap_or_else(|panic| Err(Cause::of_panic(&*panic).into()));
            let Err(TaskError::Failed(cause)) = result else { return result };
            if self.run.job.is_halted() {
                return Err(TaskError::Halted);
            }
            if attempt >= attempts || cause.is_final() {
                self.fail(Error::Task {
                    dataset: self.run.context.label(task.node()),
                    partition,
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
        Ok(if self.lost.into_inner() { StageEnd::Lost } else { StageEnd::Complete })
    }
}
