//! The block store: what its datasets share.

mod builder;

use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use hashbrown::HashMap;

pub use self::builder::{BlockStoreBuilder, DatasetBuilder};
use crate::codec::Codec;
use crate::dataset::AnyDataset;
use crate::error::Error;
use crate::events::{Event, Events, Subscription};
use crate::format::{Chunk, ChunkError};
use crate::id::{BlockId, DatasetId};
use crate::memory::{MemoryManager, MemoryMode, Reclaim, Reclaimed, Reservation, StorageUsage};
use crate::metrics::{Counters, LiveCounters};
use crate::record::{Record, RecordKind};
use crate::region::{
    Arena, ChunkId, DiskStatus, DiskStore, ExtentMut, RegionError, StoredBytes, arena_bytes,
};
use crate::replicate::Replicator;
use crate::serialized::SerializedBlock;
use crate::status::{BlockStatus, DatasetStatus};
use crate::sync::Mutex;
use crate::tier::{Among, Amount, Choice, Tier};
use crate::unroll::HeapChunk;
use crate::waits::Waits;

/// Keeps the blocks of datasets at their storage levels, within a memory budget.
///
/// Cheap to clone; all clones are one store. Any number of threads may use it.
///
/// ```
/// use larder_blockstore::{BlockStore, StorageLevel};
///
/// let store = BlockStore::builder().memory(64 << 20).build()?;
/// let squares = store.dataset::<u64>("squares").level(StorageLevel::MEMORY_ONLY).build()?;
/// let compute = || squares.get_or_compute(3, |out| (0..1_000).try_for_each(|n| out.push(n * n)));
///
/// assert_eq!(compute()?.len(), 1_000);   // computed, and kept
/// assert_eq!(compute()?.len(), 1_000);   // read
/// assert_eq!(squares.status().counters.hits(), 1);
/// # Ok::<(), larder_blockstore::Error>(())
/// ```
#[derive(Clone)]
pub struct BlockStore {
    core: Arc<Core>,
}

/// What the datasets of a store share.
pub(crate) struct Core {
    memory: MemoryManager,
    arena: Option<Arena>,
    disk: Option<DiskStore>,
    heap: Arc<Tier>,
    off_heap: Arc<Tier>,
    datasets: Mutex<HashMap<DatasetId, Weak<dyn AnyDataset>>>,
    /// Counters of the datasets that are gone.
    past: Mutex<Counters>,
    pub(crate) events: Arc<Events>,
    waits: Waits,
    verify_memory: bool,
    chunk_bytes: usize,
    kept_bytes: u64,
    replicator: Option<Arc<dyn Replicator>>,
}

impl BlockStore {
    /// Starts to describe a store.
    #[must_use]
    pub fn builder() -> BlockStoreBuilder {
        BlockStoreBuilder::default()
    }

    /// Starts to describe a dataset whose records serde writes and [`HeapSize`](crate::HeapSize) measures.
    #[must_use]
    pub fn dataset<T: Record>(&self, name: &str) -> DatasetBuilder<T> {
        DatasetBuilder::new(Arc::clone(&self.core), name, RecordKind::of_record())
    }

