//! What keeps a dataset in the graph, and what it says when it is not there.

use std::collections::BTreeSet;

use larder_lineage::{Dependency, Graph, GraphError, MapError, NodeId, PartitionMap};

use crate::common::{Random, Result, add, groups, narrow, random_dependencies, shuffle};

#[test]
fn a_node_lives_while_it_has_handles_or_living_children() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 2, [])?;
    let mapped = add(&mut graph, "mapped", 2, [Dependency::one_to_one(source)])?;
    assert_eq!(graph.handles(source)?, 1);

    assert_eq!(graph.release(source)?, [""; 0], "its child needs it");
    assert!(graph.contains(source));
    assert_eq!(graph.handles(source)?, 0);
    assert_eq!(graph.name(source)?, "source");

    graph.retain(source)?;
    assert_eq!(graph.release(mapped)?, ["mapped"], "the source has a handle again");
    assert_eq!(graph.release(source)?, ["source"]);
    assert!(graph.is_empty());
    Ok(())
}

#[test]
fn releasing_the_last_handle_frees_what_nobody_else_needs_children_first() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 2, [])?;
    let left = add(&mut graph, "left", 2, [Dependency::one_to_one(source)])?;
    let right = add(&mut graph, "right", 2, [shuffle(source)])?;
    let joined = add(&mut graph, "joined", 2, [shuffle(left), shuffle(right), shuffle(left)])?;
    let kept = add(&mut graph, "kept", 2, [Dependency::one_to_one(right)])?;
    for id in [source, left, right] {
        assert_eq!(graph.release(id)?, [""; 0]);
    }
    graph.retain(joined)?;
    assert_eq!(graph.release(joined)?, [""; 0], "it had two handles");
    assert_eq!(graph.release(joined)?, ["joined", "left"]);
    assert_eq!(graph.len(), 3);
    assert_eq!(graph.release(kept)?, ["kept", "right", "source"]);
    Ok(())
}

#[test]
fn ids_ascend_and_are_never_reused() -> Result {
    let mut graph = Graph::new();
    let first = add(&mut graph, "first", 1, [])?;
    let _payloads = graph.release(first)?;
    let second = add(&mut graph, "second", 1, [])?;
    assert!(second > first);
    assert!(!graph.contains(first));
    Ok(())
}

#[test]
fn a_node_that_is_gone_is_an_error_for_every_question() -> Result {
    let mut graph = Graph::new();
    let gone = add(&mut graph, "gone", 1, [])?;
    let _payloads = graph.release(gone)?;
    let unknown = GraphError::UnknownNode { node: gone };
    assert_eq!(graph.retain(gone), Err(unknown.clone()));
    assert_eq!(graph.release(gone), Err(unknown.clone()));
    assert_eq!(graph.truncate(gone, String::new()).map(|_| ()), Err(unknown.clone()));
    assert_eq!(graph.cut_off(gone), Err(unknown.clone()));
    assert_eq!(graph.payload(gone), Err(unknown.clone()));
    assert_eq!(graph.parents(gone).map(|_| ()), Err(unknown.clone()));
    assert_eq!(graph.ancestors(gone), Err(unknown.clone()));
    assert_eq!(graph.narrow_order(gone, 0, |_, _| false).map(|_| ()), Err(unknown.clone()));
    assert_eq!(graph.to_dot(gone, |_, _| "".into()), Err(unknown.clone()));
    assert_eq!(graph.debug_string(gone, |_, _| "".into()), Err(unknown.clone()));
    assert_eq!(
        unknown.to_string(),
        "no dataset node_0 in the lineage graph: its last handle and its last child were dropped, or it \
         belongs to another graph; keep a handle for as long as the dataset is used"
    );
    Ok(())
}

#[test]
fn releasing_more_handles_than_were_given_is_refused() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 1, [])?;
    add(&mut graph, "child", 1, [shuffle(source)])?;
    let _payloads = graph.release(source)?;
    assert_eq!(graph.release(source), Err(GraphError::NoHandle { node: source, name: "source".into() }));
    assert!(graph.contains(source));
    Ok(())
}

