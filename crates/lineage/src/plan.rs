//! Recompute plans: what must run, and in which order, to bring blocks back.

use std::collections::BTreeMap;

use crate::dependency::Dependency;
use crate::error::GraphError;
use crate::graph::{Graph, NodeId};

/// What need not be computed again. The engine answers from its block store and its checkpoints.
pub trait Residency {
    /// Whether this block can be read: it is in the store, or in a checkpoint. Nothing above it is needed.
    fn is_resident(&self, node: NodeId, partition: u32) -> bool;

    /// Whether the map task of `map_partition` left its output for the shuffle that dependency `dependency`
    /// of `child` reads.
    fn has_shuffle_output(&self, child: NodeId, dependency: usize, map_partition: u32) -> bool;
}

/// The map side of one shuffle: the tasks that are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShuffleStage {
    /// The dataset whose partitions the map tasks read, one each.
    pub parent: NodeId,
    /// The dataset that reads the outputs.
    pub child: NodeId,
    /// Which of the child's dependencies the shuffle is.
    pub dependency: usize,
    /// The partitions of `parent` whose map output is missing, ascending.
    pub partitions: Vec<u32>,
}

/// The last stage of a plan: it reads or computes the wanted blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultStage {
    /// The dataset.
    pub node: NodeId,
    /// The wanted partitions, ascending, each once, resident or not.
    pub partitions: Vec<u32>,
}

/// What a plan does with one dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeUse {
    /// The dataset.
    pub node: NodeId,
    /// How many times the plan reads blocks of it: once for each wanted block, for each map task and for each
    /// computed block that reads one.
    pub reads: u64,
    /// How many of its blocks the plan computes, because they are needed and not resident.
    pub recomputed: u32,
}

/// Which stages bring the wanted blocks of a dataset back, given what is resident.
///
/// It is true for the moment it was made: what is evicted later needs a new plan. Blocks are counted as if
/// each were computed once; an engine that does not keep a block, but needs it in two tasks, computes it twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecomputePlan {
    shuffles: Vec<ShuffleStage>,
    result: ResultStage,
    uses: Vec<NodeUse>,
}

impl RecomputePlan {
    /// The map stages to run, each after those it reads from. None is empty.
    pub fn shuffles(&self) -> &[ShuffleStage] {
        &self.shuffles
    }

    /// The stage to run last.
    pub fn result(&self) -> &ResultStage {
        &self.result
    }

    /// What the plan does with each dataset it reaches, parents before their children.
    pub fn uses(&self) -> &[NodeUse] {
        &self.uses
    }

    /// How many times the plan reads blocks of this dataset.
    pub fn reads_of(&self, node: NodeId) -> u64 {
        self.use_of(node).map_or(0, |used| used.reads)
    }

    /// The datasets that have blocks to compute and how many, parents before their children.
    pub fn recomputed(&self) -> impl Iterator<Item = (NodeId, u32)> + '_ {
        self.uses.iter().map(|used| (used.node, used.recomputed)).filter(|&(_, blocks)| blocks > 0)
    }

    fn use_of(&self, node: NodeId) -> Option<&NodeUse> {
        self.uses.get(self.uses.binary_search_by_key(&node, |used| used.node).ok()?)
    }
}

impl<P> Graph<P> {
    /// Plans what must run so that these partitions of `target` can be read. A resident block ends the walk
    /// to its ancestors, and so does a shuffle output; only what is lost is computed, from the nearest
    /// ancestors that are there. A truncated dataset is asked for like any other: its blocks count as computed
    /// unless `residency` knows them to be in the checkpoint.
    ///
    /// Cost is linear in the blocks reached and their dependencies; `residency` is asked once for each block
    /// and shuffle output reached.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`] and [`GraphError::NoSuchPartition`].
    pub fn plan(
        &self,
        target: NodeId,
        partitions: impl IntoIterator<Item = u32>,
        residency: &(impl Residency + ?Sized),
    ) -> Result<RecomputePlan, GraphError> {
        let mut partitions: Vec<u32> = partitions.into_iter().collect();
        partitions.sort_unstable();
        partitions.dedup();
        self.node_with_partitions(target, &partitions)?;

        let mut uses = Vec::new();
        let is_resident = |node, partition| residency.is_resident(node, partition);
        let mut shuffles = self.walk_missing(target, &partitions, residency, is_resident, |reached| {
            uses.push(NodeUse {
                node: reached.node,
                reads: reached.reads,
                recomputed: reached.missing.len() as u32,
            });
        })?;
        shuffles.reverse();
        uses.reverse();
        Ok(RecomputePlan { shuffles, result: ResultStage { node: target, partitions }, uses })
    }

    /// Visits every node of which blocks are needed, children before their parents, and returns the shuffle
    /// stages in that order too.
    ///
    /// Ids are a topological order, so taking the highest pending id means that all children which might
    /// need a block of that node have been visited: its needs are complete, and it is visited once.
    pub(crate) fn walk_missing(
        &self,
        target: NodeId,
        partitions: &[u32],
        residency: &(impl Residency + ?Sized),
        is_resident: impl Fn(NodeId, u32) -> bool,
        mut visit: impl FnMut(Reached<'_>),
    ) -> Result<Vec<ShuffleStage>, GraphError> {
        let mut shuffles = Vec::new();
        let mut needs = Needs::default();
        needs.of(target).extend_from_slice(partitions);
        while let Some((id, mut missing)) = needs.take_highest() {
            let node = self.node(id)?;
            let reads = missing.len() as u64;
            // Each child left a run in order, so a merge is nearly linear.
            missing.sort();
            missing.dedup();
            missing.retain(|&partition| !is_resident(id, partition));
            visit(Reached { node: id, reads, missing: &missing });

            let dependencies = if missing.is_empty() { &[] } else { node.dependencies() };
            for (index, dependency) in dependencies.iter().enumerate().rev() {
                let parent = dependency.parent();
                match dependency {
                    Dependency::Narrow { map, .. } => map.extend_parents_of(&missing, needs.of(parent)),
                    Dependency::Shuffle { .. } => {
                        let partitions: Vec<u32> = (0..self.node(parent)?.partitions())
                            .filter(|&partition| !residency.has_shuffle_output(id, index, partition))
                            .collect();
                        if !partitions.is_empty() {
                            needs.of(parent).extend_from_slice(&partitions);
                            shuffles.push(ShuffleStage { parent, child: id, dependency: index, partitions });
                        }
                    }
                }
            }
            needs.recycle(missing);
        }
        Ok(shuffles)
    }
}

/// A node of which a plan needs blocks.
pub(crate) struct Reached<'a> {
    pub(crate) node: NodeId,
    /// How often its blocks are read.
    pub(crate) reads: u64,
    /// Its partitions that are needed and not resident, ascending.
    pub(crate) missing: &'a [u32],
}

/// The partitions needed of the nodes that are still to be visited, once for each read.
#[derive(Default)]
struct Needs {
    pending: BTreeMap<NodeId, Vec<u32>>,
    spare: Vec<Vec<u32>>,
}

impl Needs {
    fn of(&mut self, node: NodeId) -> &mut Vec<u32> {
        self.pending.entry(node).or_insert_with(|| self.spare.pop().unwrap_or_default())
    }

    fn take_highest(&mut self) -> Option<(NodeId, Vec<u32>)> {
        loop {
            let (node, partitions) = self.pending.pop_last()?;
            if !partitions.is_empty() {
                return Some((node, partitions));
            }
            self.recycle(partitions);
        }
    }

    fn recycle(&mut self, mut partitions: Vec<u32>) {
        partitions.clear();
        self.spare.push(partitions);
    }
}
