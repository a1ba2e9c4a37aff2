//! Storage levels for data engines: blocks in memory, off the heap and on disk, within a strict budget.
//!
//! A [`BlockStore`] keeps the blocks of *datasets*. A block is one partition of one dataset: an ordered sequence of
//! records. A dataset is registered with a [`StorageLevel`], which says where its blocks live and in which form, and
//! what evicting one does. Its handle, a [`StoredDataset`], finds and fills blocks; dropping the last handle removes
//! them.
//!
//! ```
//! use larder_blockstore::{BlockStore, Entry, Error, Finished, StorageLevel};
//!
//! let store = BlockStore::builder().memory(64 << 20).off_heap(32 << 20).disk(std::env::temp_dir()).build()?;
//! let words = store.dataset::<String>("words").level(StorageLevel::MEMORY_AND_DISK_SER).build()?;
//!
//! // Found, or computed by one of those who ask while the others wait:
//! let block = words.get_or_compute(0, |out| ["to", "be"].iter().try_for_each(|word| out.push(word.to_string())))?;
//! for word in block.iter() {
//!     assert_eq!(word?.len(), 2);
//! }
//!
//! // The same in three states, for engines that stream or await:
//! match words.entry(1)? {
//!     Entry::Resident(block) => assert!(block.is_empty()),
//!     Entry::Vacant(mut writer) => {
//!         writer.push("or".to_owned())?;
//!         let Finished::Stored(block) = writer.finish()? else { panic!("this level has a disk") };
//!         assert_eq!(block.len(), 1);
//!     }
//!     Entry::InFlight(flight) => drop(flight.wait()?), // or `flight.await`
//! }
//! # Ok::<(), Error>(())
//! ```
//!
//! - A [`Block`] is a pin: what it reads from is neither freed nor reused before it drops, and stays charged.
//! - A [`MemoryManager`] holds the budgets, for blocks and for the engine's own sorts and joins.
//! - When memory is short, blocks are [evicted](policy) or records handed back; nothing is dropped silently, and
//!   [`Counters`] and [`Event`]s tell of everything that happens to a block.
//! - Records are turned into bytes by [codecs](codec); bytes lie in checksummed chunks in one [format](mod@format) on the heap, in
//!   arenas and on disk.
//!
//! Not for data that must outlive the process: files of a store have no names and die with it.

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
#[cfg(all(test, loom))]
mod loom_tests;
mod mark;
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
mod viewed;
mod waits;
mod writer;

pub use block::{Batches, Block, IntoRecords, Iter, OwnedBatches, RecordRef};
pub use compute::{Computed, Sink, Uncached};
pub use entry::{Entry, Flight};
pub use error::{Error, Residence};
pub use events::{Event, EvictReason, Subscription};
pub use heap_size::HeapSize;
pub use id::{BlockId, DatasetId};
pub use level::{LevelError, LevelFacts, REPLICATION_MAX, StorageLevel};
pub use mark::Mark;
pub use memory::{MemoryManager, MemoryMode};
pub use metrics::Counters;
pub use record::Record;
pub use region::{DirectoryStatus, DiskReads, DiskStatus, RegionError};
pub use replicate::Replicator;
pub use serialized::SerializedBlock;
pub use status::{BlockStatus, DatasetStatus};
pub use store::{BlockStore, BlockStoreBuilder, DatasetBuilder};
pub use stored::StoredDataset;
pub use unrolled::Unrolled;
pub use viewed::Viewed;
pub use writer::{BlockWriter, Finished, Pushed};
