//! The output of a map task on its way into the store.

use std::rc::Rc;
use std::sync::Arc;

use larder_blockstore::memory::{Refused, Scratch};
use larder_blockstore::{BlockStore, BlockWriter, Entry, Finished};

use super::Shared;
use super::held::Held;
use super::output::{Round, Slice};
use crate::batch::{BATCH_RECORDS, Batch, SharedBatch};
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

/// Fewer records of others than these are copied, so that what is noted of each batch weighs little.
const SHARED_RECORDS_MIN: usize = 16;

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
            .max(FLOOR_BYTES)
            // The records of a round are counted in 32 bits.
            .min(u64::from(u32::MAX));
        let start = share.min(ROUND_BYTES_MIN).min(max);
        Self { max: usize::try_from(max).unwrap_or(usize::MAX), start }
    }
}

/// Where a map task puts its records. They are held until a round is full, or no more memory is granted, and become
/// one block then, in the order of their reduce partitions. What was written goes when it drops unfinished.
///
/// Records of others are held where they lie, and charged like copies: their owners may let go of them before the round
/// ends.
pub(crate) struct MapWriter<W: Portable> {
    shared: Arc<Shared<W>>,
    task: Task,
    map_partition: u32,
    held: Held<W>,
    /// Records that memory is granted for.
    slots: usize,
    /// What the records own.
    heap_bytes: usize,
    /// What they may own.
    heap_room: usize,
    rounds: Vec<Round>,
    working: Working,
    /// For [`Held::order`].
    ends: Vec<u32>,
    _ends_counted: Scratch,
}

