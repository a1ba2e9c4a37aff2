//! Shuffles: map tasks leave blocks in the store, reduce tasks read their slice of every map output.
//!
//! A shuffle is one dataset of the store. A map task leaves its output in rounds of a few MiB: a block for each reduce
//! partition that got records in the round, so that neither its writers nor a reader hold much at a time. The first
//! round of map partition `m` has the block numbers from `m * reduces` on. Reducers read in the order of the map
//! partitions and of their rounds, so the result does not depend on which task ran when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder_blockstore::codec::Bincode;
use larder_blockstore::{
    Block, BlockStore, BlockWriter, Entry, Finished, Pushed, SerializedBlock, StorageLevel, StoredDataset,
};
use larder_lineage::NodeId;
use parking_lot::{Condvar, Mutex};

use crate::batch::{BATCH_RECORDS, Batch};
use crate::data::{Key, Portable};
use crate::error::{Cause, Error, TaskError};
use crate::ops::deferred::{BATCH_BYTES, Stream};
use crate::ops::step::{Adding, Aggregate};
use crate::ops::table::Table;
use crate::partitioner::hash_partition;
use crate::persist::BlockSource;
use crate::pipeline::{AnySource, Pipeline, Source};
use crate::spill::heap_bytes;
use crate::task::{Place, Task};

/// A shuffle, whatever its record type.
pub(crate) trait AnyShuffle: Send + Sync {
    /// Whether the map task of this partition left its output.
    fn has_output(&self, map_partition: u32) -> bool;

    /// Runs a map task for `child`, unless its output is there. Another thread's attempt at the same is waited for.
    fn run_map(
        &self,
        task: &Task,
        child: NodeId,
        map_partition: u32,
        open: &dyn Fn() -> Result<Pipeline, TaskError>,
    ) -> Result<(), TaskError>;

    /// Reads the slice of one reduce partition.
    fn read(&self, task: &Task, reduce_partition: u32) -> Result<AnySource, TaskError>;

    /// Removes a block behind the back of the planner.
    #[cfg(test)]
    fn lose_block(&self, map_partition: u32, reduce_partition: u32) -> bool;
}

/// What a map task does with its partition.
pub(crate) trait MapSide<W: Portable>: Send + Sync + 'static {
    /// Pushes every record to its reduce partition, in an order that depends on nothing but the input.
    fn run(&self, task: &Task, input: Pipeline, out: &mut MapWriter<W>) -> Result<(), TaskError>;
}

/// One shuffle of records of type `W`. Its blocks go when it drops.
pub(crate) struct Shuffle<W: Portable, M> {
    shared: Arc<Shared<W>>,
    map_side: M,
}

struct Shared<W: Portable> {
    blocks: StoredDataset<W>,
    reduces: u32,
    outputs: Mutex<Vec<Output>>,
    settled: Condvar,
    /// The first block number that no round has yet.
    next_block: AtomicU32,
}

/// The output of one map task.
enum Output {
    Missing,
    Running,
    Done(Box<[Round]>),
}

/// One round of a map task: a block for each reduce partition, or none for it.
struct Round {
    first_block: u32,
    has_block: Box<[bool]>,
}

impl Round {
    fn block(&self, reduce_partition: u32) -> Option<u32> {
        let has_block = self.has_block.get(reduce_partition as usize).copied().unwrap_or_default();
        has_block.then(|| self.first_block + reduce_partition)
    }

    fn blocks(&self) -> impl Iterator<Item = u32> {
        (0..self.has_block.len() as u32).filter_map(|partition| self.block(partition))
    }
}

