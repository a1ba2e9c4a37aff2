//! A small dataset engine: lazy transformations, eager actions, on the threads of one process.
//!
//! A [`Context`] makes [`Dataset`]s. Transformations add to the lineage graph and compute nothing; an action plans
//! from what is resident, splits the plan into stages at shuffles, and runs a task for each partition. Datasets that
//! are persisted keep their blocks in a [block store](larder_blockstore::BlockStore), at any storage level; blocks
//! that were evicted or lost are computed again from the nearest that are there.
//!
//! ```
//! use larder_exec::{Context, StorageLevel};
//!
//! let context = Context::builder().threads(2).memory("64MiB").build()?;
//! let text = vec!["the quick brown fox", "jumps over the lazy dog"];
//! let words = context.parallelize(text, 2)?.flat_map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
//! let counts = words.map(|word| (word.clone(), 1)).reduce_by_key(|a, b| a + b)?;
//! let counts = counts.persist(StorageLevel::MEMORY_AND_DISK)?;
//!
//! assert_eq!(counts.count()?, 8);   // computes and keeps
//! assert_eq!(counts.filter(|(_, n)| *n > 1).collect()?, [("the".to_owned(), 2)]);   // reads
//! # Ok::<(), larder_exec::Error>(())
//! ```
//!
//! Results do not depend on the number of threads: partitions, their order, and the order of records and keys within
//! them are the same in every run. Records move between operators in batches; a fold over cached values runs over the
//! stored slices themselves.

#![forbid(unsafe_code)]

mod actions;
mod assemble;
mod batch;
mod cancel;
mod checkpoint;
mod context;
mod data;
mod dataset;
mod error;
mod gather;
mod job;
mod keep;
mod node;
mod number;
mod ops;
mod pairs;
mod partitioner;
mod periodic;
mod persist;
mod pipeline;
mod prepared;
mod progress;
mod remains;
mod save;
mod scheduler;
mod schema;
mod shuffle;
mod sort;
mod sources;
mod spill;
mod task;
mod transform;

pub use checkpoint::{CheckpointHandle, CheckpointInfo, CheckpointName};
pub use context::{ByteAmount, Context, ContextBuilder};
pub use data::{Data, Key, Portable};
pub use dataset::Dataset;
pub use error::{BoxError, Cause, Error};
pub use larder_blockstore::{HeapSize, Record, StorageLevel, Viewed};
pub use larder_checkpoint::{CheckpointStore, RecordSchema};
pub use larder_lineage::NodeId;
pub use pairs::{Groups, OuterPair, Pairs};
pub use partitioner::Partitioner;
pub use periodic::PeriodicCheckpointer;
pub use persist::StorageStatus;
pub use pipeline::Records;
