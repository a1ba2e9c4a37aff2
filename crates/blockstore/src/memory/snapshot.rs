//! The manager's numbers at one moment.

use super::MemoryMode;
use crate::DatasetId;

/// One thing for the heap and one for the memory outside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PerMode<T> {
    pub(super) heap: T,
    pub(super) off_heap: T,
}

impl<T> PerMode<T> {
    pub(super) fn get(&self, mode: MemoryMode) -> &T {
        match mode {
            MemoryMode::Heap => &self.heap,
            MemoryMode::OffHeap => &self.off_heap,
        }
    }

    pub(super) fn get_mut(&mut self, mode: MemoryMode) -> &mut T {
        match mode {
            MemoryMode::Heap => &mut self.heap,
            MemoryMode::OffHeap => &mut self.off_heap,
        }
    }
}

/// What a [`MemoryManager`](super::MemoryManager) has given out.
///
/// The sums of storage and execution are of one moment. What blocks hold, and so the rest, is asked of the block
/// stores just after it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemorySnapshot {
    /// The heap budget.
    pub heap: ModeSnapshot,
    /// The off-heap budget.
    pub off_heap: ModeSnapshot,
    /// Tasks that hold execution memory or may ask for it: the N of the fair shares.
    pub tasks: usize,
    /// Tasks that wait for memory others hold.
    pub tasks_waiting: usize,
    /// Overhead counted outside the budgets.
    pub scratch_bytes: u64,
    /// The most [`scratch_bytes`](Self::scratch_bytes) ever was.
    pub scratch_peak_bytes: u64,
    /// What the blocks of each dataset hold, in the order of the datasets' numbers. Those that hold nothing are left
    /// out.
    pub datasets: Vec<DatasetMemory>,
    /// What each task holds, the eldest first.
    pub consumers: Vec<ConsumerMemory>,
}

/// What the blocks of one dataset hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatasetMemory {
    /// Which one.
    pub dataset: DatasetId,
    /// Its name.
    pub name: String,
    /// On the heap.
    pub heap_bytes: u64,
    /// In the arena.
    pub off_heap_bytes: u64,
}

/// What one task holds for the engine above.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerMemory {
    /// As it was [named](super::TaskMemory::named), or `task N`.
    pub name: String,
    /// On the heap.
    pub heap_bytes: u64,
    /// In the arena.
    pub off_heap_bytes: u64,
}

impl MemorySnapshot {
    /// The numbers of one mode.
    #[must_use]
    pub fn mode(&self, mode: MemoryMode) -> &ModeSnapshot {
        match mode {
            MemoryMode::Heap => &self.heap,
            MemoryMode::OffHeap => &self.off_heap,
        }
    }
}

impl MemorySnapshot {
    pub(super) fn mode_mut(&mut self, mode: MemoryMode) -> &mut ModeSnapshot {
        match mode {
            MemoryMode::Heap => &mut self.heap,
            MemoryMode::OffHeap => &mut self.off_heap,
        }
    }
}

impl DatasetMemory {
    pub(super) fn new(dataset: DatasetId, name: &str) -> Self {
        Self { dataset, name: name.to_owned(), heap_bytes: 0, off_heap_bytes: 0 }
    }

    pub(super) fn bytes_mut(&mut self, mode: MemoryMode) -> &mut u64 {
        match mode {
            MemoryMode::Heap => &mut self.heap_bytes,
            MemoryMode::OffHeap => &mut self.off_heap_bytes,
        }
    }
}

/// One budget and who holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModeSnapshot {
    /// The budget: what storage and execution may hold together.
    pub budget_bytes: u64,
    /// Held by storage.
    pub storage_bytes: u64,
    /// Of storage: by blocks that the stores list.
    pub block_bytes: u64,
    /// Of storage: by blocks that were evicted or removed while a reader holds them.
    pub pinned_evicted_bytes: u64,
    /// Of storage, the rest: by blocks that are being written, or were refused and are being drained, and by buffers
    /// of readers.
    pub in_flight_bytes: u64,
    /// Held by execution.
    pub execution_bytes: u64,
    /// Held by nobody.
    pub free_bytes: u64,
    /// Execution evicts storage down to here and no further.
    pub protected_storage_bytes: u64,
    /// The most storage ever held.
    pub storage_peak_bytes: u64,
    /// The most execution ever held.
    pub execution_peak_bytes: u64,
    /// The most both ever held together.
    pub charged_peak_bytes: u64,
    /// Requests of storage that were refused, other than those that would have taken free memory alone.
    pub storage_refused: u64,
    /// Requests of execution that were refused, other than those that would have taken free memory alone.
    pub execution_refused: u64,
}

impl ModeSnapshot {
    /// Held by storage and execution together: the sum of the live reservations.
    #[must_use]
    pub fn charged_bytes(&self) -> u64 {
        self.storage_bytes + self.execution_bytes
    }
}
