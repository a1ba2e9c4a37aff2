//! Graphs and residencies to test with.

use std::collections::HashSet;

use larder_lineage::{Dependency, Graph, GraphError, NodeId, NodeSpec, PartitionMap, Residency};

pub(crate) type Result<T = ()> = std::result::Result<T, GraphError>;

/// Adds a dataset whose payload is its name.
pub(crate) fn add(
    graph: &mut Graph<String>,
    name: &str,
    partitions: u32,
    dependencies: impl Into<Vec<Dependency>>,
) -> Result<NodeId> {
    graph.add(NodeSpec {
        name: name.to_owned().into(),
        partitions,
        dependencies: dependencies.into(),
        payload: name.to_owned(),
    })
}

pub(crate) fn narrow(parent: NodeId, map: PartitionMap) -> Dependency {
    Dependency::Narrow { parent, map }
}

pub(crate) fn shuffle(parent: NodeId) -> Dependency {
    Dependency::Shuffle { parent }
}

pub(crate) fn groups(groups: &[&[u32]]) -> PartitionMap {
    PartitionMap::Groups(groups.iter().map(|&group| group.into()).collect())
}

/// What is resident, by name.
#[derive(Default, Clone)]
pub(crate) struct Kept {
    pub(crate) blocks: HashSet<(NodeId, u32)>,
    pub(crate) outputs: HashSet<(NodeId, usize, u32)>,
}

impl Kept {
    pub(crate) fn blocks(blocks: impl IntoIterator<Item = (NodeId, u32)>) -> Self {
        Self { blocks: blocks.into_iter().collect(), ..Self::default() }
    }
}

impl Residency for Kept {
    fn is_resident(&self, node: NodeId, partition: u32) -> bool {
        self.blocks.contains(&(node, partition))
    }

    fn has_shuffle_output(&self, child: NodeId, dependency: usize, map_partition: u32) -> bool {
        self.outputs.contains(&(child, dependency, map_partition))
    }
}

/// The same choices on every run.
pub(crate) struct Random(fastrand::Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number below `limit`, or zero.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.0.u32(..limit.max(1))
    }

    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len() as u32) as usize).copied()
    }
}

/// A graph of `nodes` datasets with dependencies of all kinds, on recent nodes mostly.
pub(crate) fn random_graph(random: &mut Random, nodes: usize) -> Result<(Graph<String>, Vec<NodeId>)> {
    let mut graph = Graph::new();
    let mut ids: Vec<NodeId> = Vec::new();
    for index in 0..nodes {
        let recent = ids.get(ids.len().saturating_sub(6)..).unwrap_or_default().to_vec();
        let (partitions, dependencies) = random_dependencies(random, &graph, &recent)?;
        ids.push(add(&mut graph, &format!("d{index}"), partitions, dependencies)?);
    }
    Ok((graph, ids))
}

/// Partition count and dependencies of a random operation on these parents.
pub(crate) fn random_dependencies(
    random: &mut Random,
    graph: &Graph<String>,
    parents: &[NodeId],
) -> Result<(u32, Vec<Dependency>)> {
    let (Some(a), Some(b)) = (random.pick(parents), random.pick(parents)) else {
        return Ok((1 + random.below(4), Vec::new()));
    };
    let (of_a, of_b) = (graph.partitions(a)?, graph.partitions(b)?);
    Ok(match random.below(7) {
        0 => (random.below(5), Vec::new()),
        1 => (of_a, vec![Dependency::one_to_one(a)]),
        2 => (random.below(5), vec![shuffle(a)]),
        3 => (random.below(5), vec![shuffle(a), shuffle(b)]),
        4 if of_a + of_b <= 12 => {
            let range = |child_start, len| PartitionMap::Range { parent_start: 0, child_start, len };
            (of_a + of_b, vec![narrow(a, range(0, of_a)), narrow(b, range(of_a, of_b))])
        }
        5 if of_a * of_b <= 12 => {
            (of_a * of_b, vec![narrow(a, PartitionMap::Divide(of_b)), narrow(b, PartitionMap::Modulo(of_b))])
        }
        6 => {
            let groups: Vec<Box<[u32]>> =
                (0..random.below(4)).map(|_| (0..of_a).filter(|_| random.percent(60)).collect()).collect();
            let partitions = groups.len() as u32;
            (partitions, vec![narrow(a, PartitionMap::Groups(groups.into())), shuffle(b)])
        }
        _ => (of_a, vec![Dependency::one_to_one(a), shuffle(b)]),
    })
}
