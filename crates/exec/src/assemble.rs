//! Assembling the pipeline of one partition, from the nearest blocks that are there.
//!
//! The graph names the blocks of the narrow chain, inputs first; each becomes a pipeline in that order. So nothing
//! recurses over the lineage, and a persisted dataset is filled before what reads it is opened.

mod route;

use std::sync::Arc;

use larder_lineage::{Input, NodeId, Step};

use self::route::{Pins, Route, place};
use crate::error::TaskError;
use crate::gather::Replay;
use crate::node::{Checkpointing, Compute, Node};
use crate::persist::Filled;
use crate::pipeline::{DEPTH_MAX, Effort, Pipeline};
use crate::task::{Place, Task};

/// Opens `partition` of `target`: pins what is resident, fills what is persisted and not resident, and strings
/// the operators of all else together.
pub(crate) fn open(task: &Task, target: NodeId, partition: u32) -> Result<Pipeline, TaskError> {
    let mut pins = Pins::default();
    loop {
        task.check()?;
        let route = Route::find(task, target, partition, &pins)?;
        if pins.complete(task, &route)? {
            return Assembly::new(task, &route, pins).run();
        }
    }
}

/// Steps on their way to being pipelines.
struct Assembly<'a> {
    task: &'a Task,
    route: &'a Route,
    pins: Pins,
    /// How many steps read each step.
    readers: Vec<u32>,
    ready: Vec<Ready>,
}

/// A step's pipeline until its readers have taken it.
enum Ready {
    Taken,
    Once(Pipeline),
    /// The effort is the first reader's.
    Often(Box<dyn Replay>, Effort),
}

impl<'a> Assembly<'a> {
    fn new(task: &'a Task, route: &'a Route, pins: Pins) -> Self {
        let mut readers = vec![0; route.order.len()];
        for step in route.order.iter() {
            for input in step.inputs() {
                let Input::Narrow(steps) = input else { continue };
                for &read in steps {
                    if let Some(count) = readers.get_mut(read as usize) {
                        *count += 1;
                    }
                }
            }
        }
        Self { task, route, pins, readers, ready: Vec::with_capacity(route.order.len()) }
    }

    fn run(mut self) -> Result<Pipeline, TaskError> {
        for (index, (step, node)) in self.route.steps().enumerate() {
            self.task.working_on(place(&step));
            let pipeline = self.step(index, &step, node)?;
            let ready = match self.readers.get(index) {
                Some(0 | 1) | None => Ready::Once(pipeline),
                Some(_) => {
                    let (mut effort, clock) = (pipeline.effort(), self.task.clock());
                    let replay = (node.hooks().share)(place(&step), pipeline)?;
                    effort.spent += clock.read(self.task);
                    Ready::Often(replay, effort)
                }
            };
            self.ready.push(ready);
        }
        let last = self.ready.len().saturating_sub(1);
        self.take(last as u32)
    }

    fn step(&mut self, index: usize, step: &Step<'_>, node: &Arc<Node>) -> Result<Pipeline, TaskError> {
        let pipeline = self.read_or_compute(index, step, node)?;
        match node.checkpointing() {
            Some(checkpointing) => self.checkpoint(place(step), node, pipeline, checkpointing),
            None => Ok(pipeline),
        }
    }

    /// Has what a partition is read for written to a checkpoint as well.
    fn checkpoint(
        &self,
        place: Place,
        node: &Node,
        pipeline: Pipeline,
        checkpointing: Checkpointing,
    ) -> Result<Pipeline, TaskError> {
        let mut pipeline = self.shallow(place, node, pipeline)?;
        if let Some(staged) = checkpointing.staged {
            pipeline = match staged.fill(self.task, place, pipeline)? {
                Filled::Stored(block, time) => {
                    // Read rather than computed, if it was persisted.
                    if node.storage_level().is_none() {
                        self.task.context().measured(place, time);
                    }
                    block
                }
                Filled::Found(pipeline) | Filled::Refused(pipeline) => pipeline,
            };
        }
        Ok(match checkpointing.tee {
            Some(tee) => tee.tee(self.task, place, pipeline),
            None => pipeline,
        })
    }

    fn read_or_compute(
        &mut self,
        index: usize,
        step: &Step<'_>,
        node: &Arc<Node>,
    ) -> Result<Pipeline, TaskError> {
        if step.stopped
            && let Some(Some(pinned)) = self.pins.blocks.remove(&(step.node, step.partition))
        {
            return Ok(pinned);
        }
        let mut computed = self.compute(step, node)?;
        if let Some(persisted) = node.persisted() {
            let shallow = self.shallow(place(step), node, computed)?;
            computed = match persisted.fill(self.task, place(step), shallow)? {
                Filled::Found(block) => return Ok(block),
                Filled::Stored(block, time) => {
                    self.task.context().measured(place(step), time);
                    return Ok(block);
                }
                Filled::Refused(computed) => computed,
            };
        }
        if let Some(&known) = self.route.measured.get(&index) {
            computed.add_effort(Effort { known, ..Effort::default() });
        }
        Ok(computed)
    }

