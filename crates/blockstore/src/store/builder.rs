//! Describing a store, and a dataset in it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use hashbrown::HashMap;

use super::{BlockStore, Core};
use crate::codec::Codec;
use crate::dataset::{AnyDataset, DatasetFacts, Inner};
use crate::error::Error;
use crate::events::Events;
use crate::format::{CHUNK_BYTES_MAX, Compression};
use crate::level::StorageLevel;
use crate::memory::{MemoryManager, MemoryMode, Reclaim};
use crate::metrics::{Counters, LiveCounters};
use crate::policy::{EvictionPolicy, Lru};
use crate::record::RecordKind;
use crate::region::{Arena, DiskOptions, DiskReads, DiskStore, OpenSegmentFile, open_segment_file};
#[cfg(feature = "encryption")]
use crate::region::{DiskCipher, RegionError};
use crate::replicate::Replicator;
use crate::stored::StoredDataset;
use crate::sync::Mutex;
use crate::tier::Tier;
use crate::waits::Waits;

/// Heap budget of a store that is not told one: 256 MiB.
const HEAP_BYTES_DEFAULT: u64 = 256 << 20;
/// A chunk is at most this part of the heap budget, so that a few chunks in work are little beside it.
const CHUNKS_A_BUDGET: u64 = 64;
const CHUNK_BYTES_MIN: u64 = 4 << 10;
/// A block on disk is in memory as a whole, while it is read, if it is at most this part of the heap budget, within these
/// bounds: many tasks read blocks at the same time.
const KEPT_A_BUDGET: u64 = 16;
const KEPT_BYTES_MIN: u64 = 64 << 10;
const KEPT_BYTES_MAX: u64 = 16 << 20;

/// Describes a [`BlockStore`].
pub struct BlockStoreBuilder {
    heap_bytes: u64,
    off_heap_bytes: u64,
    storage_fraction: f64,
    manager: Option<MemoryManager>,
    directories: Vec<PathBuf>,
    disk_limit_bytes: Option<u64>,
    disk_reads: DiskReads,
    #[cfg(feature = "encryption")]
    encrypt_disk: bool,
    open_segment_file: Arc<OpenSegmentFile>,
    chunk_bytes: Option<usize>,
    verify_memory: bool,
    policy: Box<dyn Fn() -> Box<dyn EvictionPolicy> + Send>,
    replicator: Option<Arc<dyn Replicator>>,
}

impl Default for BlockStoreBuilder {
    fn default() -> Self {
        Self {
            heap_bytes: HEAP_BYTES_DEFAULT,
            off_heap_bytes: 0,
            storage_fraction: 0.5,
            manager: None,
            directories: Vec::new(),
            disk_limit_bytes: None,
            disk_reads: DiskReads::Mapped,
            #[cfg(feature = "encryption")]
            encrypt_disk: false,
            open_segment_file: Arc::new(open_segment_file),
            chunk_bytes: None,
            verify_memory: false,
            policy: Box::new(|| Box::new(Lru::new())),
            replicator: None,
        }
    }
}

