//! Combined values by key, in the order in which keys first come, however little memory there is.
//!
//! While memory is granted, all keys are in one table. When it is refused, the later half of the keys goes to disk
//! and the table is *closed*: it takes no new key. From then on an input of a key it has is combined at once; any
//! other goes to disk as it is. So what is on disk of a key is in order, and no input of it was combined elsewhere in
//! the meantime: each value is combined exactly as it would have been in memory. A closed table holds the keys that
//! came first, so its rows are the first of the output; those on disk follow, brought together by the hash of their
//! keys and then back into order by the place of their first input.

use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry;
use larder_blockstore::memory::Refused;
use serde::{Deserialize, Serialize};

use crate::batch::{BATCH_RECORDS, Batch};
use crate::data::{Key, Portable};
use crate::error::TaskError;
use crate::ops::rows::Rows;
use crate::ops::step::{Part, Step};
use crate::partitioner::TableHasher;
use crate::spill::{Order, Sorter, Working, heap_bytes};
use crate::task::Task;

/// The place of an input that finds the table closed; rows that leave the table get places before it.
const PLACE_START: u64 = 1 << 63;

/// The least buckets of a table.
const BUCKETS_MIN: usize = 128;

/// Something of a key on disk.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Spilled<K, X, C> {
    pub(crate) hash: u64,
    pub(crate) place: u64,
    pub(crate) key: K,
    pub(crate) part: Part<X, C>,
}

/// By hash, and by place within a hash.
pub(crate) struct ByHash;

impl<K: 'static, X: 'static, C: 'static> Order<Spilled<K, X, C>> for ByHash {
    type Key = (u64, u64);

    fn key(&self, row: &Spilled<K, X, C>) -> (u64, u64) {
        (row.hash, row.place)
    }

    fn compare(&self, left: &(u64, u64), right: &(u64, u64)) -> std::cmp::Ordering {
        left.cmp(right)
    }
}

pub(crate) type SpilledSorter<K, X, C> = Sorter<Spilled<K, X, C>, ByHash>;

/// A table that combines the inputs of each key.
pub(crate) struct Table<K: Key, X: Portable, C: Portable, S> {
    task: Task,
    step: Arc<S>,
    /// A value is absent only while it is being combined.
    rows: IndexMap<K, Option<C>, TableHasher>,
    /// Rows that memory is granted for.
    slots: usize,
    /// About what the rows own.
    heap_bytes: usize,
    /// What they may own.
    heap_room: usize,
    /// What they owned when they were last measured one by one.
    measured_bytes: usize,
    working: Working,
    /// Once it is closed.
    overflow: Option<Box<Overflow<K, X, C>>>,
}

struct Overflow<K: Key, X: Portable, C: Portable> {
    sorter: SpilledSorter<K, X, C>,
    /// The place of the next input.
    next_place: u64,
    /// The place of the last row that left the table; the next ones are before it.
    last_evicted: u64,
}

/// A table that took all in.
pub(crate) struct Full<K: Key, X: Portable, C: Portable> {
    pub(crate) rows: IndexMap<K, Option<C>, TableHasher>,
    pub(crate) working: Working,
    /// What is on disk.
    pub(crate) spilled: Option<SpilledSorter<K, X, C>>,
}

impl<K: Key, X: Portable, C: Portable, S: Step<X, C>> Table<K, X, C, S> {
    pub(crate) fn new(task: &Task, step: Arc<S>) -> Result<Self, TaskError> {
        Ok(Self {
            task: Rc::clone(task),
            step,
            rows: IndexMap::default(),
            slots: 0,
            heap_bytes: 0,
            heap_room: 0,
            measured_bytes: 0,
            working: Working::new(task)?,
            overflow: None,
        })
    }

    /// Adds inputs.
    pub(crate) fn add(&mut self, batch: Batch<(K, X)>) -> Result<(), TaskError> {
        match batch {
            Batch::Owned(records) => records.into_iter().try_for_each(|(key, input)| self.put(key, input)),
            Batch::Shared(_) => batch.as_slice().iter().try_for_each(|(key, input)| self.put_ref(key, input)),
        }
    }

