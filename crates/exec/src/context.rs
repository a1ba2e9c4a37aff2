//! The context: what the datasets of a program share.

mod builder;
mod byte_amount;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use larder_blockstore::BlockStore;
use larder_checkpoint::CheckpointStore;
use larder_lineage::{Dependency, Graph, NodeDescription, NodeId, NodeSpec};
use parking_lot::Mutex;

pub use self::builder::ContextBuilder;
pub use self::byte_amount::ByteAmount;
use crate::checkpoint::Uploads;
use crate::data::Data;
use crate::dataset::Dataset;
use crate::error::{Error, dataset_label};
use crate::job::{Job, Slots};
use crate::node::{Node, OpenLeaf};
use crate::persist::StorageStatus;
use crate::progress::Progress;
use crate::task::Place;

/// Makes datasets and runs their jobs: threads, a block store, the lineage graph.
///
/// Cheap to clone; all clones are one context. Any number of threads may use it; their jobs share its threads.
///
/// ```
/// use larder_exec::Context;
///
/// let context = Context::builder().threads(2).memory("64MiB").build()?;
/// let squares = context.range(0..1_000, 4)?.map(|n| n * n);
/// assert_eq!(squares.fold(0, |sum, n| sum + n)?, 332_833_500);
/// # Ok::<(), larder_exec::Error>(())
/// ```
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    name: String,
    threads: usize,
    task_attempts: u32,
    progress: bool,
    store: BlockStore,
    checkpoints: Option<CheckpointStore>,
    graph: Mutex<Graph<Arc<Node>>>,
    slots: Slots,
    jobs: Mutex<Vec<Arc<Job>>>,
    /// The datasets that were persisted and may still be.
    persisted: Mutex<BTreeMap<NodeId, Weak<Node>>>,
    uploads: Arc<Uploads>,
}

/// A context that may go while one holds this.
#[derive(Clone)]
pub(crate) struct WeakContext(Weak<Inner>);

impl WeakContext {
    pub(crate) fn upgrade(&self) -> Option<Context> {
        self.0.upgrade().map(|inner| Context { inner })
    }
}

impl Drop for Inner {
    /// Uploads end by themselves; nobody waits for them here.
    fn drop(&mut self) {
        self.uploads.cancel("its context was dropped");
    }
}

impl Context {
    /// Starts to describe a context.
    #[must_use]
    pub fn builder() -> ContextBuilder {
        ContextBuilder::default()
    }

    /// What it was called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How many tasks run at once.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.inner.threads
    }

    /// The store that keeps the blocks of persisted datasets and shuffles.
    #[must_use]
    pub fn store(&self) -> &BlockStore {
        &self.inner.store
    }

    /// Where checkpoints go, if that was said.
    #[must_use]
    pub fn checkpoints(&self) -> Option<&CheckpointStore> {
        self.inner.checkpoints.as_ref()
    }

    /// Cancels the jobs that run now. Their actions return [`Error::Cancelled`] as soon as each task is through
    /// with its batch; nothing half done stays, and the context can be used again.
    pub fn cancel(&self) {
        self.inner.cancel_jobs();
    }

    /// The persisted datasets, in the order in which they were made. Costs a look at every block.
    #[must_use]
    pub fn storage(&self) -> Vec<StorageStatus> {
        let nodes: Vec<(NodeId, Arc<Node>)> = {
            let mut persisted = self.inner.persisted.lock();
            persisted.retain(|_, node| node.strong_count() > 0);
            persisted.iter().filter_map(|(id, node)| Some((*id, node.upgrade()?))).collect()
        };
        let status = |(id, node): (NodeId, Arc<Node>)| {
            let compute_time = self.graph().lock().costs(id).sum();
            storage_status(id, &node, compute_time)
        };
        nodes.into_iter().filter_map(status).collect()
    }

    /// Removes a stored block from all tiers, as if a machine had been lost: the next job that needs it computes it
    /// again. Whether there was one.
    pub fn drop_block(&self, dataset: NodeId, partition: u32) -> bool {
        let Ok(node) = self.node(dataset) else { return false };
        let staged = node.checkpointing().and_then(|current| current.staged);
        node.persisted().iter().chain(&staged).filter(|blocks| blocks.remove(partition)).count() > 0
    }

    pub(crate) fn graph(&self) -> &Mutex<Graph<Arc<Node>>> {
        &self.inner.graph
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.inner.slots
    }

    pub(crate) fn downgrade(&self) -> WeakContext {
        WeakContext(Arc::downgrade(&self.inner))
    }

    pub(crate) fn uploads(&self) -> &Arc<Uploads> {
        &self.inner.uploads
    }

    pub(crate) fn task_attempts(&self) -> u32 {
        self.inner.task_attempts
    }

    pub(crate) fn progress(&self, label: &str, tasks: usize) -> Progress {
        if self.inner.progress && tasks > 0 { Progress::on_stderr(label, tasks) } else { Progress::hidden() }
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn node(&self, id: NodeId) -> Result<Arc<Node>, Error> {
        Ok(Arc::clone(self.graph().lock().payload(id)?))
    }

    /// How messages name a dataset.
    pub(crate) fn label(&self, id: NodeId) -> String {
        match self.node(id) {
            Ok(node) => node.label(id),
            Err(_) => dataset_label("?", id),
        }
    }

    /// Adds a dataset to the graph.
    pub(crate) fn add<T: Data>(
        &self,
        node: Node,
        dependencies: Vec<Dependency>,
    ) -> Result<Dataset<T>, Error> {
        let node = Arc::new(node);
        let spec = NodeSpec {
            name: node.operation().into(),
            partitions: node.partitions(),
            dependencies,
            payload: Arc::clone(&node),
        };
        let id = self.graph().lock().add(spec)?;
        Ok(Dataset::new(self.clone(), id, node))
    }

    /// Puts a source in the place of a dataset's operation and parents, for planners in one step.
    pub(crate) fn cut(&self, id: NodeId, node: &Arc<Node>, open: Arc<OpenLeaf>) -> Result<(), Error> {
        let mut graph = self.graph().lock();
        let truncated = graph.truncate(id, Arc::clone(node))?;
        let operation = node.replace_compute(open);
        drop(graph);
        drop((operation, truncated));
        Ok(())
    }

    /// Notes how long a block took to compute.
    pub(crate) fn measured(&self, place: Place, time: Duration) {
        // A dataset that is gone meanwhile needs no measurement.
        drop(self.graph().lock().set_cost(place.node, place.partition, time));
    }

    /// How long a block took to compute, if it was measured.
    pub(crate) fn compute_time(&self, place: Place) -> Option<Duration> {
        self.graph().lock().cost(place.node, place.partition)
    }

    pub(crate) fn note_persisted(&self, id: NodeId, node: &Arc<Node>) {
        self.inner.persisted.lock().insert(id, Arc::downgrade(node));
    }

    pub(crate) fn forget_persisted(&self, id: NodeId) {
        self.inner.persisted.lock().remove(&id);
    }

    /// Makes a job known, so that it can be cancelled.
    pub(crate) fn register(&self, job: &Arc<Job>) -> Running<'_> {
        self.inner.jobs.lock().push(Arc::clone(job));
        Running { context: self, job: Arc::clone(job) }
    }
}

