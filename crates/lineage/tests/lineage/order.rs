//! What one task evaluates, and in which order.

use std::collections::HashSet;

use larder_lineage::{Dependency, Graph, GraphError, Input, NarrowOrder, NodeId, PartitionMap};

use crate::common::{Kept, Random, Result, add, groups, narrow, random_graph, shuffle};

/// The steps as `(node, partition, inputs)`, with `None` for a shuffle.
type Steps = Vec<(NodeId, u32, Vec<Option<Vec<u32>>>)>;

fn steps(order: &NarrowOrder) -> Steps {
    let input = |input| match input {
        Input::Narrow(steps) => Some(<[u32]>::to_vec(steps)),
        Input::Shuffle => None,
    };
    order.iter().map(|step| (step.node, step.partition, step.inputs().map(input).collect())).collect()
}

#[test]
fn a_chain_is_evaluated_from_its_source_or_shuffle_on() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 2, [])?;
    let shuffled = add(&mut graph, "shuffled", 3, [shuffle(source)])?;
    let mapped = add(&mut graph, "mapped", 3, [Dependency::one_to_one(shuffled)])?;
    let filtered = add(&mut graph, "filtered", 3, [Dependency::one_to_one(mapped)])?;
    let order = graph.narrow_order(filtered, 2, |_, _| false)?;
    assert_eq!(
        steps(&order),
        [(shuffled, 2, vec![None]), (mapped, 2, vec![Some(vec![0])]), (filtered, 2, vec![Some(vec![1])])]
    );
    assert_eq!(order.len(), 3);
    assert_eq!(order.get(3), None);
    Ok(())
}

#[test]
fn stopped_blocks_are_leaves_and_told_from_sources() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 1, [])?;
    let kept = add(&mut graph, "kept", 1, [Dependency::one_to_one(source)])?;
    let other = add(&mut graph, "other", 1, [])?;
    let zipped = add(&mut graph, "zipped", 1, [Dependency::one_to_one(kept), Dependency::one_to_one(other)])?;
    let order = graph.narrow_order(zipped, 0, |node, _| node == kept)?;
    assert_eq!(
        steps(&order),
        [(kept, 0, vec![]), (other, 0, vec![]), (zipped, 0, vec![Some(vec![0]), Some(vec![1])])]
    );
    assert_eq!(order.iter().map(|step| step.stopped).collect::<Vec<_>>(), [true, false, false]);

    let order = graph.narrow_order(zipped, 0, |_, _| true)?;
    assert_eq!(steps(&order), [(zipped, 0, vec![])]);
    assert!(order.get(0).is_some_and(|step| step.stopped));
    Ok(())
}

#[test]
fn a_block_read_twice_is_one_step_and_inputs_are_finished_one_after_the_other() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 3, [])?;
    let mapped = add(&mut graph, "mapped", 3, [Dependency::one_to_one(source)])?;
    let coalesced = add(&mut graph, "coalesced", 1, [narrow(mapped, groups(&[&[2, 0, 2]]))])?;
    let both =
        add(&mut graph, "both", 1, [Dependency::one_to_one(coalesced), narrow(source, groups(&[&[0, 1]]))])?;
    let order = graph.narrow_order(both, 0, |_, _| false)?;
    assert_eq!(
        steps(&order),
        [
            (source, 2, vec![]),
            (mapped, 2, vec![Some(vec![0])]),
            (source, 0, vec![]),
            (mapped, 0, vec![Some(vec![2])]),
            (coalesced, 0, vec![Some(vec![1, 3, 1])]),
            (source, 1, vec![]),
            (both, 0, vec![Some(vec![4]), Some(vec![2, 5])]),
        ]
    );
    Ok(())
}

