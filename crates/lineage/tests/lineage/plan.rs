//! Recompute plans: only what is lost, from the nearest that is there.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use larder_lineage::{
    Dependency, Graph, GraphError, NodeId, NodeUse, PartitionMap, RecomputePlan, Residency, ShuffleStage,
};

use crate::common::{Kept, Random, Result, add, groups, narrow, random_graph, shuffle};

fn recomputed(plan: &RecomputePlan) -> Vec<(NodeId, u32)> {
    plan.recomputed().collect()
}

#[test]
fn a_resident_block_needs_nothing() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 2, [])?;
    let mapped = add(&mut graph, "mapped", 2, [Dependency::one_to_one(source)])?;
    let plan = graph.plan(mapped, [1], &Kept::blocks([(mapped, 1)]))?;
    assert_eq!(plan.uses(), [NodeUse { node: mapped, reads: 1, recomputed: 0 }]);
    assert_eq!(plan.shuffles(), []);
    assert_eq!((plan.result().node, plan.result().partitions.as_slice()), (mapped, &[1][..]));
    Ok(())
}

#[test]
fn only_lost_partitions_are_recomputed_from_the_nearest_resident_ancestors() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 4, [])?;
    let near = add(&mut graph, "near", 4, [Dependency::one_to_one(source)])?;
    let far = add(&mut graph, "far", 4, [Dependency::one_to_one(near)])?;
    // Partition 0 is there, 1 and 2 have a resident ancestor, 3 must come from the source.
    let kept = Kept::blocks([(far, 0), (near, 1), (near, 2), (source, 1)]);
    let plan = graph.plan(far, [3, 1, 0, 2, 2], &kept)?;
    assert_eq!(plan.result().partitions, [0, 1, 2, 3]);
    assert_eq!(
        plan.uses(),
        [
            NodeUse { node: source, reads: 1, recomputed: 1 },
            NodeUse { node: near, reads: 3, recomputed: 1 },
            NodeUse { node: far, reads: 4, recomputed: 3 },
        ]
    );
    assert_eq!(plan.reads_of(near), 3);
    assert_eq!(plan.reads_of(NodeId(99)), 0);
    Ok(())
}

#[test]
fn shuffles_run_parents_first_and_only_their_missing_map_tasks() -> Result {
    let mut graph = Graph::new();
    let edges = add(&mut graph, "edges", 3, [])?;
    let links = add(&mut graph, "links", 2, [shuffle(edges)])?;
    let flipped = add(&mut graph, "flipped", 2, [Dependency::one_to_one(links)])?;
    let other = add(&mut graph, "other", 2, [])?;
    let joined = add(&mut graph, "joined", 4, [shuffle(other), shuffle(flipped)])?;
    let result = add(&mut graph, "result", 4, [Dependency::one_to_one(joined)])?;
    let stage = |parent, child, dependency, partitions: &[u32]| ShuffleStage {
        parent,
        child,
        dependency,
        partitions: partitions.into(),
    };

    let plan = graph.plan(result, [2], &Kept::default())?;
    assert_eq!(
        plan.shuffles(),
        [
            stage(edges, links, 0, &[0, 1, 2]),
            stage(other, joined, 0, &[0, 1]),
            stage(flipped, joined, 1, &[0, 1]),
        ]
    );
    assert_eq!(
        recomputed(&plan),
        [(edges, 3), (links, 2), (flipped, 2), (other, 2), (joined, 1), (result, 1)]
    );

    // One map output of `joined` is lost; it needs one block of `links`, and that one map output of `edges`.
    let mut kept = Kept::default();
    kept.outputs.extend([(joined, 0, 0), (joined, 0, 1), (joined, 1, 0)]);
    kept.outputs.extend([(links, 0, 0), (links, 0, 2)]);
    let plan = graph.plan(result, [2, 3], &kept)?;
    assert_eq!(plan.shuffles(), [stage(edges, links, 0, &[1]), stage(flipped, joined, 1, &[1])]);
    assert_eq!(recomputed(&plan), [(edges, 1), (links, 1), (flipped, 1), (joined, 2), (result, 2)]);

    // With the block of `links` resident, the shuffle before it is not needed.
    kept.blocks.insert((links, 1));
    let plan = graph.plan(result, [2, 3], &kept)?;
    assert_eq!(plan.shuffles(), [stage(flipped, joined, 1, &[1])]);
    assert_eq!(plan.reads_of(links), 1);

    // The wanted blocks resident: no shuffle at all.
    kept.blocks.extend([(joined, 2), (joined, 3)]);
    assert_eq!(graph.plan(result, [2, 3], &kept)?.shuffles(), []);
    Ok(())
}

