//! What the lineage graph keeps for each dataset.

use std::marker::PhantomData;
use std::sync::Arc;

use larder_blockstore::StorageLevel;
use larder_lineage::NodeId;
use parking_lot::Mutex;

use crate::checkpoint::{Request, Tee};
use crate::context::Context;
use crate::data::Data;
use crate::error::{Error, TaskError, dataset_label};
use crate::gather;
use crate::ops::concat;
use crate::partitioner::Partitioner;
use crate::persist::Persisted;
use crate::pipeline::{AnyOperator, AnySource, Pipeline};
use crate::remains::{Owned, Remains};
use crate::shuffle::AnyShuffle;
use crate::task::{Place, Task};

/// Opens a partition that has no inputs.
pub(crate) type OpenLeaf = dyn Fn(&Task, u32) -> Result<AnySource, TaskError> + Send + Sync;

/// Starts a record-wise operator for a partition.
pub(crate) type StartOperator = dyn Fn(&Task, u32) -> Result<AnyOperator, TaskError> + Send + Sync;

/// An operation that needs its inputs as a whole.
pub(crate) trait WholeInputs: Send + Sync {
    /// Opens a partition; there is one input a dependency.
    fn open(&self, task: &Task, partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError>;

    /// The shuffle of this dependency, if it is one.
    fn shuffle(&self, dependency: usize) -> Option<Arc<dyn AnyShuffle>> {
        let _ = dependency;
        None
    }
}

/// How the partitions of a dataset are computed.
#[derive(Clone)]
pub(crate) enum Compute {
    /// From nothing in the graph.
    Leaf(Arc<OpenLeaf>),
    /// Record by record, from the one partition of the one parent.
    Records(Arc<StartOperator>),
    /// As they are in the one parent partition there is (union).
    PassThrough,
    /// One parent partition after the other (coalesce).
    Concat(Arc<Concat>),
    /// From whole inputs.
    Whole(Arc<dyn WholeInputs>),
}

/// Which parent partitions a coalesced dataset reads.
pub(crate) struct Concat {
    pub(crate) parent: NodeId,
    pub(crate) groups: Arc<[Box<[u32]>]>,
}

/// Something a dataset needs to know before its tasks can run, found by a job over its parent.
pub(crate) trait Prepare: Send + Sync {
    /// Whether it is known.
    fn is_ready(&self) -> bool;

    /// Finds it, once: others who ask meanwhile wait.
    fn run(&self, context: &Context) -> Result<(), Error>;
}

/// One dataset.
pub(crate) struct Node {
    operation: &'static str,
    partitions: u32,
    partitioner: Option<Partitioner>,
    type_hooks: &'static TypeHooks,
    state: Mutex<NodeState>,
}

struct NodeState {
    name: Option<Arc<str>>,
    compute: Compute,
    prepare: Option<Arc<dyn Prepare>>,
    persisted: Option<Arc<dyn Persisted>>,
    /// Boxed, because few datasets have one.
    checkpointing: Option<Box<Checkpointing>>,
}

/// A checkpoint of a dataset that is not there yet.
#[derive(Clone)]
pub(crate) struct Checkpointing {
    pub(crate) request: Arc<Request>,
    /// Writes partitions while they are read.
    pub(crate) tee: Option<Arc<dyn Tee>>,
    /// The copy that is read until the checkpoint is there.
    pub(crate) staged: Option<Arc<dyn Persisted>>,
}

/// What the engine must do with pipelines whose record type only the dataset knows.
pub(crate) struct TypeHooks {
    /// Runs a pipeline into memory.
    pub(crate) gather: fn(Place, Pipeline) -> Result<Pipeline, TaskError>,
    /// Runs a pipeline into memory, to be read several times.
    pub(crate) share: fn(Place, Pipeline) -> Result<Box<dyn gather::Replay>, TaskError>,
    /// Reads pipelines one after the other.
    pub(crate) chain: fn(Vec<Pipeline>) -> AnySource,
    /// Opens a coalesced partition whose inputs are opened one after the other.
    pub(crate) concat: fn(&Task, &Concat, u32) -> AnySource,
}

struct HooksOf<T>(PhantomData<T>);

impl<T: Data> HooksOf<T> {
    const HOOKS: TypeHooks = TypeHooks {
        gather: gather::gather::<T>,
        share: gather::share::<T>,
        chain: concat::chain::<T>,
        concat: concat::open_late::<T>,
    };
}

impl Node {
    pub(crate) fn new<T: Data>(
        operation: &'static str,
        partitions: u32,
        partitioner: Option<Partitioner>,
        compute: Compute,
        prepare: Option<Arc<dyn Prepare>>,
    ) -> Self {
        let state = NodeState { name: None, compute, prepare, persisted: None, checkpointing: None };
        let type_hooks = &HooksOf::<T>::HOOKS;
        Self { operation, partitions, partitioner, type_hooks, state: Mutex::new(state) }
    }

    pub(crate) fn operation(&self) -> &'static str {
        self.operation
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(crate) fn partitioner(&self) -> Option<&Partitioner> {
        self.partitioner.as_ref()
    }

    pub(crate) fn hooks(&self) -> &'static TypeHooks {
        self.type_hooks
    }

    /// What users called it, or else its operation.
    pub(crate) fn name(&self) -> Arc<str> {
        self.user_name().unwrap_or_else(|| self.operation.into())
    }

    pub(crate) fn user_name(&self) -> Option<Arc<str>> {
        self.state.lock().name.clone()
    }

    pub(crate) fn set_name(&self, name: &str) {
        self.state.lock().name = Some(name.into());
    }

    pub(crate) fn label(&self, id: NodeId) -> String {
        dataset_label(&self.name(), id)
    }

