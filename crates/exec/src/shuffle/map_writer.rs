//! The output of a map task on its way into the store.

use std::rc::Rc;
use std::sync::Arc;

use larder_blockstore::memory::{Refused, Scratch};
use larder_blockstore::{BlockStore, BlockWriter, Entry, Finished};

use super::Shared;
use super::output::{Round, Slice};
use crate::batch::BATCH_RECORDS;
use crate::data::Portable;
use crate::error::{Cause, TaskError};
use crate::ops::deferred::BATCH_BYTES;
use crate::spill::{FLOOR_BYTES, Working, heap_bytes};
use crate::task::Task;

/// What a round of a map task holds: a 64th of the heap budget within these bounds.
const ROUND_BYTES_MIN: u64 = 2 << 20;
const ROUND_BYTES_MAX: u64 = 16 << 20;
const ROUNDS_A_BUDGET: u64 = 64;

/// What a round holds for each reduce partition, so that slices do not become tiny.
const ROUND_SLICE_BYTES: u64 = 16 << 10;

/// A round takes no more than this part of the heap budget, whatever is said above, but for what any operator may hold.
const BUDGET_ROUNDS_MIN: u64 = 8;

/// Slots for records at first.
const START_SLOTS: usize = 64;

/// How large rounds are.
pub(super) struct RoundBytes {
    /// A round ends when it holds this.
    max: usize,
    /// Asked for before a map task does anything else that takes memory.
    start: u64,
}

impl RoundBytes {
    pub(super) fn new(store: &BlockStore, reduces: u32) -> Self {
        let budget = store.memory().snapshot().heap.budget_bytes;
        let share = budget / ROUNDS_A_BUDGET;
        let max = share
            .clamp(ROUND_BYTES_MIN, ROUND_BYTES_MAX)
            .max(u64::from(reduces) * ROUND_SLICE_BYTES)
            .min(budget / BUDGET_ROUNDS_MIN)
            .max(FLOOR_BYTES);
        let start = share.min(ROUND_BYTES_MIN).min(max);
        Self { max: usize::try_from(max).unwrap_or(usize::MAX), start }
    }
}

/// Where a map task puts its records. They are held until a round is full, or no more memory is granted, and become
/// one block then, in the order of their reduce partitions. What was written goes when it drops unfinished.
pub(crate) struct MapWriter<W: Portable> {
    shared: Arc<Shared<W>>,
    task: Task,
    map_partition: u32,
    /// The reduce partition of each record.
    targets: Vec<u32>,
    records: Vec<W>,
    /// Records that memory is granted for.
    slots: usize,
    /// What the records own.
    heap_bytes: usize,
    /// What they may own.
    heap_room: usize,
    rounds: Vec<Round>,
    working: Working,
    /// For [`order`](Self::order).
    starts: Vec<u32>,
    _starts_counted: Scratch,
}

impl<W: Portable> MapWriter<W> {
    /// A record, its target, and its place in the order.
    const SLOT_BYTES: usize = size_of::<W>() + 2 * size_of::<u32>();

    pub(super) fn new(shared: &Arc<Shared<W>>, task: &Task, map_partition: u32) -> Result<Self, TaskError> {
        // Without a disk, what this shuffle stored must not go for the sake of what it still has to store.
        let spared = (!shared.uses_disk()).then(|| shared.blocks.id());
        let mut working = Working::new(task)?.sparing(spared);
        let _ = working.cover(shared.round_bytes.start);
        let starts = vec![0; shared.reduces as usize];
        let counted = task.context().store().memory().scratch(size_of_val::<[u32]>(&starts) as u64);
        Ok(Self {
            shared: Arc::clone(shared),
            task: Rc::clone(task),
            map_partition,
            targets: Vec::new(),
            records: Vec::new(),
            slots: 0,
            heap_bytes: 0,
            heap_room: 0,
            rounds: Vec::new(),
            working,
            starts,
            _starts_counted: counted,
        })
    }

    pub(crate) fn reduces(&self) -> u32 {
        self.shared.reduces
    }

    pub(crate) fn map_partition(&self) -> u32 {
        self.map_partition
    }

    #[inline]
    pub(crate) fn push(&mut self, reduce_partition: u32, record: W) -> Result<(), TaskError> {
        let heap = heap_bytes(&record);
        if self.records.len() >= self.slots || self.heap_bytes + heap > self.heap_room {
            self.make_room(heap)?;
        }
        self.heap_bytes += heap;
        self.targets.push(reduce_partition);
        self.records.push(record);
        Ok(())
    }

    /// Makes room for one more record that owns `heap` bytes, by more memory or by ending the round.
    #[cold]
    fn make_room(&mut self, heap: usize) -> Result<(), TaskError> {
        let bytes = self.bytes().saturating_add(Self::SLOT_BYTES).saturating_add(heap);
        if bytes <= self.shared.round_bytes.max && self.grow(heap).is_ok() {
            return Ok(());
        }
        self.end_round()?;
        // One record is taken in any case.
        if self.slots == 0 || heap > self.heap_room {
            let _ = self.grow(heap);
            self.slots = self.slots.max(1);
        }
        Ok(())
    }