#[test]
fn every_kind_of_narrow_map_is_followed() -> Result {
    let mut graph = Graph::new();
    let a = add(&mut graph, "a", 2, [])?;
    let b = add(&mut graph, "b", 3, [])?;
    let range = |child_start, len| PartitionMap::Range { parent_start: 0, child_start, len };
    let union = add(&mut graph, "union", 5, [narrow(a, range(0, 2)), narrow(b, range(2, 3))])?;
    let product = add(
        &mut graph,
        "product",
        6,
        [narrow(a, PartitionMap::Divide(3)), narrow(b, PartitionMap::Modulo(3))],
    )?;
    let coalesced = add(&mut graph, "coalesced", 2, [narrow(b, groups(&[&[0, 2], &[1]]))])?;
    let none = Kept::default();
    assert_eq!(recomputed(&graph.plan(union, [1], &none)?), [(a, 1), (union, 1)]);
    assert_eq!(recomputed(&graph.plan(union, [1, 2, 4], &none)?), [(a, 1), (b, 2), (union, 3)]);
    let plan = graph.plan(product, [0, 1, 3], &none)?;
    assert_eq!(
        plan.uses(),
        [
            NodeUse { node: a, reads: 3, recomputed: 2 },
            NodeUse { node: b, reads: 3, recomputed: 2 },
            NodeUse { node: product, reads: 3, recomputed: 3 },
        ]
    );
    assert_eq!(recomputed(&graph.plan(coalesced, [0], &none)?), [(b, 2), (coalesced, 1)]);
    Ok(())
}

#[test]
fn no_partitions_need_no_work() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 3, [])?;
    let empty = add(&mut graph, "empty", 0, [shuffle(source)])?;
    let plan = graph.plan(empty, 0..0, &Kept::default())?;
    assert_eq!((plan.shuffles(), plan.uses(), plan.result().partitions.len()), (&[][..], &[][..], 0));
    assert_eq!(
        graph.plan(source, [0, 3], &Kept::default()),
        Err(GraphError::NoSuchPartition { node: source, name: "source".into(), partition: 3, partitions: 3 })
    );
    Ok(())
}

#[test]
fn a_ladder_of_diamonds_is_planned_once_a_node_not_once_a_path() -> Result {
    let mut graph = Graph::new();
    let mut top = add(&mut graph, "source", 2, [])?;
    for _ in 0..10_000 {
        let left = add(&mut graph, "left", 2, [Dependency::one_to_one(top)])?;
        let right = add(&mut graph, "right", 2, [Dependency::one_to_one(top)])?;
        top = add(&mut graph, "zip", 2, [Dependency::one_to_one(left), Dependency::one_to_one(right)])?;
    }
    let plan = graph.plan(top, [0], &Kept::default())?;
    assert_eq!(plan.uses().len(), 30_001);
    assert!(plan.uses().iter().all(|used| used.recomputed == 1 && used.reads <= 2));
    Ok(())
}

/// The naive model: recursive, block by block.
#[derive(Default)]
struct Naive {
    reads: BTreeMap<NodeId, u64>,
    seen: HashSet<(NodeId, u32)>,
    computed: BTreeSet<(NodeId, u32)>,
    map_tasks: BTreeSet<(NodeId, usize, u32)>,
}

