//! Checkpoints of datasets: written in one pass, verified, committed, and only then the lineage is cut.

mod buffers;
mod handle;
mod local;
mod name;
mod open;
mod pending;
mod tee;
mod throttle;
mod upload;
mod uploads;

use std::sync::Arc;

use larder_blockstore::codec::CodecId;
use larder_checkpoint::{Checkpoint, CheckpointStore, Spec};

use self::open::written_partitioner;
use self::pending::Pending;
use crate::context::Context;
use crate::data::Portable;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::job::{Job, in_task};
use crate::node::Checkpointing;
use crate::schema::schema;

pub(crate) use self::buffers::{Buffers, PartMemory};
pub use self::handle::CheckpointHandle;
pub(crate) use self::handle::Request;
pub use self::name::CheckpointName;
pub(crate) use self::pending::{Tee, complete};
pub(crate) use self::tee::Unfinished;
pub(crate) use self::uploads::Uploads;

/// A checkpoint of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointInfo {
    /// The name under which it is opened again.
    pub name: String,
    /// Its full address, by which any process can open it.
    pub address: String,
    /// Which checkpoint of that name it is; they count up.
    pub generation: u64,
    /// What its [records are called](CheckpointName).
    pub record_type: String,
    /// How many partitions it has.
    pub partitions: u32,
    /// Records in all partitions.
    pub records: u64,
    /// Bytes of all parts.
    pub bytes: u64,
}

impl CheckpointInfo {
    fn of(checkpoint: &Checkpoint) -> Self {
        Self {
            name: checkpoint.manifest().dataset.clone(),
            address: checkpoint.address(),
            generation: checkpoint.generation(),
            record_type: checkpoint.manifest().record_type.clone(),
            partitions: checkpoint.partitions(),
            records: checkpoint.records(),
            bytes: checkpoint.bytes(),
        }
    }
}

impl<T: Portable> Dataset<T> {
    /// Writes the dataset to the context's checkpoint directory, durably, under its [name](Self::named), and cuts its
    /// lineage: from then on it is read from there, and ancestors that nobody else uses are freed.
    ///
    /// One pass: partitions are written while they are computed, or read if they are stored; if the dataset is
    /// persisted, they are kept on the way. All partitions are read back, then the checkpoint is committed in one step,
    /// then the lineage is cut. If anything fails, the dataset stays as it was, and the call can be repeated; readers
    /// see nothing of the checkpoint, unless what failed is to find out whether it was committed.
    ///
    /// A dataset without a name gets one of its operation and number. If another thread writes the same checkpoint at
    /// the same time, it is written once, for both; one that waits for [an action](Self::checkpoint_lazily) is written
    /// now.
    ///
    /// # Errors
    /// [`Error::NoCheckpoints`]; [`Error::Checkpoint`]; as [`collect`](Self::collect) otherwise.
    pub fn checkpoint(&self) -> Result<CheckpointInfo, Error> {
        self.checkpoint_as(self.checkpoint_name())
    }