#[test]
fn a_dataset_that_does_not_fit_its_parents_is_refused_and_changes_nothing() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 3, [])?;
    let refused = |dependency, source_error| {
        Err(GraphError::InvalidMap {
            name: "bad".into(),
            dependency,
            parent: source,
            parent_name: "source".into(),
            source: source_error,
        })
    };
    assert_eq!(
        add(&mut graph, "bad", 2, [Dependency::one_to_one(source)]),
        refused(0, MapError::NotOneToOne { child: 2, parent: 3 })
    );
    assert_eq!(
        add(&mut graph, "bad", 1, [shuffle(source), narrow(source, groups(&[&[3]]))]),
        refused(1, MapError::BeyondParent { last: 3, partitions: 3 })
    );
    assert_eq!(
        add(&mut graph, "bad", 2, [narrow(source, PartitionMap::Modulo(0))]),
        refused(0, MapError::ZeroDivisor { partitions: 2 })
    );
    let nobody = NodeId(77);
    let error = add(&mut graph, "bad", 1, [shuffle(source), shuffle(nobody)]);
    assert_eq!(error, Err(GraphError::UnknownParent { name: "bad".into(), dependency: 1, parent: nobody }));
    assert_eq!(graph.len(), 1);
    assert_eq!(graph.release(source)?, ["source"], "no refused child counts");
    Ok(())
}

#[test]
fn a_dataset_without_partitions_has_all_kinds_of_dependencies() -> Result {
    let mut graph = Graph::new();
    let empty = add(&mut graph, "empty", 0, [])?;
    let full = add(&mut graph, "full", 2, [])?;
    add(&mut graph, "mapped", 0, [Dependency::one_to_one(empty)])?;
    add(
        &mut graph,
        "product",
        0,
        [narrow(full, PartitionMap::Divide(0)), narrow(empty, PartitionMap::Modulo(0))],
    )?;
    add(&mut graph, "coalesced", 0, [narrow(empty, groups(&[]))])?;
    add(&mut graph, "shuffled", 3, [shuffle(empty)])?;
    Ok(())
}

/// The naive model: what is alive is what can be reached from a node with handles.
struct Model {
    nodes: Vec<(NodeId, u64, Vec<NodeId>)>,
}

impl Model {
    fn alive(&self) -> BTreeSet<NodeId> {
        let mut alive = BTreeSet::new();
        for (id, handles, parents) in self.nodes.iter().rev() {
            if *handles > 0 || alive.contains(id) {
                alive.insert(*id);
                alive.extend(parents);
            }
        }
        alive
    }

    /// Takes what died out of the model.
    fn bury(&mut self) -> BTreeSet<String> {
        let alive = self.alive();
        let dead = self.nodes.extract_if(.., |(id, ..)| !alive.contains(id));
        dead.map(|(id, ..)| format!("d{}", id.0)).collect()
    }
}

#[test]
fn random_use_frees_exactly_what_cannot_be_reached_from_a_handle() -> Result {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut graph = Graph::new();
        let mut model = Model { nodes: Vec::new() };
        let mut added = 0;
        for _ in 0..200 {
            let alive: Vec<NodeId> = model.nodes.iter().map(|(id, ..)| *id).collect();
            let index = random.below(alive.len() as u32) as usize;
            match (random.below(8), alive.get(index)) {
                (3, Some(&id)) => {
                    graph.retain(id)?;
                    model.nodes[index].1 += 1;
                }
                (4 | 5, Some(&id)) if model.nodes[index].1 > 0 => {
                    model.nodes[index].1 -= 1;
                    let freed: BTreeSet<String> = graph.release(id)?.into_iter().collect();
                    assert_eq!(freed, model.bury(), "seed {seed}, release of {id}");
                }
                (6, Some(&id)) => {
                    let cut_off = graph.cut_off(id)?;
                    let name = graph.payload(id)?.clone();
                    let truncated = graph.truncate(id, name.clone())?;
                    assert_eq!(truncated.previous, name);
                    model.nodes[index].2.clear();
                    let freed: BTreeSet<String> = truncated.freed.into_iter().collect();
                    assert_eq!(freed, model.bury(), "seed {seed}, truncation of {id}");
                    let foretold = cut_off.iter().map(|id| format!("d{}", id.0)).collect();
                    assert_eq!(freed, foretold, "seed {seed}, truncation of {id}");
                }
                _ => {
                    let (partitions, dependencies) = random_dependencies(&mut random, &graph, &alive)?;
                    let id = add(&mut graph, &format!("d{added}"), partitions, dependencies)?;
                    added += 1;
                    model.nodes.push((id, 1, graph.parents(id)?.collect()));
                }
            }
            assert_eq!(graph.len(), model.nodes.len(), "seed {seed}");
            for (id, handles, _) in &model.nodes {
                assert_eq!(graph.handles(*id), Ok(*handles), "seed {seed}");
            }
        }
    }
    Ok(())
}
