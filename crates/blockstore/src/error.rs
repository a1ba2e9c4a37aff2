//! What can go wrong in a block store.

use crate::codec::CodecError;
use crate::format::ChunkError;
use crate::id::{BlockId, DatasetId};
use crate::level::StorageLevel;
use crate::region::RegionError;

/// An error of a block store. Names the block, dataset, directory or setting it is about.
///
/// That memory is short is not among them: a refusal is an outcome (see [`Finished`](crate::Finished)).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The level keeps nothing, so nothing can be stored at it.
    #[error("dataset `{dataset}`: storage level {level} keeps nothing; leave the dataset unstored instead")]
    LevelStoresNothing {
        /// Name of the dataset.
        dataset: String,
        /// The level asked for.
        level: StorageLevel,
    },
    /// The level needs a disk directory and the store has none.
    #[error("dataset `{dataset}`: storage level {level} needs a disk; give the store one with `.disk(path)`")]
    NoDisk {
        /// Name of the dataset.
        dataset: String,
        /// The level asked for.
        level: StorageLevel,
    },
    /// The level needs off-heap memory and the store has none.
    #[error(
        "dataset `{dataset}`: storage level {level} needs off-heap memory; give the store some with `.off_heap(bytes)`"
    )]
    NoOffHeap {
        /// Name of the dataset.
        dataset: String,
        /// The level asked for.
        level: StorageLevel,
    },
    /// The dataset was removed from the store while its handle was still held.
    #[error("{dataset} (`{name}`) was removed from the store")]
    DatasetRemoved {
        /// Which dataset.
        dataset: DatasetId,
        /// Its name.
        name: String,
    },
    /// A record could not be encoded. Nothing of the block was stored.
    #[error("{block} of `{name}`: a record cannot be encoded")]
    Encode {
        /// Which block.
        block: BlockId,
        /// Name of its dataset.
        name: String,
        /// The codec's error.
        source: CodecError,
    },
    /// A record could not be decoded, though the bytes are those that were written.
    #[error("{block} of `{name}`: chunk {chunk} on {residence} cannot be decoded")]
    Decode {
        /// Which block.
        block: BlockId,
        /// Name of its dataset.
        name: String,
        /// Where it was read.
        residence: Residence,
        /// Which chunk of it, from 0.
        chunk: usize,
        /// The codec's error.
        source: CodecError,
    },
    /// The last copy of a block was damaged. It was discarded; computing the block again replaces it.
    #[error("{block} of `{name}`: chunk {chunk} on {residence} is damaged; the copy was discarded")]
    Corrupt {
        /// Which block.
        block: BlockId,
        /// Name of its dataset.
        name: String,
        /// Where it was read.
        residence: Residence,
        /// Which chunk of it, from 0.
        chunk: usize,
        /// What is wrong with it.
        source: ChunkError,
    },
    /// The last copy of a block cannot be read from its disk. It was given up; computing the block again replaces it.
    #[error("{block} of `{name}` cannot be read from disk; the copy was given up")]
    Unreadable {
        /// Which block.
        block: BlockId,
        /// Name of its dataset.
        name: String,
        /// What the directory said.
        source: RegionError,
    },
    /// A block could not be written to disk. What was stored before is still there.
    #[error("{block} of `{name}` cannot be written to disk")]
    Disk {
        /// Which block.
        block: BlockId,
        /// Name of its dataset.
        name: String,
        /// What the directories said.
        source: RegionError,
    },
    /// An arena or a disk directory could not be set up.
    #[error("the store cannot be set up")]
    Setup {
        /// What went wrong.
        source: RegionError,
    },
    /// A setting of the builder is impossible.
    #[error("{setting}: {problem}")]
    Setting {
        /// Which setting.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A block was asked for by its own computation, or by that of another block for which it waits. To wait for it would
    /// never end.
    #[error(
        "{block} of `{name}` was asked for by its own computation, or by that of a block for which it waits"
    )]
    ComputesItself {
        /// What was asked for.
        block: BlockId,
        /// Name of its dataset.
        name: String,
    },
}

impl Error {
    /// Is the block absent now because its last copy was damaged or unreadable? Then computing it again helps.
    #[must_use]
    pub fn is_lost_copy(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Unreadable { .. })
    }
}

/// Where one copy of a block lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Residence {
    /// Values on the heap.
    Values,
    /// Serialized on the heap.
    HeapBytes,
    /// Serialized in an off-heap arena.
    OffHeap,
    /// Serialized in a disk segment.
    Disk,
}

impl std::fmt::Display for Residence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Values => "heap (values)",
            Self::HeapBytes => "heap (bytes)",
            Self::OffHeap => "off-heap",
            Self::Disk => "disk",
        })
    }
}
