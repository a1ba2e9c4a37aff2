//! What it would cost to compute a lost block again, from measured times.

use std::time::Duration;

use crate::error::GraphError;
use crate::graph::{Graph, NodeId};
use crate::plan::Residency;

/// Measured nanoseconds of each partition.
pub(crate) type CostTable = Box<[u64]>;

const UNMEASURED: u64 = u64::MAX;

/// An estimate of the work to compute one block again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ComputeCost {
    /// The measured times of all blocks that would be computed, added up; unmeasured ones count as zero.
    pub time: Duration,
    /// How many blocks would be computed, the block itself included.
    pub blocks: u64,
    /// How many of those were never measured. The estimate is a lower bound unless this is zero.
    pub unmeasured: u64,
}

impl<P> Graph<P> {
    /// Records how long one block took to compute from blocks that were there or are measured themselves: the time
    /// of an ancestor that was computed along counts here or there, not twice. It replaces an earlier measurement. A dataset costs 8 bytes a partition from its first measurement on, and nothing before.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`] and [`GraphError::NoSuchPartition`].
    pub fn set_cost(&mut self, node: NodeId, partition: u32, time: Duration) -> Result<(), GraphError> {
        let partitions = self.node_with_partitions(node, &[partition])?.partitions() as usize;
        let table = self.costs.entry(node).or_insert_with(|| vec![UNMEASURED; partitions].into());
        if let Some(cost) = table.get_mut(partition as usize) {
            *cost = u64::try_from(time.as_nanos()).unwrap_or(UNMEASURED).min(UNMEASURED - 1);
        }
        Ok(())
    }

    /// How long one block took to compute, if it was measured.
    pub fn cost(&self, node: NodeId, partition: u32) -> Option<Duration> {
        let nanos = *self.costs.get(&node)?.get(partition as usize)?;
        (nanos != UNMEASURED).then(|| Duration::from_nanos(nanos))
    }

    /// The measured times of a dataset's blocks.
    pub fn costs(&self, node: NodeId) -> impl Iterator<Item = Duration> + '_ {
        let table = self.costs.get(&node).map(|table| &**table).unwrap_or_default();
        table.iter().filter(|&&nanos| nanos != UNMEASURED).map(|&nanos| Duration::from_nanos(nanos))
    }

    /// What computing this block would cost if it were lost now: its own time, and that of all ancestors'
    /// blocks and map tasks that would have to be computed for it. Whether the block itself is resident
    /// makes no difference. Shuffling and reading resident blocks count as nothing.
    ///
    /// Cost is that of a [plan](Self::plan) for the block.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`] and [`GraphError::NoSuchPartition`].
    pub fn compute_cost(
        &self,
        node: NodeId,
        partition: u32,
        residency: &(impl Residency + ?Sized),
    ) -> Result<ComputeCost, GraphError> {
        self.node_with_partitions(node, &[partition])?;
        let mut cost = ComputeCost::default();
        let is_resident = |id, other| id != node && residency.is_resident(id, other);
        self.walk_missing(node, &[partition], residency, is_resident, |reached| {
            for &partition in reached.missing {
                cost.blocks += 1;
                match self.cost(reached.node, partition) {
                    Some(time) => cost.time = cost.time.saturating_add(time),
                    None => cost.unmeasured += 1,
                }
            }
        })?;
        Ok(cost)
    }
}
