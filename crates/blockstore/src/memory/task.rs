//! A task's claim on execution memory.

use std::fmt;

use super::pools::{Claim, TaskId};
use super::shell::Shell;
use super::{MemoryMode, Refused, Reservation};
use crate::sync::Arc;

/// One active task among the N that share execution memory. See [`MemoryManager::task`](super::MemoryManager::task).
///
/// Clones are the same task. It counts as active until the handle, its clones and all its reservations are gone.
#[derive(Clone)]
pub struct TaskMemory {
    task: Arc<Task>,
}

pub(super) struct Task {
    pub(super) shell: Arc<Shell>,
    pub(super) id: TaskId,
    pub(super) may_wait: bool,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shell.remove_task(self.id);
    }
}

impl TaskMemory {
    pub(super) fn register(shell: Arc<Shell>, may_wait: bool) -> Self {
        let id = shell.register_task();
        Self { task: Arc::new(Task { shell, id, may_wait }) }
    }

    /// Gives the task a name, for snapshots: what is done, on what.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.task.shell.name_task(self.task.id, name.into());
        self
    }

    /// `bytes` for the task to work in: free memory, or memory that storage borrowed, by evicting blocks down to
    /// storage's protected region.
    ///
    /// With N tasks registered, a task is refused what would bring it above 1/N of what execution can have, even
    /// when it is free. What would leave it within 1/(2N) it is sure of: if other tasks hold it, the call
    /// **waits** until one gives back or ends (unless this is a
    /// [`nonblocking_task`](super::MemoryManager::nonblocking_task)). Tasks above their share are refused and
    /// not made to wait, so they go on and spill. A thread that holds another task's memory must not wait for it,
    /// and whoever waits must hold no lock a task needs to end.
    ///
    /// Never waits for a reader to let go of a block: if what storage borrowed is pinned, it is refused.
    ///
    /// ```
    /// use larder_blockstore::{MemoryManager, MemoryMode::Heap};
    ///
    /// let memory = MemoryManager::builder().heap(1_000).build()?;
    /// let (sort, join) = (memory.task(), memory.task());
    /// let mut runs = sort.reserve(Heap, 500)?;
    /// assert!(runs.grow(1, None).is_err());        // 1/2 is the most one of two may hold: time to spill
    /// let table = join.reserve(Heap, 400)?;
    /// # drop((runs, table));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Refused`]: time to spill, or to ask for no more than
    /// [`available_bytes`](Refused::available_bytes).
    pub fn reserve(&self, mode: MemoryMode, bytes: u64) -> Result<Reservation, Refused> {
        self.task.shell.acquire_evicting(mode, self.claim(), bytes, None, self.task.may_wait)?;
        Ok(Reservation::execution(Arc::clone(&self.task), mode, bytes))
    }

    /// `bytes` from free memory and within the task's share: evicts nobody and never waits.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn try_reserve(&self, mode: MemoryMode, bytes: u64) -> Result<Reservation, Refused> {
        self.task.shell.acquire_free(mode, self.claim(), bytes)?;
        Ok(Reservation::execution(Arc::clone(&self.task), mode, bytes))
    }

    /// Bytes the task's reservations hold together.
    #[must_use]
    pub fn bytes(&self, mode: MemoryMode) -> u64 {
        self.task.shell.task_bytes(mode, self.task.id)
    }

    fn claim(&self) -> Claim {
        Claim::Execution { task: self.task.id }
    }
}

impl fmt::Debug for TaskMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskMemory")
            .field("heap_bytes", &self.bytes(MemoryMode::Heap))
            .field("off_heap_bytes", &self.bytes(MemoryMode::OffHeap))
            .field("may_wait", &self.task.may_wait)
            .finish()
    }
}
