//! Shuffles: map tasks leave blocks in the store, reduce tasks read their slice of every one.
//!
//! A shuffle is one dataset of the store. A map task leaves its output in rounds of a few MiB, each of them one block:
//! its records in the order of their reduce partitions, and within one in the order in which they came. Where each
//! begins is kept here, so a reducer reads its slice of a block and nothing else. So there are as many blocks as
//! the data needs, however many partitions there are.
//!
//! Reducers read in the order of the map partitions and of their rounds, so the result depends neither on which task ran
//! when nor on how much memory rounds were granted. No two rounds have the same block number, not even those of two
//! attempts at one map task, whose slices may begin elsewhere.

mod held;
mod map_side;
mod map_writer;
mod output;
mod reader;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder_blockstore::codec::Bincode;
use larder_blockstore::{BlockStore, StorageLevel, StoredDataset};
use larder_lineage::NodeId;
use parking_lot::{Condvar, Mutex};

use crate::data::Portable;
use crate::error::{Cause, Error, TaskError};
use crate::pipeline::{AnySource, Pipeline};
use crate::task::{Place, Task};

pub(crate) use map_side::{CombineByKey, RoundRobin, ScatterByKey};
pub(crate) use map_writer::MapWriter;
use map_writer::RoundBytes;
use output::{Output, Round};
use reader::Reader;

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
    round_bytes: RoundBytes,
}

impl<W: Portable, M: MapSide<W>> Shuffle<W, M> {
    /// # Errors
    /// The store's.
    pub(crate) fn new(
        store: &BlockStore,
        operation: &'static str,
        maps: u32,
        reduces: u32,
        map_side: M,
    ) -> Result<Arc<Self>, Error> {
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
            next_block: AtomicU32::new(0),
            round_bytes: RoundBytes::new(store, reduces),
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
        let mut writer = MapWriter::new(&self.shared, task, map_partition)?;
        let input = open()?;
        task.working_on(Place::map_side_of(child, map_partition));
        self.map_side.run(task, input, &mut writer)?;
        claim.done(writer.finish()?);
        Ok(())
    }

    fn read(&self, _task: &Task, reduce_partition: u32) -> Result<AnySource, TaskError> {
        Ok(AnySource::flat(Reader::new(&self.shared, reduce_partition)))
    }

    #[cfg(test)]
    fn lose_block(&self, map_partition: u32, reduce_partition: u32) -> bool {
        let rounds = self.shared.rounds_of(map_partition).unwrap_or_else(|| Arc::new([]));
        let read = rounds.iter().filter(|round| round.slice(reduce_partition).is_some());
        read.filter(|round| self.shared.blocks.remove(round.block)).count() > 0
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

    /// The number of a block that none had before.
    fn another_block(&self) -> Result<u32, TaskError> {
        let grow = |next: u32| next.checked_add(1);
        let number = self.next_block.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow);
        number.map_err(|_| Cause::Internal.into())
    }

    fn uses_disk(&self) -> bool {
        self.blocks.level().uses_disk()
    }

    fn maps(&self) -> u32 {
        self.outputs.lock().len() as u32
    }

    /// A block of this map output is gone: the map task is to run again, unless it did so already.
    fn lose(&self, map_partition: u32, rounds: &Arc<[Round]>) {
        let mut lost = None;
        if let Some(output) = self.outputs.lock().get_mut(map_partition as usize)
            && matches!(output, Output::Done(now) if Arc::ptr_eq(now, rounds))
        {
            lost = Some(std::mem::replace(output, Output::Missing));
        }
        if lost.is_some() {
            self.remove(rounds);
        }
    }

    fn remove(&self, rounds: &[Round]) {
        for round in rounds {
            self.blocks.remove(round.block);
        }
    }