/// A job that can be cancelled, until it drops.
pub(crate) struct Running<'a> {
    context: &'a Context,
    job: Arc<Job>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.context.inner.jobs.lock().retain(|job| !Arc::ptr_eq(job, &self.job));
    }
}

impl Inner {
    /// Cancels the running jobs; whether there was one that was not cancelled yet.
    pub(crate) fn cancel_jobs(&self) -> bool {
        let jobs = self.jobs.lock().clone();
        let mut any = false;
        for job in jobs {
            any |= !job.is_cancelled();
            job.cancel();
        }
        self.slots.wake_all();
        any
    }
}

fn storage_status(id: NodeId, node: &Node, compute_time: Duration) -> Option<StorageStatus> {
    let (level, status) = node.look_at_persisted(|persisted| (persisted.level(), persisted.status()))?;
    Some(StorageStatus {
        id,
        name: node.name().to_string(),
        level,
        partitions: node.partitions(),
        cached_partitions: status.blocks as u32,
        records: status.records,
        heap_bytes: status.heap_bytes,
        off_heap_bytes: status.off_heap_bytes,
        disk_bytes: status.disk_bytes,
        compute_time,
        counters: status.counters,
    })
}

/// How a dataset stands in the lineage as text.
pub(crate) fn describe(graph: &Graph<Arc<Node>>, id: NodeId, node: &Arc<Node>) -> NodeDescription {
    let text = match node.user_name() {
        Some(name) => format!("{name}: {}", node.operation()),
        None => node.operation().to_owned(),
    };
    let storage = storage_status(id, node, graph.costs(id).sum()).map(|status| {
        let bytes = |bytes: u64| bytesize::ByteSize::b(bytes).display().iec();
        let mut text = format!("{}; CachedPartitions: {}", status.level, status.cached_partitions);
        for (tier, size) in [
            ("MemorySize", status.heap_bytes),
            ("OffHeapSize", status.off_heap_bytes),
            ("DiskSize", status.disk_bytes),
        ] {
            if size > 0 {
                text.push_str(&format!("; {tier}: {}", bytes(size)));
            }
        }
        if status.compute_time > Duration::ZERO {
            text.push_str(&format!("; ComputeTime: {:.1?}", status.compute_time));
        }
        text
    });
    NodeDescription { text, storage }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.inner.name)
            .field("threads", &self.inner.threads)
            .field("store", &self.inner.store)
            .finish_non_exhaustive()
    }
}
