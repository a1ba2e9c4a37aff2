//! Checkpoints of datasets: written in one pass, verified, committed, and only then the lineage is cut.

mod name;

use std::sync::Arc;

use larder_blockstore::Record;
use larder_blockstore::StorageLevel;
use larder_blockstore::codec::{Bincode, CodecId};
use larder_checkpoint::{Attempt, Checkpoint, CheckpointStore, Error as CheckpointError, Records, Spec};

use crate::batch::{BATCH_RECORDS, Batch};
use crate::context::Context;
use crate::data::{Data, Portable};
use crate::dataset::Dataset;
use crate::error::{Cause, Error, TaskError};
use crate::node::{Compute, Node, OpenLeaf};
use crate::partitioner::Partitioner;
use crate::persist::{Moving, Persisted};
use crate::pipeline::{AnySource, Pipeline, Source};
use crate::task::Task;

pub use self::name::CheckpointName;

/// How often a commit of which nobody knows whether it took place is asked again.
const COMMIT_TRIES: u32 = 5;

/// How often a local checkpoint fills blocks, where some are lost again before all are there.
const FILL_ROUNDS_MAX: u32 = 8;

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

fn open_parts<T: Portable>(checkpoint: Checkpoint) -> Arc<OpenLeaf> {
    Arc::new(move |_: &Task, partition| {
        let part = checkpoint.read_part(partition).map_err(Cause::from)?;
        let records = part.records::<T>(Arc::new(Bincode)).map_err(Cause::from)?;
        Ok(AnySource::flat(PartSource(records)))
    })
}

struct PartSource<T>(Records<T>);

impl<T: 'static> Source<T> for PartSource<T> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        let records = self.0.by_ref().take(records_max.min(BATCH_RECORDS));
        let batch = records.collect::<Result<Vec<T>, _>>().map_err(Cause::from)?;
        Ok(if batch.is_empty() { None } else { Some(Batch::Owned(batch)) })
    }
}

impl Context {
    /// The newest checkpoint of this name as a dataset: the same records in the same partitions, with their
    /// partitioner. The name is a text, or a [`CheckpointName`] that also says what the records are called.
    ///
    /// # Errors
    /// [`Error::NoSuchCheckpoint`]; as [`open_latest_checkpoint`](Self::open_latest_checkpoint) otherwise.
    pub fn open_checkpoint<T: Portable>(&self, name: impl Into<CheckpointName>) -> Result<Dataset<T>, Error> {
        let name = name.into();
        let opened = self.open_latest_checkpoint(name.clone())?;
        opened.ok_or_else(|| {
            let address = self.checkpoints().map(|checkpoints| checkpoints.address().to_string());
            Error::NoSuchCheckpoint { name: name.as_str().to_owned(), address: address.unwrap_or_default() }
        })
    }

    /// As [`open_checkpoint`](Self::open_checkpoint), for a program that goes on without one if there is none.
    ///
    /// # Errors
    /// [`Error::NoCheckpoints`]; [`Error::WrongRecordType`] when its records go by another name than those of `T`;
    /// [`Error::Checkpoint`].
    pub fn open_latest_checkpoint<T: Portable>(
        &self,
        name: impl Into<CheckpointName>,
    ) -> Result<Option<Dataset<T>>, Error> {
        let name = name.into();
        let checkpoints = checkpoints(self, || format!("checkpoint `{}` cannot be opened", name.as_str()))?;
        let latest = checkpoints.latest(name.as_str())?;
        latest.map(|checkpoint| self.read_checkpoint(checkpoint, &name)).transpose()
    }

    /// As [`open_checkpoint`](Self::open_checkpoint), but instead of the name takes the address that
    /// [`CheckpointInfo`] has; needs no checkpoint directory.
    ///
    /// # Errors
    /// As [`open_checkpoint`](Self::open_checkpoint).
    pub fn open_checkpoint_at<T: Portable>(
        &self,
        address: impl Into<CheckpointName>,
    ) -> Result<Dataset<T>, Error> {
        let address = address.into();
        self.read_checkpoint(Checkpoint::open(address.as_str())?, &address)
    }

    /// The newest checkpoint of this name, if there is one.
    ///
    /// # Errors
    /// [`Error::NoCheckpoints`] and [`Error::Checkpoint`].
    pub fn latest_checkpoint(&self, name: &str) -> Result<Option<CheckpointInfo>, Error> {
        let checkpoints = checkpoints(self, || format!("checkpoint `{name}` cannot be looked for"))?;
        Ok(checkpoints.latest(name)?.as_ref().map(CheckpointInfo::of))
    }

