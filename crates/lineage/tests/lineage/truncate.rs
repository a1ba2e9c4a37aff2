//! A checkpoint takes the place of a dataset's dependencies.

use larder_lineage::{Dependency, Graph, NodeId, Truncated};

use crate::common::{Kept, Result, add, shuffle};

#[test]
fn truncating_swaps_the_payload_and_frees_the_ancestors_nobody_else_needs() -> Result {
    let mut graph = Graph::new();
    let lines = add(&mut graph, "lines", 2, [])?;
    let edges = add(&mut graph, "edges", 2, [Dependency::one_to_one(lines)])?;
    let links = add(&mut graph, "links", 2, [shuffle(edges)])?;
    let ranks = add(&mut graph, "ranks", 2, [Dependency::one_to_one(links), shuffle(links)])?;
    for id in [edges, links] {
        assert_eq!(graph.release(id)?, [""; 0]);
    }
    assert_eq!(graph.cut_off(ranks)?, [edges, links], "lines has a handle");
    assert_eq!(graph.cut_off(links)?, [edges]);
    assert_eq!(graph.cut_off(lines)?, [NodeId(0); 0]);

    let truncated = graph.truncate(ranks, "checkpoint".into())?;
    let freed = vec!["links".to_owned(), "edges".to_owned()];
    assert_eq!(truncated, Truncated { previous: "ranks".into(), freed });
    assert_eq!(graph.dependencies(ranks)?, []);
    assert_eq!((graph.payload(ranks)?.as_str(), graph.name(ranks)?), ("checkpoint", "ranks"));
    assert_eq!(graph.partitions(ranks)?, 2);
    assert!(graph.is_truncated(ranks)?);
    assert!(!graph.is_truncated(lines)?);
    assert_eq!(graph.len(), 2);
    assert_eq!(graph.release(lines)?, ["lines"], "the truncated child does not keep it");
    Ok(())
}

#[test]
fn a_plan_ends_at_a_truncated_dataset() -> Result {
    let mut graph = Graph::new();
    let lines = add(&mut graph, "lines", 2, [])?;
    let links = add(&mut graph, "links", 2, [shuffle(lines)])?;
    let ranks = add(&mut graph, "ranks", 2, [Dependency::one_to_one(links)])?;
    assert_eq!(graph.plan(ranks, [0], &Kept::default())?.shuffles().len(), 1);

    let _old = graph.truncate(links, "checkpoint".into())?;
    let plan = graph.plan(ranks, [0], &Kept::blocks([(links, 0), (links, 1)]))?;
    assert_eq!(plan.shuffles(), []);
    assert_eq!(plan.recomputed().collect::<Vec<_>>(), [(ranks, 1)]);
    assert_eq!(plan.reads_of(links), 1);
    Ok(())
}

#[test]
fn truncating_again_or_a_source_swaps_the_payload_alone() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 1, [])?;
    assert_eq!(
        graph.truncate(source, "first".into())?,
        Truncated { previous: "source".into(), freed: vec![] }
    );
    assert_eq!(
        graph.truncate(source, "second".into())?,
        Truncated { previous: "first".into(), freed: vec![] }
    );
    assert_eq!(graph.payload(source)?, "second");
    Ok(())
}
