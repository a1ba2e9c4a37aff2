//! Datasets: handles on nodes of the lineage graph.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use larder_lineage::{Dependency, NodeId};

use crate::context::{Context, describe};
use crate::data::Data;
use crate::error::Error;
use crate::node::{Compute, Node, Prepare, WholeInputs};
use crate::partitioner::Partitioner;
use crate::pipeline::AnyOperator;
use crate::task::Task;

/// An ordered collection of records in partitions, computed when an action asks for it.
///
/// A dataset is a handle: cloning it clones nothing else. Transformations make new datasets at once and compute
/// nothing; actions run a job. A dataset that is [persisted](Self::persist) keeps its partitions from the first
/// time they are computed until its last handle drops.
///
/// Closures may run several times for one record: a task is tried again when it fails, and what is not kept is
/// computed by each action that needs it. So they should depend on nothing but their arguments. A closure may itself
/// run actions of other datasets; those run on its thread. It must not wait for an action that it started on another
/// thread: that one may wait for this task's turn to end.
pub struct Dataset<T> {
    handle: Arc<Handle>,
    records: PhantomData<fn() -> T>,
}

/// Keeps a node in the graph. Its blocks go with it.
struct Handle {
    context: Context,
    id: NodeId,
    node: Arc<Node>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.node.persisted().is_some_and(|persisted| !persisted.stays_with_dataset()) {
            self.context.forget_persisted(self.id);
            drop(self.node.take_persisted());
        }
        let freed = self.context.graph().lock().release(self.id);
        drop(freed);
    }
}

impl<T> Clone for Dataset<T> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle), records: PhantomData }
    }
}

impl<T> fmt::Debug for Dataset<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset")
            .field("id", &self.handle.id)
            .field("name", &self.handle.node.name())
            .field("partitions", &self.handle.node.partitions())
            .finish_non_exhaustive()
    }
}

impl<T: Data> Dataset<T> {
    pub(crate) fn new(context: Context, id: NodeId, node: Arc<Node>) -> Self {
        Self { handle: Arc::new(Handle { context, id, node }), records: PhantomData }
    }

    /// The context it was made by.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.handle.context
    }

    /// Its number in the context. Never reused.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.handle.id
    }

    /// What it was [called](Self::named), or else the operation that made it.
    #[must_use]
    pub fn name(&self) -> String {
        self.handle.node.name().to_string()
    }

    /// Gives the dataset a name, for messages, the storage table and the lineage.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.handle.node.set_name(name);
        self
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.handle.node.partitions()
    }

    /// How its records are spread over the partitions, if that is known.
    #[must_use]
    pub fn partitioner(&self) -> Option<&Partitioner> {
        self.handle.node.partitioner()
    }

    /// The lineage as an indented tree: one line a dataset, with level, cached partitions, sizes and compute time
    /// of those that are persisted.
    ///
    /// # Errors
    /// None in practice: a dataset that has a handle is in the graph.
    pub fn to_debug_string(&self) -> Result<String, Error> {
        let graph = self.context().graph().lock();
        Ok(graph.debug_string(self.id(), |id, node| describe(&graph, id, node))?)
    }

    /// The lineage in Graphviz's DOT language.
    ///
    /// # Errors
    /// As [`to_debug_string`](Self::to_debug_string).
    pub fn to_dot(&self) -> Result<String, Error> {
        let graph = self.context().graph().lock();
        Ok(graph.to_dot(self.id(), |id, node| describe(&graph, id, node))?)
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.handle.node
    }

    pub(crate) fn label(&self) -> String {
        self.node().label(self.id())
    }

    /// All partitions, in order.
    pub(crate) fn all_partitions(&self) -> Vec<u32> {
        (0..self.partitions()).collect()
    }

    /// A dataset whose partitions are computed record by record from those of this one.
    pub(crate) fn by_records<U: Data>(
        &self,
        operation: &'static str,
        partitioner: Option<Partitioner>,
        prepare: Option<Arc<dyn Prepare>>,
        start: impl Fn(&Task, u32) -> AnyOperator + Send + Sync + 'static,
    ) -> Dataset<U> {
        let start = move |task: &Task, partition| Ok(start(task, partition));
        let compute = Compute::Records(Arc::new(start));
        self.one_to_one(Node::new::<U>(operation, self.partitions(), partitioner, compute, prepare))
    }

    /// A dataset whose partitions each need one whole partition of this one.
    pub(crate) fn by_partitions<U: Data>(
        &self,
        operation: &'static str,
        partitioner: Option<Partitioner>,
        whole: impl WholeInputs + 'static,
    ) -> Dataset<U> {
        let compute = Compute::Whole(Arc::new(whole));
        self.one_to_one(Node::new::<U>(operation, self.partitions(), partitioner, compute, None))
    }

    #[expect(
        clippy::expect_used,
        reason = "self keeps the parent in the graph, and the partitions are equal"
    )]
    pub(crate) fn one_to_one<U: Data>(&self, node: Node) -> Dataset<U> {
        let dependency = Dependency::one_to_one(self.id());
        self.context().add(node, vec![dependency]).expect("a dataset with a handle is in the graph")
    }
}
