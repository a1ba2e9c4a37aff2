//! Storage levels for data engines: blocks in memory, off the heap and on disk, within a strict budget.

#![deny(unsafe_code)]

mod block;
pub mod codec;
mod compute;
mod dataset;
mod entry;
mod error;
mod events;
mod flight;
pub mod format;
mod heap_size;
mod id;
mod level;
#[cfg(test)]
#[cfg(loom)]
mod loom_tests;
pub mod memory;
mod metrics;
pub mod policy;
mod random;
mod record;
mod region;
mod replicate;
mod residence;
mod serialized;
mod status;
mod store;
mod stored;
mod sync;
mod table;
mod tier;
mod unroll;
mod unrolled;
mod writer;

pub use block::{Batches, Block, IntoRecords, Iter, OwnedBatches, RecordRef};
pub use compute::{Computed, Sink, Uncached};
pub use entry::{Entry, Flight};
pub use error::{Error, Residence};
pub use events::{Event, EvictReason, Subscription};
pub use heap_size::HeapSize;
pub use id::{BlockId, DatasetId};
pub use level::{LevelError, LevelFacts, REPLICATION_MAX, StorageLevel};
pub use memory::{MemoryManager, MemoryMode};
pub use metrics::Counters;
pub use record::Record;
pub use region::{DirectoryStatus, DiskStatus, RegionError};
pub use replicate::Replicator;
pub use serialized::SerializedBlock;
pub use status::{BlockStatus, DatasetStatus};
pub use store::{BlockStore, BlockStoreBuilder, DatasetBuilder};
pub use stored::StoredDataset;
pub use unrolled::Unrolled;
pub use writer::{BlockWriter, Finished, Pushed};
