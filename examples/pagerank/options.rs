//! What can be asked of the example.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use larder::prelude::*;

use crate::Failure;

/// PageRank over the dependencies of Debian 12's packages.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// How often ranks are passed on.
    #[arg(long, default_value_t = 30)]
    pub iterations: u32,
    /// Partitions of every dataset.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub partitions: u32,
    /// Threads to compute on.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// Storage level of the links and of every iteration's ranks, for example MEMORY_AND_DISK_SER.
    #[arg(long, default_value_t = StorageLevel::MEMORY_AND_DISK)]
    pub level: StorageLevel,
    /// Heap budget for blocks, for example 64MiB.
    #[arg(long, default_value = "256MiB")]
    pub memory: String,
    /// Off-heap budget for blocks.
    #[arg(long, default_value = "256MiB")]
    pub off_heap: String,
    /// Where checkpoints go: a directory, or any other address of a checkpoint store, such as file:///data/checkpoints.
    #[arg(long, value_name = "ADDRESS")]
    pub checkpoint: Option<OsString>,
    /// Iterations from one checkpoint to the next.
    #[arg(long, default_value_t = 5, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub checkpoint_every: u32,
    /// Go on from the latest checkpoint, if there is one.
    #[arg(long, requires = "checkpoint")]
    pub resume: bool,
    /// Drop this many random blocks of persisted datasets in each iteration.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub lose: u32,
    /// Seed of the choice of blocks to drop.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many packages to print.
    #[arg(long, default_value_t = 10)]
    pub top: usize,
    /// Also write everything to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Tab-separated dependencies, plain or .lz4.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/debian-depends.tsv.lz4"))]
    pub edges: PathBuf,
}

impl Options {
    pub(crate) fn context(&self) -> Result<Context, Failure> {
        let mut builder = Context::builder()
            .name("pagerank")
            .threads(self.threads)
            .memory(self.memory.as_str())
            .off_heap(self.off_heap.as_str())
            .cancel_on_ctrl_c(true);
        if let Some(address) = &self.checkpoint {
            builder = builder.checkpoints(address);
        }
        Ok(builder.build()?)
    }
}