    fn compute(&mut self, step: &Step<'_>, node: &Arc<Node>) -> Result<Pipeline, TaskError> {
        let mut effort = Effort::default();
        let source = match node.compute() {
            Compute::Leaf(open) => {
                let clock = self.task.clock();
                let source = open(self.task, step.partition)?;
                effort.spent = clock.read(self.task);
                source
            }
            Compute::Records(start) => {
                let mut pipeline = self.only_input(step)?;
                pipeline.push(place(step), start(self.task, step.partition)?)?;
                return Ok(pipeline);
            }
            Compute::PassThrough => return self.only_input(step),
            Compute::Concat(concat) if step.stopped => {
                (node.hooks().concat)(self.task, &concat, step.partition)
            }
            Compute::Concat(_) => {
                let inputs = self.inputs(step, node)?;
                inputs.iter().for_each(|input| effort += input.effort());
                (node.hooks().chain)(inputs)
            }
            Compute::Whole(whole) => {
                let inputs = self.inputs(step, node)?;
                inputs.iter().for_each(|input| effort += input.effort());
                whole.open(self.task, step.partition, inputs)?
            }
        };
        let mut pipeline = Pipeline::new(self.task, place(step), source);
        pipeline.add_effort(effort);
        Ok(pipeline)
    }

    /// The one input of a narrow step.
    fn only_input(&mut self, step: &Step<'_>) -> Result<Pipeline, TaskError> {
        for input in step.inputs() {
            if let Input::Narrow(&[only]) = input {
                return self.take(only);
            }
        }
        // Its lineage was cut after the route was found.
        Err(TaskError::Stale)
    }

    /// All inputs of a step, each shallow enough to stand in another pipeline.
    fn inputs(&mut self, step: &Step<'_>, node: &Arc<Node>) -> Result<Vec<Pipeline>, TaskError> {
        let mut inputs = Vec::new();
        for (dependency, input) in step.inputs().enumerate() {
            match input {
                Input::Shuffle => {
                    let shuffle = node.shuffle(dependency).ok_or(TaskError::Stale)?;
                    let source = shuffle.read(self.task, step.partition)?;
                    inputs.push(Pipeline::new(self.task, place(step), source));
                }
                Input::Narrow(steps) => {
                    for &read in steps {
                        let pipeline = self.take(read)?;
                        let (place, node) = self.dataset(read)?;
                        inputs.push(self.shallow(place, &node, pipeline)?);
                    }
                }
            }
        }
        if inputs.is_empty() {
            return Err(TaskError::Stale);
        }
        Ok(inputs)
    }

    fn dataset(&self, index: u32) -> Result<(Place, Arc<Node>), TaskError> {
        let index = index as usize;
        let step = self.route.order.get(index).ok_or(TaskError::Stale)?;
        let node = self.route.nodes.get(index).ok_or(TaskError::Stale)?;
        Ok((place(&step), Arc::clone(node)))
    }

    fn shallow(&self, place: Place, node: &Node, pipeline: Pipeline) -> Result<Pipeline, TaskError> {
        if pipeline.depth() < DEPTH_MAX {
            return Ok(pipeline);
        }
        let (mut effort, clock) = (pipeline.effort(), self.task.clock());
        let mut gathered = (node.hooks().gather)(place, pipeline)?;
        effort.spent += clock.read(self.task);
        gathered.add_effort(effort);
        Ok(gathered)
    }

