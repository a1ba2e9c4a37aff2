//! One valid copy of a block in memory.

use crate::error::Residence;
use crate::memory::{MemoryMode, Reservation};
use crate::serialized::SerializedBlock;

/// Values on the heap: runs of records, none of which is ever moved once it is full.
///
/// Runs rather than one vector, so that a growing block is never copied and never needs twice its memory.
pub(crate) struct Values<T> {
    pub(crate) runs: Vec<Vec<T>>,
    pub(crate) records: u64,
    /// What the runs and all they own are charged; dropped after them.
    pub(crate) charge: Option<Reservation>,
}

/// A copy in memory, whichever form it has.
pub(crate) enum MemoryCopy<T> {
    Values(Values<T>),
    Bytes { mode: MemoryMode, bytes: SerializedBlock },
}

impl<T> MemoryCopy<T> {
    pub(crate) fn residence(&self) -> Residence {
        match self {
            Self::Values(_) => Residence::Values,
            Self::Bytes { mode: MemoryMode::Heap, .. } => Residence::HeapBytes,
            Self::Bytes { mode: MemoryMode::OffHeap, .. } => Residence::OffHeap,
        }
    }

    pub(crate) fn mode(&self) -> MemoryMode {
        match self {
            Self::Values(_) => MemoryMode::Heap,
            Self::Bytes { mode, .. } => *mode,
        }
    }

    pub(crate) fn records(&self) -> u64 {
        match self {
            Self::Values(values) => values.records,
            Self::Bytes { bytes, .. } => bytes.records(),
        }
    }

    /// What the copy is charged.
    pub(crate) fn charged_bytes(&self) -> u64 {
        match self {
            Self::Values(values) => values.charge.as_ref().map_or(0, Reservation::bytes),
            Self::Bytes { bytes, .. } => bytes.stored_bytes(),
        }
    }
}