impl Naive {
    fn read(&mut self, graph: &Graph<String>, kept: &Kept, node: NodeId, partition: u32) -> Result {
        *self.reads.entry(node).or_default() += 1;
        if !self.seen.insert((node, partition)) || kept.is_resident(node, partition) {
            return Ok(());
        }
        self.computed.insert((node, partition));
        for (index, dependency) in graph.dependencies(node)?.iter().enumerate() {
            match dependency {
                Dependency::Narrow { parent, map } => {
                    for parent_partition in map.parents_of(partition) {
                        self.read(graph, kept, *parent, parent_partition)?;
                    }
                }
                Dependency::Shuffle { parent } => {
                    for map_partition in 0..graph.partitions(*parent)? {
                        if !kept.has_shuffle_output(node, index, map_partition)
                            && self.map_tasks.insert((node, index, map_partition))
                        {
                            self.read(graph, kept, *parent, map_partition)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a task that reads this block finds every shuffle output it needs.
fn is_ready(graph: &Graph<String>, kept: &Kept, node: NodeId, partition: u32) -> Result<bool> {
    let order = graph.narrow_order(node, partition, |node, partition| kept.is_resident(node, partition))?;
    for step in order.iter().filter(|step| !step.stopped) {
        for (index, dependency) in graph.dependencies(step.node)?.iter().enumerate() {
            if !dependency.is_shuffle() {
                continue;
            }
            let maps = graph.partitions(dependency.parent())?;
            if !(0..maps).all(|map| kept.has_shuffle_output(step.node, index, map)) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn random_residency(random: &mut Random, graph: &Graph<String>, ids: &[NodeId]) -> Result<Kept> {
    let mut kept = Kept::default();
    let (blocks, outputs) = (random.below(60), random.below(100));
    for &id in ids {
        kept.blocks.extend((0..graph.partitions(id)?).filter(|_| random.percent(blocks)).map(|p| (id, p)));
        for (index, dependency) in graph.dependencies(id)?.iter().enumerate() {
            let maps = 0..graph.partitions(dependency.parent())?;
            kept.outputs.extend(maps.filter(|_| random.percent(outputs)).map(|map| (id, index, map)));
        }
    }
    Ok(kept)
}

#[test]
fn random_plans_agree_with_the_naive_model_and_can_be_run_in_their_order() -> Result {
    let mut stages = 0;
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let (graph, ids) = random_graph(&mut random, 40)?;
        let mut kept = random_residency(&mut random, &graph, &ids)?;
        let target = ids[30 + random.below(10) as usize];
        let wanted: Vec<u32> = (0..graph.partitions(target)?).filter(|_| random.percent(70)).collect();
        let plan = graph.plan(target, wanted.iter().copied(), &kept)?;

        let mut naive = Naive::default();
        for &partition in &wanted {
            naive.read(&graph, &kept, target, partition)?;
        }
        let reads: BTreeMap<NodeId, u64> = plan.uses().iter().map(|used| (used.node, used.reads)).collect();
        assert_eq!(reads, naive.reads, "seed {seed}");
        let mut computed: BTreeMap<NodeId, u32> = BTreeMap::new();
        for (node, _) in naive.computed {
            *computed.entry(node).or_default() += 1;
        }
        assert_eq!(plan.recomputed().collect::<BTreeMap<_, _>>(), computed, "seed {seed}");
        let map_tasks: Vec<_> = plan
            .shuffles()
            .iter()
            .flat_map(|stage| stage.partitions.iter().map(|&p| (stage.child, stage.dependency, p)))
            .collect();
        assert_eq!(map_tasks, naive.map_tasks.into_iter().collect::<Vec<_>>(), "seed {seed}");

        for stage in plan.shuffles() {
            assert_eq!(graph.dependencies(stage.child)?[stage.dependency], shuffle(stage.parent));
            for &partition in &stage.partitions {
                assert!(is_ready(&graph, &kept, stage.parent, partition)?, "seed {seed}: {stage:?}");
            }
            kept.outputs.extend(stage.partitions.iter().map(|&p| (stage.child, stage.dependency, p)));
        }
        for &partition in &wanted {
            assert!(is_ready(&graph, &kept, target, partition)?, "seed {seed}");
        }
        stages += plan.shuffles().len();
    }
    assert!(stages > 400, "the graphs have too few shuffles to prove anything: {stages}");
    Ok(())
}
