//! Jobs in stages, stages in tasks.
//!
//! A job is planned from what is resident; map tasks that left no output run first, in the plan's order, and the
//! wanted partitions last. A block that is lost meanwhile makes the job plan again; what was done stays done.

mod setbacks;
mod stage;

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use larder_lineage::{Graph, NodeId, RecomputePlan, Residency, ShuffleStage};
use parking_lot::Mutex;

use self::setbacks::Setbacks;
use self::stage::{Stage, StageEnd};
use crate::assemble;
use crate::checkpoint;
use crate::context::Context;
use crate::error::{Cause, Error, TaskError};
use crate::job::{Job, WorksFor};
use crate::node::{Node, Prepare};
use crate::pipeline::Pipeline;
use crate::shuffle::AnyShuffle;
use crate::task::{Place, Task};

/// What a task does with one partition of the dataset an action is about.
pub(crate) type Work<'a, R> = dyn Fn(&Task, u32, Pipeline) -> Result<R, TaskError> + Sync + 'a;

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
        let results = self.run_job_as(&job, target, partitions, work)?;
        if job.is_outermost() {
            checkpoint::complete(self, job.take_met());
        }
        Ok(results)
    }

    fn run_job_as<R: Send>(
        &self,
        job: &Arc<Job>,
        target: NodeId,
        partitions: &[u32],
        work: &Work<'_, R>,
    ) -> Result<Vec<R>, Error> {
        let _running = self.register(job);
        if let Some(tee) = self.node(target)?.tee() {
            // Also if it has no partition that a task could meet.
            job.meet(target, tee);
        }
        let results: Vec<Mutex<Option<R>>> = partitions.iter().map(|_| Mutex::new(None)).collect();
        let run = JobRun { context: self, job, target };
        let mut setbacks = Setbacks::none();
        loop {
            let end = run.round(partitions, &results, work, &mut setbacks)?;
            if end == StageEnd::Complete {
                return Ok(results.into_iter().filter_map(Mutex::into_inner).collect());
            }
            setbacks.count(end, || self.label(target))?;
        }
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
        match run.stage(&self.node(target)?.name(), target, partitions, &|task, _| work(task))? {
            StageEnd::Complete => Ok(()),
            // There is no plan that could be made anew.
            StageEnd::Lost | StageEnd::Stale => {
                Err(Error::LostTooOften { what: "a block", dataset: self.label(target), rounds: 1 })
            }
        }
    }
}

impl Context {
    /// Runs code of the user's on this thread, outside of any task: a panic becomes an error.
    pub(crate) fn merge<R>(&self, dataset: NodeId, work: impl FnOnce() -> R) -> Result<R, Error> {
        panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Error::Merge {
            dataset: self.label(dataset),
            cause: Box::new(Cause::of_caught(panic)),
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
        setbacks: &mut Setbacks,
    ) -> Result<StageEnd, Error> {
        let missing: Vec<usize> = (0..partitions.len())
            .filter(|&index| results.get(index).is_some_and(|result| result.lock().is_none()))
            .collect();
        let wanted: Vec<u32> = missing.iter().filter_map(|&index| partitions.get(index).copied()).collect();
        let (plan, prepares) = self.plan(&wanted)?;
        setbacks.planned(&plan);
        for (id, prepare) in prepares {
            let _preparing = WorksFor::job(self.job);
            self.context.merge(id, || prepare.run(self.context))??;
        }
        for stage in plan.shuffles() {
            let Ok(child) = self.context.node(stage.child) else { return Ok(StageEnd::Stale) };
            let Some(shuffle) = child.shuffle(stage.dependency) else { return Ok(StageEnd::Stale) };
            let label = format!("{} (map side)", child.name());
            let end = self.stage(&label, stage.parent, &stage.partitions, &|task, _| {
                self.run_map(task, stage, &*shuffle)
            })?;
            if end != StageEnd::Complete {
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

    /// Runs one map task. Its time is that of the block it read, unless that is persisted and measured as such.
    fn run_map(&self, task: &Task, stage: &ShuffleStage, shuffle: &dyn AnyShuffle) -> Result<(), TaskError> {
        let place = Place::of(stage.parent, task.partition());
        let measuring = Cell::new(None);
        shuffle.run_map(task, stage.child, place.partition, &|| {
            let input = assemble::open(task, place.node, place.partition)?;
            measuring.set(Some((input.effort(), task.clock())));
            Ok(input)
        })?;
        // Without it, another task's output was there.
        if let Some((mut effort, clock)) = measuring.take()
            && self.context.node(place.node).is_ok_and(|node| node.storage_level().is_none())
        {
            let before = self.context.compute_time(place).unwrap_or_default();
            effort.known = effort.known.saturating_sub(before);
            self.context.measured(place, effort.of(clock.stop(task)));
        }
        Ok(())
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
        Stage::new(self, label, node, partitions, work).run()
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::setbacks::SETBACKS_MAX;
    use super::*;

    #[test]
    fn a_job_that_gets_on_may_lose_any_number_of_blocks() -> Result<(), Error> {
        let context = Context::builder().threads(1).progress(false).build()?;
        let partitions = 3 * SETBACKS_MAX;
        let pairs = context.range(0..100, 2)?.map(|n| (*n, 1));
        let sums = pairs.reduce_by_key_with_partitions(partitions, |a, b| a + b)?;
        let shuffle = sums.node().shuffle(0).unwrap();
        let losses = AtomicU32::new(0);
        let counts = sums.run(&|partition, pipeline| {
            let count = pipeline.count::<(i64, i32)>()?;
            // Each partition is lost once, when it is computed first.
            if losses.fetch_max(partition + 1, Ordering::Relaxed) <= partition {
                shuffle.lose_block(0, partition);
                return Err(TaskError::Lost);
            }
            Ok(count)
        })?;
        assert_eq!((counts.len() as u32, counts.iter().sum::<u64>()), (partitions, 100));
        Ok(())
    }

    #[test]
    fn a_lineage_that_changes_all_the_time_is_given_up_by_that_name() -> Result<(), Error> {
        let context = Context::builder().threads(1).progress(false).build()?;
        let numbers = context.range(0..10, 2)?.named("numbers");
        let stale = numbers.run(&|_, _| Err::<(), _>(TaskError::Stale));
        let message = stale.map_err(|e| e.to_string());
        assert!(message.as_ref().is_err_and(|m| m.contains("lineage of dataset `numbers`")), "{message:?}");
        let lost = numbers.run(&|_, _| Err::<(), _>(TaskError::Lost));
        assert!(matches!(lost, Err(Error::LostTooOften { .. })), "{lost:?}");
        let unfinished = context.run_tasks(numbers.id(), &[0, 1], &|_| Err(TaskError::Lost));
        assert!(matches!(unfinished, Err(Error::LostTooOften { .. })), "{unfinished:?}");
        assert_eq!(numbers.count()?, 10);
        Ok(())
    }
}
