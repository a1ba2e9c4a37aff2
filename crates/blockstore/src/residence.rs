//! One valid copy of a block in memory.

use std::sync::Arc;

use crate::dataset::DatasetFacts;
use crate::error::Residence;
use crate::memory::{MemoryMode, Reservation};
use crate::region::arena_bytes;
use crate::serialized::SerializedBlock;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Values on the heap: runs of records, none of which is ever moved once it is full.
///
/// Runs rather than one vector, so that a growing block is never copied and never needs twice its memory.
pub(crate) struct Values<T> {
    pub(crate) runs: Vec<Vec<T>>,
    pub(crate) records: u64,
    /// What the runs and all they own are charged; dropped after them.
    pub(crate) charge: Option<Reservation>,
}

/// A copy in memory, and which block it is of: a handle needs nothing else.
pub(crate) struct MemoryCopy<T> {
    pub(crate) facts: Arc<DatasetFacts<T>>,
    pub(crate) partition: u32,
    pub(crate) form: Form<T>,
    /// The store listed it once and does no more.
    pub(crate) left: AtomicBool,
}

impl<T> Drop for MemoryCopy<T> {
    fn drop(&mut self) {
        if self.left.load(Ordering::Relaxed) {
            self.facts.tier.count_gone(self.charged_bytes());
        }
    }
}

/// Copies that are made ahead, many at once, so that they lie side by side: a read counts its handle in the copy, and where
/// each lies behind its block's bytes, every count is on a page of its own.
pub(crate) struct Blanks<T>(Mutex<BlanksMade<T>>);

struct BlanksMade<T> {
    blanks: Vec<Arc<MemoryCopy<T>>>,
    /// As many as there have been before, so that a dataset of few blocks has few.
    next: usize,
}

/// Some ten KiB of them.
const BLANKS_MAX: usize = 64;

impl<T> Blanks<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(BlanksMade { blanks: Vec::new(), next: 1 }))
    }

    /// A copy of nothing, which nobody else has.
    pub(crate) fn take(&self, facts: &Arc<DatasetFacts<T>>) -> Arc<MemoryCopy<T>> {
        let mut made = self.0.lock();
        if let Some(blank) = made.blanks.pop() {
            return blank;
        }
        let blank = || {
            let values = Values { runs: Vec::new(), records: 0, charge: None };
            Arc::new(MemoryCopy::new(Arc::clone(facts), 0, Form::Values(values)))
        };
        let count = made.next;
        made.next = (2 * count).min(BLANKS_MAX);
        made.blanks.extend((1..count).map(|_| blank()));
        blank()
    }
}

/// Whichever form a copy in memory has.
pub(crate) enum Form<T> {
    Values(Values<T>),
    Bytes { mode: MemoryMode, bytes: SerializedBlock },
}

impl<T> MemoryCopy<T> {
    pub(crate) fn new(facts: Arc<DatasetFacts<T>>, partition: u32, form: Form<T>) -> Self {
        Self { facts, partition, form, left: AtomicBool::new(false) }
    }

    /// The store does not list it any more; readers may hold it still.
    pub(crate) fn leaves(&self) {
        self.facts.tier.count_leaving(self.charged_bytes());
        self.left.store(true, Ordering::Relaxed);
    }

    pub(crate) fn residence(&self) -> Residence {
        match &self.form {
            Form::Values(_) => Residence::Values,
            Form::Bytes { mode: MemoryMode::Heap, .. } => Residence::HeapBytes,
            Form::Bytes { mode: MemoryMode::OffHeap, .. } => Residence::OffHeap,
        }
    }

    pub(crate) fn records(&self) -> u64 {
        match &self.form {
            Form::Values(values) => values.records,
            Form::Bytes { bytes, .. } => bytes.records(),
        }
    }

    /// What the copy is charged.
    pub(crate) fn charged_bytes(&self) -> u64 {
        match &self.form {
            Form::Values(values) => values.charge.as_ref().map_or(0, Reservation::bytes),
            Form::Bytes { mode: MemoryMode::Heap, bytes } => bytes.stored_bytes(),
            Form::Bytes { mode: MemoryMode::OffHeap, bytes } => {
                bytes.chunks().iter().map(|chunk| arena_bytes(chunk.stored_len())).sum()
            }
        }
    }
}