    /// As [`checkpoint`](Self::checkpoint), under another name: a text, or a [`CheckpointName`] that also says what the
    /// records are called. The next checkpoint of a name is its next generation.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn checkpoint_as(&self, name: impl Into<CheckpointName>) -> Result<CheckpointInfo, Error> {
        let name = name.into();
        let store = self.checkpoint_store()?;
        let request = Request::new(name, self.label(), Job::start());
        let own = || Checkpointing { request: Arc::clone(&request), tee: None, staged: None };
        // Beside one of another name it goes on all the same. What a task waits for may wait for the task, so that
        // writes its own as well.
        while let Err(current) = self.node().begin_checkpointing(own())
            && current.request.name == request.name
            && !in_task()
        {
            if let Some(info) = self.written_by(&current)? {
                return Ok(info);
            }
        }
        Pending::write_now(self, store, request)
    }

    /// The checkpoint that another call asked for, when it is there; none if it came to nothing.
    fn written_by(&self, current: &Checkpointing) -> Result<Option<CheckpointInfo>, Error> {
        if let Some(tee) = &current.tee {
            return tee.complete_now(self.context());
        }
        match current.request.join(self.context()) {
            Err(Error::Cancelled) => Err(Error::Cancelled),
            written => Ok(written.ok()),
        }
    }

    /// Has the next action write the dataset to the context's checkpoint directory, under its [name](Self::named):
    /// as [`checkpoint`](Self::checkpoint), but in the same pass as what the action needs it for.
    ///
    /// Every task that reads or computes a partition of it, of any action, also writes the partition; a reader that
    /// has enough before its end does not keep the rest from being written. At the end of the first action that succeeds
    /// while no other writes a part, on its thread, partitions that were not needed are computed, all are read back and
    /// committed, and the lineage is cut. So each partition is computed once. A task that fails and is tried again
    /// writes its part anew; an action that fails or is cancelled leaves to the next what it did not get to.
    ///
    /// An action succeeds also when the checkpoint does not: the handle tells. Then the dataset is as it was, and the
    /// checkpoint can be asked for again. Asking again before gives another handle of the same one; asking by
    /// [`checkpoint`](Self::checkpoint) writes it at once. If the dataset is dropped first, there is none.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use larder_exec::Context;
    ///
    /// let context = Context::builder().checkpoints(directory.path()).build()?;
    /// let squares = context.range(0..1_000, 4)?.map(|n| n * n).named("squares");
    /// let checkpoint = squares.checkpoint_lazily()?;
    /// assert_eq!(squares.count()?, 1_000);      // computes, and writes the checkpoint on the way
    /// assert_eq!(checkpoint.wait()?.records, 1_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoCheckpoints`]; [`Error::CheckpointInProgress`]; [`Error::Checkpoint`] when it cannot be begun.
    pub fn checkpoint_lazily(&self) -> Result<CheckpointHandle, Error> {
        self.checkpoint_lazily_as(self.checkpoint_name())
    }

    /// As [`checkpoint_lazily`](Self::checkpoint_lazily), under another name.
    ///
    /// # Errors
    /// As [`checkpoint_lazily`](Self::checkpoint_lazily).
    pub fn checkpoint_lazily_as(&self, name: impl Into<CheckpointName>) -> Result<CheckpointHandle, Error> {
        let name = name.into();
        let store = self.checkpoint_store()?;
        let joined = |current: Checkpointing| {
            if current.request.name == name {
                return Ok(CheckpointHandle::new(current.request));
            }
            Err(self.in_progress(&current.request, &name))
        };
        if let Some(current) = self.node().checkpointing() {
            return joined(current);
        }
        let request = Request::new(name.clone(), self.label(), Arc::default());
        let pending = Pending::begin(self, store, Arc::clone(&request), true)?;
        let tee: Arc<dyn Tee> = pending;
        // The request is new: nothing is set.
        let _ = request.tee.set(Arc::downgrade(&tee));
        let checkpointing = Checkpointing { request: Arc::clone(&request), tee: Some(tee), staged: None };
        match self.node().begin_checkpointing(checkpointing) {
            Ok(()) => Ok(CheckpointHandle::new(request)),
            Err(current) => joined(current),
        }
    }

    /// What a checkpoint is called that nobody gave a name.
    fn checkpoint_name(&self) -> CheckpointName {
        match self.node().user_name() {
            Some(name) => CheckpointName::new(&*name),
            None => CheckpointName::new(format!("{}-{}", self.node().operation(), self.id().0)),
        }
    }

    fn checkpoint_store(&self) -> Result<&CheckpointStore, Error> {
        checkpoints(self.context(), || format!("dataset {} cannot be checkpointed", self.label()))
    }

    fn in_progress(&self, current: &Request, asked: &CheckpointName) -> Error {
        Error::CheckpointInProgress {
            dataset: self.label(),
            current: current.name.as_str().to_owned(),
            requested: asked.as_str().to_owned(),
        }
    }
}

/// What a checkpoint of a dataset is going to hold.
fn spec<T: Portable>(dataset: &Dataset<T>, name: &CheckpointName) -> Spec {
    Spec::new(dataset.partitions(), CodecId::BINCODE)
        .record_type(name.record_type::<T>())
        .schema(schema::<T>())
        .partitioner(dataset.partitioner().map(written_partitioner))
}

pub(crate) fn checkpoints(
    context: &Context,
    what: impl FnOnce() -> String,
) -> Result<&CheckpointStore, Error> {
    context.checkpoints().ok_or_else(|| Error::NoCheckpoints { what: what() })
}
