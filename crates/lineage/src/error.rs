//! What can go wrong when the graph is asked for something it cannot give.

use crate::graph::NodeId;

/// Why the graph refused a call. Nothing was changed by a refused call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The node is not in the graph (any more).
    #[error(
        "no dataset {node} in the lineage graph: its last handle and its last child were dropped, or it \
         belongs to another graph; keep a handle for as long as the dataset is used"
    )]
    UnknownNode {
        /// The node that was asked for.
        node: NodeId,
    },

    /// A new dataset depends on a node that is not in the graph.
    #[error(
        "dataset `{name}` cannot be added: the parent {parent} of its dependency {dependency} is not in the \
         lineage graph; keep a handle of a parent until its child was added"
    )]
    UnknownParent {
        /// Name of the new dataset.
        name: String,
        /// Index of the dependency in [`NodeSpec::dependencies`](crate::NodeSpec::dependencies).
        dependency: usize,
        /// The missing parent.
        parent: NodeId,
    },

    /// A new dataset's narrow dependency does not fit its or its parent's partitions.
    #[error(
        "dataset `{name}` cannot be added: its dependency {dependency} on `{parent_name}` ({parent}) maps \
         partitions that do not exist"
    )]
    InvalidMap {
        /// Name of the new dataset.
        name: String,
        /// Index of the dependency in [`NodeSpec::dependencies`](crate::NodeSpec::dependencies).
        dependency: usize,
        /// The parent.
        parent: NodeId,
        /// Name of the parent.
        parent_name: String,
        /// What does not fit.
        source: MapError,
    },

    /// A partition number is not below the dataset's partition count.
    #[error("dataset `{name}` ({node}) has no partition {partition}: it has {partitions}, numbered from 0")]
    NoSuchPartition {
        /// The dataset's node.
        node: NodeId,
        /// Its name.
        name: String,
        /// The partition that was asked for.
        partition: u32,
        /// How many partitions the dataset has.
        partitions: u32,
    },

    /// A handle was released more often than one was given.
    #[error("dataset `{name}` ({node}) has no handle left to release: only its children keep it alive")]
    NoHandle {
        /// The dataset's node.
        node: NodeId,
        /// Its name.
        name: String,
    },

    /// One task would evaluate more blocks or inputs than a [`NarrowOrder`](crate::NarrowOrder) can number.
    #[error(
        "one task for partition {partition} of dataset `{name}` ({node}) would evaluate more than \
         4,294,967,293 blocks or inputs; persist or checkpoint one of its ancestors"
    )]
    OrderTooLong {
        /// The dataset's node.
        node: NodeId,
        /// Its name.
        name: String,
        /// The partition of the task.
        partition: u32,
    },

    /// The writer handed to [`Graph::write_debug`](crate::Graph::write_debug) or
    /// [`Graph::write_dot`](crate::Graph::write_dot) refused the text.
    #[error("the lineage could not be printed: its writer returned an error")]
    Write(#[from] std::fmt::Error),
}

/// How a [`PartitionMap`](crate::PartitionMap) contradicts the partition counts of child and parent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// A one-to-one map between datasets of different partition counts.
    #[error("one-to-one needs equal partition counts, but the child has {child} and the parent {parent}")]
    NotOneToOne {
        /// Partitions of the child.
        child: u32,
        /// Partitions of the parent.
        parent: u32,
    },

    /// The map speaks of child partitions beyond the child's last one.
    #[error("the map reaches up to child partition {last}, but the child has {partitions}")]
    BeyondChild {
        /// The highest child partition of the map.
        last: u64,
        /// Partitions of the child.
        partitions: u32,
    },

    /// The map speaks of parent partitions beyond the parent's last one.
    #[error("the map reads parent partition {last}, but the parent has {partitions}")]
    BeyondParent {
        /// The highest parent partition of the map.
        last: u64,
        /// Partitions of the parent.
        partitions: u32,
    },

    /// There must be one group a child partition.
    #[error("{groups} groups for {partitions} child partitions: one group a partition is needed")]
    GroupCount {
        /// Groups in the map.
        groups: usize,
        /// Partitions of the child.
        partitions: u32,
    },

    /// `Divide(0)` or `Modulo(0)` of a child that has partitions.
    #[error("a divisor of zero for {partitions} child partitions")]
    ZeroDivisor {
        /// Partitions of the child.
        partitions: u32,
    },
}
