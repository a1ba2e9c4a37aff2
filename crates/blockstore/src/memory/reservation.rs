//! Bytes of a budget, held until dropped.

use std::fmt;

use super::pools::Claim;
use super::shell::Shell;
use super::task::Task;
use super::{MemoryMode, MemoryUse, Refused};
use crate::DatasetId;
use crate::sync::Arc;

/// Bytes of a [`MemoryManager`](super::MemoryManager)'s budget. Gives them back when it is dropped.
///
/// More cannot be given back than was taken: the only way to hold bytes is to have been granted them, and
/// [`shrink`](Self::shrink) and [`split`](Self::split) stop at what is held.
///
/// ```
/// use larder_blockstore::{MemoryManager, MemoryMode::Heap};
///
/// let memory = MemoryManager::builder().heap(100).build()?;
/// let mut unrolled = memory.try_reserve_storage(Heap, 30)?;
/// unrolled.try_grow(50)?;                      // 80 are held
/// let chunk = unrolled.split(60);              // 20 and 60
/// assert_eq!((unrolled.bytes(), chunk.bytes()), (20, 60));
/// assert_eq!(unrolled.shrink(1_000), 20);      // all it had
/// drop(chunk);
/// assert_eq!(memory.snapshot().heap.charged_bytes(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a reservation gives its bytes back when it is dropped"]
pub struct Reservation {
    owner: Owner,
    mode: MemoryMode,
    bytes: u64,
}

enum Owner {
    Storage(Arc<Shell>),
    Execution(Arc<Task>),
}

impl Reservation {
    /// Over bytes that were granted.
    pub(super) fn storage(shell: Arc<Shell>, mode: MemoryMode, bytes: u64) -> Self {
        Self { owner: Owner::Storage(shell), mode, bytes }
    }

    /// Over bytes that were granted.
    pub(super) fn execution(task: Arc<Task>, mode: MemoryMode, bytes: u64) -> Self {
        Self { owner: Owner::Execution(task), mode, bytes }
    }

    /// Bytes held. 0 is fine.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The budget they are of.
    #[must_use]
    pub fn mode(&self) -> MemoryMode {
        self.mode
    }

    /// For whom they are held.
    #[must_use]
    pub fn memory_use(&self) -> MemoryUse {
        match &self.owner {
            Owner::Storage(_) => MemoryUse::Storage,
            Owner::Execution(_) => MemoryUse::Execution,
        }
    }

    /// `bytes` more from free memory: evicts nobody and never waits.
    ///
    /// # Errors
    /// [`Refused`]; what was held is held still.
    pub fn try_grow(&mut self, bytes: u64) -> Result<(), Refused> {
        self.shell().acquire_free(self.mode, self.claim(), bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// `bytes` more, if need be by evicting blocks of other datasets than `requester`.
    ///
    /// The rules are those of [`reserve_storage`](super::MemoryManager::reserve_storage) or
    /// [`TaskMemory::reserve`](super::TaskMemory::reserve), as the reservation was made. Hold no lock across it.
    ///
    /// # Errors
    /// [`Refused`]; what was held is held still. If the reservation could not grow so far even by evicting all
    /// that may be evicted, nothing was.
    pub fn grow(&mut self, bytes: u64, requester: Option<DatasetId>) -> Result<(), Refused> {
        let may_wait = match &self.owner {
            Owner::Storage(_) => false,
            Owner::Execution(task) => task.may_wait,
        };
        self.shell().acquire_evicting(self.mode, self.claim(), bytes, requester, may_wait)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back `bytes`, or all when it holds fewer. Returns how many were given back.
    pub fn shrink(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.min(self.bytes);
        if bytes > 0 {
            self.bytes -= bytes;
            self.shell().release(self.mode, self.claim(), bytes);
        }
        bytes
    }

    /// Moves `bytes`, or all when it holds fewer, to a new reservation. Takes no lock.
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        let owner = match &self.owner {
            Owner::Storage(shell) => Owner::Storage(Arc::clone(shell)),
            Owner::Execution(task) => Owner::Execution(Arc::clone(task)),
        };
        Self { owner, mode: self.mode, bytes }
    }

    /// Moves all of `other` into this one. Takes no lock.
    ///
    /// # Errors
    /// `other` as it was, when it is of another manager, mode, use or task.
    pub fn merge(&mut self, mut other: Self) -> Result<(), Self> {
        let same_owner = match (&self.owner, &other.owner) {
            (Owner::Storage(mine), Owner::Storage(theirs)) => Arc::ptr_eq(mine, theirs),
            (Owner::Execution(mine), Owner::Execution(theirs)) => Arc::ptr_eq(mine, theirs),
            _ => false,
        };
        if !same_owner || self.mode != other.mode {
            return Err(other);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }

    fn shell(&self) -> &Shell {
        match &self.owner {
            Owner::Storage(shell) => shell,
            Owner::Execution(task) => &task.shell,
        }
    }

    fn claim(&self) -> Claim {
        match &self.owner {
            Owner::Storage(_) => Claim::Storage { held_bytes: self.bytes },
            Owner::Execution(task) => Claim::Execution { task: task.id },
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("memory_use", &self.memory_use())
            .field("mode", &self.mode)
            .field("bytes", &self.bytes)
            .finish()
    }
}
