//! A lineage of a million steps on a small stack.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use larder_lineage::{Dependency, Graph, GraphError, NodeDescription, NodeId, NodeSpec};

use crate::common::Kept;

const STEPS: usize = 1_000_000;
const PARTITIONS: u32 = 4;
const STACK_BYTES: usize = 256 * 1024;

type Lineage = (Graph<usize>, NodeId);

/// Runs on a thread with a small stack.
fn on_small_stack(body: fn() -> Result<(), GraphError>) -> io::Result<JoinHandle<Result<(), GraphError>>> {
    thread::Builder::new().stack_size(STACK_BYTES).spawn(body)
}

/// A source and what follows from it, each step on the one before; only the last has a handle.
fn chain(steps: usize, dependency: fn(NodeId) -> Dependency) -> Result<Lineage, GraphError> {
    let mut graph = Graph::new();
    let add = |graph: &mut Graph<usize>, payload, dependencies| {
        graph.add(NodeSpec { name: "step".into(), partitions: PARTITIONS, dependencies, payload })
    };
    let mut last = add(&mut graph, 0, vec![])?;
    for payload in 1..steps {
        let child = add(&mut graph, payload, vec![dependency(last)])?;
        assert_eq!(graph.release(last)?, [0; 0]);
        last = child;
    }
    Ok((graph, last))
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("{what}: {:?}", start.elapsed());
    result
}

fn describe(_: NodeId, payload: &usize) -> NodeDescription {
    payload.to_string().into()
}

#[test]
fn a_million_narrow_steps() {
    on_small_stack(|| {
        let (mut graph, last) = timed("build", || chain(STEPS, Dependency::one_to_one))?;
        assert_eq!(graph.len(), STEPS);

        let plan = timed("plan", || graph.plan(last, 0..PARTITIONS, &Kept::default()))?;
        assert_eq!(plan.uses().len(), STEPS);
        assert!(plan.uses().iter().all(|used| used.reads == 4 && used.recomputed == 4));

        let order = timed("narrow order", || graph.narrow_order(last, 1, |_, _| false))?;
        assert_eq!(order.len(), STEPS);
        assert!(order.iter().map(|step| step.node.0).eq(0..STEPS as u64));

        graph.set_cost(NodeId(0), 3, Duration::from_secs(1))?;
        let cost = timed("cost", || graph.compute_cost(last, 3, &Kept::default()))?;
        assert_eq!((cost.time, cost.blocks, cost.unmeasured), (Duration::from_secs(1), 1_000_000, 999_999));

        let text = timed("debug string", || graph.debug_string(last, describe))?;
        assert_eq!(text.lines().count(), STEPS);
        assert!(text.starts_with("(4) 999999\n |  999998\n") && text.ends_with("\n |  0\n"));

        let dot = timed("dot", || graph.to_dot(last, describe))?;
        assert_eq!(dot.lines().filter(|line| line.contains(" -> ")).count(), STEPS - 1);

        let middle = NodeId(500_000);
        assert_eq!(timed("cut off", || graph.cut_off(middle))?.len(), 500_000);
        let truncated = timed("truncate", || graph.truncate(middle, 0))?;
        assert_eq!(truncated.previous, 500_000);
        assert!(truncated.freed.into_iter().eq((0..500_000).rev()));
        assert_eq!(graph.narrow_order(last, 1, |_, _| false)?.len(), 500_000);

        let freed = timed("release", || graph.release(last))?;
        assert_eq!(freed.len(), 500_000);
        assert!(graph.is_empty());
        Ok(())
    })
    .unwrap()
    .join()
    .unwrap()
    .unwrap();
}

#[test]
fn a_graph_that_is_dropped_with_a_hundred_thousand_shuffles_in_it() {
    on_small_stack(|| {
        let steps = 100_000;
        let (graph, last) = chain(steps, |parent| Dependency::Shuffle { parent })?;
        let plan = timed("plan", || graph.plan(last, [2], &Kept::default()))?;
        assert_eq!(plan.shuffles().len(), steps - 1);
        assert!(plan.shuffles().iter().map(|stage| stage.parent.0).eq(0..steps as u64 - 1));
        let text = timed("debug string", || graph.debug_string(last, describe))?;
        assert!(text.lines().count() < steps + steps / 16);
        timed("drop", || drop(graph));
        Ok(())
    })
    .unwrap()
    .join()
    .unwrap()
    .unwrap();
}
