//! The memory manager: two budgets a process shares, each split between storage and execution.

mod pools;
mod refused;
mod reservation;
mod scratch;
mod shell;
mod snapshot;
mod task;

#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests;

use std::fmt;

pub use refused::{MemoryError, Refused};
pub use reservation::Reservation;
pub use scratch::Scratch;
pub(crate) use shell::Reclaim;
pub(crate) use shell::{Reclaimed, StorageUsage};
pub use snapshot::{ConsumerMemory, DatasetMemory, MemorySnapshot, ModeSnapshot};
pub use task::TaskMemory;

use crate::DatasetId;
use crate::sync::Arc;
use pools::{Claim, Pools};
use shell::Shell;

/// The part of a budget that is storage's own unless said otherwise.
const STORAGE_FRACTION_DEFAULT: f64 = 0.5;

/// Which of the two budgets: the process heap, or the arena outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryMode {
    /// Values and serialized bytes on the process heap.
    Heap,
    /// Serialized bytes in an arena outside the heap.
    OffHeap,
}

impl MemoryMode {
    /// Both modes.
    pub const ALL: [Self; 2] = [Self::Heap, Self::OffHeap];
}

impl fmt::Display for MemoryMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Heap => "heap",
            Self::OffHeap => "off-heap",
        })
    }
}

/// What is said of a pool in messages: who the memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryUse {
    /// Blocks, and the writers that unroll them.
    Storage,
    /// Sorts, joins, aggregations and shuffles of the engine above.
    Execution,
}

impl fmt::Display for MemoryUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Storage => "storage",
            Self::Execution => "execution",
        })
    }
}

/// Keeps the memory of blocks and of the engine's operators inside one budget.
///
/// # The model
///
/// A process that caches blocks and also sorts and joins has two tenants for one memory. *Storage* holds blocks;
/// it gains by holding more, and can always give one up, since a block can be read from disk or recomputed.
/// *Execution* holds what operators are working on; it cannot give anything up before it is done, but it can
/// spill. A fixed wall between the two wastes whichever side is idle. So there is one budget per
/// [`MemoryMode`], and these rules:
///
/// - Storage may borrow all that execution does not use, and never takes what execution uses.
/// - Execution may take all that is free. It may also take back what storage borrowed, by evicting blocks, until
///   storage is down to its *protected region*, by default half the budget. No further.
/// - Of N active tasks, each may hold at most 1/N of what execution can have, and is sure of 1/(2N) before it
///   has to spill.
///
/// With a budget of 1,000 bytes and a protected region of 500:
///
/// | storage | execution | request | outcome |
/// |--|--|--|--|
/// | 750 | 0 | execution asks for 100 | granted from the 250 that are free |
/// | 750 | 100 | execution asks for 200 | 150 are free: 50 are evicted, then granted |
/// | 400 | 300 | execution asks for 400 | refused at once: 300 are free, and storage is inside its region |
/// | 200 | 800 | storage asks for 250 | refused at once: no eviction could ever make room |
/// | 900 | 0 | storage asks for 300 | 200 are evicted, of other datasets than the requester, then granted |
///
/// Blocks are evicted whole. What is *asked* of storage is never more than it holds beyond its region, and the
/// last block to go may be larger than what is still missing.
///
/// # Reservations
///
/// Memory is held as a [`Reservation`], which gives its bytes back when it is dropped, on every path: an early
/// return, a panic, a cancelled future. The sum of the live reservations is what is charged, at any moment, and
/// it never exceeds the budget. A reservation is a number and nothing else: reserve first, then allocate, and
/// keep the two together.
///
/// ```
/// use larder_blockstore::{MemoryManager, MemoryMode::Heap};
///
/// let memory = MemoryManager::builder().heap(1_000).storage_fraction(0.5).build()?;
///
/// let mut block = memory.reserve_storage(Heap, 750, None)?;      // borrows 250 of execution's half
/// let task = memory.task();
/// let sort = task.reserve(Heap, 100)?;                           // from free memory: nobody is evicted
/// assert_eq!(memory.snapshot().heap.free_bytes, 150);
///
/// let refused = task.reserve(Heap, 200).unwrap_err();            // no block store is here that could evict
/// assert_eq!((refused.requested_bytes, refused.budget_bytes), (200, 1_000));
///
/// block.shrink(500);
/// let join = task.reserve(Heap, 200)?;
/// drop((block, sort, join));
/// assert_eq!(memory.snapshot().heap.free_bytes, 1_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Refusals
///
/// A [`Refused`] is an outcome and not a failure: it says that this must now go another way, to disk, by
/// spilling, uncached, or in smaller pieces. Refusing is exact: no block is evicted for a request that could not
/// be met even by evicting everything the rules allow. An eviction can be in vain only when a reader holds on to
/// what was evicted, or another thread is quicker to take it.
///
/// # When not to use it
///
/// Account for what is large and grows with the data: blocks, sort runs, hash tables. Charging every small
/// vector costs more than it tells. A mutex is taken once a call, for a few nanoseconds and never over I/O, user
/// code or an eviction; that is right once a chunk of records and wrong once a record.
///
/// # Sharing
///
/// Cheap to clone; clones are the same manager. Several block stores may share one. Each is asked in turn to
/// evict the whole of what is missing, so room that only two stores together could make is not found.
#[derive(Clone)]
pub struct MemoryManager {
    shell: Arc<Shell>,
    off_heap_reserved_bytes: u64,
}

