//! The manager's numbers at one moment.

use super::MemoryMode;

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

/// What a [`MemoryManager`](super::MemoryManager) has given out, all taken at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// One budget and who holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModeSnapshot {
    /// The budget: what storage and execution may hold together.
    pub budget_bytes: u64,
    /// Held by storage.
    pub storage_bytes: u64,
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
    /// Requests of storage that were refused.
    pub storage_refused: u64,
    /// Requests of execution that were refused.
    pub execution_refused: u64,
}

impl ModeSnapshot {
    /// Held by storage and execution together: the sum of the live reservations.
    #[must_use]
    pub fn charged_bytes(&self) -> u64 {
        self.storage_bytes + self.execution_bytes
    }
}