    pub(crate) fn compute(&self) -> Compute {
        self.state.lock().compute.clone()
    }

    /// What must be found before its tasks can run, if it is not known yet.
    pub(crate) fn unprepared(&self) -> Option<Arc<dyn Prepare>> {
        self.state.lock().prepare.as_ref().filter(|prepare| !prepare.is_ready()).cloned()
    }

    pub(crate) fn shuffle(&self, dependency: usize) -> Option<Arc<dyn AnyShuffle>> {
        match &self.state.lock().compute {
            Compute::Whole(whole) => whole.shuffle(dependency),
            _ => None,
        }
    }

    /// Puts a source in the place of the operation, for when the lineage is cut, and hands out what stood there.
    /// Whoever holds the old operation may go on with it.
    pub(crate) fn replace_compute(&self, open: Arc<OpenLeaf>) -> Remains {
        let mut state = self.state.lock();
        let compute = std::mem::replace(&mut state.compute, Compute::Leaf(open));
        Remains::of(Owned { compute: Some(compute), prepare: state.prepare.take(), persisted: None })
    }

    pub(crate) fn persisted(&self) -> Option<Arc<dyn Persisted>> {
        self.state.lock().persisted.clone()
    }

    /// Takes away the stored blocks, and hands them out.
    pub(crate) fn take_persisted(&self) -> Remains {
        Remains::of(Owned { persisted: self.replace_persisted(None), ..Owned::default() })
    }

    /// Sets or takes away the stored blocks, and gives back what was there.
    pub(crate) fn replace_persisted(&self, new: Option<Arc<dyn Persisted>>) -> Option<Arc<dyn Persisted>> {
        std::mem::replace(&mut self.state.lock().persisted, new)
    }

    /// Sets the stored blocks unless there are some; gives back those that are there then.
    pub(crate) fn persist_with(&self, new: Arc<dyn Persisted>) -> Result<(), Arc<dyn Persisted>> {
        let mut state = self.state.lock();
        match &state.persisted {
            Some(current) => Err(Arc::clone(current)),
            None => {
                state.persisted = Some(new);
                Ok(())
            }
        }
    }

    /// Whether the map task of this partition left its output for this dependency.
    pub(crate) fn has_shuffle_output(&self, dependency: usize, map_partition: u32) -> bool {
        match &self.state.lock().compute {
            Compute::Whole(whole) => {
                whole.shuffle(dependency).is_some_and(|shuffle| shuffle.has_output(map_partition))
            }
            _ => false,
        }
    }

    /// The checkpoint that is being written, or waits to be, if one is.
    pub(crate) fn checkpointing(&self) -> Option<Checkpointing> {
        let state = self.state.lock();
        let current = state.checkpointing.as_deref();
        current.filter(|current| !current.request.is_settled()).cloned()
    }

    /// Starts a checkpoint, unless another is under way: gives that then. Whoever starts it ends it.
    pub(crate) fn begin_checkpointing(&self, new: Checkpointing) -> Result<(), Checkpointing> {
        let mut state = self.state.lock();
        if let Some(current) = &state.checkpointing
            && !current.request.is_settled()
        {
            let current = Checkpointing::clone(current);
            drop(state);
            return Err(current);
        }
        let before = state.checkpointing.replace(Box::new(new));
        drop(state);
        drop(before);
        Ok(())
    }

    /// Forgets a checkpoint that is there now, or will not be.
    pub(crate) fn end_checkpointing(&self, request: &Arc<Request>) {
        let mut state = self.state.lock();
        let is_it = |current: &mut Box<Checkpointing>| Arc::ptr_eq(&current.request, request);
        let ended = state.checkpointing.take_if(is_it);
        drop(state);
        drop(ended);
    }

    pub(crate) fn tee(&self) -> Option<Arc<dyn Tee>> {
        self.checkpointing().and_then(|current| current.tee)
    }

    /// Pins the stored block of a partition, if there is one.
    pub(crate) fn open_stored(&self, task: &Task, place: Place) -> Result<Option<Pipeline>, TaskError> {
        let persisted = self.persisted();
        if let Some(persisted) = &persisted
            && let Some(block) = persisted.open(task, place)?
        {
            return Ok(Some(block));
        }
        let Some(staged) = self.checkpointing().and_then(|current| current.staged) else { return Ok(None) };
        match (staged.open(task, place)?, persisted) {
            (Some(block), Some(persisted)) => Ok(Some(persisted.fill(task, place, block)?.pipeline())),
            (block, _) => Ok(block),
        }
    }

    pub(crate) fn storage_level(&self) -> Option<StorageLevel> {
        self.look_at_persisted(|persisted| persisted.level())
    }

    pub(crate) fn is_resident(&self, partition: u32) -> bool {
        let state = self.state.lock();
        let staged = state.checkpointing.as_ref().and_then(|current| current.staged.as_ref());
        state.persisted.iter().chain(staged).any(|blocks| blocks.contains(partition))
    }

    /// Looks at the stored blocks where they are, if there are some: whoever holds the lock of the graph must not
    /// become their last owner, since records and closures may own datasets, which leave the graph when they drop.
    pub(crate) fn look_at_persisted<R>(&self, look: impl FnOnce(&dyn Persisted) -> R) -> Option<R> {
        self.state.lock().persisted.as_deref().map(look)
    }

    pub(crate) fn is_concat(&self) -> bool {
        matches!(self.state.lock().compute, Compute::Concat(_))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        drop(Remains::of(Owned {
            compute: Some(std::mem::replace(&mut state.compute, Compute::PassThrough)),
            prepare: state.prepare.take(),
            persisted: state.persisted.take(),
        }));
        drop(state.checkpointing.take());
    }
}
