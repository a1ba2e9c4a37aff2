//! One valid copy of a block in memory.

use std::sync::Arc;

use crate::dataset::DatasetFacts;
use crate::error::Residence;
use crate::memory::{MemoryMode, Reservation};
use crate::region::arena_bytes;
use crate::serialized::SerializedBlock;
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

/// Whichever form a copy in memory has.
pub(crate) enum Form<T> {
    Values(Values<T>),
    Bytes { mode: MemoryMode, bytes: SerializedBlock },
}

impl<T> MemoryCopy<T> {
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
                bytes.chunks().iter().map(|chunk| arena_bytes(chunk.stored().len())).sum()
            }
        }
    }
}