    /// What the records of the round take.
    fn bytes(&self) -> usize {
        (self.records.len() * Self::SLOT_BYTES).saturating_add(self.heap_bytes)
    }

    fn grow(&mut self, heap: usize) -> Result<(), Refused> {
        let owned = self.heap_bytes.saturating_add(heap);
        if self.records.len() < self.slots {
            return self.cover(self.slots, owned);
        }
        let most = self.shared.round_bytes.max / Self::SLOT_BYTES;
        let doubled = self.slots.saturating_mul(2).max(START_SLOTS).min(most).max(self.slots + 1);
        if self.cover(doubled, owned).is_err() {
            self.cover(self.slots + self.slots / 4 + 1, owned)?;
        }
        let more = self.slots - self.records.len();
        self.targets.reserve_exact(more);
        self.records.reserve_exact(more);
        Ok(())
    }

    /// Sees that `slots` records that own `heap` bytes are granted.
    fn cover(&mut self, slots: usize, heap: usize) -> Result<(), Refused> {
        let slot_bytes = slots.saturating_mul(Self::SLOT_BYTES);
        self.working.cover(slot_bytes.saturating_add(heap) as u64)?;
        self.slots = slots;
        self.heap_room = usize::try_from(self.working.covered_bytes()).unwrap_or(usize::MAX) - slot_bytes;
        Ok(())
    }

    /// Stores the records of the round.
    fn end_round(&mut self) -> Result<(), TaskError> {
        if self.records.is_empty() {
            return Ok(());
        }
        let number = self.shared.another_block()?;
        let Entry::Vacant(writer) = self.shared.blocks.entry(number).map_err(Cause::from)? else {
            return Err(Cause::Internal.into());
        };
        if !self.shared.uses_disk() {
            // The block has to find room beside the round.
            let held = self.slots * Self::SLOT_BYTES + self.heap_bytes;
            self.working.shrink_to(held as u64);
            self.heap_room = self.heap_bytes;
        }
        let order = self.order();
        if order.len() != self.records.len() {
            return Err(TaskError::Stale);
        }
        let slices = self.write(&order, writer)?;
        let record_bytes = self.bytes() / self.records.len();
        let batch_records = (BATCH_BYTES / record_bytes.max(1)).clamp(1, BATCH_RECORDS);
        let records = self.records.len() as u64;
        let store = self.task.context().store();
        self.rounds.push(Round::new(store, number, slices, records, batch_records));
        self.targets.clear();
        self.records.clear();
        self.heap_bytes = 0;
        Ok(())
    }

    /// The records of the round by their targets, and those of one target as they came.
    fn order(&mut self) -> Vec<u32> {
        self.starts.fill(0);
        for target in &self.targets {
            if let Some(count) = self.starts.get_mut(*target as usize) {
                *count += 1;
            }
        }
        let mut next = 0;
        for start in &mut self.starts {
            let count = std::mem::replace(start, next);
            next += count;
        }
        let mut order = vec![0; next as usize];
        for (record, target) in self.targets.iter().enumerate() {
            if let Some(start) = self.starts.get_mut(*target as usize)
                && let Some(place) = order.get_mut(*start as usize)
            {
                *place = record as u32;
                *start += 1;
            }
        }
        order
    }

    /// Writes the records of the round in this order.
    fn write(&self, order: &[u32], mut writer: BlockWriter<W>) -> Result<Vec<Slice>, TaskError> {
        let mut slices: Vec<Slice> = Vec::new();
        for (written, record) in order.iter().map(|record| *record as usize).enumerate() {
            if written % BATCH_RECORDS == 0 {
                self.task.check()?;
            }
            let target = self.targets.get(record).copied().unwrap_or_default();
            if slices.last().is_none_or(|last| last.reduce_partition != target) {
                let start = writer.mark().map_err(Cause::from)?;
                slices.push(Slice { reduce_partition: target, start });
            }
            let record = self.records.get(record).map(std::slice::from_ref).unwrap_or_default();
            if writer.push_slice(record).map_err(Cause::from)? != 1 {
                return Err(Cause::ShuffleRefused.into());
            }
        }
        match writer.finish().map_err(Cause::from)? {
            Finished::Stored(_) => Ok(slices),
            Finished::Refused(_) => Err(Cause::ShuffleRefused.into()),
        }
    }

    pub(super) fn finish(mut self) -> Result<Arc<[Round]>, TaskError> {
        self.end_round()?;
        Ok(std::mem::take(&mut self.rounds).into())
    }
}

impl<W: Portable> Drop for MapWriter<W> {
    fn drop(&mut self) {
        self.shared.remove(&self.rounds);
    }
}