impl<W: Portable, M: MapSide<W>> Shuffle<W, M> {
    /// # Errors
    /// [`Error::Argument`] when blocks would outnumber `u32`.
    pub(crate) fn new(
        store: &BlockStore,
        operation: &'static str,
        maps: u32,
        reduces: u32,
        map_side: M,
    ) -> Result<Arc<Self>, Error> {
        let Some(next_block) = maps.checked_mul(reduces) else {
            let problem = format!(
                "{maps} map partitions times {reduces} reduce partitions are too many; `coalesce` or ask for fewer"
            );
            return Err(Error::Argument { operation, problem });
        };
        let level = match store.disk() {
            Some(_) => StorageLevel::MEMORY_AND_DISK_SER,
            None => StorageLevel::MEMORY_ONLY_SER,
        };
        // Blocks of a serialized level are charged for their bytes; what records own on the heap is not asked for.
        let builder = store.dataset_with::<W>(&format!("shuffle of {operation}"), Bincode, |_| 0);
        let blocks = builder.level(level).build()?;
        let outputs = Mutex::new((0..maps).map(|_| Output::Missing).collect());
        let shared = Arc::new(Shared {
            blocks,
            reduces,
            outputs,
            settled: Condvar::new(),
            next_block: AtomicU32::new(next_block),
        });
        Ok(Arc::new(Self { shared, map_side }))
    }
}

impl<W: Portable, M: MapSide<W>> AnyShuffle for Shuffle<W, M> {
    fn has_output(&self, map_partition: u32) -> bool {
        let outputs = self.shared.outputs.lock();
        matches!(outputs.get(map_partition as usize), Some(Output::Done(_)))
    }

    fn run_map(
        &self,
        task: &Task,
        child: NodeId,
        map_partition: u32,
        open: &dyn Fn() -> Result<Pipeline, TaskError>,
    ) -> Result<(), TaskError> {
        let Some(claim) = self.shared.claim(task, map_partition)? else { return Ok(()) };
        let mut writer = MapWriter::new(&self.shared, map_partition);
        let input = open()?;
        task.working_on(Place::map_side_of(child, map_partition));
        self.map_side.run(task, input, &mut writer)?;
        claim.done(writer.finish()?);
        Ok(())
    }

    fn read(&self, _task: &Task, reduce_partition: u32) -> Result<AnySource, TaskError> {
        let shared = Arc::clone(&self.shared);
        Ok(AnySource::flat(Reader {
            shared,
            reduce_partition,
            next_map: 0,
            blocks: Vec::new().into_iter(),
            open: None,
        }))
    }

    #[cfg(test)]
    fn lose_block(&self, map_partition: u32, reduce_partition: u32) -> bool {
        let blocks = self.shared.blocks_of(map_partition, reduce_partition).unwrap_or_default();
        blocks.into_iter().filter(|block| self.shared.blocks.remove(*block)).count() > 0
    }
}

/// How long a waiter sleeps before it looks whether its job was cancelled.
const CANCEL_CHECK: Duration = Duration::from_millis(20);

impl<W: Portable> Shared<W> {
    /// The right to run a map task; none when its output is there.
    fn claim(&self, task: &Task, map_partition: u32) -> Result<Option<Claim<'_, W>>, TaskError> {
        let mut outputs = self.outputs.lock();
        loop {
            task.check()?;
            match outputs.get_mut(map_partition as usize) {
                None | Some(Output::Done(_)) => return Ok(None),
                Some(output @ Output::Missing) => {
                    *output = Output::Running;
                    return Ok(Some(Claim { shared: self, map_partition, outcome: Output::Missing }));
                }
                Some(Output::Running) => {
                    self.settled.wait_for(&mut outputs, CANCEL_CHECK);
                }
            }
        }
    }

    /// The block numbers of another round of a map task; none when they are used up.
    fn another_round(&self) -> Option<u32> {
        let grow = |next: u32| next.checked_add(self.reduces);
        self.next_block.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).ok()
    }

    /// A block of this map output is gone: the map task is to run again.
    fn lose(&self, map_partition: u32) -> TaskError {
        let mut lost = None;
        if let Some(output @ Output::Done(_)) = self.outputs.lock().get_mut(map_partition as usize) {
            lost = Some(std::mem::replace(output, Output::Missing));
        }
        if let Some(Output::Done(rounds)) = lost {
            self.remove(&rounds);
        }
        TaskError::Lost
    }

    fn remove(&self, rounds: &[Round]) {
        for block in rounds.iter().flat_map(Round::blocks) {
            self.blocks.remove(block);
        }
    }

    /// The blocks a map task left for a reduce partition, in order; none if it is to run again.
    fn blocks_of(&self, map_partition: u32, reduce_partition: u32) -> Option<Vec<u32>> {
        match self.outputs.lock().get(map_partition as usize)? {
            Output::Done(rounds) => {
                Some(rounds.iter().filter_map(|round| round.block(reduce_partition)).collect())
            }
            Output::Missing | Output::Running => None,
        }
    }
}

