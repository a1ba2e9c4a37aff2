//! Operations on a lineage graph against a naive model of it.

mod model;

use std::collections::BTreeSet;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use larder_lineage::{Dependency, Graph, GraphError, Input, NodeId, NodeSpec, PartitionMap};

use self::model::{Kept, Model};

const NODES_MAX: u64 = 60;
const PARTITIONS_MAX: u32 = 5;

/// Adds, retains, releases, truncates, plans and orders; the graph agrees with the model after every step.
pub fn lineage_ops(data: &[u8]) {
    // Running out of bytes ends the sequence.
    let _ = run(&mut Unstructured::new(data));
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let (mut graph, mut model) = (Graph::new(), Model::default());
    while !input.is_empty() {
        step(input, &mut graph, &mut model)?;
        agree(&graph, &model);
    }
    for id in model.alive() {
        for _ in 0..model.node(id).handles {
            let freed = graph.release(id).expect("it has a handle");
            assert_eq!(sorted(&freed), model.release(id));
        }
    }
    assert!(graph.is_empty());
    Ok(())
}

/// A node that is or was in the graph, or one that never was.
fn any_node(input: &mut Unstructured<'_>, model: &Model) -> Result<NodeId> {
    Ok(NodeId(input.int_in_range(0..=model.added())?))
}

fn step(input: &mut Unstructured<'_>, graph: &mut Graph<u64>, model: &mut Model) -> Result<()> {
    let id = any_node(input, model)?;
    match input.int_in_range(0..=11_u8)? {
        0..=3 if model.added() < NODES_MAX => add(input, graph, model)?,
        4 => assert_eq!(graph.retain(id).is_ok(), model.retain(id)),
        5 | 6 => match graph.release(id) {
            Ok(freed) => {
                assert!(model.node(id).handles > 0);
                assert_eq!(sorted(&freed), model.release(id));
                children_come_first(&freed, model);
            }
            Err(GraphError::NoHandle { .. }) => assert_eq!(model.node(id).handles, 0),
            Err(_) => assert!(!model.is_alive(id)),
        },
        7 if model.is_alive(id) => {
            let cut_off = graph.cut_off(id).expect("it is alive");
            let payload = model.next_payload();
            let truncated = graph.truncate(id, payload).expect("it is alive");
            assert_eq!(truncated.previous, model.node(id).payload);
            let freed = model.truncate(id, payload);
            assert_eq!(sorted(&truncated.freed), freed);
            assert_eq!(cut_off, model.ids_of(&freed));
            children_come_first(&truncated.freed, model);
        }
        8 => {
            let (partition, time) = (input.int_in_range(0..=PARTITIONS_MAX)?, input.arbitrary::<u32>()?);
            let time = Duration::from_nanos(time.into());
            let set = graph.set_cost(id, partition, time).is_ok();
            assert_eq!(set, model.has_partition(id, partition));
            if set {
                model.set_cost(id, partition, time);
                assert_eq!(graph.cost(id, partition), Some(time));
            }
        }
        9 if model.is_alive(id) => plan(input, graph, model, id)?,
        10 if model.is_alive(id) => narrow_order(input, graph, model, id)?,
        _ if model.is_alive(id) => {
            let text = graph.debug_string(id, |id, _| format!("{id}").into()).expect("it is alive");
            let dot = graph.to_dot(id, |id, _| format!("{id}").into()).expect("it is alive");
            for ancestor in model.ancestors(id) {
                assert!(text.contains(&ancestor.to_string()) && dot.contains(&ancestor.to_string()));
            }
        }
        _ => assert_eq!(graph.plan(id, [0], &Kept(0)).is_err(), !model.has_partition(id, 0)),
    }
    Ok(())
}

fn sorted(payloads: &[u64]) -> Vec<u64> {
    let mut sorted = payloads.to_vec();
    sorted.sort_unstable();
    sorted
}

/// Ids ascend from parents to children, and payloads that were freed name their nodes.
fn children_come_first(freed: &[u64], model: &Model) {
    for (at, payload) in freed.iter().enumerate() {
        let parents = model.parents_of_payload(*payload);
        assert!(freed[..at].iter().all(|earlier| !parents.contains(earlier)), "{freed:?}");
    }
}

fn add(input: &mut Unstructured<'_>, graph: &mut Graph<u64>, model: &mut Model) -> Result<()> {
    let partitions = input.int_in_range(0..=PARTITIONS_MAX)?;
    let mut dependencies = Vec::new();
    for _ in 0..input.int_in_range(0..=3_u8)? {
        let parent = any_node(input, model)?;
        dependencies.push(if input.ratio(1_u8, 3_u8)? {
            Dependency::Shuffle { parent }
        } else {
            let wide = model.partitions(parent);
            Dependency::Narrow { parent, map: map(input, partitions, wide)? }
        });
    }
    let payload = model.next_payload();
    let spec = NodeSpec { name: "d".into(), partitions, dependencies: dependencies.clone(), payload };
    match graph.add(spec) {
        Ok(id) => {
            assert!(dependencies.iter().all(|dependency| model.allows(partitions, dependency)));
            model.add(id, partitions, dependencies, payload);
        }
        Err(_) => assert!(!dependencies.iter().all(|dependency| model.allows(partitions, dependency))),
    }
    Ok(())
}