    /// Starts to describe a dataset of any record type, with a codec of its own and a measure of the heap bytes
    /// that one record owns beyond its `size_of`.
    #[must_use]
    pub fn dataset_with<T: Send + Sync + 'static>(
        &self,
        name: &str,
        codec: impl Codec<T>,
        heap_bytes: impl Fn(&T) -> usize + Send + Sync + 'static,
    ) -> DatasetBuilder<T> {
        DatasetBuilder::new(Arc::clone(&self.core), name, RecordKind::with(codec, heap_bytes))
    }

    /// The memory this store shares with whoever else uses the same manager.
    #[must_use]
    pub fn memory(&self) -> &MemoryManager {
        &self.core.memory
    }

    /// Its datasets, in the order in which they were built. Costs a look at every block.
    #[must_use]
    pub fn datasets(&self) -> Vec<DatasetStatus> {
        let mut datasets: Vec<_> = self.core.live().into_iter().map(|dataset| dataset.status()).collect();
        datasets.sort_unstable_by_key(|status| status.dataset);
        datasets
    }

    /// What happened so far, over all its datasets, also those that are gone.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = *self.core.past.lock();
        for dataset in self.core.live() {
            counters += dataset.status().counters;
        }
        counters
    }

    /// Its directories and what is in them; none for a store without disk.
    #[must_use]
    pub fn disk(&self) -> Option<DiskStatus> {
        self.core.disk.as_ref().map(DiskStore::status)
    }

    /// Bytes of the off-heap arena that hold blocks, in units of 64.
    #[must_use]
    pub fn arena_bytes(&self) -> u64 {
        self.core.arena.as_ref().map_or(0, Arena::used_bytes)
    }

    /// The most memory of the arena that can be resident now: its huge pages that hold a byte of a block.
    #[must_use]
    pub fn arena_resident_bytes_max(&self) -> u64 {
        self.core.arena.as_ref().map_or(0, Arena::resident_bytes_max)
    }

    /// One block as it is stored now; none when it has no copy.
    #[must_use]
    pub fn block_status(&self, block: BlockId) -> Option<BlockStatus> {
        self.core.dataset(block.dataset)?.block_status(block.partition)
    }

    /// Removes a dataset with all its blocks; whether it was there, and not removed before. Readers that hold blocks keep them. Its handle
    /// grants no more writers.
    pub fn remove_dataset(&self, dataset: DatasetId) -> bool {
        self.core.dataset(dataset).is_some_and(|dataset| dataset.close())
    }

    /// Calls `listener` for every event from now on, on the thread that caused it and with no lock held, until the
    /// subscription drops. It must not panic; it may use the store.
    pub fn subscribe(&self, listener: impl Fn(&Event) + Send + Sync + 'static) -> Subscription {
        Events::subscribe(&self.core.events, listener)
    }
}