/// The right to run a map task. Without an outcome, the next one who asks gets it.
struct Claim<'a, W: Portable> {
    shared: &'a Shared<W>,
    map_partition: u32,
    outcome: Output,
}

impl<W: Portable> Claim<'_, W> {
    fn done(mut self, rounds: Box<[Round]>) {
        self.outcome = Output::Done(rounds);
    }
}

impl<W: Portable> Drop for Claim<'_, W> {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Output::Missing);
        if let Some(output) = self.shared.outputs.lock().get_mut(self.map_partition as usize) {
            *output = outcome;
        }
        self.shared.settled.notify_all();
    }
}

/// What a round of a map task holds, at least.
const ROUND_BYTES: usize = 2 << 20;

/// What a round holds for each reduce partition, at least, so that blocks do not become tiny.
const ROUND_BLOCK_BYTES: usize = 16 << 10;

/// One record of so many is measured.
const MEASURED_RECORDS: u32 = 16;

/// Where a map task puts its records: one block for each reduce partition that gets any in a round. What was written
/// goes when it drops unfinished.
pub(crate) struct MapWriter<W: Portable> {
    shared: Arc<Shared<W>>,
    map_partition: u32,
    first_block: u32,
    writers: Vec<Option<BlockWriter<W>>>,
    /// About what was pushed in this round.
    round_bytes: usize,
    round_bytes_max: usize,
    records: u32,
    /// What the last measured record owns.
    record_heap_bytes: usize,
    rounds: Vec<Round>,
}

impl<W: Portable> MapWriter<W> {
    fn new(shared: &Arc<Shared<W>>, map_partition: u32) -> Self {
        let reduces = shared.reduces as usize;
        Self {
            shared: Arc::clone(shared),
            map_partition,
            first_block: map_partition * shared.reduces,
            writers: (0..reduces).map(|_| None).collect(),
            round_bytes: 0,
            round_bytes_max: ROUND_BYTES.max(reduces.saturating_mul(ROUND_BLOCK_BYTES)),
            records: 0,
            record_heap_bytes: 0,
            rounds: Vec::new(),
        }
    }

    pub(crate) fn reduces(&self) -> u32 {
        self.shared.reduces
    }

    pub(crate) fn map_partition(&self) -> u32 {
        self.map_partition
    }

    pub(crate) fn push(&mut self, reduce_partition: u32, record: W) -> Result<(), TaskError> {
        self.count(&record)?;
        match self.writer(reduce_partition)?.push(record).map_err(Cause::from)? {
            Pushed::Kept => Ok(()),
            Pushed::Refused(_) => Err(Cause::ShuffleRefused.into()),
        }
    }

    /// As [`push`](Self::push), of a record that stays where it is.
    pub(crate) fn push_ref(&mut self, reduce_partition: u32, record: &W) -> Result<(), TaskError> {
        self.count(record)?;
        let writer = self.writer(reduce_partition)?;
        let kept = writer.push_slice(std::slice::from_ref(record)).map_err(Cause::from)?;
        if kept == 1 { Ok(()) } else { Err(Cause::ShuffleRefused.into()) }
    }

    #[inline]
    fn count(&mut self, record: &W) -> Result<(), TaskError> {
        if std::mem::needs_drop::<W>() {
            if self.records.is_multiple_of(MEASURED_RECORDS) {
                self.record_heap_bytes = heap_bytes(record);
            }
            self.records = self.records.wrapping_add(1);
        }
        if self.round_bytes >= self.round_bytes_max {
            self.begin_round()?;
        }
        self.round_bytes += size_of::<W>() + self.record_heap_bytes;
        Ok(())
    }

    #[cold]
    fn begin_round(&mut self) -> Result<(), TaskError> {
        if let Some(first_block) = self.shared.another_round() {
            self.end_round()?;
            self.first_block = first_block;
        }
        self.round_bytes = 0;
        Ok(())
    }

