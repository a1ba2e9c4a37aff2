//! Persisted datasets: their blocks in the store, and how tasks read and fill them.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use larder_blockstore::codec::{Bincode, CodecId};
use larder_blockstore::format::{Chunk, ChunkEncoder, Compression};
use larder_blockstore::{
    Block, BlockWriter, Counters, DatasetStatus, Entry, Error as StoreError, Finished, Flight, OwnedBatches,
    Record, SerializedBlock, StorageLevel, StoredDataset, Unrolled,
};
use larder_checkpoint::{Attempt, PartWriter};
use larder_lineage::NodeId;

use crate::batch::{BATCH_RECORDS, Batch, SharedBatch, SharedCursor, Slices};
use crate::checkpoint::{Buffers, PartMemory};
use crate::data::Data;
use crate::error::{Cause, TaskError};
use crate::job::CANCEL_CHECK;
use crate::pipeline::{AnySource, Pipeline, Source, Visit};
use crate::task::{Clock, Place, Task};

/// The stored blocks of one dataset, whatever its record type.
pub(crate) trait Persisted: Send + Sync {
    fn level(&self) -> StorageLevel;

    /// Whether the block has a copy.
    fn contains(&self, partition: u32) -> bool;

    /// Pins the block, if it has a copy.
    fn open(&self, task: &Task, place: Place) -> Result<Option<Pipeline>, TaskError>;

    /// The block; written from `computed` if it is not there, and kept if there is room.
    fn fill(&self, task: &Task, place: Place, computed: Pipeline) -> Result<Filled, TaskError>;

    /// Writes a block that has a copy as a part of a checkpoint, and gives its bytes; none if it has no copy. Bytes
    /// go over as they are, and are the block's until they are there. `before_chunk` is told how many bytes come next.
    fn write_part(
        &self,
        partition: u32,
        attempt: &Attempt,
        memory: &PartMemory,
        before_chunk: &mut dyn FnMut(u64) -> Result<(), TaskError>,
    ) -> Result<Option<u64>, TaskError>;

    /// Removes a block; whether there was one.
    fn remove(&self, partition: u32) -> bool;

    fn status(&self) -> DatasetStatus;

    /// Makes the blocks the dataset's own: they stay when its last handle drops, until the dataset itself goes.
    fn keep_with_dataset(&self);

    fn stays_with_dataset(&self) -> bool;
}

/// A pipeline that reads a block that was to be filled.
pub(crate) enum Filled {
    /// It was there, or another task wrote it.
    Found(Pipeline),
    /// It is there now, and this is how long it took to compute.
    Stored(Pipeline, Duration),
    /// There was no room: what is left of it is computed as it is read.
    Refused(Pipeline),
}

impl Filled {
    pub(crate) fn pipeline(self) -> Pipeline {
        match self {
            Self::Found(pipeline) | Self::Stored(pipeline, _) | Self::Refused(pipeline) => pipeline,
        }
    }
}

/// A persisted dataset, as it is stored right now. Made by [`Context::storage`](crate::Context::storage).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StorageStatus {
    /// Which dataset.
    pub id: NodeId,
    /// Its name, or else its operation.
    pub name: String,
    /// The level it was persisted at.
    pub level: StorageLevel,
    /// How many partitions it has.
    pub partitions: u32,
    /// How many of them are stored.
    pub cached_partitions: u32,
    /// Records in those.
    pub records: u64,
    /// Bytes on the heap.
    pub heap_bytes: u64,
    /// Bytes in the off-heap arena.
    pub off_heap_bytes: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// How long its partitions took to compute, as far as they were: each the last time it was stored, added up.
    /// What they were computed from counts for them, unless that was stored or shuffled itself.
    pub compute_time: Duration,
    /// Hits, misses, evictions and so on, since it was persisted.
    pub counters: Counters,
}

/// Blocks of records of type `T`.
pub(crate) struct Blocks<T: Send + Sync + 'static> {
    stored: StoredDataset<T>,
    stays: AtomicBool,
}