    fn read_checkpoint<T: Portable>(
        &self,
        checkpoint: Checkpoint,
        asked: &CheckpointName,
    ) -> Result<Dataset<T>, Error> {
        let manifest = checkpoint.manifest();
        let (found, expected) = (&manifest.record_type, asked.record_type::<T>());
        if found != expected {
            let (found, expected) = (found.clone(), expected.to_owned());
            return Err(Error::WrongRecordType { address: checkpoint.address(), expected, found });
        }
        let name = manifest.dataset.clone();
        let partitioner = manifest.partitioner.as_ref().and_then(read_partitioner);
        let partitions = checkpoint.partitions();
        let compute = Compute::Leaf(open_parts::<T>(checkpoint));
        let node = Node::new::<T>("checkpoint", partitions, partitioner, compute, None);
        Ok(self.add::<T>(node, Vec::new())?.named(&name))
    }
}

/// How manifests call [`Partitioner::Hash`]; another hash would need another name.
const HASH: &str = "larder-hash-1";
const RANGE: &str = "range";

fn written_partitioner(partitioner: &Partitioner) -> larder_checkpoint::Partitioner {
    let (kind, partitions) = match partitioner {
        Partitioner::Hash { partitions } => (HASH, *partitions),
        Partitioner::Range { partitions } => (RANGE, *partitions),
    };
    larder_checkpoint::Partitioner { kind: kind.to_owned(), partitions }
}

fn read_partitioner(partitioner: &larder_checkpoint::Partitioner) -> Option<Partitioner> {
    let partitions = partitioner.partitions;
    match partitioner.kind.as_str() {
        HASH => Some(Partitioner::Hash { partitions }),
        RANGE => Some(Partitioner::Range { partitions }),
        _ => None,
    }
}

impl<T: Record + Data> Dataset<T> {
    /// Computes all partitions, keeps them in the store, with its disk, and cuts the lineage. Fast, and good for long
    /// iterations; but a block that is lost afterwards cannot be computed again, and an action that needs it fails.
    /// [`checkpoint`](Self::checkpoint) is the durable way.
    ///
    /// The level is that of the dataset if it is persisted, else `MEMORY_AND_DISK`, and always with disk. The blocks
    /// then belong to the dataset rather than to its handles: they stay as long as something derived from it needs
    /// them. If anything fails, the dataset stays as it was.
    ///
    /// # Errors
    /// [`Error::Store`] when the store has no disk; [`Error::LocalCheckpointIncomplete`] when blocks did not stay in
    /// the store; as [`collect`](Self::collect) otherwise.
    pub fn local_checkpoint(&self) -> Result<(), Error> {
        let before = self.node().persisted();
        let level =
            before.as_ref().map_or(StorageLevel::MEMORY_AND_DISK, |before| before.level()).with_disk();
        let blocks = match &before {
            Some(before) if before.level() == level => Arc::clone(before),
            _ => self.blocks(level)?,
        };
        let filling: Arc<dyn Persisted> = match &before {
            Some(before) if before.level() != level => {
                Arc::new(Moving { from: Arc::clone(before), to: Arc::clone(&blocks) })
            }
            _ => Arc::clone(&blocks),
        };
        if let Err(error) = self.fill(&filling, &*blocks) {
            self.node().replace_persisted(before);
            return Err(error);
        }
        blocks.keep_with_dataset();
        self.node().replace_persisted(Some(blocks));
        self.context().note_persisted(self.id(), self.node());
        let lost: Arc<OpenLeaf> = Arc::new(|_: &Task, _| Err(Cause::LocalCheckpointLost.into()));
        self.context().cut(self.id(), self.node(), lost)
    }

    /// Has `filling` write all of `blocks`, and those again that were lost before all were there.
    fn fill(&self, filling: &Arc<dyn Persisted>, blocks: &dyn Persisted) -> Result<(), Error> {
        let mut missing = self.all_partitions();
        for _ in 0..FILL_ROUNDS_MAX {
            // In each round: another thread may have unpersisted the dataset in the last.
            self.node().replace_persisted(Some(Arc::clone(filling)));
            // Opening a partition of a persisted dataset fills it.
            self.context().run_job(self.id(), &missing, &|_, _, _| Ok(()))?;
            missing = (0..self.partitions()).filter(|&partition| !blocks.contains(partition)).collect();
            if missing.is_empty() {
                return Ok(());
            }
        }
        Err(Error::LocalCheckpointIncomplete {
            dataset: self.label(),
            missing: missing.len(),
            partitions: self.partitions(),
            rounds: FILL_ROUNDS_MAX,
        })
    }
}
