//! What a store tells of its blocks and datasets.

use crate::error::Residence;
use crate::id::{BlockId, DatasetId};
use crate::level::StorageLevel;
use crate::metrics::Counters;

/// One block, as it is stored right now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockStatus {
    /// Which block.
    pub block: BlockId,
    /// The level its dataset was given.
    pub requested: StorageLevel,
    /// The level that its copies amount to right now.
    pub effective: StorageLevel,
    /// Where it has copies.
    pub residences: Vec<Residence>,
    /// Records in it.
    pub records: u64,
    /// Bytes of its copy on the heap.
    pub heap_bytes: u64,
    /// Bytes of its copy in an arena.
    pub off_heap_bytes: u64,
    /// Bytes of its copy on disk.
    pub disk_bytes: u64,
    /// Copies there are, of the `requested.replication()` asked for.
    pub replicas: u8,
}

/// One dataset, as it is stored right now, and what has happened to its blocks so far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatasetStatus {
    /// Which dataset.
    pub dataset: DatasetId,
    /// Its name.
    pub name: String,
    /// Its level.
    pub level: StorageLevel,
    /// Blocks that have at least one copy.
    pub blocks: u64,
    /// Blocks that have a copy in memory.
    pub blocks_in_memory: u64,
    /// Records in those blocks.
    pub records: u64,
    /// Bytes on the heap.
    pub heap_bytes: u64,
    /// Bytes in an arena.
    pub off_heap_bytes: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Blocks with fewer copies than the level asks for.
    pub under_replicated: u64,
    /// What has happened so far.
    pub counters: Counters,
}