    /// What a map task left; none if it is to run again.
    fn rounds_of(&self, map_partition: u32) -> Option<Arc<[Round]>> {
        match self.outputs.lock().get(map_partition as usize)? {
            Output::Done(rounds) => Some(Arc::clone(rounds)),
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
    fn done(mut self, rounds: Arc<[Round]>) {
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
    fn blocks_do_not_multiply_with_partitions() -> Result<(), Error> {
        let context = Context::builder().threads(2).progress(false).memory("64MiB").build()?;
        let numbers = context.range(0..20_000, 50)?;
        let spread = numbers.repartition(70)?;
        assert_eq!(spread.map(|n| n * 2).fold(0, |a, b| a + b)?, 20_000 * 19_999);
        let stored = context.store().datasets();
        assert_eq!(
            stored.iter().map(|shuffle| (shuffle.blocks, shuffle.records)).collect::<Vec<_>>(),
            [(50, 20_000)]
        );
        let slice_bytes = context.store().memory().snapshot().scratch_bytes;
        assert_eq!(slice_bytes, 50 * 70 * 24, "where the slices begin is counted");
        drop(spread);
        assert_eq!(context.store().memory().snapshot().scratch_bytes, 0);
        Ok(())
    }

    #[test]
    fn a_round_is_charged_and_ends_when_no_more_is_granted() -> Result<(), Error> {
        let orders = ["8MiB", "100kB"].map(|memory| {
            let directory = tempfile::tempdir().map_err(|_| ()).unwrap();
            let context = Context::builder()
                .threads(1)
                .progress(false)
                .memory(memory)
                .disk(directory.path())
                .build()?;
            let spread = context
                .range(0..30_000, 1)?
                .map(|n| (n * 7_919 % 1_000, n.to_string()))
                .group_by_key_with_partitions(300)?;
            let groups = spread.collect()?;
            let blocks = context.store().datasets().iter().map(|shuffle| shuffle.blocks).sum::<u64>();
            let heap = context.store().memory().snapshot().heap;
            assert!(heap.charged_peak_bytes <= heap.budget_bytes);
            Ok::<_, Error>((groups, blocks, heap.charged_peak_bytes))
        });
        let [Ok((ample, rounds, peak)), Ok((short, short_rounds, _))] = orders else { panic!("{orders:?}") };
        assert_eq!(ample, short);
        assert!(rounds < short_rounds, "{rounds} and {short_rounds}");
        assert!(peak > 1 << 20, "what a round holds is charged: {peak}");
        Ok(())
    }

    /// Counts how often one of it is cloned.
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Cloned(i64);

    impl larder_blockstore::HeapSize for Cloned {
        fn heap_bytes(&self) -> usize {
            0
        }
    }

    static CLONES: AtomicU64 = AtomicU64::new(0);

    impl Clone for Cloned {
        fn clone(&self) -> Self {
            CLONES.fetch_add(1, Ordering::Relaxed);
            Self(self.0)
        }
    }

    #[test]
    fn records_of_stored_blocks_are_written_where_they_lie_unless_their_room_may_be_needed()
    -> Result<(), Error> {
        for (no_disk, clones) in [(false, 0), (true, 20_000)] {
            let builder = Context::builder().threads(2).progress(false).memory("16MiB");
            let context = if no_disk { builder.no_disk() } else { builder }.build()?;
            let stored = context.range(0..20_000, 3)?.map(|n| Cloned(*n)).cache()?;
            stored.count()?;
            let before = CLONES.load(Ordering::Relaxed);
            assert_eq!(stored.repartition(5)?.count()?, 20_000);
            assert_eq!(CLONES.load(Ordering::Relaxed) - before, clones, "no disk: {no_disk}");
        }
        Ok(())
    }

    #[test]
    fn stored_records_fill_rounds_like_others_and_go_where_others_go() -> Result<(), Error> {
        let spread = |persisted: bool, partitions: u32| {
            let context = Context::builder().threads(1).progress(false).memory("64MiB").build()?;
            let pairs = context.range(0..60_000, partitions)?.map(|n| (n % 1_000, format!("{n:0>100}")));
            if persisted {
                pairs.cache()?.count()?;
            }
            // Batches of all sizes, two of which stand beside each other.
            let mixed = pairs.coalesce(1)?.union(&pairs.filter(|(_, text)| text.ends_with('7')))?;
            let groups = mixed.coalesce(2)?.group_by_key_with_partitions(4)?;
            let groups = groups.map(|(key, texts)| (*key, texts.clone())).collect()?;
            let shuffle =
                context.store().datasets().into_iter().find(|stored| stored.name.contains("shuffle"));
            Ok::<_, Error>((groups, shuffle.map(|shuffle| (shuffle.blocks, shuffle.records))))
        };
        for partitions in [1, 100, 6_000] {
            let (groups, rounds) = spread(false, partitions)?;
            assert!(rounds.is_some_and(|(rounds, records)| rounds > 4 && records == 66_000), "{rounds:?}");
            let stored = spread(true, partitions)?;
            assert_eq!(stored.1, rounds, "{partitions} partitions");
            assert!(stored.0 == groups, "{partitions} partitions");
        }
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