impl fmt::Debug for BlockStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockStore")
            .field("memory", &self.core.memory)
            .field("disk", &self.core.disk)
            .finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn memory(&self) -> &MemoryManager {
        &self.memory
    }

    pub(crate) fn tier(&self, mode: MemoryMode) -> &Arc<Tier> {
        match mode {
            MemoryMode::Heap => &self.heap,
            MemoryMode::OffHeap => &self.off_heap,
        }
    }

    /// The most bytes a chunk of several records has before compression.
    pub(crate) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// The most bytes of a block on disk that are all in memory, mapped or not, while a handle reads it.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    pub(crate) fn waits(&self) -> &Waits {
        &self.waits
    }

    pub(crate) fn verifies_memory(&self) -> bool {
        self.verify_memory
    }

    pub(crate) fn replicator(&self) -> Option<&Arc<dyn Replicator>> {
        self.replicator.as_ref()
    }

    pub(crate) fn remove_replicas(&self, block: BlockId) {
        if let Some(replicator) = &self.replicator {
            replicator.remove(block);
        }
    }

    /// Copies stored bytes into the arena, with their part of the charge; none when there is no place for them.
    pub(crate) fn write_to_arena(
        &self,
        requester: Option<DatasetId>,
        stored: &[u8],
        charge: &mut Reservation,
    ) -> Option<Bytes> {
        if stored.is_empty() {
            return Some(Bytes::new());
        }
        let mut extent = self.arena_extent(requester, stored.len(), stored.len())?;
        extent.copy_from_slice(stored);
        Some(extent.freeze(stored.len(), charge.split(arena_bytes(stored.len()))))
    }

    /// An extent of up to `most` and at least `least` bytes, which are charged. Where free bytes lie too scattered
    /// for one, it is shorter than `most`; where they do not hold `least` bytes in a row, blocks of others than the
    /// requester are evicted.
    pub(crate) fn arena_extent(
        &self,
        requester: Option<DatasetId>,
        most: usize,
        least: usize,
    ) -> Option<ExtentMut> {
        let arena = self.arena.as_ref()?;
        for _ in 0..ARENA_ROUNDS_MAX {
            let mut len = most;
            loop {
                if let Some(extent) = arena.allocate(len) {
                    return Some(extent);
                }
                if len == least {
                    break;
                }
                len = (len / 2).max(least);
            }
            let reclaimed = self.reclaim(MemoryMode::OffHeap, arena_bytes(least), requester);
            if reclaimed.bytes == 0 && !reclaimed.others_gave_back {
                break;
            }
        }
        None
    }

    /// Copies stored bytes to disk.
    pub(crate) fn write_to_disk(
        &self,
        chunk: ChunkId,
        name: &str,
        counters: &LiveCounters,
        stored: &[u8],
    ) -> Result<StoredBytes, Error> {
        let written = match &self.disk {
            Some(disk) => disk.write(stored, chunk),
            None => Err(RegionError::NoDirectoryGiven),
        };
        self.report_directories(counters);
        written.map_err(|source| {
            let block = chunk.block;
            counters.disk_errors.add(1);
            self.events.emit(|| Event::DiskError { block, problem: source.to_string() });
            Error::Disk { block, name: name.to_owned(), source }
        })
    }

    /// Tells of directories that were put aside and not told of yet; they are counted for the dataset that met them.
    pub(crate) fn report_directories(&self, counters: &LiveCounters) {
        let failures = self.disk.as_ref().map(DiskStore::take_failures).unwrap_or_default();
        for failure in failures {
            counters.directories_failed.add(1);
            self.events.emit(|| Event::DirectoryFailed {
                directory: failure.directory.clone(),
                problem: failure.reason.clone(),
            });
        }
    }

    /// Reads a mapped copy on disk into memory ahead of its use, so that a failing disk is an error and no signal.
    pub(crate) fn prefetch(&self, bytes: &SerializedBlock) -> Result<(), RegionError> {
        let Some(disk) = &self.disk else { return Ok(()) };
        bytes.chunks().iter().filter_map(Chunk::in_memory).try_for_each(|stored| disk.prefetch(stored))
    }

    /// As [`prefetch`](Self::prefetch), for one chunk, and compares it with its checksum. Chunks that are not mapped
    /// are compared as they are read.
    pub(crate) fn ready(&self, chunk: &Chunk) -> Result<(), ChunkError> {
        match (&self.disk, chunk.in_memory()) {
            (Some(disk), Some(stored)) => {
                disk.prefetch(stored)?;
                chunk.verify()
            }
            _ => Ok(()),
        }
    }

    /// A copy of a chunk on disk on the heap, compared with its checksum and charged with `charge`.
    pub(crate) fn loaded(&self, chunk: &Chunk, charge: impl Send + 'static) -> Result<Chunk, ChunkError> {
        let (Some(disk), Some(stored)) = (&self.disk, chunk.in_memory()) else { return chunk.loaded(charge) };
        let mut bytes = vec![0; stored.len()];
        disk.read(stored, &mut bytes)?;
        chunk.check(&bytes)?;
        Ok(chunk.moved_to(Bytes::from_owner(HeapChunk { bytes, _charge: charge })))
    }

    /// A copy of a chunk on disk in the arena, compared with its checksum, with its part of the charge; none when
    /// there is no place for it.
    pub(crate) fn loaded_to_arena(
        &self,
        requester: Option<DatasetId>,
        chunk: &Chunk,
        charge: &mut Reservation,
    ) -> Result<Option<Chunk>, ChunkError> {
        let len = chunk.stored_len();
        let (Some(disk), Some(stored), true) = (&self.disk, chunk.in_memory(), len > 0) else {
            return Ok(self.write_to_arena(requester, &chunk.stored()?, charge).map(|it| chunk.moved_to(it)));
        };
        let Some(mut extent) = self.arena_extent(requester, len, len) else { return Ok(None) };
        disk.read(stored, &mut extent)?;
        chunk.check(&extent)?;
        Ok(Some(chunk.moved_to(extent.freeze(len, charge.split(arena_bytes(len))))))
    }

    /// Takes a chunk that was read out of the process's resident memory.
    pub(crate) fn release_chunk(&self, chunk: &Chunk) {
        if let (Some(disk), Some(stored)) = (&self.disk, chunk.in_memory()) {
            disk.release(stored);
        }
    }

    /// Takes a copy on disk out of the process's resident memory.
    pub(crate) fn release(&self, bytes: &SerializedBlock) {
        if let Some(disk) = &self.disk {
            bytes.chunks().iter().filter_map(Chunk::in_memory).for_each(|stored| disk.release(stored));
        }
    }

    fn dataset(&self, dataset: DatasetId) -> Option<Arc<dyn AnyDataset>> {
        self.datasets.lock().get(&dataset).and_then(Weak::upgrade)
    }

    fn live(&self) -> Vec<Arc<dyn AnyDataset>> {
        self.datasets.lock().values().filter_map(Weak::upgrade).collect()
    }

    fn register(&self, dataset: DatasetId, handle: Weak<dyn AnyDataset>) {
        self.datasets.lock().insert(dataset, handle);
    }

    /// The last handle of a dataset is gone.
    pub(crate) fn forget(&self, dataset: DatasetId, counters: Counters) {
        let gone = self.datasets.lock().remove(&dataset);
        if gone.is_some() {
            *self.past.lock() += counters;
        }
    }
}

