//! Larder: a storage tier for data engines.
//!
//! An engine hands over partitions of datasets and says how each dataset should be kept. Larder keeps them in memory,
//! off the heap and on disk within a strict memory budget, computes from lineage what was evicted or lost, and writes
//! checkpoints that outlive the process.
//!
//! - As an engine's storage tier: [`blockstore`] and [`checkpoint`], under a scheduler and record types of your own.
//! - As a small dataset engine: [`Context`] and [`Dataset`].
//!
//! Checkpoints go to local directories; with the cargo features `s3` and `hdfs` to these as well.
//!
//! ```
//! use larder::prelude::*;
//!
//! let context = Context::builder().threads(2).memory("64MiB").build()?;
//! let squares = context.range(0..1_000, 4)?.map(|n| n * n).persist(StorageLevel::MEMORY_AND_DISK)?;
//! assert_eq!(squares.count()?, 1_000);                        // computes and keeps
//! assert_eq!(squares.top(2)?, [998_001, 996_004]);            // reads what was kept
//! # Ok::<(), Error>(())
//! ```

#![forbid(unsafe_code)]

pub use larder_blockstore as blockstore;
pub use larder_checkpoint as checkpoint;
pub use larder_lineage as lineage;

pub use larder_exec::*;

/// What most programs need.
pub mod prelude {
    pub use larder_exec::{Context, Dataset, Error, StorageLevel};
}

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