    /// Adds one input.
    #[inline]
    pub(crate) fn put(&mut self, key: K, input: X) -> Result<(), TaskError> {
        if !self.has_room()? {
            return self.put_closed(key, input);
        }
        match self.rows.entry(key) {
            Entry::Occupied(mut row) => {
                let row = row.get_mut();
                if let Some(combined) = row.take() {
                    self.heap_bytes += self.step.growth(&combined, &input);
                    *row = Some(self.step.add(combined, input));
                }
            }
            Entry::Vacant(row) => {
                let combined = self.step.first(input);
                self.heap_bytes += heap_bytes(row.key()) + owned_bytes(&*self.step, &combined);
                row.insert(Some(combined));
            }
        }
        Ok(())
    }

    #[inline]
    fn put_ref(&mut self, key: &K, input: &X) -> Result<(), TaskError> {
        if !self.has_room()? {
            return self.put_closed(key.clone(), input.clone());
        }
        match self.rows.get_mut(key) {
            Some(row) => {
                if let Some(combined) = row.take() {
                    self.heap_bytes += self.step.growth(&combined, input);
                    *row = Some(self.step.add_ref(combined, input));
                }
            }
            None => {
                let combined = self.step.first_ref(input);
                self.heap_bytes += heap_bytes(key) + owned_bytes(&*self.step, &combined);
                self.rows.insert(key.clone(), Some(combined));
            }
        }
        Ok(())
    }

    /// Makes room for a row; false if the table is closed.
    #[inline]
    fn has_room(&mut self) -> Result<bool, TaskError> {
        if self.rows.len() < self.slots && self.heap_bytes <= self.heap_room && self.overflow.is_none() {
            return Ok(true);
        }
        self.make_room()
    }

    #[cold]
    fn make_room(&mut self) -> Result<bool, TaskError> {
        if self.overflow.is_some() {
            return Ok(false);
        }
        match self.grow() {
            Ok(()) => Ok(true),
            Err(refused) => {
                self.evict(refused)?;
                Ok(false)
            }
        }
    }

    /// Adds an input to a key the closed table has, or leaves it to disk.
    fn put_closed(&mut self, key: K, input: X) -> Result<(), TaskError> {
        let Some(row) = self.rows.get_mut(&key) else {
            let hash = TableHasher.hash_one(&key);
            let Some(overflow) = &mut self.overflow else { return Ok(()) };
            let place = overflow.next_place;
            overflow.next_place += 1;
            return overflow.sorter.push(Spilled { hash, place, key, part: Part::Input(input) });
        };
        if let Some(combined) = row.take() {
            self.heap_bytes += self.step.growth(&combined, &input);
            *row = Some(self.step.add(combined, input));
        }
        while self.heap_bytes > self.heap_room {
            let Err(refused) = self.grow() else { break };
            self.evict(refused)?;
        }
        Ok(())
    }

    /// Gets more memory: for twice as many rows if there is no slot left, else for what the rows own. What they own
    /// is measured anew before that is refused for good.
    fn grow(&mut self) -> Result<(), Refused> {
        let Err(refused) = self.grow_as_estimated() else { return Ok(()) };
        if self.heap_bytes / 4 <= self.measured_bytes / 3 {
            return Err(refused);
        }
        self.measure();
        self.grow_as_estimated()
    }

    fn grow_as_estimated(&mut self) -> Result<(), Refused> {
        let is_short_of_slots = self.rows.len() >= self.slots && self.overflow.is_none();
        if !is_short_of_slots {
            return self.cover(self.slots, 0);
        }
        let slots = slots_of(self.slots.saturating_mul(2));
        // The old table lives until the new one is filled.
        self.cover(slots, slot_bytes::<K, C>(self.slots))?;
        self.rows.reserve(slots - self.rows.len());
        self.working.shrink_to(with_spare(slot_bytes::<K, C>(slots) + self.heap_bytes + self.heap_bytes / 4));
        self.set_heap_room();
        Ok(())
    }

    /// Sees that `slots` rows with what the rows own now, and `extra_bytes`, are granted, and some memory to spill
    /// with.
    fn cover(&mut self, slots: usize, extra_bytes: usize) -> Result<(), Refused> {
        let bytes = slot_bytes::<K, C>(slots) + self.heap_bytes + extra_bytes;
        self.working.cover(with_spare(bytes))?;
        self.slots = slots;
        self.set_heap_room();
        Ok(())
    }

    fn set_heap_room(&mut self) {
        let covered = usize::try_from(without_spare(self.working.covered_bytes())).unwrap_or(usize::MAX);
        self.heap_room = covered.saturating_sub(slot_bytes::<K, C>(self.slots));
    }

    fn measure(&mut self) {
        let bytes = |(key, row): (&K, &Option<C>)| heap_bytes(key) + row_bytes(&*self.step, row.as_ref());
        self.heap_bytes = self.rows.iter().map(bytes).sum();
        self.measured_bytes = self.heap_bytes;
    }

