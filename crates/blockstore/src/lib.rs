//! Storage levels for data engines: blocks in memory, off the heap and on disk, within a strict budget.

#![deny(unsafe_code)]

pub mod codec;
pub mod format;
mod heap_size;
mod id;
mod level;

pub use heap_size::HeapSize;
pub use id::{BlockId, DatasetId};
pub use level::{LevelError, LevelFacts, REPLICATION_MAX, StorageLevel};
