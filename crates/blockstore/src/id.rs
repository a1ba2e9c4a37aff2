//! Names of datasets and blocks.

use std::fmt;

/// A dataset, by its number. Unique among all stores that share a memory manager, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatasetId(pub u64);

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dataset_{}", self.0)
    }
}

/// A block: one partition of one dataset, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId {
    /// The dataset the block belongs to.
    pub dataset: DatasetId,
    /// The partition it holds, from 0.
    pub partition: u32,
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dataset, self.partition)
    }
}
