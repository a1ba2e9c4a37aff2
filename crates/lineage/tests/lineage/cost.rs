//! What a lost block would cost.

use std::time::Duration;

use larder_lineage::{ComputeCost, Dependency, Graph, GraphError};

use crate::common::{Kept, Result, add, shuffle};

fn cost(millis: u64, blocks: u64, unmeasured: u64) -> ComputeCost {
    ComputeCost { time: Duration::from_millis(millis), blocks, unmeasured }
}

#[test]
fn a_block_costs_its_own_time_and_that_of_its_missing_ancestors() -> Result {
    let mut graph = Graph::new();
    let lines = add(&mut graph, "lines", 2, [])?;
    let edges = add(&mut graph, "edges", 2, [Dependency::one_to_one(lines)])?;
    let links = add(&mut graph, "links", 2, [shuffle(edges)])?;
    for (node, partition, millis) in
        [(lines, 0, 1), (lines, 1, 2), (edges, 0, 10), (edges, 1, 20), (links, 0, 100), (links, 1, 200)]
    {
        graph.set_cost(node, partition, Duration::from_millis(millis))?;
    }
    assert_eq!(graph.cost(edges, 1), Some(Duration::from_millis(20)));

    assert_eq!(graph.compute_cost(lines, 1, &Kept::default())?, cost(2, 1, 0));
    assert_eq!(graph.compute_cost(edges, 1, &Kept::default())?, cost(22, 2, 0));
    assert_eq!(graph.compute_cost(links, 0, &Kept::default())?, cost(133, 5, 0), "all map tasks");

    let mut kept = Kept::blocks([(links, 0), (edges, 0)]);
    assert_eq!(
        graph.compute_cost(links, 0, &kept)?,
        cost(122, 3, 0),
        "itself resident, as when it is a victim"
    );
    kept.outputs.extend([(links, 0, 0), (links, 0, 1)]);
    assert_eq!(graph.compute_cost(links, 0, &kept)?, cost(100, 1, 0));
    Ok(())
}

#[test]
fn unmeasured_blocks_count_as_nothing_and_are_reported() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 2, [])?;
    let mapped = add(&mut graph, "mapped", 2, [Dependency::one_to_one(source)])?;
    graph.set_cost(mapped, 0, Duration::from_millis(5))?;
    assert_eq!(graph.compute_cost(mapped, 0, &Kept::default())?, cost(5, 2, 1));
    assert_eq!(graph.compute_cost(mapped, 1, &Kept::default())?, cost(0, 2, 2));
    assert_eq!(graph.cost(mapped, 1), None);
    assert_eq!(graph.costs(mapped).collect::<Vec<_>>(), [Duration::from_millis(5)]);
    assert_eq!(graph.costs(source).count(), 0);

    graph.set_cost(mapped, 0, Duration::ZERO)?;
    graph.set_cost(source, 0, Duration::MAX)?;
    let most = graph.compute_cost(mapped, 0, &Kept::default())?;
    assert_eq!((most.blocks, most.unmeasured), (2, 0), "zero and the longest time are measurements");
    Ok(())
}

#[test]
fn measurements_go_with_the_computation_they_measured() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 1, [])?;
    let mapped = add(&mut graph, "mapped", 1, [Dependency::one_to_one(source)])?;
    graph.set_cost(mapped, 0, Duration::from_millis(5))?;
    let _old = graph.truncate(mapped, "checkpoint".into())?;
    assert_eq!(graph.cost(mapped, 0), None);

    graph.set_cost(source, 0, Duration::from_millis(5))?;
    let _payloads = graph.release(source)?;
    assert_eq!(graph.cost(source, 0), None);
    assert_eq!(graph.set_cost(source, 0, Duration::ZERO), Err(GraphError::UnknownNode { node: source }));
    let none =
        GraphError::NoSuchPartition { node: mapped, name: "mapped".into(), partition: 1, partitions: 1 };
    assert_eq!(graph.set_cost(mapped, 1, Duration::ZERO), Err(none.clone()));
    assert_eq!(graph.compute_cost(mapped, 1, &Kept::default()), Err(none));
    Ok(())
}