/// How often blocks are evicted because free bytes of the arena lie too scattered for one extent.
const ARENA_ROUNDS_MAX: usize = 64;

/// Victims that could not be written to disk before one request for memory goes on without: a full disk must not make
/// every request try every block.
const SPILL_FAILURES_MAX: usize = 8;

impl Reclaim for Core {
    fn reclaim(&self, mode: MemoryMode, bytes: u64, requester: Option<DatasetId>) -> Reclaimed {
        self.give_back(mode, Amount::AtLeast(bytes), requester)
    }

    fn shrink(&self, mode: MemoryMode, bytes: u64) -> Reclaimed {
        self.give_back(mode, Amount::UpTo(bytes), None)
    }

    fn usage(&self, mode: MemoryMode) -> StorageUsage {
        let tier = self.tier(mode);
        let gone: Arc<str> = Arc::from("(removed)");
        let named = |(dataset, bytes)| {
            let name = self.dataset(dataset).map_or_else(|| Arc::clone(&gone), |it| Arc::clone(it.name()));
            (dataset, name, bytes)
        };
        let blocks = tier.listed().into_iter().map(named).collect();
        StorageUsage { blocks, pinned_evicted_bytes: tier.pinned_evicted_bytes() }
    }

    fn resized(&self, mode: MemoryMode, budget_bytes: u64) {
        if let (MemoryMode::OffHeap, Some(arena)) = (mode, &self.arena) {
            arena.resize(budget_bytes);
        }
    }
}

impl Core {
    fn give_back(&self, mode: MemoryMode, amount: Amount, requester: Option<DatasetId>) -> Reclaimed {
        let tier = self.tier(mode);
        let (Amount::AtLeast(bytes) | Amount::UpTo(bytes)) = amount;
        let (mut given_back, mut failures) = (0, 0);
        while given_back < bytes {
            let among = match failures {
                0 => Among::All,
                1..SPILL_FAILURES_MAX => Among::Willing,
                _ => Among::NeedNoWrite,
            };
            let rest = match amount {
                Amount::AtLeast(_) => Amount::AtLeast(bytes - given_back),
                Amount::UpTo(_) => Amount::UpTo(bytes - given_back),
            };
            let victims = match tier.choose(rest, requester, among) {
                Choice::Victims(victims) => victims,
                Choice::Others { departures } => {
                    tier.wait_for_departure(departures);
                    return Reclaimed { bytes: given_back, others_gave_back: true };
                }
                Choice::TooLittle => break,
            };
            for victim in victims {
                if given_back >= bytes || (failures >= SPILL_FAILURES_MAX && victim.must_be_written) {
                    continue;
                }
                let evicted = match victim.dataset.upgrade() {
                    Some(dataset) => dataset.evict_slot(victim.block.partition, victim.slot),
                    None => Ok(0),
                };
                match evicted {
                    // It left another way meanwhile, or is just leaving.
                    Ok(0) => victim.could_not_leave(),
                    Ok(bytes) => given_back += bytes,
                    // It could not be written to disk, so it stays; counted where it happened.
                    Err(_) => {
                        failures += 1;
                        victim.could_not_leave();
                    }
                }
            }
        }
        Reclaimed { bytes: given_back, others_gave_back: false }
    }
}
