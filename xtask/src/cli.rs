//! What can be asked for.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::servers::Server;

/// The one entry point for the project's tools.
///
/// Needs nothing but Rust unless a task says so. Builds under CARGO_TARGET_DIR where it is set. The exit status is
/// 0 when all went well, 1 when something failed, 2 when the arguments make no sense.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run every test: unit, integration, the fuzz bodies on fixed seeds, doc tests, loom models, shuttle schedules.
    ///
    /// Starts the servers that this machine can run (see `servers`) and stops them at the end. Tests that need one
    /// that it cannot run are skipped, which is said at the end.
    ///
    /// Stops at the first step that fails and closes with the time of each step and the number of tests. Benchmarks
    /// and open-ended fuzzing are not part of it. Needs nothing but Rust; for the servers see `servers`.
    Test(Test),
    /// Install, start and stop the servers that tests of checkpoints run against: S3 by moto, HDFS by Hadoop's mini
    /// cluster.
    ///
    /// All of it lies in `servers` in the target directory, and what was downloaded stays there. A server that is
    /// started is empty, listens on a loopback port that was free, and goes on until it is stopped. S3 needs Python
    /// 3.11 with venv and pip; HDFS a JDK 17 and Maven; both need their package registries the first time.
    Servers(ServersOptions),
    /// Check the formatting, the lints and the documentation of all packages, with warnings denied.
    ///
    /// That includes the fuzz targets and the peers, which no other build compiles; libFuzzer needs a C++ compiler.
    /// Needs rustfmt and clippy, which rustup brings; for --deny also cargo-deny.
    Lint(Lint),
    /// Run the examples in release mode on real data, and compare what they print where it must be the same.
    ///
    /// PageRank has to give the same ranks whatever the storage level, the budget and the number of lost blocks.
    /// Needs nothing but Rust.
    Smoke,
    /// Model-check the small concurrent cells: every interleaving of a few threads.
    ///
    /// Builds larder-blockstore with `--cfg loom` into a directory of its own and runs its tests named `loom_...`.
    Loom(Loom),
    /// Drive the whole block store through random schedules of its threads.
    ///
    /// Builds larder-blockstore with `--cfg shuttle` into a directory of its own and runs its test `shuttle`.
    Shuttle(Shuttle),
    /// Fuzz, on the stable toolchain: every target in turn, or the one that is named.
    ///
    /// Installs cargo-fuzz where it is missing, which needs the package registry and a C++ compiler. Finds are kept in
    /// `fuzz/artifacts`, what was learnt in `fuzz/corpus`.
    Fuzz(Fuzz),
    /// Measure each operation of the block store, and checkpoints, beside the bare operation that it performs.
    ///
    /// Prints the medians and their ratio, ours / bare: lower is better. Takes some minutes; wants a quiet machine.
    Bench(Bench),
    /// Put a store under mixed load, check every value and watch the memory of the process.
    ///
    /// Prints what was done, the most memory that was resident, and the slope of a line through the samples.
    Soak(Soak),
    /// Measure against other engines, on the same records in the same run.
    ///
    /// Prints the medians and their ratio, peer / larder: higher is better; a chart of them goes to `peers/chart.svg` in
    /// the target directory. The peers are built as a package of their own, out of sight of all other builds; needs the
    /// package registry the first time. Spark is installed beside the chart, for which Python 3 with pip and Java 17
    /// must be there; a part that cannot be measured is left out, and said to be.
    Peers(Peers),
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// Fail where a server cannot be started, rather than skip the tests that need it.
    #[arg(long)]
    pub(crate) require_servers: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServersOptions {
    #[command(subcommand)]
    pub(crate) action: ServersAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServersAction {
    /// Start servers, wait until they answer, and print the variables that tests and other clients look at.
    ///
    /// `eval "$(cargo xtask servers start)"` sets them. One that is running is left as it is.
    Start {
        /// Which; all of them when none is named.
        servers: Vec<Server>,
    },
    /// Stop servers, also those that are only half started.
    Stop {
        /// Which; all of them when none is named.
        servers: Vec<Server>,
    },
    /// Show which servers run, and where.
    Status {
        /// Which; all of them when none is named.
        servers: Vec<Server>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// Check licences, banned and doubled crates and sources too; needs cargo-deny.
    #[arg(long)]
    pub(crate) deny: bool,
    /// With --deny: check the advisories as well, which fetches the RustSec database from GitHub.
    #[arg(long, requires = "deny")]
    pub(crate) advisories: bool,
    /// With --deny: install cargo-deny first where it is missing (several minutes of compiling).
    #[arg(long, requires = "deny")]
    pub(crate) install: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Loom {
    /// Only models whose name contains this. All of them are named `loom_...`.
    #[arg(default_value = "loom_")]
    pub(crate) filter: String,
    /// How often threads may be interrupted in one run, for a model that takes too long; without it every
    /// interleaving is tried, or as many as the variable LOOM_MAX_PREEMPTIONS says.
    #[arg(long, value_name = "N")]
    pub(crate) preemptions: Option<u32>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct Shuttle {
    /// Only tests whose name contains this.
    pub(crate) filter: Option<String>,
    /// Start from this seed, as a failed run printed it, and so replay that failure.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// The target to run; all of them, in turn, when none is named.
    pub(crate) target: Option<String>,
    /// How long to run each target.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) seconds: u64,
    /// Build with AddressSanitizer, which lets stable Rust use an unstable flag (RUSTC_BOOTSTRAP=1).
    #[arg(long)]
    pub(crate) asan: bool,
    /// Run this one input (a find in `fuzz/artifacts`) and stop.
    #[arg(long, value_name = "FILE", requires = "target")]
    pub(crate) replay: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Only cases whose name matches this regular expression.
    pub(crate) filter: Option<String>,
    /// Write the rows there too: `{"name", "ours", "bare", "unit", "ratio"}`.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Few samples: to see that everything runs, not to quote a number.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Start the test servers (see `servers`), and measure checkpoints on them too.
    #[arg(long)]
    pub(crate) servers: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// How long the load runs.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub(crate) minutes: f64,
    /// What is chosen at random follows from this.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Peers {
    /// Who to compare with; all of them when none is named.
    #[arg(value_name = "PEER", value_parser = ["quick_cache", "moka", "foyer", "spark"])]
    pub(crate) parts: Vec<String>,
    /// Fewer cases and rounds: to see that everything runs, not to quote a number.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write the rows there too: `{"name", "larder", "peer", "peer_name", "unit", "ratio"}`.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}