    /// Stores the blocks of the round.
    fn end_round(&mut self) -> Result<(), TaskError> {
        let mut round =
            Round { first_block: self.first_block, has_block: vec![false; self.writers.len()].into() };
        let mut stored = Ok(());
        for (writer, has_block) in self.writers.iter_mut().zip(&mut round.has_block) {
            let Some(writer) = writer.take() else { continue };
            stored = match writer.finish() {
                Ok(Finished::Stored(_)) => {
                    *has_block = true;
                    continue;
                }
                Ok(Finished::Refused(_)) => Err(Cause::ShuffleRefused.into()),
                Err(error) => Err(Cause::from(error).into()),
            };
            break;
        }
        self.rounds.push(round);
        stored
    }

    fn writer(&mut self, reduce_partition: u32) -> Result<&mut BlockWriter<W>, TaskError> {
        let writer = self.writers.get_mut(reduce_partition as usize).ok_or(TaskError::Stale)?;
        if writer.is_none() {
            *writer = Some(vacate(&self.shared.blocks, self.first_block + reduce_partition)?);
        }
        writer.as_mut().ok_or(TaskError::Stale)
    }

    fn finish(mut self) -> Result<Box<[Round]>, TaskError> {
        self.end_round()?;
        Ok(std::mem::take(&mut self.rounds).into())
    }
}

impl<W: Portable> Drop for MapWriter<W> {
    fn drop(&mut self) {
        self.shared.remove(&self.rounds);
    }
}

/// A writer for a block that only this thread may write. What an earlier attempt left there is removed.
fn vacate<W: Portable>(blocks: &StoredDataset<W>, block: u32) -> Result<BlockWriter<W>, TaskError> {
    loop {
        match blocks.entry(block).map_err(Cause::from)? {
            Entry::Vacant(writer) => return Ok(writer),
            Entry::Resident(_) => drop(blocks.remove(block)),
            Entry::InFlight(flight) => drop(flight.wait()),
        }
    }
}

/// Reads a reduce partition, map output by map output.
struct Reader<W: Portable> {
    shared: Arc<Shared<W>>,
    reduce_partition: u32,
    next_map: u32,
    /// Those of the last map output that are still to be read.
    blocks: std::vec::IntoIter<u32>,
    open: Option<Open<W>>,
}

struct Open<W> {
    block: BlockSource<W>,
    /// Fewer than usual where records are large.
    batch_records: usize,
}

impl<W: Portable> Source<W> for Reader<W> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<W>>, TaskError> {
        loop {
            if let Some(Open { block, batch_records }) = &mut self.open {
                match block.next_batch(records_max.min(*batch_records)) {
                    Ok(Some(batch)) => return Ok(Some(batch)),
                    Ok(None) => self.open = None,
                    Err(error) => return Err(self.failed(error)),
                }
            }
            let Some(block) = self.blocks.next() else {
                if self.next_map as usize >= self.shared.outputs.lock().len() {
                    return Ok(None);
                }
                let blocks = self.shared.blocks_of(self.next_map, self.reduce_partition);
                self.blocks = blocks.ok_or(TaskError::Lost)?.into_iter();
                self.next_map += 1;
                continue;
            };
            match self.shared.blocks.get(block) {
                Ok(Some(block)) => self.open = Some(Open::new(block)),
                Ok(None) => return Err(self.shared.lose(self.next_map - 1)),
                Err(error) => return Err(self.failed(error)),
            }
        }
    }
}

impl<W: Portable> Reader<W> {
    fn failed(&self, error: larder_blockstore::Error) -> TaskError {
        if error.is_lost_copy() { self.shared.lose(self.next_map - 1) } else { Cause::from(error).into() }
    }
}

impl<W: Portable> Open<W> {
    fn new(block: Block<W>) -> Self {
        let bytes = block.serialized().map_or(0, SerializedBlock::stored_bytes);
        let record_bytes = (bytes / block.len().max(1)).max(1);
        let batch_records = usize::try_from(BATCH_BYTES as u64 / record_bytes).unwrap_or(BATCH_RECORDS);
        Self { block: BlockSource::new(block), batch_records: batch_records.clamp(1, BATCH_RECORDS) }
    }
}

/// Pairs by the hash of their key, as they are.
pub(crate) struct ScatterByKey;

