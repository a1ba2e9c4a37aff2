//! The memory one operator works in.

use larder_blockstore::memory::{Refused, Reservation, Scratch};
use larder_blockstore::{DatasetId, MemoryManager, MemoryMode};

use super::FLOOR_BYTES;
use crate::error::{Cause, TaskError};
use crate::task::Task;

/// Requests are for this many bytes at least.
const STEP_BYTES: u64 = 64 << 10;
/// The most that is asked for ahead of need.
const AHEAD_BYTES_MAX: u64 = 1 << 20;

/// Execution memory of one operator, given back on drop. Where it is refused there is the floor.
pub(crate) struct Working {
    manager: MemoryManager,
    charge: Reservation,
    floor: Option<Scratch>,
    /// Whose blocks are not evicted for it.
    spared: Option<DatasetId>,
}

impl Working {
    pub(crate) fn new(task: &Task) -> Result<Self, TaskError> {
        let charge = task.memory().reserve(MemoryMode::Heap, 0).map_err(refused)?;
        Ok(Self { manager: task.context().store().memory().clone(), charge, floor: None, spared: None })
    }

    /// Evicts no block of this dataset.
    pub(crate) fn sparing(self, spared: Option<DatasetId>) -> Self {
        Self { spared, ..self }
    }

    /// Bytes it may use.
    pub(crate) fn covered_bytes(&self) -> u64 {
        self.charge.bytes() + if self.floor.is_some() { FLOOR_BYTES } else { 0 }
    }

    /// Makes sure that it may use `bytes` in all. May evict blocks, and so write to disk; never waits.
    pub(crate) fn cover(&mut self, bytes: u64) -> Result<(), Refused> {
        let need = bytes.saturating_sub(self.covered_bytes());
        if need == 0 {
            return Ok(());
        }
        let ahead = self.covered_bytes().clamp(STEP_BYTES, AHEAD_BYTES_MAX);
        let Err(refused) = self.charge.grow(need.max(ahead), self.spared) else { return Ok(()) };
        if refused.available_bytes >= need && self.charge.grow(need, self.spared).is_ok() {
            return Ok(());
        }
        if self.floor.is_none() {
            self.floor = Some(self.manager.scratch(FLOOR_BYTES));
            if self.covered_bytes() >= bytes {
                return Ok(());
            }
        }
        Err(refused)
    }

    /// Covers `each` bytes for as many of `most` as are granted, but for `least` in any case.
    pub(crate) fn cover_some(&mut self, each: u64, most: usize, least: usize) -> usize {
        let mut count = most;
        while count > least && self.cover(each.saturating_mul(count as u64)).is_err() {
            count = (count / 2).max(least);
        }
        count
    }

    /// Gives back what is beyond `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        self.charge.shrink(self.covered_bytes().saturating_sub(bytes));
    }

    /// Moves what is beyond `bytes` to another operator of the task.
    pub(crate) fn split_beyond(&mut self, bytes: u64) -> Self {
        let beyond = self.covered_bytes().saturating_sub(bytes);
        let (manager, charge) = (self.manager.clone(), self.charge.split(beyond));
        Self { manager, charge, floor: None, spared: self.spared }
    }
}

/// Memory is refused, and nothing can be spilled.
pub(crate) fn refused(refused: Refused) -> TaskError {
    Cause::MemoryRefused {
        needed_bytes: refused.requested_bytes,
        available_bytes: refused.available_bytes,
        budget_bytes: refused.budget_bytes,
    }
    .into()
}
