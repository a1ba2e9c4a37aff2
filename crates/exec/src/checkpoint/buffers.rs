//! What writers and readers of parts hold, in the accounts of the memory manager.

use larder_blockstore::format::CHUNK_BYTES_MAX;
use larder_blockstore::memory::{Reservation, Scratch};
use larder_blockstore::{MemoryManager, MemoryMode};
use larder_checkpoint::{Attempt, Checkpoint, Error as CheckpointError, PartReader, PartWriter};

use crate::context::Context;

/// The writers or readers of all threads together are asked to hold no more than this part of the heap budget.
const BUDGET_PART: u64 = 4;
/// Buffers grow in the accounts by so much at least.
const STEP_BYTES: u64 = 64 << 10;

/// Opens parts of checkpoints, and accounts for what that takes.
#[derive(Clone)]
pub(crate) struct PartMemory {
    memory: MemoryManager,
    threads: usize,
}

impl PartMemory {
    pub(crate) fn of(context: &Context) -> Self {
        Self { memory: context.store().memory().clone(), threads: context.threads() }
    }

    /// Starts to write a part. Its buffers are to be covered by what its writer says that it holds.
    pub(crate) fn start(
        &self,
        attempt: &Attempt,
        partition: u32,
    ) -> Result<(PartWriter, Buffers), CheckpointError> {
        let share = usize::try_from(self.share()).unwrap_or(usize::MAX);
        Ok((attempt.part_within(partition, share)?, Buffers::new(&self.memory)))
    }

    /// Reads a part back that was written.
    pub(crate) fn verify(&self, attempt: &Attempt, partition: u32) -> Result<(), CheckpointError> {
        let part = attempt.read_back(partition)?.within(self.share());
        let mut buffers = Buffers::new(&self.memory);
        buffers.cover(part.bytes_max());
        part.verify()
    }

    /// Opens a part to read records of it: what the reader holds, and a chunk of it decompressed.
    pub(crate) fn read(
        &self,
        checkpoint: &Checkpoint,
        partition: u32,
    ) -> Result<(PartReader, Buffers), CheckpointError> {
        let part = checkpoint.read_part(partition)?.within(self.share());
        let mut buffers = Buffers::new(&self.memory);
        buffers.cover(part.bytes_max() + part.bytes_max().min(CHUNK_BYTES_MAX as u64));
        Ok((part, buffers))
    }

    /// What one of the writers or readers is asked to hold at most.
    fn share(&self) -> u64 {
        self.memory.snapshot().heap.budget_bytes / BUDGET_PART / self.threads.max(1) as u64
    }
}

/// Bytes of buffers that a part cannot do without: charged to the heap budget as far as so much is free, else counted
/// as scratch. Evicts nobody, never waits and is never refused, so a part is written however little memory there is.
pub(crate) struct Buffers {
    memory: MemoryManager,
    charged: Option<Reservation>,
    counted: Option<Scratch>,
    /// What both are together.
    bytes: u64,
}

impl Buffers {
    fn new(memory: &MemoryManager) -> Self {
        Self { memory: memory.clone(), charged: None, counted: None, bytes: 0 }
    }

    /// Has at least so many bytes in the accounts, until it drops.
    pub(crate) fn cover(&mut self, bytes: u64) {
        let missing = bytes.saturating_sub(self.bytes);
        if missing == 0 || self.charge(missing.max(STEP_BYTES)) || self.charge(missing) {
            return;
        }
        let counted = self.counted.take().map_or(0, |counted| counted.bytes());
        self.counted = Some(self.memory.scratch(counted + missing));
        self.bytes += missing;
    }

    fn charge(&mut self, bytes: u64) -> bool {
        let is_charged = match &mut self.charged {
            Some(charged) => charged.try_grow(bytes).is_ok(),
            charged => {
                *charged = self.memory.try_reserve_storage(MemoryMode::Heap, bytes).ok();
                charged.is_some()
            }
        };
        self.bytes += if is_charged { bytes } else { 0 };
        is_charged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_charged_while_memory_is_free_and_counted_beyond() -> Result<(), Box<dyn std::error::Error>>
    {
        let memory = MemoryManager::builder().heap(3 * STEP_BYTES).build()?;
        let charged_and_counted = || {
            let snapshot = memory.snapshot();
            (snapshot.heap.in_flight_bytes, snapshot.scratch_bytes)
        };
        let (mut one, mut two) = (Buffers::new(&memory), Buffers::new(&memory));
        assert_eq!(charged_and_counted(), (0, 0));
        one.cover(1);
        one.cover(STEP_BYTES);
        assert_eq!(charged_and_counted(), (STEP_BYTES, 0));
        one.cover(STEP_BYTES + 1);
        two.cover(STEP_BYTES - 1);
        assert_eq!(charged_and_counted(), (3 * STEP_BYTES, 0));
        two.cover(STEP_BYTES + 7);
        assert_eq!(charged_and_counted(), (3 * STEP_BYTES, 7));
        two.cover(STEP_BYTES + 9);
        assert_eq!(charged_and_counted(), (3 * STEP_BYTES, 9));
        drop(one);
        two.cover(STEP_BYTES + 10);
        assert_eq!(charged_and_counted(), (2 * STEP_BYTES, 9), "what became free is charged");
        drop(two);
        assert_eq!(charged_and_counted(), (0, 0));
        Ok(())
    }
}