impl<W: Portable> MapWriter<W> {
    pub(super) fn new(shared: &Arc<Shared<W>>, task: &Task, map_partition: u32) -> Result<Self, TaskError> {
        // Without a disk, what this shuffle stored must not go for the sake of what it still has to store.
        let spared = (!shared.uses_disk()).then(|| shared.blocks.id());
        let mut working = Working::new(task)?.sparing(spared);
        let _ = working.cover(shared.round_bytes.start);
        let ends = vec![0; shared.reduces as usize];
        let counted = task.context().store().memory().scratch(size_of_val::<[u32]>(&ends) as u64);
        Ok(Self {
            shared: Arc::clone(shared),
            task: Rc::clone(task),
            map_partition,
            held: Held::new(),
            slots: 0,
            heap_bytes: 0,
            heap_room: 0,
            rounds: Vec::new(),
            working,
            ends,
            _ends_counted: counted,
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
        self.charge(heap)?;
        self.held.push(reduce_partition, record, self.slots);
        Ok(())
    }

    /// Pushes each record of a batch to the reduce partition that `target` gives for it.
    pub(crate) fn push_batch(
        &mut self,
        batch: Batch<W>,
        mut target: impl FnMut(&W) -> u32,
    ) -> Result<(), TaskError> {
        match batch {
            // Without a disk, what this shuffle stores may need the room of a block that these records would pin.
            Batch::Shared(shared) if shared.range.len() >= SHARED_RECORDS_MIN && self.shared.uses_disk() => {
                self.push_shared(&shared, target)
            }
            batch => batch.try_for_each(|record| self.push(target(&record), record)),
        }
    }

    fn push_shared(
        &mut self,
        shared: &SharedBatch<W>,
        mut target: impl FnMut(&W) -> u32,
    ) -> Result<(), TaskError> {
        let batch = Batch::Shared(shared.clone());
        let mut held = 0;
        for (index, record) in batch.as_slice().iter().enumerate() {
            let heap = heap_bytes(record);
            if self.is_full_for(heap) {
                // The round may end here.
                self.held.hold(shared, held..index);
                held = index;
            }
            self.charge(heap)?;
            self.held.push_target(target(record));
        }
        self.held.hold(shared, held..batch.len());
        Ok(())
    }

    #[inline]
    fn is_full_for(&self, heap: usize) -> bool {
        self.held.len() >= self.slots || self.heap_bytes.saturating_add(heap) > self.heap_room
    }

    /// Counts one more record that owns `heap` bytes.
    #[inline]
    fn charge(&mut self, heap: usize) -> Result<(), TaskError> {
        if self.is_full_for(heap) {
            self.make_room(heap)?;
        }
        self.heap_bytes += heap;
        Ok(())
    }

    /// Makes room for one more record that owns `heap` bytes, by more memory or by ending the round.
    #[cold]
    fn make_room(&mut self, heap: usize) -> Result<(), TaskError> {
        let bytes = self.bytes().saturating_add(Held::<W>::SLOT_BYTES).saturating_add(heap);
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
        (self.held.len() * Held::<W>::SLOT_BYTES).saturating_add(self.heap_bytes)
    }

    fn grow(&mut self, heap: usize) -> Result<(), Refused> {
        let owned = self.heap_bytes.saturating_add(heap);
        if self.held.len() < self.slots {
            return self.cover(self.slots, owned);
        }
        let most = self.shared.round_bytes.max / Held::<W>::SLOT_BYTES;
        let doubled = self.slots.saturating_mul(2).max(START_SLOTS).min(most).max(self.slots + 1);
        if self.cover(doubled, owned).is_err() {
            self.cover(self.slots + self.slots / 4 + 1, owned)?;
        }
        self.held.reserve(self.slots);
        Ok(())
    }

    /// Sees that `slots` records that own `heap` bytes are granted.
    fn cover(&mut self, slots: usize, heap: usize) -> Result<(), Refused> {
        let slot_bytes = slots.saturating_mul(Held::<W>::SLOT_BYTES);
        self.working.cover(slot_bytes.saturating_add(heap) as u64)?;
        self.slots = slots;
        self.heap_room = usize::try_from(self.working.covered_bytes()).unwrap_or(usize::MAX) - slot_bytes;
        Ok(())
    }

    /// Stores the records of the round.
    fn end_round(&mut self) -> Result<(), TaskError> {
        let records = self.held.len();
        if records == 0 {
            return Ok(());
        }
        let number = self.shared.another_block()?;
        let Entry::Vacant(writer) = self.shared.blocks.entry(number).map_err(Cause::from)? else {
            return Err(Cause::Internal.into());
        };
        if !self.shared.uses_disk() {
            // The block has to find room beside the round.
            let held = self.slots * Held::<W>::SLOT_BYTES + self.heap_bytes;
            self.working.shrink_to(held as u64);
            self.heap_room = self.heap_bytes;
        }
        let order = self.held.order(&mut self.ends).ok_or(Cause::Internal)?;
        let slices = write(&self.task, &order, &self.ends, writer)?;
        drop(order);
        let record_bytes = self.bytes() / records;
        let batch_records = (BATCH_BYTES / record_bytes.max(1)).clamp(1, BATCH_RECORDS);
        let store = self.task.context().store();
        self.rounds.push(Round::new(store, number, slices, records as u64, batch_records));
        self.held.clear();
        self.heap_bytes = 0;
        Ok(())
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

/// Writes the records of a round in this order, in which those of each reduce partition end at `ends`.
fn write<W: Portable>(
    task: &Task,
    order: &[&W],
    ends: &[u32],
    mut writer: BlockWriter<W>,
) -> Result<Vec<Slice>, TaskError> {
    let mut slices: Vec<Slice> = Vec::new();
    let mut written = 0;
    for (reduce_partition, &end) in (0..).zip(ends) {
        let records = order.get(written..end as usize).unwrap_or_default();
        if !records.is_empty() {
            slices.push(Slice { reduce_partition, start: writer.mark().map_err(Cause::from)? });
        }
        for record in records {
            if written % BATCH_RECORDS == 0 {
                task.check()?;
            }
            if writer.push_slice(std::slice::from_ref(*record)).map_err(Cause::from)? != 1 {
                return Err(Cause::ShuffleRefused.into());
            }
            written += 1;
        }
    }
    match writer.finish().map_err(Cause::from)? {
        Finished::Stored(_) => Ok(slices),
        Finished::Refused(_) => Err(Cause::ShuffleRefused.into()),
    }
}