    fn take(&mut self, index: u32) -> Result<Pipeline, TaskError> {
        let ready = self.ready.get_mut(index as usize).ok_or(TaskError::Stale)?;
        match std::mem::replace(ready, Ready::Taken) {
            Ready::Once(pipeline) => Ok(pipeline),
            Ready::Often(replay, effort) => {
                let mut pipeline = replay.replay();
                pipeline.add_effort(effort);
                *ready = Ready::Often(replay, Effort::default());
                Ok(pipeline)
            }
            Ready::Taken => Err(TaskError::Stale),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::Duration;

    use larder_blockstore::StorageLevel;
    use larder_lineage::Residency;

    use super::*;
    use crate::context::Context;
    use crate::dataset::Dataset;
    use crate::error::Error;

    const SLOW: Duration = Duration::from_millis(300);

    /// One record a partition, each of which takes [`SLOW`].
    fn slow(numbers: &Dataset<i64>) -> Dataset<i64> {
        numbers.map(|n| {
            sleep(SLOW);
            n + 1
        })
    }

    fn numbers(memory: &str) -> Result<Dataset<i64>, Error> {
        Context::builder().threads(2).progress(false).memory(memory).build()?.range(0..2, 2)
    }

    /// How many times [`SLOW`] a block of the dataset took; none if it was not measured.
    fn slows<T: crate::data::Data>(dataset: &Dataset<T>) -> Option<u32> {
        let time = dataset.context().compute_time(Place::of(dataset.id(), 1))?;
        Some(time.div_duration_f64(SLOW).round() as u32)
    }

    struct Nothing;

    impl Residency for Nothing {
        fn is_resident(&self, _: NodeId, _: u32) -> bool {
            false
        }

        fn has_shuffle_output(&self, _: NodeId, _: usize, _: u32) -> bool {
            false
        }
    }

    #[test]
    fn a_block_is_measured_without_the_stored_blocks_it_is_computed_from() -> Result<(), Error> {
        let numbers = numbers("16MiB")?;
        let near = slow(&slow(&numbers)).persist(StorageLevel::MEMORY_ONLY)?;
        let far = slow(&near.map(|n| n * 2)).persist(StorageLevel::MEMORY_AND_DISK_SER)?;
        far.count()?;
        assert_eq!((slows(&numbers), slows(&near), slows(&far)), (None, Some(2), Some(1)));
        let coalesced = slow(&far.coalesce(1)?.coalesce(1)?).cache()?;
        far.unpersist();
        far.persist(StorageLevel::DISK_ONLY)?;
        coalesced.count()?;
        let time = coalesced.context().compute_time(Place::of(coalesced.id(), 0));
        assert_eq!(
            time.map(|time| time.div_duration_f64(SLOW).round() as u32),
            Some(2),
            "not what it filled on the way"
        );
        Ok(())
    }

    #[test]
    fn what_is_run_into_memory_first_counts_for_its_first_reader() -> Result<(), Error> {
        let numbers = numbers("16MiB")?;
        let shared = slow(&numbers);
        let zipped = shared.zip(&shared.map(|n| n + 1))?.cache()?;
        zipped.count()?;
        assert_eq!(slows(&zipped), Some(1));
        let mut deep = slow(&numbers);
        for _ in 0..3 * DEPTH_MAX {
            deep = deep.map_partitions(|records| records);
        }
        deep.cache()?.count()?;
        assert_eq!(slows(&deep), Some(1));
        Ok(())
    }

    #[test]
    fn a_map_task_is_measured_for_the_block_it_reads_and_nothing_counts_twice() -> Result<(), Error> {
        let numbers = numbers("16MiB")?;
        let first = slow(&numbers).map(|n| (*n, *n));
        let sums = first.reduce_by_key(|a, b| a + b)?;
        sums.count()?;
        assert_eq!((slows(&first), slows(&sums)), (Some(1), None));
        let second = first.map(|(n, _)| {
            sleep(SLOW);
            (0, *n)
        });
        second.group_by_key()?.count()?;
        assert_eq!(slows(&second), Some(1), "the rest is known of the one before");
        let kept = second.map(|(_, n)| *n).cache()?;
        kept.count()?;
        assert_eq!(slows(&kept), Some(0), "all of it is known");
        let graph = numbers.context().graph().lock();
        let cost = graph.compute_cost(kept.id(), 1, &Nothing)?;
        assert_eq!(cost.time.div_duration_f64(SLOW).round() as u32, 2);
        Ok(())
    }

    #[test]
    fn a_persisted_dataset_that_a_map_task_reads_is_measured_as_itself() -> Result<(), Error> {
        let numbers = numbers("16MiB")?;
        let kept = slow(&numbers).map(|n| (*n, *n)).cache()?;
        let summed = kept.reduce_by_key(|a, b| a + b)?;
        summed.count()?;
        let before = kept.context().compute_time(Place::of(kept.id(), 1));
        assert_eq!(slows(&kept), Some(1));
        kept.group_by_key()?.count()?;
        assert_eq!(
            kept.context().compute_time(Place::of(kept.id(), 1)),
            before,
            "reading it is no computing"
        );
        Ok(())
    }

    #[test]
    fn a_block_that_finds_no_room_counts_for_the_one_that_reads_it() -> Result<(), Error> {
        let numbers = numbers("256B")?;
        let refused = slow(&numbers).map(|n| n.to_string().repeat(1_000)).cache()?;
        let lengths = slow(&refused.map(|text| text.len() as i64)).persist(StorageLevel::DISK_ONLY)?;
        assert_eq!(lengths.collect()?, [1_001, 1_001]);
        assert_eq!((slows(&refused), slows(&lengths)), (None, Some(2)));
        Ok(())
    }
}