impl<T: Record + Data> Blocks<T> {
    pub(crate) fn new(stored: StoredDataset<T>) -> Arc<Self> {
        Arc::new(Self { stored, stays: AtomicBool::new(false) })
    }
}

impl<T: Record + Data> Persisted for Blocks<T> {
    fn level(&self) -> StorageLevel {
        self.stored.level()
    }

    fn contains(&self, partition: u32) -> bool {
        self.stored.contains(partition)
    }

    fn open(&self, task: &Task, place: Place) -> Result<Option<Pipeline>, TaskError> {
        match self.stored.get(place.partition) {
            Ok(block) => Ok(block.map(|block| read(task, place, block))),
            // The damaged copy was discarded; the block is computed again.
            Err(error) if error.is_lost_copy() => Ok(None),
            Err(error) => Err(Cause::from(error).into()),
        }
    }

    fn fill(&self, task: &Task, place: Place, computed: Pipeline) -> Result<Filled, TaskError> {
        loop {
            match self.stored.entry(place.partition).map_err(Cause::from)? {
                Entry::Resident(block) => return Ok(Filled::Found(read(task, place, block))),
                Entry::Vacant(mut writer) => {
                    writer.computes_on_this_thread();
                    return write(task, place, writer, computed);
                }
                Entry::InFlight(flight) => {
                    let clock = task.clock();
                    let block = wait(task, &flight)?;
                    clock.stop(task);
                    if let Some(block) = block {
                        return Ok(Filled::Found(read(task, place, block)));
                    }
                }
            }
        }
    }

    fn write_part(
        &self,
        partition: u32,
        attempt: &Attempt,
        memory: &PartMemory,
        before_chunk: &mut dyn FnMut(u64) -> Result<(), TaskError>,
    ) -> Result<Option<u64>, TaskError> {
        let block = match self.stored.get(partition) {
            Ok(Some(block)) => block,
            Ok(None) => return Ok(None),
            Err(error) if error.is_lost_copy() => return Ok(None),
            Err(error) => return Err(Cause::from(error).into()),
        };
        match write_block(&block, memory.start(attempt, partition).map_err(Cause::from)?, before_chunk) {
            Err(TaskError::Failed(cause)) if is_damaged_copy(&cause) => {
                drop(block);
                self.stored.remove(partition);
                Ok(None)
            }
            written => written.map(Some),
        }
    }

    fn remove(&self, partition: u32) -> bool {
        self.stored.remove(partition)
    }

    fn status(&self) -> DatasetStatus {
        self.stored.status()
    }

    fn keep_with_dataset(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    fn stays_with_dataset(&self) -> bool {
        self.stays.load(Ordering::Relaxed)
    }
}

/// Blocks on their way from one level to another: what the old level has is moved rather than computed.
pub(crate) struct Moving {
    pub(crate) from: Arc<dyn Persisted>,
    pub(crate) to: Arc<dyn Persisted>,
}

impl Persisted for Moving {
    fn level(&self) -> StorageLevel {
        self.to.level()
    }

    fn contains(&self, partition: u32) -> bool {
        self.to.contains(partition) || self.from.contains(partition)
    }

    fn open(&self, task: &Task, place: Place) -> Result<Option<Pipeline>, TaskError> {
        if let Some(block) = self.to.open(task, place)? {
            return Ok(Some(block));
        }
        match self.from.open(task, place)? {
            // The time this takes is not what computing it takes.
            Some(block) => self.to.fill(task, place, block).map(|moved| Some(moved.pipeline())),
            None => Ok(None),
        }
    }

    fn fill(&self, task: &Task, place: Place, computed: Pipeline) -> Result<Filled, TaskError> {
        self.to.fill(task, place, computed)
    }

    fn write_part(
        &self,
        partition: u32,
        attempt: &Attempt,
        memory: &PartMemory,
        before_chunk: &mut dyn FnMut(u64) -> Result<(), TaskError>,
    ) -> Result<Option<u64>, TaskError> {
        let blocks = if self.to.contains(partition) { &self.to } else { &self.from };
        blocks.write_part(partition, attempt, memory, before_chunk)
    }

