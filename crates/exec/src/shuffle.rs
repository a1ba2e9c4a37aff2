//! Shuffles: map tasks leave blocks in the store, reduce tasks read their slice of every map output.
//!
//! A shuffle is one dataset of the store. The block that map partition `m` leaves for reduce partition `r` has the
//! number `m * reduces + r`; where there is no record there is no block. Reducers read in the order of the map
//! partitions, so the result does not depend on which task ran when.

use std::sync::Arc;
use std::time::Duration;

use larder_blockstore::codec::Bincode;
use larder_blockstore::{BlockStore, BlockWriter, Entry, Finished, Pushed, StorageLevel, StoredDataset};
use larder_lineage::NodeId;
use parking_lot::{Condvar, Mutex};

use crate::batch::Batch;
use crate::data::{Data, Key, Portable};
use crate::error::{Cause, Error, TaskError};
use crate::ops::combine::{Aggregate, Table};
use crate::partitioner::hash_partition;
use crate::persist::BlockSource;
use crate::pipeline::{AnySource, Pipeline, Source};
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
}

/// The output of one map task.
enum Output {
    Missing,
    Running,
    /// For which reduce partitions there is a block.
    Done(Box<[bool]>),
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
        if maps.checked_mul(reduces).is_none() {
            let problem = format!(
                "{maps} map partitions times {reduces} reduce partitions are too many; `coalesce` or ask for fewer"
            );
            return Err(Error::Argument { operation, problem });
        }
        let level = match store.disk() {
            Some(_) => StorageLevel::MEMORY_AND_DISK_SER,
            None => StorageLevel::MEMORY_ONLY_SER,
        };
        // Blocks of a serialized level are charged for their bytes; what records own on the heap is not asked for.
        let builder = store.dataset_with::<W>(&format!("shuffle of {operation}"), Bincode, |_| 0);
        let blocks = builder.level(level).build()?;
        let outputs = Mutex::new((0..maps).map(|_| Output::Missing).collect());
        let shared = Arc::new(Shared { blocks, reduces, outputs, settled: Condvar::new() });
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
        Ok(AnySource::flat(Reader { shared, reduce_partition, next_map: 0, open: None }))
    }

    #[cfg(test)]
    fn lose_block(&self, map_partition: u32, reduce_partition: u32) -> bool {
        self.shared.blocks.remove(self.shared.block(map_partition, reduce_partition))
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

    /// The number of a block; the product was checked to fit.
    fn block(&self, map_partition: u32, reduce_partition: u32) -> u32 {
        map_partition * self.reduces + reduce_partition
    }

    /// A block of this map output is gone: the map task is to run again.
    fn lose(&self, map_partition: u32) -> TaskError {
        let mut outputs = self.outputs.lock();
        if let Some(output @ Output::Done(_)) = outputs.get_mut(map_partition as usize) {
            *output = Output::Missing;
        }
        TaskError::Lost
    }

    fn has_block(&self, map_partition: u32, reduce_partition: u32) -> Option<bool> {
        match self.outputs.lock().get(map_partition as usize)? {
            Output::Done(blocks) => blocks.get(reduce_partition as usize).copied(),
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
    fn done(mut self, blocks: Box<[bool]>) {
        self.outcome = Output::Done(blocks);
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

/// Where a map task puts its records: one block for each reduce partition that gets any.
pub(crate) struct MapWriter<W: Portable> {
    shared: Arc<Shared<W>>,
    map_partition: u32,
    writers: Vec<Option<BlockWriter<W>>>,
}

impl<W: Portable> MapWriter<W> {
    fn new(shared: &Arc<Shared<W>>, map_partition: u32) -> Self {
        let writers = (0..shared.reduces).map(|_| None).collect();
        Self { shared: Arc::clone(shared), map_partition, writers }
    }

    pub(crate) fn reduces(&self) -> u32 {
        self.shared.reduces
    }

    pub(crate) fn map_partition(&self) -> u32 {
        self.map_partition
    }

    pub(crate) fn push(&mut self, reduce_partition: u32, record: W) -> Result<(), TaskError> {
        match self.writer(reduce_partition)?.push(record).map_err(Cause::from)? {
            Pushed::Kept => Ok(()),
            Pushed::Refused(_) => Err(Cause::ShuffleRefused.into()),
        }
    }

    /// As [`push`](Self::push), of a record that stays where it is.
    pub(crate) fn push_ref(&mut self, reduce_partition: u32, record: &W) -> Result<(), TaskError> {
        let writer = self.writer(reduce_partition)?;
        let kept = writer.push_slice(std::slice::from_ref(record)).map_err(Cause::from)?;
        if kept == 1 { Ok(()) } else { Err(Cause::ShuffleRefused.into()) }
    }

    fn writer(&mut self, reduce_partition: u32) -> Result<&mut BlockWriter<W>, TaskError> {
        let writer = self.writers.get_mut(reduce_partition as usize).ok_or(TaskError::Stale)?;
        if writer.is_none() {
            let block = self.shared.block(self.map_partition, reduce_partition);
            *writer = Some(vacate(&self.shared.blocks, block)?);
        }
        writer.as_mut().ok_or(TaskError::Stale)
    }

    /// Stores the blocks; for which reduce partitions there is one.
    fn finish(self) -> Result<Box<[bool]>, TaskError> {
        self.writers
            .into_iter()
            .map(|writer| {
                let Some(writer) = writer else { return Ok(false) };
                match writer.finish().map_err(Cause::from)? {
                    Finished::Stored(_) => Ok(true),
                    Finished::Refused(_) => Err(Cause::ShuffleRefused.into()),
                }
            })
            .collect()
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
    open: Option<(u32, BlockSource<W>)>,
}

impl<W: Portable> Source<W> for Reader<W> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<W>>, TaskError> {
        loop {
            if let Some((map_partition, block)) = &mut self.open {
                match block.next_batch(records_max) {
                    Ok(Some(batch)) => return Ok(Some(batch)),
                    Ok(None) => self.open = None,
                    Err(error) if error.is_lost_copy() => return Err(self.shared.lose(*map_partition)),
                    Err(error) => return Err(Cause::from(error).into()),
                }
            }
            let map_partition = self.next_map;
            if map_partition as usize >= self.shared.outputs.lock().len() {
                return Ok(None);
            }
            self.next_map += 1;
            match self.shared.has_block(map_partition, self.reduce_partition) {
                None => return Err(TaskError::Lost),
                Some(false) => continue,
                Some(true) => {}
            }
            match self.shared.blocks.get(self.shared.block(map_partition, self.reduce_partition)) {
                Ok(Some(block)) => self.open = Some((map_partition, BlockSource::new(block))),
                Ok(None) => return Err(self.shared.lose(map_partition)),
                Err(error) if error.is_lost_copy() => return Err(self.shared.lose(map_partition)),
                Err(error) => return Err(Cause::from(error).into()),
            }
        }
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
    aggregate: Arc<A>,
    types: std::marker::PhantomData<fn(V) -> C>,
}

impl<V, C, A> CombineByKey<V, C, A> {
    pub(crate) fn new(aggregate: &Arc<A>) -> Self {
        Self { aggregate: Arc::clone(aggregate), types: std::marker::PhantomData }
    }
}

impl<K: Key, V: Data, C: Portable, A: Aggregate<V, C>> MapSide<(K, C)> for CombineByKey<V, C, A> {
    fn run(&self, _task: &Task, mut input: Pipeline, out: &mut MapWriter<(K, C)>) -> Result<(), TaskError> {
        let reduces = out.reduces();
        let mut table = Table::<K, C>::new();
        input.for_each_batch::<(K, V)>(|batch| {
            table.add(batch, &*self.aggregate);
            Ok(())
        })?;
        drop(input);
        table.into_rows().try_for_each(|row| out.push(hash_partition(&row.0, reduces), row))
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