impl MemoryManager {
    /// A manager whose budgets are 0 until they are set.
    #[must_use]
    pub fn builder() -> MemoryManagerBuilder {
        MemoryManagerBuilder { heap_bytes: 0, off_heap_bytes: 0, storage_fraction: STORAGE_FRACTION_DEFAULT }
    }

    /// `bytes` for blocks, if need be by evicting blocks of other datasets than `requester`.
    ///
    /// Never takes what execution holds, and never waits. May write victims to disk before it returns: hold no
    /// lock across it.
    ///
    /// # Errors
    /// [`Refused`] when the bytes are not to be had. If they are more than the budget less what execution holds,
    /// nothing was evicted for them.
    pub fn reserve_storage(
        &self,
        mode: MemoryMode,
        bytes: u64,
        requester: Option<DatasetId>,
    ) -> Result<Reservation, Refused> {
        self.shell.acquire_evicting(mode, Claim::Storage { held_bytes: 0 }, bytes, requester, false)?;
        Ok(Reservation::storage(Arc::clone(&self.shell), mode, bytes))
    }

    /// `bytes` for blocks from free memory: evicts nobody, and takes one short lock.
    ///
    /// # Errors
    /// [`Refused`] when fewer bytes are free.
    pub fn try_reserve_storage(&self, mode: MemoryMode, bytes: u64) -> Result<Reservation, Refused> {
        self.shell.acquire_free(mode, Claim::Storage { held_bytes: 0 }, bytes)?;
        Ok(Reservation::storage(Arc::clone(&self.shell), mode, bytes))
    }

    /// Registers a task that takes execution memory; it counts among the N until the handle, its clones and all
    /// its reservations are gone.
    ///
    /// Its requests may wait for other tasks, see [`TaskMemory::reserve`]: one task a thread. For an async
    /// runtime, or for many tasks on one thread, see [`nonblocking_task`](Self::nonblocking_task).
    #[must_use]
    pub fn task(&self) -> TaskMemory {
        TaskMemory::register(Arc::clone(&self.shell), true)
    }

    /// Like [`task`](Self::task), but its requests never wait: what would wait is refused.
    #[must_use]
    pub fn nonblocking_task(&self) -> TaskMemory {
        TaskMemory::register(Arc::clone(&self.shell), false)
    }

    /// Counts `bytes` of small, short-lived overhead outside the budgets, until the guard drops.
    ///
    /// For what must be allocated to make progress even when the budget refuses: one decompression buffer a
    /// reader, one chunk a spilling thread. It limits nothing and shows in [`MemorySnapshot::scratch_bytes`].
    pub fn scratch(&self, bytes: u64) -> Scratch {
        Scratch::new(Arc::clone(&self.shell), bytes)
    }

