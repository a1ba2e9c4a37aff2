//! Opening checkpoints as datasets.

use std::sync::Arc;

use larder_blockstore::codec::Bincode;
use larder_checkpoint::{Checkpoint, Records};

use super::{Buffers, CheckpointInfo, CheckpointName, PartMemory, checkpoints};
use crate::batch::{BATCH_RECORDS, Batch};
use crate::context::Context;
use crate::data::Portable;
use crate::dataset::Dataset;
use crate::error::{Cause, Error, TaskError};
use crate::node::{Compute, Node, OpenLeaf};
use crate::partitioner::Partitioner;
use crate::pipeline::{AnySource, Source, Visit};
use crate::schema::schema;
use crate::task::Task;

pub(super) fn open_parts<T: Portable>(checkpoint: Checkpoint) -> Arc<OpenLeaf> {
    Arc::new(move |task: &Task, partition| {
        let (part, buffers) =
            PartMemory::of(task.context()).read(&checkpoint, partition).map_err(Cause::from)?;
        let records = part.records::<T>(Arc::new(Bincode)).map_err(Cause::from)?;
        Ok(AnySource::flat(PartSource(Some((records, buffers)))))
    })
}

/// None once its records are only looked at.
struct PartSource<T>(Option<(Records<T>, Buffers)>);

impl<T: 'static> Source<T> for PartSource<T> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        let Some((records, _)) = &mut self.0 else { return Ok(None) };
        let records = records.by_ref().take(records_max.min(BATCH_RECORDS));
        let batch = records.collect::<Result<Vec<T>, _>>().map_err(Cause::from)?;
        Ok(if batch.is_empty() { None } else { Some(Batch::Owned(batch)) })
    }

    fn visit(&mut self) -> Option<Visit<T>> {
        self.0.take().map(|(records, _buffers)| Visit::Part { records: Box::new(records), _buffers })
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
    /// [`Error::NoCheckpoints`]; [`Error::WrongRecordType`] and [`Error::WrongRecordShape`] when its records are not
    /// of type `T`; [`Error::WrongPartitioner`]; [`Error::Checkpoint`].
    pub fn open_latest_checkpoint<T: Portable>(
        &self,
        name: impl Into<CheckpointName>,
    ) -> Result<Option<Dataset<T>>, Error> {
        let name = name.into();
        let checkpoints = checkpoints(self, || format!("checkpoint `{}` cannot be opened", name.as_str()))?;
        let latest = checkpoints.latest(name.as_str())?;
        latest.map(|checkpoint| self.read_checkpoint(checkpoint, &name)).transpose()
    }

    /// As [`open_checkpoint`](Self::open_checkpoint), for one generation of the name instead of the newest.
    ///
    /// # Errors
    /// As [`open_checkpoint`](Self::open_checkpoint); [`Error::Checkpoint`] when there is no such generation.
    pub fn open_checkpoint_generation<T: Portable>(
        &self,
        name: impl Into<CheckpointName>,
        generation: u64,
    ) -> Result<Dataset<T>, Error> {
        let name = name.into();
        let checkpoints = checkpoints(self, || format!("checkpoint `{}` cannot be opened", name.as_str()))?;
        self.read_checkpoint(checkpoints.open_generation(name.as_str(), generation)?, &name)
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
        check_type::<T>(&checkpoint, asked)?;
        let name = checkpoint.manifest().dataset.clone();
        let partitioner = read_partitioner(&checkpoint)?;
        let partitions = checkpoint.partitions();
        let compute = Compute::Leaf(open_parts::<T>(checkpoint));
        let node = Node::new::<T>("checkpoint", partitions, partitioner, compute, None);
        Ok(self.add::<T>(node, Vec::new())?.named(&name))
    }
}

/// How manifests call [`Partitioner::Hash`]; another hash would need another name.
const HASH: &str = "larder-hash-1";
const RANGE: &str = "range";

pub(super) fn written_partitioner(partitioner: &Partitioner) -> larder_checkpoint::Partitioner {
    let (kind, partitions) = match partitioner {
        Partitioner::Hash { partitions } => (HASH, *partitions),
        Partitioner::Range { partitions } => (RANGE, *partitions),
    };
    larder_checkpoint::Partitioner { kind: kind.to_owned(), partitions }
}

/// The partitioner of a checkpoint, if it has one of this engine. Joins rely on it.
fn read_partitioner(checkpoint: &Checkpoint) -> Result<Option<Partitioner>, Error> {
    let Some(found) = &checkpoint.manifest().partitioner else { return Ok(None) };
    let partitions = found.partitions;
    let partitioner = match found.kind.as_str() {
        HASH => Partitioner::Hash { partitions },
        RANGE => Partitioner::Range { partitions },
        _ => return Ok(None),
    };
    if partitions == checkpoint.partitions() {
        return Ok(Some(partitioner));
    }
    Err(Error::WrongPartitioner {
        address: checkpoint.address(),
        partitioner: found.kind.clone(),
        into: partitions,
        partitions: checkpoint.partitions(),
    })
}

/// Sees that the records of a checkpoint are of type `T`.
///
/// Where both shapes are known, the bytes must be those of `T`, whatever anything is called; then either the names
/// agree as well, or the caller says what the writer called the records. Where they are not, what the types are
/// called has to do.
fn check_type<T: Portable>(checkpoint: &Checkpoint, asked: &CheckpointName) -> Result<(), Error> {
    let manifest = checkpoint.manifest();
    let found = &manifest.record_type;
    let (is_same, shapes) = match (&manifest.schema, schema::<T>()) {
        (Some(written), Some(expected)) => {
            if written.layout != expected.layout {
                let (found, expected) = (Box::new(written.clone()), Box::new(expected));
                return Err(Error::WrongRecordShape { address: checkpoint.address(), expected, found });
            }
            let is_same = match asked.declared() {
                Some(declared) => declared == found,
                None => *found == written.rust_type && expected.fingerprint == written.fingerprint,
            };
            (is_same, format!(" (`{}`, and here `{}`)", written.description, expected.description))
        }
        _ => (found == asked.record_type::<T>(), String::new()),
    };
    if is_same {
        return Ok(());
    }
    let (expected, found) = (asked.record_type::<T>().to_owned(), found.clone());
    Err(Error::WrongRecordType { address: checkpoint.address(), expected, found, shapes })
}
