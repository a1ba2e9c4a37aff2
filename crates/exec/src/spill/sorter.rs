//! Sorting more than memory holds.

use std::cmp::Ordering;
use std::rc::Rc;

use larder_blockstore::memory::Refused;

use super::heap_bytes;
use super::merge::Merge;
use super::run::{Run, RunWriter, Spill};
use super::working::{Working, refused};
use crate::batch::BATCH_RECORDS;
use crate::data::Portable;
use crate::error::TaskError;
use crate::ops::deferred::Stream;
use crate::task::Task;

/// The order of records by a key that is made once a record.
pub(crate) trait Order<R>: 'static {
    type Key: 'static;

    fn key(&self, record: &R) -> Self::Key;

    fn compare(&self, left: &Self::Key, right: &Self::Key) -> Ordering;
}

/// The most runs that are read at once, whatever the memory.
const FAN_IN_MAX: usize = 64;
const FAN_IN_SHARED_MAX: usize = 16;

/// Records a sorter has room for at first.
const START_SLOTS: usize = 64;

/// Takes records in and gives them out in order; equal ones in the order in which they came.
pub(crate) struct Sorter<R: Portable, O: Order<R>> {
    task: Task,
    order: Rc<O>,
    buffer: Vec<(O::Key, R)>,
    /// Records that memory is granted for.
    slots: usize,
    /// What the records in the buffer own.
    heap_bytes: usize,
    /// What they may own.
    heap_room: usize,
    working: Working,
    spill: Option<Rc<Spill<R>>>,
    runs: Vec<Run>,
    fan_in_max: usize,
}

impl<R: Portable, O: Order<R>> Sorter<R, O> {
    /// A record in the buffer, and the place to which sorting moves it.
    const SLOT_BYTES: usize = 2 * size_of::<(O::Key, R)>();

    pub(crate) fn new(task: &Task, order: O) -> Result<Self, TaskError> {
        Ok(Self::with_memory(task, order, Working::new(task)?))
    }

    /// As [`new`](Self::new), with memory that was granted already.
    pub(crate) fn with_memory(task: &Task, order: O, working: Working) -> Self {
        Self {
            task: Rc::clone(task),
            order: Rc::new(order),
            buffer: Vec::new(),
            slots: 0,
            heap_bytes: 0,
            heap_room: 0,
            working,
            spill: None,
            runs: Vec::new(),
            fan_in_max: FAN_IN_MAX,
        }
    }

    /// Reads fewer runs at once, for an operator that merges several times at once.
    pub(crate) fn shares_memory(&mut self) {
        self.fan_in_max = FAN_IN_SHARED_MAX;
    }

    #[inline]
    pub(crate) fn push(&mut self, record: R) -> Result<(), TaskError> {
        let mut heap = heap_bytes(&record);
        if std::mem::needs_drop::<O::Key>() {
            // The key is made of the record and owns no more than it does.
            heap *= 2;
        }
        if self.buffer.len() >= self.slots || self.heap_bytes + heap > self.heap_room {
            self.make_room(heap)?;
        }
        self.heap_bytes += heap;
        self.buffer.push((self.order.key(&record), record));
        Ok(())
    }

    /// Makes room for one more record that owns `heap` bytes, by more memory or by spilling.
    #[cold]
    fn make_room(&mut self, heap: usize) -> Result<(), TaskError> {
        let Err(refusal) = self.grow(heap) else { return Ok(()) };
        if self.buffer.is_empty() {
            self.slots = self.slots.max(1);
            return Ok(());
        }
        self.spill(Some(refusal))?;
        // One record is taken in any case.
        self.slots = self.slots.max(1);
        if heap > self.heap_room {
            let _ = self.cover(self.slots, heap);
        }
        Ok(())
    }

    fn grow(&mut self, heap: usize) -> Result<(), Refused> {
        let owned = self.heap_bytes + heap;
        if self.buffer.len() < self.slots {
            return self.cover(self.slots, owned);
        }
        let doubled = self.slots.saturating_mul(2).max(START_SLOTS);
        if self.cover(doubled, owned).is_err() {
            let more = (self.slots + self.slots / 4).max(1);
            if more == self.slots {
                return self.cover(self.slots + 1, owned);
            }
            self.cover(more, owned)?;
        }
        self.buffer.reserve_exact(self.slots - self.buffer.len());
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

    fn sort(&mut self) {
        let order = &self.order;
        self.buffer.sort_by(|(left, _), (right, _)| order.compare(left, right));
    }

    /// Writes what is in the buffer as a run, because more memory was refused, or because there are runs already.
    fn spill(&mut self, refusal: Option<Refused>) -> Result<(), TaskError> {
        self.task.check()?;
        let spill = match (&self.spill, refusal) {
            (Some(spill), _) => Rc::clone(spill),
            (None, Some(refusal)) if self.task.context().store().disk().is_none() => {
                return Err(refused(refusal));
            }
            (None, _) => Rc::clone(self.spill.insert(Spill::new(&self.task, self.working.covered_bytes())?)),
        };
        let mut writer = RunWriter::new(&spill);
        self.sort();
        for (at, (_, record)) in self.buffer.drain(..).enumerate() {
            if at % BATCH_RECORDS == 0 {
                self.task.check()?;
            }
            writer.push(record)?;
        }
        self.runs.push(writer.finish()?);
        self.heap_bytes = 0;
        Ok(())
    }

    /// Gives its memory back if records are on disk already: the rest follows them.
    pub(crate) fn park(&mut self) -> Result<(), TaskError> {
        if self.spill.is_some() && !self.buffer.is_empty() {
            self.spill(None)?;
            self.buffer = Vec::new();
            (self.slots, self.heap_room) = (0, 0);
            self.working.shrink_to(0);
        }
        Ok(())
    }

    /// The records in order.
    pub(crate) fn finish(mut self) -> Result<Sorted<R, O>, TaskError> {
        let Some(spill) = self.spill.clone() else {
            self.sort();
            return Ok(Sorted::Memory { records: self.buffer.into_iter(), _working: self.working });
        };
        if !self.buffer.is_empty() {
            self.spill(None)?;
        }
        let Self { task, order, runs, fan_in_max, buffer, working, .. } = self;
        drop((buffer, working));
        Ok(Sorted::Merged(Merge::open(&task, &spill, &order, runs, fan_in_max)?))
    }
}

/// The records of a sorter in order.
pub(crate) enum Sorted<R: Portable, O: Order<R>> {
    Memory { records: std::vec::IntoIter<(O::Key, R)>, _working: Working },
    Merged(Merge<R, O>),
}

impl<R: Portable, O: Order<R>> Stream<R> for Sorted<R, O> {
    #[inline]
    fn next(&mut self) -> Result<Option<R>, TaskError> {
        match self {
            Self::Memory { records, .. } => Ok(records.next().map(|(_, record)| record)),
            Self::Merged(merge) => merge.next(),
        }
    }

    fn is_charged(&self) -> bool {
        matches!(self, Self::Memory { .. })
    }
}
