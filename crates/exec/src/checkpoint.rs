//! Checkpoints of datasets: written in one pass, verified, committed, and only then the lineage is cut.

mod local;
mod name;
mod open;

use std::sync::Arc;

use larder_blockstore::codec::{Bincode, CodecId};
use larder_checkpoint::{Attempt, Checkpoint, CheckpointStore, Error as CheckpointError, Spec};

use self::open::{open_parts, written_partitioner};
use crate::context::Context;
use crate::data::Portable;
use crate::dataset::Dataset;
use crate::error::{Cause, Error, TaskError};
use crate::pipeline::Pipeline;
use crate::schema::schema;

pub use self::name::CheckpointName;

/// How often a commit of which nobody knows whether it took place is asked again.
const COMMIT_TRIES: u32 = 5;

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
    /// A dataset without a name gets one of its operation and number.
    ///
    /// # Errors
    /// [`Error::NoCheckpoints`]; [`Error::Checkpoint`]; as [`collect`](Self::collect) otherwise.
    pub fn checkpoint(&self) -> Result<CheckpointInfo, Error> {
        match self.node().user_name() {
            Some(name) => self.checkpoint_as(&*name),
            None => self.checkpoint_as(format!("{}-{}", self.node().operation(), self.id().0)),
        }
    }

    /// As [`checkpoint`](Self::checkpoint), under another name: a text, or a [`CheckpointName`] that also says what the
    /// records are called. The next checkpoint of a name is its next generation.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub fn checkpoint_as(&self, name: impl Into<CheckpointName>) -> Result<CheckpointInfo, Error> {
        let checkpoints =
            checkpoints(self.context(), || format!("dataset {} cannot be checkpointed", self.label()))?;
        let name = name.into();
        let partitioner = self.partitioner().map(written_partitioner);
        let spec = Spec::new(self.partitions(), CodecId::BINCODE)
            .record_type(name.record_type::<T>())
            .schema(schema::<T>())
            .partitioner(partitioner);
        let attempt = checkpoints.begin(name.as_str(), spec)?;
        let partitions = self.all_partitions();
        self.run(&|partition, pipeline| write_part::<T>(&attempt, partition, pipeline))?;
        self.context().run_tasks(self.id(), &partitions, &|task| {
            Ok(attempt.verify_part(task.partition()).map_err(Cause::from)?)
        })?;
        let checkpoint = commit(&attempt)?;
        let info = CheckpointInfo::of(&checkpoint);
        self.context().cut(self.id(), self.node(), open_parts::<T>(checkpoint))?;
        Ok(info)
    }
}

fn write_part<T: Portable>(
    attempt: &Attempt,
    partition: u32,
    mut pipeline: Pipeline,
) -> Result<(), TaskError> {
    let part = attempt.part(partition).map_err(Cause::from)?;
    let mut part = part.records::<T>(Arc::new(Bincode)).map_err(Cause::from)?;
    pipeline.for_each_batch::<T>(|batch| {
        batch.as_slice().iter().try_for_each(|record| Ok(part.push(record).map_err(Cause::from)?))
    })?;
    Ok(part.finish().map_err(Cause::from)?)
}

/// Commits, and asks again while it is unknown whether the commit took place.
fn commit(attempt: &Attempt) -> Result<Checkpoint, CheckpointError> {
    let mut tries = 1;
    loop {
        match attempt.commit() {
            Err(CheckpointError::CommitUnknown { .. }) if tries < COMMIT_TRIES => tries += 1,
            result => return result,
        }
    }
}

pub(crate) fn checkpoints(
    context: &Context,
    what: impl FnOnce() -> String,
) -> Result<&CheckpointStore, Error> {
    context.checkpoints().ok_or_else(|| Error::NoCheckpoints { what: what() })
}