    /// Makes a budget larger or smaller while the stores are in use; how much is charged beyond it still.
    ///
    /// Blocks are evicted down to a smaller budget, coldest first and whatever dataset they are of. What is then
    /// charged beyond it is execution's, or pinned: it is given back as its holders end, and nothing is granted
    /// before. The protected region keeps its part of the budget.
    ///
    /// ```
    /// use larder_blockstore::{BlockStore, MemoryMode, StorageLevel};
    ///
    /// let store = BlockStore::builder().memory(10_000).build()?;
    /// let numbers = store.dataset::<u64>("numbers").level(StorageLevel::MEMORY_ONLY_SER).build()?;
    /// for partition in 0..2 {
    ///     numbers.get_or_compute(partition, |out| (0..500).try_for_each(|n| out.push(n)))?;
    /// }
    /// assert_eq!(store.memory().set_budget(MemoryMode::Heap, 5_000)?, 0);
    /// assert_eq!(numbers.status().heap_bytes, 4_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`MemoryError::OffHeapReserved`] for an off-heap budget larger than the manager was built with.
    pub fn set_budget(&self, mode: MemoryMode, bytes: u64) -> Result<u64, MemoryError> {
        let reserved_bytes = self.off_heap_reserved_bytes;
        if mode == MemoryMode::OffHeap && bytes > reserved_bytes {
            return Err(MemoryError::OffHeapReserved { requested_bytes: bytes, reserved_bytes });
        }
        Ok(self.shell.resize(mode, bytes))
    }

    /// What is held, by whom. Costs a look at every dataset and task.
    #[must_use]
    pub fn snapshot(&self) -> MemorySnapshot {
        self.shell.snapshot()
    }

    /// For a buffer that a reader cannot do without: charged to the heap if so much is free, else counted as
    /// scratch. Evicts nobody.
    pub(crate) fn reader_buffer(&self, bytes: u64) -> ReaderBuffer {
        match self.try_reserve_storage(MemoryMode::Heap, bytes) {
            Ok(charge) => ReaderBuffer::Charged(charge),
            Err(_) => ReaderBuffer::Counted(self.scratch(bytes)),
        }
    }

    pub(crate) fn next_dataset(&self) -> DatasetId {
        self.shell.next_dataset()
    }

    /// Adds someone who can evict blocks; forgotten when it is dropped.
    pub(crate) fn register(&self, reclaimer: std::sync::Weak<dyn Reclaim>) {
        self.shell.register(reclaimer);
    }
}

/// What stands for a reader's buffer in the accounts, until it drops.
#[derive(Debug)]
#[expect(dead_code, reason = "held for what dropping them does")]
pub(crate) enum ReaderBuffer {
    Charged(Reservation),
    Counted(Scratch),
}

impl fmt::Debug for MemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryManager").field(&self.snapshot()).finish()
    }
}

/// Sets the budgets of a [`MemoryManager`].
#[derive(Clone, Debug)]
pub struct MemoryManagerBuilder {
    heap_bytes: u64,
    off_heap_bytes: u64,
    storage_fraction: f64,
}

impl MemoryManagerBuilder {
    /// The heap budget in bytes, for storage and execution together. 0 unless set.
    #[must_use]
    pub fn heap(mut self, bytes: u64) -> Self {
        self.heap_bytes = bytes;
        self
    }

    /// The off-heap budget in bytes, for storage and execution together. 0 unless set.
    #[must_use]
    pub fn off_heap(mut self, bytes: u64) -> Self {
        self.off_heap_bytes = bytes;
        self
    }

    /// The part of each budget, from 0 to 1, down to which execution may evict storage. 0.5 unless set.
    #[must_use]
    pub fn storage_fraction(mut self, fraction: f64) -> Self {
        self.storage_fraction = fraction;
        self
    }

    /// The manager.
    ///
    /// # Errors
    /// [`MemoryError::StorageFraction`] for a fraction outside 0 to 1.
    pub fn build(self) -> Result<MemoryManager, MemoryError> {
        if !(0.0..=1.0).contains(&self.storage_fraction) {
            return Err(MemoryError::StorageFraction { fraction: self.storage_fraction });
        }
        let pools = Pools::new(self.heap_bytes, self.off_heap_bytes, self.storage_fraction);
        let off_heap_reserved_bytes = self.off_heap_bytes;
        Ok(MemoryManager { shell: Arc::new(Shell::new(pools)), off_heap_reserved_bytes })
    }
}