#[test]
fn a_union_reads_one_parent_and_says_which() -> Result {
    let mut graph = Graph::new();
    let a = add(&mut graph, "a", 2, [])?;
    let b = add(&mut graph, "b", 2, [])?;
    let range = |child_start| PartitionMap::Range { parent_start: 0, child_start, len: 2 };
    let union = add(&mut graph, "union", 4, [narrow(a, range(0)), narrow(b, range(2))])?;
    assert_eq!(
        steps(&graph.narrow_order(union, 3, |_, _| false)?),
        [(b, 1, vec![]), (union, 3, vec![Some(vec![]), Some(vec![0])])]
    );
    assert_eq!(
        graph.narrow_order(union, 4, |_, _| false),
        Err(GraphError::NoSuchPartition { node: union, name: "union".into(), partition: 4, partitions: 4 })
    );
    Ok(())
}

#[test]
fn the_same_blocks_from_a_ladder_of_diamonds_are_one_step_each() -> Result {
    let mut graph = Graph::new();
    let mut top = add(&mut graph, "source", 1, [])?;
    for _ in 0..10_000 {
        top = add(&mut graph, "twice", 1, [Dependency::one_to_one(top), Dependency::one_to_one(top)])?;
    }
    assert_eq!(graph.narrow_order(top, 0, |_, _| false)?.len(), 10_001);
    Ok(())
}

/// The naive model: the set of blocks reached, by recursion.
fn reach(
    graph: &Graph<String>,
    stop: &impl Fn(NodeId, u32) -> bool,
    block: (NodeId, u32),
    reached: &mut HashSet<(NodeId, u32)>,
) -> Result {
    if !reached.insert(block) || stop(block.0, block.1) {
        return Ok(());
    }
    for dependency in graph.dependencies(block.0)? {
        if let Dependency::Narrow { parent, map } = dependency {
            for partition in map.parents_of(block.1) {
                reach(graph, stop, (*parent, partition), reached)?;
            }
        }
    }
    Ok(())
}

#[test]
fn random_orders_hold_each_block_once_with_the_inputs_its_dependencies_name() -> Result {
    let mut longest = 0;
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let (graph, ids) = random_graph(&mut random, 40)?;
        let kept = Kept::blocks(ids.iter().filter(|_| random.percent(10)).map(|&id| (id, 0)));
        let stop = |node, partition| kept.blocks.contains(&(node, partition));
        let target = ids[30 + random.below(10) as usize];
        for partition in 0..graph.partitions(target)? {
            let mut asked = HashSet::new();
            let order = graph.narrow_order(target, partition, |node, partition| {
                assert!(asked.insert((node, partition)), "seed {seed}: asked twice");
                stop(node, partition)
            })?;
            let blocks: Vec<_> = order.iter().map(|step| (step.node, step.partition)).collect();
            let mut reached = HashSet::new();
            reach(&graph, &stop, (target, partition), &mut reached)?;
            assert_eq!(blocks.len(), reached.len(), "seed {seed}");
            assert_eq!(blocks.iter().copied().collect::<HashSet<_>>(), reached, "seed {seed}");
            assert_eq!(blocks.last(), Some(&(target, partition)));

            for (index, step) in order.iter().enumerate() {
                assert_eq!(step.stopped, stop(step.node, step.partition));
                if step.stopped {
                    assert_eq!(step.inputs().count(), 0);
                    continue;
                }
                let dependencies = graph.dependencies(step.node)?;
                assert_eq!(step.inputs().count(), dependencies.len(), "seed {seed}");
                for (input, dependency) in step.inputs().zip(dependencies) {
                    match (input, dependency) {
                        (Input::Shuffle, Dependency::Shuffle { .. }) => {}
                        (Input::Narrow(inputs), Dependency::Narrow { parent, map }) => {
                            assert!(inputs.iter().all(|&input| (input as usize) < index), "seed {seed}");
                            let read: Vec<_> = inputs.iter().map(|&input| blocks[input as usize]).collect();
                            let named: Vec<_> =
                                map.parents_of(step.partition).map(|p| (*parent, p)).collect();
                            assert_eq!(read, named, "seed {seed}");
                        }
                        _ => panic!("seed {seed}: {input:?} for {dependency:?}"),
                    }
                }
            }
            longest = longest.max(order.len());
        }
    }
    assert!(longest > 20, "the graphs are too shallow to prove anything: {longest}");
    Ok(())
}
