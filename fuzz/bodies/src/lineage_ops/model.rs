//! A lineage graph as simple as can be: every answer is worked out from the edges each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use larder_lineage::{Dependency, NodeId, PartitionMap, Residency};

/// What is resident and which shuffle outputs are there: decided by a seed.
pub(super) struct Kept(pub(super) u64);

impl Kept {
    pub(super) fn is_kept(&self, node: NodeId, partition: u32) -> bool {
        self.decide(node.0 * 7 + u64::from(partition))
    }

    fn decide(&self, what: u64) -> bool {
        let mixed = (self.0 ^ what).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 62 == 0
    }
}

impl Residency for Kept {
    fn is_resident(&self, node: NodeId, partition: u32) -> bool {
        self.is_kept(node, partition)
    }

    fn has_shuffle_output(&self, child: NodeId, dependency: usize, map_partition: u32) -> bool {
        self.decide(1 << 40 | child.0 << 16 | (dependency as u64) << 8 | u64::from(map_partition))
    }
}

pub(super) struct Node {
    pub(super) handles: u64,
    pub(super) partitions: u32,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) payload: u64,
    pub(super) truncated: bool,
    costs: BTreeMap<u32, Duration>,
    alive: bool,
}

/// All nodes there ever were, by id.
#[derive(Default)]
pub(super) struct Model {
    nodes: Vec<Node>,
    payloads: u64,
}

impl Model {
    pub(super) fn added(&self) -> u64 {
        self.nodes.len() as u64
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(super) fn is_alive(&self, id: NodeId) -> bool {
        self.nodes.get(id.0 as usize).is_some_and(|node| node.alive)
    }

    pub(super) fn alive(&self) -> Vec<NodeId> {
        (0..self.added()).map(NodeId).filter(|id| self.is_alive(*id)).collect()
    }

    pub(super) fn partitions(&self, id: NodeId) -> u32 {
        self.nodes.get(id.0 as usize).map_or(0, |node| node.partitions)
    }

    pub(super) fn has_partition(&self, id: NodeId, partition: u32) -> bool {
        self.is_alive(id) && partition < self.partitions(id)
    }

    pub(super) fn next_payload(&mut self) -> u64 {
        self.payloads += 1;
        self.payloads
    }

    /// Whether a new dataset of so many partitions may have this dependency, checked partition by partition.
    pub(super) fn allows(&self, child: u32, dependency: &Dependency) -> bool {
        let parent = dependency.parent();
        let Dependency::Narrow { map, .. } = dependency else { return self.is_alive(parent) };
        let shape = match map {
            PartitionMap::OneToOne => child == self.partitions(parent),
            PartitionMap::Range { child_start, len, .. } => {
                *len == 0 || u64::from(*child_start) + u64::from(*len) <= u64::from(child)
            }
            PartitionMap::Groups(groups) => groups.len() == child as usize,
            PartitionMap::Divide(n) | PartitionMap::Modulo(n) => *n > 0 || child == 0,
        };
        let mut named = (0..child).flat_map(|partition| map.parents_of(partition));
        self.is_alive(parent) && shape && named.all(|partition| partition < self.partitions(parent))
    }

    pub(super) fn add(&mut self, id: NodeId, partitions: u32, dependencies: Vec<Dependency>, payload: u64) {
        assert_eq!(id.0, self.added());
        let costs = BTreeMap::new();
        self.nodes.push(Node {
            handles: 1,
            partitions,
            dependencies,
            payload,
            truncated: false,
            costs,
            alive: true,
        });
    }

    pub(super) fn retain(&mut self, id: NodeId) -> bool {
        let alive = self.is_alive(id);
        if alive {
            self.nodes[id.0 as usize].handles += 1;
        }
        alive
    }

    /// Takes a handle back; the payloads of those who die by it, ascending.
    pub(super) fn release(&mut self, id: NodeId) -> Vec<u64> {
        self.nodes[id.0 as usize].handles -= 1;
        self.bury()
    }

    /// Cuts a node off its parents; the payloads of those who die by it, ascending.
    pub(super) fn truncate(&mut self, id: NodeId, payload: u64) -> Vec<u64> {
        let node = &mut self.nodes[id.0 as usize];
        node.payload = payload;
        node.dependencies.clear();
        node.costs.clear();
        node.truncated = true;
        self.bury()
    }

    /// Everyone with neither a handle nor a living child dies, from the youngest to the eldest.
    fn bury(&mut self) -> Vec<u64> {
        let mut freed = Vec::new();
        for at in (0..self.nodes.len()).rev() {
            let id = NodeId(at as u64);
            let has_child = self.nodes.iter().any(|child| {
                child.alive && child.dependencies.iter().any(|dependency| dependency.parent() == id)
            });
            let node = &mut self.nodes[at];
            if node.alive && node.handles == 0 && !has_child {
                node.alive = false;
                node.costs.clear();
                freed.push(node.payload);
            }
        }
        freed.sort_unstable();
        freed
    }

    pub(super) fn ids_of(&self, payloads: &[u64]) -> Vec<NodeId> {
        let ids = (0..self.added()).map(NodeId);
        ids.filter(|id| payloads.contains(&self.node(*id).payload)).collect()
    }

    /// The payloads of the parents of the node with this payload.
    pub(super) fn parents_of_payload(&self, payload: u64) -> Vec<u64> {
        let node = self.nodes.iter().find(|node| node.payload == payload);
        let dependencies = node.map_or(&[][..], |node| &node.dependencies);
        dependencies.iter().map(|dependency| self.node(dependency.parent()).payload).collect()
    }

    pub(super) fn set_cost(&mut self, id: NodeId, partition: u32, time: Duration) {
        self.nodes[id.0 as usize].costs.insert(partition, time);
    }

    pub(super) fn ancestors(&self, id: NodeId) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::from([id]);
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            let parents = self.node(id).dependencies.iter().map(Dependency::parent);
            pending.extend(parents.filter(|parent| found.insert(*parent)));
        }
        found
    }

    /// The blocks a task for this one evaluates.
    pub(super) fn narrow_closure(&self, id: NodeId, partition: u32, kept: &Kept) -> BTreeSet<(NodeId, u32)> {
        let mut found = BTreeSet::from([(id, partition)]);
        let mut pending = vec![(id, partition)];
        while let Some((id, partition)) = pending.pop() {
            if kept.is_kept(id, partition) {
                continue;
            }
            for dependency in &self.node(id).dependencies {
                if let Dependency::Narrow { parent, map } = dependency {
                    let read = map.parents_of(partition).map(|partition| (*parent, partition));
                    pending.extend(read.filter(|block| found.insert(*block)));
                }
            }
        }
        found
    }

    /// Which blocks must be computed for the wanted ones, block by block.
    pub(super) fn plan(
        &self,
        target: NodeId,
        wanted: &BTreeSet<u32>,
        is_resident: impl Fn(NodeId, u32) -> bool,
        kept: &Kept,
    ) -> Plan {
        let mut plan = Plan::default();
        let mut seen = BTreeSet::new();
        let mut pending: Vec<_> = wanted.iter().map(|partition| (target, *partition)).collect();
        while let Some((id, partition)) = pending.pop() {
            *plan.reads.entry(id).or_default() += 1;
            if !seen.insert((id, partition)) || is_resident(id, partition) {
                continue;
            }
            plan.missing.insert((id, partition));
            for (index, dependency) in self.node(id).dependencies.iter().enumerate() {
                let parent = dependency.parent();
                match dependency {
                    Dependency::Narrow { map, .. } => {
                        pending.extend(map.parents_of(partition).map(|partition| (parent, partition)));
                    }
                    Dependency::Shuffle { .. } => {
                        let outputs = (0..self.partitions(parent))
                            .filter(|partition| !kept.has_shuffle_output(id, index, *partition));
                        let outputs: Vec<u32> = outputs.collect();
                        if !outputs.is_empty() && !plan.map_tasks.contains_key(&(id, index)) {
                            pending.extend(outputs.iter().map(|partition| (parent, *partition)));
                            plan.map_tasks.insert((id, index), outputs);
                        }
                    }
                }
            }
        }
        plan
    }
}

