//! A cache on memory and disk beside foyer's: get, or fetch what is not there.
//!
//! Blocks of bytes, in a working set that is a half, twice or eight times the memory; the disk has room for all of
//! them several times over, so whatever was stored once need not be fetched again. A fetch takes 100 us, in which it
//! keeps its thread busy: a sleep would be rounded up to a millisecond by the timer of an asynchronous runtime. Each
//! get reads one number of every 4 KiB and compares it. First every block is got once, then the gets are measured.
//!
//! Ours are blocks of one dataset that may evict its own. Else both have their default settings (LRU; foyer: eight
//! shards, one flusher, buffers of 16 MiB, written on eviction) and read through the page cache. Both keep blocks in
//! memory as they are, and compress them on disk alone. foyer's gets run as tasks on a runtime of as many threads as
//! the machine has, ours on threads.

pub mod foyer;
pub mod larder;
mod load;
mod memory;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::load::Outcome;
use crate::Failure;
use crate::child::Task;
use crate::rounds::{in_turn, median};
use crate::rows::Row;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// One comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    lz4: bool,
    block_bytes: usize,
    memory_bytes: usize,
    blocks: u32,
    /// The working set, in halves of the memory.
    half_memories: u32,
    pattern: Pattern,
    threads: usize,
    milliseconds: u64,
    scratch: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Pattern {
    Zipf,
    Loop,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codec = if self.lz4 { "lz4" } else { "plain" };
        let kib = self.block_bytes / KIB;
        let working_set = f64::from(self.half_memories) / 2.0;
        let pattern = match self.pattern {
            Pattern::Zipf => "zipf",
            Pattern::Loop => "loop",
        };
        write!(f, "foyer_hybrid_{codec}_{kib}KiB_{working_set}x_{pattern}_{}t", self.threads)
    }
}

pub fn rows(quick: bool, out: &Path) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for case in cases(quick, out) {
        let larder = Task::HybridLarder(case.clone());
        let foyer = Task::HybridFoyer(case.clone());
        let (ours, theirs) = in_turn(3, || larder.run(), || foyer.run())?;
        rows.extend(compared(&case, &ours, &theirs));
    }
    Ok(rows)
}

fn cases(quick: bool, out: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for lz4 in [false, true] {
        // Less memory for small blocks, or fetching them all once would take most of the time.
        for (block_bytes, memory_bytes) in [(4 * KIB, 4 * MIB), (64 * KIB, 32 * MIB), (MIB, 64 * MIB)] {
            for half_memories in [1, 4, 16] {
                for pattern in [Pattern::Zipf, Pattern::Loop] {
                    for threads in [1, 2] {
                        let lesser = threads == 1
                            || (lz4 && (block_bytes != 64 * KIB || pattern == Pattern::Loop))
                            || (half_memories == 1 && pattern == Pattern::Loop);
                        if quick && lesser {
                            continue;
                        }
                        cases.push(Case {
                            lz4,
                            block_bytes,
                            memory_bytes,
                            blocks: (memory_bytes / block_bytes / 2) as u32 * half_memories,
                            half_memories,
                            pattern,
                            threads,
                            milliseconds: if quick { 300 } else { 400 },
                            scratch: out.to_path_buf(),
                        });
                    }
                }
            }
        }
    }
    cases
}

fn compared(case: &Case, ours: &[Outcome], theirs: &[Outcome]) -> Vec<Row> {
    let row = |what: &str, unit, of: fn(&Outcome) -> f64| {
        let (larder, peer) = (median(ours.iter().map(of)), median(theirs.iter().map(of)));
        Row { name: format!("{case}{what}"), peer_name: "foyer", unit, larder, peer }
    };
    let rows = vec![
        row("", "us", Outcome::us_a_get),
        row("_p99", "us", |outcome| outcome.p99_ns as f64 / 1e3),
        row("_fetched", "% of gets", |outcome| 100.0 * outcome.fetched as f64 / outcome.gets as f64),
        row("_lost", "blocks", |outcome| outcome.lost as f64),
        row("_over_budget", "MiB", move |outcome| outcome.over_budget_bytes as f64 / MIB as f64),
    ];
    rows.iter().for_each(Row::tell);
    rows
}
