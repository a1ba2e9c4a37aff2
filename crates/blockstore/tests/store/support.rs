//! Stores to test with, and what must hold when a test is over.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use larder_blockstore::{
    Block, BlockStore, BlockStoreBuilder, BlockWriter, Entry, Error, Finished, LevelFacts, Pushed,
    StorageLevel, StoredDataset,
};
use tempfile::TempDir;

/// Far beyond what anything here takes; a hang ends the test instead of the run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Off the heap and nowhere else: a level without a name.
pub(crate) fn off_heap_only() -> StorageLevel {
    let facts = LevelFacts { disk: false, memory: true, off_heap: true, deserialized: false, replication: 1 };
    StorageLevel::custom(facts).unwrap()
}

/// The levels that keep blocks in memory and nowhere else.
pub(crate) fn memory_levels() -> [StorageLevel; 3] {
    [StorageLevel::MEMORY_ONLY, StorageLevel::MEMORY_ONLY_SER, off_heap_only()]
}

/// The levels that keep blocks in memory and move them to disk.
pub(crate) const SPILLING_LEVELS: [StorageLevel; 3] =
    [StorageLevel::MEMORY_AND_DISK, StorageLevel::MEMORY_AND_DISK_SER, StorageLevel::OFF_HEAP];

/// Each way of keeping a block, once.
pub(crate) fn all_levels() -> Vec<StorageLevel> {
    memory_levels().into_iter().chain(SPILLING_LEVELS).chain([StorageLevel::DISK_ONLY]).collect()
}

/// A store with a scratch directory. Declare it first, so that it drops last and finds everything given back.
pub(crate) struct World {
    pub(crate) store: BlockStore,
    pub(crate) scratch: TempDir,
}

impl World {
    /// The same budget on the heap and off it.
    pub(crate) fn new(budget_bytes: u64) -> Self {
        Self::with(budget_bytes, |builder| builder)
    }

    pub(crate) fn with(
        budget_bytes: u64,
        describe: impl FnOnce(BlockStoreBuilder) -> BlockStoreBuilder,
    ) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let builder = BlockStore::builder().memory(budget_bytes).off_heap(budget_bytes).disk(scratch.path());
        Self { store: describe(builder).build().unwrap(), scratch }
    }

    pub(crate) fn dataset(&self, name: &str, level: StorageLevel) -> StoredDataset<Vec<u8>> {
        self.store.dataset(name).level(level).build().unwrap()
    }

    /// Bytes charged for blocks and writers, on the heap and off it.
    pub(crate) fn charged(&self) -> u64 {
        let memory = self.store.memory().snapshot();
        memory.heap.charged_bytes() + memory.off_heap.charged_bytes()
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.store.disk().unwrap().used_bytes
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_empty(&self.store);
        }
    }
}

/// Nothing is held, and the budgets were never exceeded.
pub(crate) fn assert_empty(store: &BlockStore) {
    let memory = store.memory().snapshot();
    for mode in [memory.heap, memory.off_heap] {
        assert_eq!(mode.charged_bytes(), 0, "something is still charged: {memory:?}");
        assert!(mode.charged_peak_bytes <= mode.budget_bytes, "the budget was exceeded: {memory:?}");
    }
    assert_eq!(memory.scratch_bytes, 0, "scratch memory is still counted: {memory:?}");
    assert_eq!(store.arena_bytes(), 0, "extents of the arena are still live");
    assert_eq!(store.disk().map_or(0, |disk| disk.used_bytes), 0, "bytes on disk are still in use");
    assert_eq!(store.datasets(), [], "a dataset is still there");
}

/// One record of `len` bytes that tells which one it is.
pub(crate) fn record(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub(crate) fn put<T: Send + Sync + 'static>(
    dataset: &StoredDataset<T>,
    partition: u32,
    records: impl IntoIterator<Item = T>,
) -> Result<Block<T>, Error> {
    dataset.get_or_compute(partition, |out| records.into_iter().try_for_each(|record| out.push(record)))
}

/// All that was put, and whether it was stored.
pub(crate) fn stored<T: Clone + Send + Sync + 'static>(
    dataset: &StoredDataset<T>,
    partition: u32,
    records: impl IntoIterator<Item = T>,
) -> bool {
    drop(put(dataset, partition, records).unwrap());
    dataset.contains(partition)
}

pub(crate) fn read<T: Clone + 'static>(block: &Block<T>) -> Vec<T> {
    block.iter().map(|record| record.unwrap().into_owned()).collect()
}

/// The writer of a block that nobody has and nobody writes.
pub(crate) fn vacant<T: std::fmt::Debug + Send + Sync + 'static>(
    dataset: &StoredDataset<T>,
    partition: u32,
) -> BlockWriter<T> {
    match dataset.entry(partition).unwrap() {
        Entry::Vacant(writer) => writer,
        other => panic!("partition {partition} is {other:?}"),
    }
}

/// Pushes a record that must be kept.
pub(crate) fn keep<T: Send + Sync + 'static>(writer: &mut BlockWriter<T>, record: T) {
    assert!(matches!(writer.push(record).unwrap(), Pushed::Kept));
}

/// Finishes a block that must be stored.
pub(crate) fn finish<T: Send + Sync + 'static>(writer: BlockWriter<T>) -> Block<T> {
    match writer.finish().unwrap() {
        Finished::Stored(block) => block,
        Finished::Refused(_) => panic!("the block was refused"),
    }
}

/// Runs `work` on a thread of its own; a hang is a panic here.
pub(crate) fn on_a_thread<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Receiver<R> {
    let (sender, receiver) = channel();
    // Whoever no longer listens has failed already.
    thread::spawn(move || drop(sender.send(work())));
    receiver
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::yield_now();
    }
}

/// A waker that counts how often it was woken, and wakes a thread that is parked in [`block_on`].
pub(crate) struct Woken {
    times: AtomicUsize,
    thread: thread::Thread,
}

impl Woken {
    pub(crate) fn here() -> Arc<Self> {
        Arc::new(Self { times: AtomicUsize::new(0), thread: thread::current() })
    }

    pub(crate) fn times(&self) -> usize {
        self.times.load(Ordering::SeqCst)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.times.fetch_add(1, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// The smallest executor there is: one task, on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Woken::here());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park_timeout(PATIENCE);
    }
}
