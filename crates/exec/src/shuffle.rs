//! Shuffles: map tasks leave blocks in the store, reduce tasks read their slice of every map output.
//!
//! A shuffle is one dataset of the store. A map task leaves its output in rounds of a few MiB: a block for each reduce
//! partition that got records in the round, so that neither its writers nor a reader hold much at a time. The first
//! round of map partition `m` has the block numbers from `m * reduces` on. Reducers read in the order of the map
//! partitions and of their rounds, so the result does not depend on which task ran when.

mod map_side;
mod map_writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder_blockstore::codec::Bincode;
use larder_blockstore::{Block, BlockStore, SerializedBlock, StorageLevel, StoredDataset};
use larder_lineage::NodeId;
use parking_lot::{Condvar, Mutex};

use crate::batch::{BATCH_RECORDS, Batch};
use crate::data::Portable;
use crate::error::{Cause, Error, TaskError};
use crate::ops::deferred::BATCH_BYTES;
use crate::persist::BlockSource;
use crate::pipeline::{AnySource, Pipeline, Source};
use crate::task::{Place, Task};

pub(crate) use map_side::{CombineByKey, RoundRobin, ScatterByKey};
pub(crate) use map_writer::MapWriter;
use map_writer::round_bytes;

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
    round_bytes: usize,
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
            round_bytes: round_bytes(store),
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