/// What a plan must say.
#[derive(Default)]
pub(super) struct Plan {
    reads: BTreeMap<NodeId, u64>,
    missing: BTreeSet<(NodeId, u32)>,
    map_tasks: BTreeMap<(NodeId, usize), Vec<u32>>,
}

impl Plan {
    pub(super) fn uses(&self) -> Vec<(NodeId, u64, u32)> {
        let missing = |id| self.missing.iter().filter(|(missing, _)| *missing == id).count() as u32;
        self.reads.iter().map(|(id, reads)| (*id, *reads, missing(*id))).collect()
    }

    /// Child, dependency, parent and map partitions of each shuffle.
    pub(super) fn stages(&self, model: &Model) -> BTreeSet<(NodeId, usize, NodeId, Vec<u32>)> {
        let stages = self.map_tasks.iter();
        stages
            .map(|((child, dependency), partitions)| {
                let parent = model.node(*child).dependencies[*dependency].parent();
                (*child, *dependency, parent, partitions.clone())
            })
            .collect()
    }

    /// The shuffles whose outputs the map tasks of `parent` may read.
    pub(super) fn stages_below(&self, model: &Model, parent: NodeId) -> BTreeSet<(NodeId, usize)> {
        let mut evaluated = BTreeSet::from([parent]);
        let mut pending = vec![parent];
        while let Some(id) = pending.pop() {
            for dependency in &model.node(id).dependencies {
                let parent = dependency.parent();
                if !dependency.is_shuffle() && evaluated.insert(parent) {
                    pending.push(parent);
                }
            }
        }
        self.map_tasks.keys().filter(|(child, _)| evaluated.contains(child)).copied().collect()
    }

    /// Time, blocks and how many of them are unmeasured.
    pub(super) fn cost(&self, model: &Model) -> (Duration, u64, u64) {
        let times = self.missing.iter().map(|(id, partition)| model.node(*id).costs.get(partition));
        let (measured, unmeasured): (Vec<_>, Vec<_>) = times.partition(Option::is_some);
        let time = measured.into_iter().flatten().sum();
        (time, self.missing.len() as u64, unmeasured.len() as u64)
    }
}