impl BlockStoreBuilder {
    /// The heap budget in bytes, for values and for serialized blocks. 256 MiB when not set.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.heap_bytes = bytes;
        self
    }

    /// The off-heap budget in bytes, for the arena. None when not set.
    #[must_use]
    pub fn off_heap(mut self, bytes: u64) -> Self {
        self.off_heap_bytes = bytes;
        self
    }

    /// The part of each budget that execution cannot take from storage, 0 to 1. A half when not set.
    #[must_use]
    pub fn storage_fraction(mut self, fraction: f64) -> Self {
        self.storage_fraction = fraction;
        self
    }

    /// Budgets shared with others, in the place of [`memory`](Self::memory), [`off_heap`](Self::off_heap) and
    /// [`storage_fraction`](Self::storage_fraction).
    #[must_use]
    pub fn memory_manager(mut self, manager: MemoryManager) -> Self {
        self.manager = Some(manager);
        self
    }

    /// A directory for blocks on disk, made if it is not there. Give it several times for several directories.
    ///
    /// Nothing in it is visible by name, and nothing outlives the process. Without any, levels that need a disk are
    /// refused.
    #[must_use]
    pub fn disk(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directories.push(directory.into());
        self
    }

    /// The most disk space to take in all directories together, in bytes; see
    /// [`DiskStatus::taken_bytes`](crate::DiskStatus::taken_bytes). No limit but the disks' when not set.
    #[must_use]
    pub fn disk_limit(mut self, bytes: u64) -> Self {
        self.disk_limit_bytes = Some(bytes);
        self
    }

    /// How blocks on disk are read. Through a mapping when not set.
    #[must_use]
    pub fn disk_reads(mut self, reads: DiskReads) -> Self {
        self.disk_reads = reads;
        self
    }

    /// Whether blocks on disk are encrypted: AES-256-GCM, under a random key that is made with the store, never leaves
    /// the process, and is cleared when the store is gone. Not when not set.
    ///
    /// Whoever reads the disk, then or later, learns the lengths of chunks and no more. Bytes that were tampered with
    /// are found and treated as damaged. Nothing is mapped: blocks are read as with [`DiskReads::Buffered`]. Sizes are
    /// reported without the 16 bytes that each chunk grows by on disk. Memory is not encrypted: what the kernel swaps
    /// out, or a core dump holds, is readable.
    #[cfg(feature = "encryption")]
    #[must_use]
    pub fn encrypt_disk(mut self, encrypt: bool) -> Self {
        self.encrypt_disk = encrypt;
        self
    }

    /// Whose files segments are: where tests tear, fill and fail them.
    #[cfg(test)]
    pub(crate) fn segment_files(mut self, open: Arc<OpenSegmentFile>) -> Self {
        self.open_segment_file = open;
        self
    }

    /// The most bytes a chunk of several records has before compression, up to 4 MiB. A writer and a reader hold
    /// about one chunk beside the budget. A 64th of the heap budget when not set.
    #[must_use]
    pub fn chunk_bytes(mut self, bytes: usize) -> Self {
        self.chunk_bytes = Some(bytes);
        self
    }

    /// Whether bytes in memory are compared with their checksums on every read, as those on disk always are.
    #[must_use]
    pub fn verify_memory(mut self, verify: bool) -> Self {
        self.verify_memory = verify;
        self
    }

    /// What makes the eviction policy, once for each kind of memory: [`Sieve::new`](crate::policy::Sieve::new), say, or
    /// [`policy::by_name("sieve")?`](crate::policy::by_name). [`Lru`] when not set; [`policy`](crate::policy) says
    /// which one when.
    #[must_use]
    pub fn policy<P: EvictionPolicy + 'static>(mut self, make: impl Fn() -> P + Send + 'static) -> Self {
        self.policy = Box::new(move || Box::new(make()));
        self
    }

    /// Who places further copies of blocks at levels that ask for more than one.
    #[must_use]
    pub fn replicator(mut self, replicator: Arc<dyn Replicator>) -> Self {
        self.replicator = Some(replicator);
        self
    }

    /// Builds the store: reserves the arena's address space and opens the directories.
    ///
    /// # Errors
    /// [`Error::Setting`] for a fraction outside 0 to 1, [`Error::Setup`] when the arena or a directory cannot be
    /// had.
    pub fn build(self) -> Result<BlockStore, Error> {
        let setup = |source| Error::Setup { source };
        let memory = match self.manager {
            Some(manager) => manager,
            None => MemoryManager::builder()
                .heap(self.heap_bytes)
                .off_heap(self.off_heap_bytes)
                .storage_fraction(self.storage_fraction)
                .build()
                .map_err(|e| Error::Setting { setting: "storage_fraction", problem: e.to_string() })?,
        };
        let snapshot = memory.snapshot();
        let budget = |mode| snapshot.mode(mode).budget_bytes;
        let off_heap = budget(MemoryMode::OffHeap);
        let arena = (off_heap > 0).then(|| Arena::new(off_heap)).transpose().map_err(setup)?;
        let needs_disk = !self.directories.is_empty();
        #[cfg(feature = "encryption")]
        let random = |()| DiskCipher::random().map_err(|source| setup(RegionError::Key { source }));
        #[cfg(feature = "encryption")]
        let cipher = self.encrypt_disk.then_some(()).map(random).transpose()?;
        #[cfg(not(feature = "encryption"))]
        let cipher = None;
        let options = DiskOptions {
            directories: self.directories,
            limit_bytes: self.disk_limit_bytes,
            segment_bytes: DiskOptions::SEGMENT_BYTES,
            reads: self.disk_reads,
            cipher,
        };
        let open = || DiskStore::open(options, memory.clone(), self.open_segment_file);
        let disk = needs_disk.then(open).transpose().map_err(setup)?;
        let kept_bytes = (budget(MemoryMode::Heap) / KEPT_A_BUDGET).clamp(KEPT_BYTES_MIN, KEPT_BYTES_MAX);
        let share = (budget(MemoryMode::Heap) / CHUNKS_A_BUDGET).max(CHUNK_BYTES_MIN);
        let share = usize::try_from(share).unwrap_or(CHUNK_BYTES_MAX);
        let core = Arc::new(Core {
            memory,
            arena,
            disk,
            heap: Tier::new((self.policy)()),
            off_heap: Tier::new((self.policy)()),
            datasets: Mutex::new(HashMap::new()),
            past: Mutex::new(Counters::default()),
            events: Arc::new(Events::default()),
            waits: Waits::default(),
            verify_memory: self.verify_memory,
            chunk_bytes: self.chunk_bytes.unwrap_or(share).clamp(1, CHUNK_BYTES_MAX),
            kept_bytes,
            replicator: self.replicator,
        });
        let reclaim: Weak<Core> = Arc::downgrade(&core);
        let reclaim: Weak<dyn Reclaim> = reclaim;
        core.memory.register(reclaim);
        Ok(BlockStore { core })
    }
}

