//! The output of a map task on its way into the store.

use std::sync::Arc;

use larder_blockstore::{BlockStore, BlockWriter, Entry, Finished, Pushed, StoredDataset};

use super::{Round, Shared};
use crate::data::Portable;
use crate::error::{Cause, TaskError};
use crate::spill::heap_bytes;

/// What a round of a map task holds: a 64th of the heap budget within these bounds.
const ROUND_BYTES_MIN: u64 = 2 << 20;
const ROUND_BYTES_MAX: u64 = 16 << 20;
const ROUNDS_A_BUDGET: u64 = 64;

pub(super) fn round_bytes(store: &BlockStore) -> usize {
    let share = store.memory().snapshot().heap.budget_bytes / ROUNDS_A_BUDGET;
    share.clamp(ROUND_BYTES_MIN, ROUND_BYTES_MAX) as usize
}

/// What a round holds for each reduce partition, at least, so that blocks do not become tiny.
const ROUND_BLOCK_BYTES: usize = 16 << 10;

/// One record of so many is measured.
const MEASURED_RECORDS: u32 = 16;

/// Where a map task puts its records: one block for each reduce partition that gets any in a round. What was written
/// goes when it drops unfinished.
pub(crate) struct MapWriter<W: Portable> {
    shared: Arc<Shared<W>>,
    map_partition: u32,
    first_block: u32,
    writers: Vec<Option<BlockWriter<W>>>,
    /// About what was pushed in this round.
    round_bytes: usize,
    round_bytes_max: usize,
    records: u32,
    /// What the last measured record owns.
    record_heap_bytes: usize,
    rounds: Vec<Round>,
}

impl<W: Portable> MapWriter<W> {
    pub(super) fn new(shared: &Arc<Shared<W>>, map_partition: u32) -> Self {
        let reduces = shared.reduces as usize;
        Self {
            shared: Arc::clone(shared),
            map_partition,
            first_block: map_partition * shared.reduces,
            writers: (0..reduces).map(|_| None).collect(),
            round_bytes: 0,
            round_bytes_max: shared.round_bytes.max(reduces.saturating_mul(ROUND_BLOCK_BYTES)),
            records: 0,
            record_heap_bytes: 0,
            rounds: Vec::new(),
        }
    }

    pub(crate) fn reduces(&self) -> u32 {
        self.shared.reduces
    }

    pub(crate) fn map_partition(&self) -> u32 {
        self.map_partition
    }

    pub(crate) fn push(&mut self, reduce_partition: u32, record: W) -> Result<(), TaskError> {
        self.count(&record)?;
        match self.writer(reduce_partition)?.push(record).map_err(Cause::from)? {
            Pushed::Kept => Ok(()),
            Pushed::Refused(_) => Err(Cause::ShuffleRefused.into()),
        }
    }

    /// As [`push`](Self::push), of a record that stays where it is.
    pub(crate) fn push_ref(&mut self, reduce_partition: u32, record: &W) -> Result<(), TaskError> {
        self.count(record)?;
        let writer = self.writer(reduce_partition)?;
        let kept = writer.push_slice(std::slice::from_ref(record)).map_err(Cause::from)?;
        if kept == 1 { Ok(()) } else { Err(Cause::ShuffleRefused.into()) }
    }

    #[inline]
    fn count(&mut self, record: &W) -> Result<(), TaskError> {
        if std::mem::needs_drop::<W>() {
            if self.records.is_multiple_of(MEASURED_RECORDS) {
                self.record_heap_bytes = heap_bytes(record);
            }
            self.records = self.records.wrapping_add(1);
        }
        if self.round_bytes >= self.round_bytes_max {
            self.begin_round()?;
        }
        self.round_bytes += size_of::<W>() + self.record_heap_bytes;
        Ok(())
    }

    #[cold]
    fn begin_round(&mut self) -> Result<(), TaskError> {
        if let Some(first_block) = self.shared.another_round() {
            self.end_round()?;
            self.first_block = first_block;
        }
        self.round_bytes = 0;
        Ok(())
    }

    /// Stores the blocks of the round.
    fn end_round(&mut self) -> Result<(), TaskError> {
        let mut round =
            Round { first_block: self.first_block, has_block: vec![false; self.writers.len()].into() };
        let mut stored = Ok(());
        for (writer, has_block) in self.writers.iter_mut().zip(&mut round.has_block) {
            let Some(writer) = writer.take() else { continue };
            stored = match writer.finish() {
                Ok(Finished::Stored(_)) => {
                    *has_block = true;
                    continue;
                }
                Ok(Finished::Refused(_)) => Err(Cause::ShuffleRefused.into()),
                Err(error) => Err(Cause::from(error).into()),
            };
            break;
        }
        self.rounds.push(round);
        stored
    }

    fn writer(&mut self, reduce_partition: u32) -> Result<&mut BlockWriter<W>, TaskError> {
        let writer = self.writers.get_mut(reduce_partition as usize).ok_or(TaskError::Stale)?;
        if writer.is_none() {
            *writer = Some(vacate(&self.shared.blocks, self.first_block + reduce_partition)?);
        }
        writer.as_mut().ok_or(TaskError::Stale)
    }

    pub(super) fn finish(mut self) -> Result<Box<[Round]>, TaskError> {
        self.end_round()?;
        Ok(std::mem::take(&mut self.rounds).into())
    }
}

impl<W: Portable> Drop for MapWriter<W> {
    fn drop(&mut self) {
        self.shared.remove(&self.rounds);
    }
}

/// A writer for a block that only this thread may write. What an earlier attempt left there is removed.
fn vacate<W: Portable>(blocks: &StoredDataset<W>, block: u32) -> Result<BlockWriter<W>, TaskError> {
    loop {
        match blocks.entry(block).map_err(Cause::from)? {
            Entry::Vacant(writer) => return Ok(writer),
            Entry::Resident(_) => drop(blocks.remove(block)),
            Entry::InFlight(flight) => drop(flight.wait()),
        }
    }
}
