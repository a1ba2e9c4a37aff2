//! The graph of datasets: who is computed from whom, and what must be computed again.
//!
//! An engine adds a node for each dataset, with the [`Dependency`]s its partitions have on those of its parents
//! and a payload of its own. The [`Graph`] then answers:
//! - who is needed by nobody any more: [`Graph::release`], and after a checkpoint [`Graph::truncate`];
//! - what must run, and in which order, to bring blocks back: [`Graph::plan`], given what is resident;
//! - what one task evaluates: [`Graph::narrow_order`];
//! - what a lost block would cost: [`Graph::compute_cost`];
//! - what it looks like: [`Graph::debug_string`] and [`Graph::to_dot`].
//!
//! It does no I/O, starts no threads and takes no locks. Nothing recurses over the graph, and no walk visits a
//! node once per path: a lineage of a million steps is built, planned, printed and dropped on a small stack.
//!
//! ```
//! use larder_lineage::{Dependency, Graph, NodeId, NodeSpec, Residency};
//!
//! let mut graph = Graph::new();
//! let mut add = |name, dependencies| graph.add(NodeSpec { name, partitions: 2, dependencies, payload: () });
//! let lines = add("lines".into(), vec![])?;
//! let pairs = add("pairs".into(), vec![Dependency::one_to_one(lines)])?;
//! let sums = add("sums".into(), vec![Dependency::Shuffle { parent: pairs }])?;
//!
//! /// All map outputs are there, but that of partition 1.
//! struct Kept;
//! impl Residency for Kept {
//!     fn is_resident(&self, _node: NodeId, _partition: u32) -> bool { false }
//!     fn has_shuffle_output(&self, _child: NodeId, _dependency: usize, map_partition: u32) -> bool {
//!         map_partition != 1
//!     }
//! }
//! let plan = graph.plan(sums, [0], &Kept)?;
//! assert_eq!(plan.shuffles()[0].partitions, [1]);
//! assert_eq!(plan.recomputed().collect::<Vec<_>>(), [(lines, 1), (pairs, 1), (sums, 1)]);
//!
//! println!("{}", graph.debug_string(sums, |id, _| graph.name(id).unwrap_or("?").into())?);
//! // (2) sums
//! //  +-(2) pairs
//! //     |  lines
//! # Ok::<(), larder_lineage::GraphError>(())
//! ```

#![forbid(unsafe_code)]

mod cost;
mod debug;
mod dependency;
mod dot;
mod error;
mod graph;
mod order;
mod plan;
mod table;

pub use cost::ComputeCost;
pub use debug::NodeDescription;
pub use dependency::{Dependency, PartitionMap};
pub use error::{GraphError, MapError};
pub use graph::{Graph, NodeId, NodeSpec, Truncated};
pub use order::{Input, Inputs, NarrowOrder, Step};
pub use plan::{NodeUse, RecomputePlan, Residency, ResultStage, ShuffleStage};