impl<K: Key, V: Portable> MapSide<(K, V)> for ScatterByKey {
    fn run(&self, _task: &Task, mut input: Pipeline, out: &mut MapWriter<(K, V)>) -> Result<(), TaskError> {
        let reduces = out.reduces();
        input.for_each_batch::<(K, V)>(|batch| match batch {
            Batch::Owned(records) => records
                .into_iter()
                .try_for_each(|record| out.push(hash_partition(&record.0, reduces), record)),
            Batch::Shared(_) => batch
                .as_slice()
                .iter()
                .try_for_each(|record| out.push_ref(hash_partition(&record.0, reduces), record)),
        })
    }
}

/// Pairs by the hash of their key, the values of each key combined first.
pub(crate) struct CombineByKey<V, C, A> {
    step: Arc<Adding<A>>,
    types: std::marker::PhantomData<fn(V) -> C>,
}

impl<V, C, A> CombineByKey<V, C, A> {
    pub(crate) fn new(aggregate: &Arc<A>) -> Self {
        Self { step: Arc::new(Adding(Arc::clone(aggregate))), types: std::marker::PhantomData }
    }
}

impl<K: Key, V: Portable, C: Portable, A: Aggregate<V, C>> MapSide<(K, C)> for CombineByKey<V, C, A> {
    fn run(&self, task: &Task, mut input: Pipeline, out: &mut MapWriter<(K, C)>) -> Result<(), TaskError> {
        let reduces = out.reduces();
        let mut table = Table::<K, V, C, _>::new(task, Arc::clone(&self.step))?;
        input.for_each_batch::<(K, V)>(|batch| table.add(batch))?;
        drop(input);
        let mut rows = table.into_rows();
        while let Some(row) = rows.next()? {
            out.push(hash_partition(&row.0, reduces), row)?;
        }
        Ok(())
    }
}

/// Records one after the other to the next reduce partition, so that all become about equally large.
pub(crate) struct RoundRobin;

impl<T: Portable> MapSide<T> for RoundRobin {
    fn run(&self, _task: &Task, mut input: Pipeline, out: &mut MapWriter<T>) -> Result<(), TaskError> {
        let reduces = out.reduces();
        // Each map task begins elsewhere, or many small ones would all fill the first partition.
        let mut next = hash_partition(&out.map_partition(), reduces);
        input.for_each_batch::<T>(|batch| {
            for record in batch.as_slice() {
                out.push_ref(next, record)?;
                next = if next + 1 < reduces { next + 1 } else { 0 };
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::context::Context;
    use crate::error::Error;

    #[test]
    fn a_lost_map_output_is_computed_again_alone() -> Result<(), Error> {
        let context = Context::builder().threads(2).progress(false).build()?;
        let computed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&computed);
        let source = context.range(0..1_000, 4)?.map(move |n| {
            counter.fetch_add(1, Ordering::Relaxed);
            (n % 10, *n)
        });
        let sums = source.reduce_by_key(|a, b| a + b)?;
        let expected = sums.collect()?;
        assert_eq!(computed.load(Ordering::Relaxed), 1_000);
        let shuffle = sums.node().shuffle(0).unwrap();
        assert!(shuffle.lose_block(2, 1));
        assert_eq!(sums.collect()?, expected);
        assert_eq!(computed.load(Ordering::Relaxed), 1_250);
        Ok(())
    }

    #[test]
    fn what_is_lost_again_and_again_is_given_up_with_an_error() -> Result<(), Error> {
        let context = Context::builder().threads(1).progress(false).build()?;
        let sums = context.range(0..10, 2)?.map(|n| (n % 2, *n)).group_by_key()?;
        let shuffle = sums.node().shuffle(0).unwrap();
        let lost = sums.run(&|_, mut pipeline| {
            pipeline.for_each_batch::<(i64, Vec<i64>)>(|_| Ok(()))?;
            shuffle.lose_block(0, 0);
            Err::<(), _>(super::TaskError::Lost)
        });
        assert!(matches!(lost, Err(Error::LostTooOften { .. })), "{lost:?}");
        assert_eq!(sums.count()?, 2, "the context and the dataset go on");
        Ok(())
    }
}
