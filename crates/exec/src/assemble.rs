//! Assembling the pipeline of one partition, from the nearest blocks that are there.
//!
//! The graph names the blocks of the narrow chain, inputs first; each becomes a pipeline in that order. So nothing
//! recurses over the lineage, and a persisted dataset is filled before what reads it is opened.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use larder_lineage::{Input, NarrowOrder, NodeId, Step};

use crate::error::TaskError;
use crate::gather::Replay;
use crate::node::{Compute, Node};
use crate::pipeline::{DEPTH_MAX, Pipeline};
use crate::task::{Place, Task};

/// How deep coalesced partitions that open their inputs one after the other may stand in each other. Beyond, all
/// inputs are opened at once.
const LATE_INPUTS_MAX: u32 = 2;

fn place(step: &Step<'_>) -> Place {
    Place::of(step.node, step.partition)
}

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

/// What became of the blocks that seemed to be resident: pinned, or gone when they were opened.
#[derive(Default)]
struct Pins {
    blocks: HashMap<(NodeId, u32), Option<Pipeline>>,
}

impl Pins {
    /// Pins each block at which the route stops. False if one of them is gone, so that another route is needed.
    fn complete(&mut self, task: &Task, route: &Route) -> Result<bool, TaskError> {
        let mut complete = true;
        for (step, node) in route.steps().filter(|(step, _)| step.stopped) {
            let Entry::Vacant(vacant) = self.blocks.entry((step.node, step.partition)) else { continue };
            let block = match node.persisted() {
                Some(persisted) => persisted.open(task, place(&step))?,
                None => None,
            };
            complete &= block.is_some() || (route.late_inputs && node.is_concat());
            vacant.insert(block);
        }
        Ok(complete)
    }
}

/// The blocks of one task, inputs first, with their datasets.
struct Route {
    /// Whether coalesced partitions open their inputs one after the other: the route stops at them.
    late_inputs: bool,
    order: NarrowOrder,
    nodes: Vec<Arc<Node>>,
}

impl Route {
    fn find(task: &Task, target: NodeId, partition: u32, pins: &Pins) -> Result<Self, TaskError> {
        let late_inputs = task.late_inputs().get() < LATE_INPUTS_MAX;
        let graph = task.context().graph().lock();
        let order = graph.narrow_order(target, partition, |id, partition| {
            match pins.blocks.get(&(id, partition)) {
                Some(Some(_)) => true,
                pinned => graph.payload(id).is_ok_and(|node| {
                    (pinned.is_none() && node.is_resident(partition)) || (late_inputs && node.is_concat())
                }),
            }
        })?;
        let nodes = order.iter().map(|step| graph.payload(step.node).cloned()).collect::<Result<_, _>>()?;
        Ok(Self { late_inputs, order, nodes })
    }

    fn steps(&self) -> impl Iterator<Item = (Step<'_>, &Arc<Node>)> {
        self.order.iter().zip(&self.nodes)
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
    Often(Box<dyn Replay>),
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
            let pipeline = self.step(&step, node)?;
            let ready = match self.readers.get(index) {
                Some(0 | 1) | None => Ready::Once(pipeline),
                Some(_) => Ready::Often((node.hooks().share)(place(&step), pipeline)?),
            };
            self.ready.push(ready);
        }
        let last = self.ready.len().saturating_sub(1);
        self.take(last as u32)
    }

    fn step(&mut self, step: &Step<'_>, node: &Arc<Node>) -> Result<Pipeline, TaskError> {
        if step.stopped
            && let Some(Some(pinned)) = self.pins.blocks.remove(&(step.node, step.partition))
        {
            return Ok(pinned);
        }
        let computed = self.compute(step, node)?;
        match node.persisted() {
            Some(persisted) => {
                let computed = self.shallow(place(step), node, computed)?;
                persisted.fill(self.task, place(step), computed)
            }
            None => Ok(computed),
        }
    }

    fn compute(&mut self, step: &Step<'_>, node: &Arc<Node>) -> Result<Pipeline, TaskError> {
        let source = match node.compute() {
            Compute::Leaf(open) => open(self.task, step.partition)?,
            Compute::Records(start) => {
                let mut pipeline = self.only_input(step)?;
                pipeline.push(place(step), start(self.task, step.partition)?);
                return Ok(pipeline);
            }
            Compute::PassThrough => return self.only_input(step),
            Compute::Concat(concat) if step.stopped => {
                (node.hooks().concat)(self.task, &concat, step.partition)
            }
            Compute::Concat(_) => {
                let inputs = self.inputs(step, node)?;
                (node.hooks().chain)(inputs)
            }
            Compute::Whole(whole) => {
                let inputs = self.inputs(step, node)?;
                whole.open(self.task, step.partition, inputs)?
            }
        };
        Ok(Pipeline::new(self.task, place(step), source))
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
        if pipeline.depth() < DEPTH_MAX { Ok(pipeline) } else { (node.hooks().gather)(place, pipeline) }
    }

    fn take(&mut self, index: u32) -> Result<Pipeline, TaskError> {
        let ready = self.ready.get_mut(index as usize).ok_or(TaskError::Stale)?;
        match std::mem::replace(ready, Ready::Taken) {
            Ready::Once(pipeline) => Ok(pipeline),
            Ready::Often(replay) => {
                let pipeline = replay.replay();
                *ready = Ready::Often(replay);
                Ok(pipeline)
            }
            Ready::Taken => Err(TaskError::Stale),
        }
    }
}