    /// Closes the table, and moves the later half of its rows to disk.
    #[cold]
    fn evict(&mut self, refused: Refused) -> Result<(), TaskError> {
        if self.task.context().store().disk().is_none() {
            return Err(crate::spill::refused(refused));
        }
        let spare = self.working.covered_bytes() - without_spare(self.working.covered_bytes());
        if self.overflow.is_none() {
            let memory = self.working.split_beyond(self.working.covered_bytes() - spare);
            let sorter = Sorter::with_memory(&self.task, ByHash, memory);
            let overflow = Overflow { sorter, next_place: PLACE_START, last_evicted: PLACE_START };
            self.overflow = Some(Box::new(overflow));
        }
        self.evict_beyond(self.rows.len() / 2)?;
        self.rows.shrink_to(0);
        self.slots = slots_of(self.rows.len());
        self.measure();
        self.working.shrink_to(with_spare(slot_bytes::<K, C>(self.slots) + self.heap_bytes));
        self.set_heap_room();
        Ok(())
    }

    /// Moves the last rows to disk, until `keep` are left.
    fn evict_beyond(&mut self, keep: usize) -> Result<(), TaskError> {
        let Some(overflow) = &mut self.overflow else { return Ok(()) };
        while self.rows.len() > keep
            && let Some((key, row)) = self.rows.pop()
        {
            if self.rows.len().is_multiple_of(BATCH_RECORDS) {
                self.task.check()?;
            }
            let Some(combined) = row else { continue };
            overflow.evict(&*self.step, key, combined)?;
        }
        Ok(())
    }

    /// Moves all rows to disk, if some are there.
    pub(crate) fn evict_all_if_closed(&mut self) -> Result<(), TaskError> {
        if self.overflow.is_none() {
            return Ok(());
        }
        self.evict_beyond(0)?;
        self.rows = IndexMap::default();
        self.working.shrink_to(0);
        Ok(())
    }

    pub(crate) fn finish(self) -> Full<K, X, C> {
        let Self { rows, working, overflow, .. } = self;
        Full { rows, working, spilled: overflow.map(|overflow| overflow.sorter) }
    }

    /// Keys and combined values, in the order in which keys first came.
    pub(crate) fn into_rows(self) -> Rows<K, X, C, S> {
        let (task, step) = (Rc::clone(&self.task), Arc::clone(&self.step));
        Rows::new(task, step, self.finish())
    }
}

impl<K: Key, X: Portable, C: Portable> Overflow<K, X, C> {
    /// Takes the last row of the table.
    fn evict<S: Step<X, C>>(&mut self, step: &S, key: K, combined: C) -> Result<(), TaskError> {
        let hash = TableHasher.hash_one(&key);
        // Its parts have places after each other, and before those of the rows that left earlier.
        let mut place = self.last_evicted.saturating_sub(step.parts(&combined));
        self.last_evicted = place;
        step.take_apart(combined, &mut |part| {
            let row = Spilled { hash, place, key: key.clone(), part };
            place += 1;
            self.sorter.push(row)
        })
    }
}

fn owned_bytes<X: Portable, C: Portable, S: Step<X, C>>(step: &S, combined: &C) -> usize {
    if std::mem::needs_drop::<C>() { step.heap_bytes(combined) } else { 0 }
}

fn row_bytes<X: Portable, C: Portable, S: Step<X, C>>(step: &S, row: Option<&C>) -> usize {
    row.map_or(0, |combined| owned_bytes(step, combined))
}

/// How many rows fit into the buckets for `rows` of them: seven eighths of a power of two.
fn slots_of(rows: usize) -> usize {
    let buckets = rows.saturating_mul(8).div_ceil(7).next_power_of_two().max(BUCKETS_MIN);
    buckets / 8 * 7
}

/// What the table itself takes for so many rows: hash, key and value each, and a number and a control byte a bucket.
fn slot_bytes<K, C>(slots: usize) -> usize {
    let buckets = slots / 7 * 8;
    slots.saturating_mul(size_of::<(u64, K, Option<C>)>()).saturating_add(buckets * (size_of::<usize>() + 1))
}

/// A quarter more, which is what the table spills with when more is refused.
fn with_spare(bytes: usize) -> u64 {
    (bytes as u64).saturating_add(bytes as u64 / 4)
}

fn without_spare(bytes: u64) -> u64 {
    bytes - bytes / 5
}
