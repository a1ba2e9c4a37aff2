//! The way to a partition: from which blocks, over which datasets.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use larder_lineage::{NarrowOrder, NodeId, Step};

use crate::error::TaskError;
use crate::node::Node;
use crate::pipeline::Pipeline;
use crate::task::{Place, Task};

/// How deep coalesced partitions that open their inputs one after the other may stand in each other. Beyond, all
/// inputs are opened at once.
const LATE_INPUTS_MAX: u32 = 2;

pub(super) fn place(step: &Step<'_>) -> Place {
    Place::of(step.node, step.partition)
}

/// What became of the blocks that seemed to be resident: pinned, or gone when they were opened.
#[derive(Default)]
pub(super) struct Pins {
    pub(super) blocks: HashMap<(NodeId, u32), Option<Pipeline>>,
}

impl Pins {
    /// Pins each block at which the route stops. False if one of them is gone, so that another route is needed.
    pub(super) fn complete(&mut self, task: &Task, route: &Route) -> Result<bool, TaskError> {
        let mut complete = true;
        for (step, node) in route.steps().filter(|(step, _)| step.stopped) {
            let Entry::Vacant(vacant) = self.blocks.entry((step.node, step.partition)) else { continue };
            let block = node.open_stored(task, place(&step))?;
            complete &= block.is_some() || (route.late_inputs && node.is_concat());
            vacant.insert(block);
        }
        Ok(complete)
    }
}

/// The blocks of one task, inputs first, with their datasets.
pub(super) struct Route {
    /// Whether coalesced partitions open their inputs one after the other: the route stops at them.
    late_inputs: bool,
    pub(super) order: NarrowOrder,
    pub(super) nodes: Vec<Arc<Node>>,
    /// How long the blocks of these steps take, of those that were measured before.
    pub(super) measured: HashMap<usize, Duration>,
}

impl Route {
    pub(super) fn find(task: &Task, target: NodeId, partition: u32, pins: &Pins) -> Result<Self, TaskError> {
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
        let times = order.iter().map(|step| graph.cost(step.node, step.partition));
        let measured = times.enumerate().filter_map(|(index, time)| Some((index, time?))).collect();
        Ok(Self { late_inputs, order, nodes, measured })
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = (Step<'_>, &Arc<Node>)> {
        self.order.iter().zip(&self.nodes)
    }
}