    fn remove(&self, partition: u32) -> bool {
        let removed = self.from.remove(partition);
        self.to.remove(partition) || removed
    }

    fn status(&self) -> DatasetStatus {
        self.to.status()
    }

    fn keep_with_dataset(&self) {
        self.to.keep_with_dataset();
    }

    fn stays_with_dataset(&self) -> bool {
        self.to.stays_with_dataset()
    }
}

/// Whether what was to be written to a checkpoint is not what was sealed.
fn is_damaged_copy(cause: &Cause) -> bool {
    matches!(cause, Cause::Checkpoint(larder_checkpoint::Error::Part { .. }))
}

/// Writes a pinned block as a part: chunks that are sealed already as they are, all else encoded as it goes.
fn write_block<T: Record + Data>(
    block: &Block<T>,
    (mut part, mut buffers): (PartWriter, Buffers),
    before_chunk: &mut dyn FnMut(u64) -> Result<(), TaskError>,
) -> Result<u64, TaskError> {
    let mut bytes = 0;
    let mut write = |part: &mut PartWriter, chunk: &Chunk| {
        let stored = chunk.stored_len() as u64;
        before_chunk(stored)?;
        bytes += stored;
        part.write(chunk).map_err(|e| TaskError::from(Cause::from(e)))
    };
    let as_it_is = |bytes: &&SerializedBlock| {
        bytes.codec() == CodecId::BINCODE && bytes.compression() == Compression::None
    };
    match block.serialized().filter(as_it_is) {
        Some(serialized) => {
            let mut before: Option<&Chunk> = None;
            for chunk in serialized.chunks() {
                write(&mut part, chunk)?;
                // The writer may hold one back until the next comes.
                before.replace(chunk).inspect(|before| block.release(before));
            }
        }
        None => {
            let mut encoder = ChunkEncoder::new(Arc::new(Bincode), Compression::None, part.chunk_bytes());
            let mut batches = block.batches();
            while let Some(batch) = batches.next_batch().map_err(Cause::from)? {
                for record in batch {
                    if let Some(chunk) = encoder.push(record).map_err(TaskError::user)? {
                        write(&mut part, &chunk)?;
                    }
                    buffers.cover(encoder.buffer_bytes() as u64 + part.held_bytes());
                }
            }
            encoder.finish().iter().try_for_each(|chunk| write(&mut part, chunk))?;
        }
    }
    part.finish().map_err(Cause::from)?;
    Ok(bytes)
}

/// A pipeline that reads a pinned block.
fn read<T: Record + Data>(task: &Task, place: Place, block: Block<T>) -> Pipeline {
    Pipeline::new(task, place, AnySource::flat(BlockSource::new(block)))
}

/// Reads a pinned block: values where they lie, other copies decoded batch by batch.
pub(crate) enum BlockSource<T> {
    Values(SharedCursor<T>),
    /// None once they are only looked at.
    Bytes(Option<OwnedBatches<T>>),
}

struct PinnedValues<T>(Block<T>);

impl<T> Slices<T> for PinnedValues<T> {
    fn slice(&self, index: usize) -> &[T] {
        self.0.slices().and_then(|mut slices| slices.nth(index)).unwrap_or_default()
    }
}

impl<T: Data> BlockSource<T> {
    pub(crate) fn new(block: Block<T>) -> Self {
        match block.slices().map(Iterator::count) {
            Some(slices) => Self::Values(SharedCursor::new(Rc::new(PinnedValues(block)), slices)),
            None => Self::Bytes(Some(block.into_batches())),
        }
    }