/// A map that is often right.
fn map(input: &mut Unstructured<'_>, child: u32, parent: u32) -> Result<PartitionMap> {
    let small = |input: &mut Unstructured<'_>| input.int_in_range(0..=PARTITIONS_MAX);
    Ok(match input.int_in_range(0..=5_u8)? {
        0 | 1 => PartitionMap::OneToOne,
        2 => PartitionMap::Range {
            parent_start: small(input)?,
            child_start: small(input)?,
            len: if input.arbitrary()? { small(input)? } else { input.arbitrary()? },
        },
        3 => {
            let groups = if input.ratio(1_u8, 10_u8)? { child + 1 } else { child };
            let group = |input: &mut Unstructured<'_>| -> Result<Box<[u32]>> {
                let len = input.int_in_range(0..=3_u8)?;
                (0..len).map(|_| input.int_in_range(0..=parent.saturating_sub(1))).collect()
            };
            PartitionMap::Groups((0..groups).map(|_| group(input)).collect::<Result<Vec<_>>>()?.into())
        }
        4 => PartitionMap::Divide(small(input)?),
        _ => PartitionMap::Modulo(small(input)?),
    })
}

fn plan(input: &mut Unstructured<'_>, graph: &Graph<u64>, model: &Model, id: NodeId) -> Result<()> {
    let kept = Kept(input.arbitrary()?);
    let wanted: BTreeSet<u32> = (0..input.int_in_range(0..=4_u8)?)
        .map(|_| input.int_in_range(0..=PARTITIONS_MAX))
        .collect::<Result<_>>()?;
    let Ok(plan) = graph.plan(id, wanted.iter().copied(), &kept) else {
        assert!(wanted.iter().any(|partition| !model.has_partition(id, *partition)));
        return Ok(());
    };
    let expected = model.plan(id, &wanted, |node, partition| kept.is_kept(node, partition), &kept);
    assert_eq!(plan.result().partitions, wanted.iter().copied().collect::<Vec<_>>());
    let uses: Vec<_> = plan.uses().iter().map(|used| (used.node, used.reads, used.recomputed)).collect();
    assert_eq!(uses, expected.uses());
    let mut stages = BTreeSet::new();
    for stage in plan.shuffles() {
        let before: BTreeSet<_> =
            plan.shuffles().iter().take(stages.len()).map(|s| (s.child, s.dependency)).collect();
        assert!(expected.stages_below(model, stage.parent).is_subset(&before), "{:?}", plan.shuffles());
        assert!(stages.insert((stage.child, stage.dependency, stage.parent, stage.partitions.clone())));
    }
    assert_eq!(stages, expected.stages(model));

    if let Some(partition) = wanted.first() {
        let cost = graph.compute_cost(id, *partition, &kept).expect("it has the partition");
        let without = |node, other| node != id && kept.is_kept(node, other);
        let expected = model.plan(id, &BTreeSet::from([*partition]), without, &kept);
        assert_eq!((cost.time, cost.blocks, cost.unmeasured), expected.cost(model));
    }
    Ok(())
}

fn narrow_order(input: &mut Unstructured<'_>, graph: &Graph<u64>, model: &Model, id: NodeId) -> Result<()> {
    let (partition, kept) = (input.int_in_range(0..=PARTITIONS_MAX)?, Kept(input.arbitrary()?));
    let mut asked = BTreeSet::new();
    let order = graph.narrow_order(id, partition, |node, partition| {
        assert!(asked.insert((node, partition)), "{node}/{partition} was asked for twice");
        kept.is_kept(node, partition)
    });
    let Ok(order) = order else {
        assert!(!model.has_partition(id, partition));
        return Ok(());
    };
    let blocks: Vec<_> = order.iter().map(|step| (step.node, step.partition)).collect();
    assert_eq!(blocks.last(), Some(&(id, partition)));
    assert_eq!(blocks.iter().copied().collect::<BTreeSet<_>>(), asked);
    assert_eq!(asked.len(), order.len());
    assert_eq!(asked, model.narrow_closure(id, partition, &kept));
    for (index, step) in order.iter().enumerate() {
        assert_eq!(step.stopped, kept.is_kept(step.node, step.partition));
        let dependencies = if step.stopped { &[][..] } else { &model.node(step.node).dependencies };
        let inputs: Vec<_> = step.inputs().collect();
        assert_eq!(inputs.len(), dependencies.len());
        for (input, dependency) in inputs.iter().zip(dependencies) {
            match (input, dependency) {
                (Input::Shuffle, Dependency::Shuffle { .. }) => {}
                (Input::Narrow(steps), Dependency::Narrow { parent, map }) => {
                    assert!(steps.iter().all(|step| (*step as usize) < index));
                    let read: Vec<_> = steps.iter().map(|step| blocks[*step as usize]).collect();
                    let named: Vec<_> = map.parents_of(step.partition).map(|p| (*parent, p)).collect();
                    assert_eq!(read, named);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    Ok(())
}

fn agree(graph: &Graph<u64>, model: &Model) {
    assert_eq!(graph.len(), model.alive().len());
    for id in (0..model.added()).map(NodeId) {
        assert_eq!(graph.contains(id), model.is_alive(id));
        if !model.is_alive(id) {
            assert!(graph.payload(id).is_err() && graph.cost(id, 0).is_none());
            continue;
        }
        let node = model.node(id);
        assert_eq!(graph.handles(id), Ok(node.handles));
        assert_eq!(graph.payload(id), Ok(&node.payload));
        assert_eq!(graph.partitions(id), Ok(node.partitions));
        assert_eq!(graph.dependencies(id), Ok(&node.dependencies[..]));
        assert_eq!(graph.is_truncated(id), Ok(node.truncated));
        assert_eq!(graph.ancestors(id), Ok(model.ancestors(id).into_iter().collect()));
    }
}