impl fmt::Debug for BlockStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockStoreBuilder")
            .field("heap_bytes", &self.heap_bytes)
            .field("off_heap_bytes", &self.off_heap_bytes)
            .field("directories", &self.directories)
            .finish_non_exhaustive()
    }
}

/// Describes a dataset. Made by [`BlockStore::dataset`] and [`BlockStore::dataset_with`].
pub struct DatasetBuilder<T> {
    core: Arc<Core>,
    name: Arc<str>,
    level: StorageLevel,
    compression: Compression,
    evicts_own: bool,
    kind: RecordKind<T>,
}

impl<T: Send + Sync + 'static> DatasetBuilder<T> {
    pub(super) fn new(core: Arc<Core>, name: &str, kind: RecordKind<T>) -> Self {
        Self {
            core,
            name: Arc::from(name),
            level: StorageLevel::MEMORY_ONLY,
            compression: Compression::None,
            evicts_own: false,
            kind,
        }
    }

    /// How its blocks are kept. `MEMORY_ONLY` when not set.
    #[must_use]
    pub fn level(mut self, level: StorageLevel) -> Self {
        self.level = level;
        self
    }

    /// How serialized chunks are compressed. Not at all when not set.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Whether one of its blocks may evict colder ones of the same dataset. Not when not set: whoever goes through a
    /// dataset that is larger than memory then finds what came first each time, where each block would otherwise be
    /// evicted just before it is read again. Set it where blocks are read at random, some more often than others.
    #[must_use]
    pub fn evict_own(mut self, evict: bool) -> Self {
        self.evicts_own = evict;
        self
    }

    /// The codec of serialized blocks. [`Bincode`](crate::codec::Bincode) when not set.
    #[must_use]
    pub fn codec(mut self, codec: impl Codec<T>) -> Self {
        self.kind.codec = Arc::new(codec);
        self
    }

    /// Makes the dataset known to the store. It holds no block yet.
    ///
    /// # Errors
    /// [`Error::LevelStoresNothing`], or [`Error::NoDisk`] or [`Error::NoOffHeap`] when the store lacks what the
    /// level needs.
    pub fn build(self) -> Result<StoredDataset<T>, Error> {
        let Self { core, name, level, compression, evicts_own, kind } = self;
        let dataset = name.to_string();
        if !level.is_stored() {
            return Err(Error::LevelStoresNothing { dataset, level });
        }
        if level.uses_disk() && core.disk.is_none() {
            return Err(Error::NoDisk { dataset, level });
        }
        if level.uses_off_heap() && core.arena.is_none() {
            return Err(Error::NoOffHeap { dataset, level });
        }
        let id = core.memory.next_dataset();
        let counters = Arc::new(LiveCounters::default());
        let tier = Arc::clone(core.tier(level.memory_mode()));
        let memory = core.memory.clone();
        let inner = Inner::new(Arc::clone(&core), |owner| DatasetFacts {
            id,
            name,
            level,
            compression,
            evicts_own,
            kind,
            tier,
            memory,
            counters,
            owner,
        });
        let handle: Weak<Inner<T>> = Arc::downgrade(&inner);
        let handle: Weak<dyn AnyDataset> = handle;
        core.register(id, handle);
        Ok(StoredDataset::new(inner))
    }
}

impl<T> fmt::Debug for DatasetBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatasetBuilder")
            .field("name", &self.name)
            .field("level", &self.level)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}