    pub(crate) fn next_batch(&mut self, records_max: usize) -> Result<Option<Batch<T>>, StoreError> {
        match self {
            Self::Values(cursor) => Ok(cursor.next(records_max)),
            Self::Bytes(None) => Ok(None),
            Self::Bytes(Some(batches)) => {
                let batch = batches.next_owned(records_max.min(BATCH_RECORDS))?;
                Ok(batch.map(Batch::Owned))
            }
        }
    }
}

impl<T: Data> Source<T> for BlockSource<T> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        Ok(self.next_batch(records_max).map_err(Cause::from)?)
    }

    fn len(&self) -> Option<u64> {
        match self {
            Self::Values(_) => None,
            Self::Bytes(batches) => batches.as_ref().map(|batches| batches.block().len()),
        }
    }

    fn visit(&mut self) -> Option<Visit<T>> {
        match self {
            Self::Values(_) => None,
            Self::Bytes(batches) => batches.take().map(Visit::Block),
        }
    }
}

/// Moves what a pipeline computes into the store. When memory is refused, the result reads what was kept and then
/// the rest of the pipeline.
fn write<T: Record + Data>(
    task: &Task,
    place: Place,
    mut writer: BlockWriter<T>,
    mut computed: Pipeline,
) -> Result<Filled, TaskError> {
    let clock = task.clock();
    while let Some(batch) = computed.next::<T>(usize::MAX)? {
        if let Some(rest) = append(&mut writer, batch)? {
            let unrolled = Some(writer.into_unrolled());
            return Ok(refused(task, place, clock, Uncached { unrolled, rest: Some(rest), computed }));
        }
    }
    task.working_on(place);
    match writer.finish().map_err(Cause::from)? {
        Finished::Stored(block) => {
            let time = computed.effort().of(clock.stop(task));
            Ok(Filled::Stored(read(task, place, block), time))
        }
        Finished::Refused(unrolled) => {
            let unrolled = Some(unrolled);
            Ok(refused(task, place, clock, Uncached { unrolled, rest: None, computed }))
        }
    }
}

/// Appends a batch; what is left of it if memory was refused.
fn append<T: Record + Data>(
    writer: &mut BlockWriter<T>,
    batch: Batch<T>,
) -> Result<Option<Batch<T>>, TaskError> {
    match batch {
        Batch::Owned(mut records) => {
            writer.append(&mut records).map_err(Cause::from)?;
            Ok(if records.is_empty() { None } else { Some(Batch::Owned(records)) })
        }
        Batch::Shared(shared) => {
            let records = Batch::Shared(shared.clone());
            let kept = writer.push_slice(records.as_slice()).map_err(Cause::from)?;
            if kept == records.len() {
                return Ok(None);
            }
            let range = shared.range.start + kept..shared.range.end;
            Ok(Some(Batch::Shared(SharedBatch { range, ..shared })))
        }
    }
}

fn refused<T: Data>(task: &Task, place: Place, clock: Clock, block: Uncached<T>) -> Filled {
    let (depth, mut effort) = (block.computed.depth(), block.computed.effort());
    effort.spent += clock.read(task);
    let mut pipeline = Pipeline::new(task, place, AnySource::around(depth, block));
    pipeline.add_effort(effort);
    Filled::Refused(pipeline)
}

/// A block that found no room: the records that were kept, and those not yet computed.
struct Uncached<T> {
    unrolled: Option<Unrolled<T>>,
    rest: Option<Batch<T>>,
    computed: Pipeline,
}

impl<T: Data> Source<T> for Uncached<T> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        if let Some(unrolled) = &mut self.unrolled {
            if let Some(batch) = unrolled.next_batch().map_err(Cause::from)? {
                return Ok(Some(Batch::Owned(batch)));
            }
            self.unrolled = None;
        }
        match self.rest.take() {
            Some(rest) => Ok(Some(rest)),
            None => self.computed.next(records_max),
        }
    }
}

/// Waits for another writer of a block, unless the job ends meanwhile.
fn wait<T: Data>(task: &Task, flight: &Flight<T>) -> Result<Option<Block<T>>, TaskError> {
    loop {
        task.check()?;
        if let Poll::Ready(block) = flight.wait_timeout(CANCEL_CHECK).map_err(Cause::from)? {
            return Ok(block);
        }
    }
}
