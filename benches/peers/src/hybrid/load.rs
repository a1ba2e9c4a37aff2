//! What is done to either cache.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::memory::peak_bytes;
use super::{Case, Pattern};
use crate::Failure;
use crate::random::{mix, zipf};

const FETCH: Duration = Duration::from_micros(100);
/// One number is read of each.
const PAGE_BYTES: usize = 4 << 10;
/// One get of so many is timed by itself.
const TIMED: u64 = 4;
const ZIPF_PICKS: usize = 1 << 16;

/// What one side did while it was measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub gets: u64,
    seconds: f64,
    pub p99_ns: u64,
    /// Gets that had to fetch.
    pub fetched: u64,
    /// Fetches of blocks that had been stored before, and blocks that are in no tier at the end.
    pub lost: u64,
    /// The most memory the process had resident, less the cache's budget.
    pub over_budget_bytes: i64,
}

impl Outcome {
    /// The wall time in which one get was done, by all threads together.
    pub fn us_a_get(&self) -> f64 {
        self.seconds * 1e6 / self.gets as f64
    }
}

/// Where blocks are fetched from, and which are got when.
pub struct Load {
    case: Case,
    template: Vec<u8>,
    order: Vec<u32>,
    fetches: Vec<AtomicU32>,
    fetched: AtomicU64,
}

impl Load {
    pub fn new(case: &Case) -> Self {
        // About half of the bytes compress away.
        let number = |i: usize| [mix(i as u64), 1_700_000_000_000 + i as u64][i % 2];
        let template = (0..case.block_bytes / 8).flat_map(|i| number(i).to_le_bytes()).collect();
        let order = match case.pattern {
            Pattern::Zipf => zipf(case.blocks, ZIPF_PICKS),
            Pattern::Loop => (0..case.blocks).collect(),
        };
        let fetches = (0..case.blocks).map(|_| AtomicU32::new(0)).collect();
        Self { case: case.clone(), template, order, fetches, fetched: AtomicU64::new(0) }
    }

    /// Makes a block. Keeps its thread busy for 100 us.
    pub fn fetch(&self, partition: u32) -> Vec<u8> {
        let started = Instant::now();
        self.fetches[partition as usize].fetch_add(1, Ordering::Relaxed);
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let mut bytes = self.template.clone();
        for page in bytes.chunks_mut(PAGE_BYTES) {
            page[..4].copy_from_slice(&partition.to_le_bytes());
        }
        while started.elapsed() < FETCH {
            std::hint::spin_loop();
        }
        bytes
    }

    /// Every block once, shared out among the threads.
    pub fn fill(&self, thread: usize) -> impl Iterator<Item = u32> + use<> {
        (0..self.case.blocks).skip(thread).step_by(self.case.threads)
    }

    /// What one thread does while it is measured.
    pub fn lap(&self, thread: usize) -> Lap {
        Lap {
            at: thread * self.order.len() / self.case.threads,
            gets: 0,
            times_ns: Vec::new(),
            timed: None,
            until: Instant::now() + Duration::from_millis(self.case.milliseconds),
        }
    }

    /// How many gets had to fetch so far.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// The sum of all laps. `contains` says which blocks are still there.
    pub fn outcome(
        &self,
        laps: Vec<Lap>,
        time: Duration,
        fetched_by_fill: u64,
        contains: impl Fn(u32) -> bool,
    ) -> Result<Outcome, Failure> {
        let mut times_ns: Vec<u64> = laps.iter().flat_map(|lap| lap.times_ns.iter().copied()).collect();
        times_ns.sort_unstable();
        let p99_ns = times_ns.get(times_ns.len() * 99 / 100).copied().ok_or("nothing was measured")?;
        let count = |partition: &u32| self.fetches[*partition as usize].load(Ordering::Relaxed);
        let again: u64 = (0..self.case.blocks).map(|it| u64::from(count(&it).saturating_sub(1))).sum();
        let absent = (0..self.case.blocks).filter(|it| count(it) > 0 && !contains(*it)).count();
        Ok(Outcome {
            gets: laps.iter().map(|lap| lap.gets).sum(),
            seconds: time.as_secs_f64(),
            p99_ns,
            fetched: self.fetched() - fetched_by_fill,
            lost: again + absent as u64,
            over_budget_bytes: peak_bytes()? as i64 - self.case.memory_bytes as i64,
        })
    }
}

/// The gets of one thread: [`next`](Self::next), the get, [`done`](Self::done), until there is none.
pub struct Lap {
    at: usize,
    gets: u64,
    times_ns: Vec<u64>,
    timed: Option<Instant>,
    until: Instant,
}

impl Lap {
    /// The block to get.
    pub fn next(&mut self, load: &Load) -> Option<u32> {
        if self.gets.is_multiple_of(TIMED) {
            let now = Instant::now();
            if now >= self.until {
                return None;
            }
            self.timed = Some(now);
        }
        self.gets += 1;
        let partition = load.order[self.at];
        self.at = (self.at + 1) % load.order.len();
        Some(partition)
    }

    /// It was got.
    pub fn done(&mut self) {
        if let Some(started) = self.timed.take() {
            self.times_ns.push(started.elapsed().as_nanos() as u64);
        }
    }
}

/// Reads one number of every page in `bytes`, which start at `offset` of the block; whether all are this block's.
pub fn is_of(partition: u32, offset: usize, bytes: &[u8]) -> bool {
    let first = offset.next_multiple_of(PAGE_BYTES) - offset;
    let pages = bytes.get(first..).unwrap_or_default().chunks(PAGE_BYTES);
    let number = partition.to_le_bytes();
    pages.map(|page| page.iter().zip(&number).all(|(is, should)| is == should)).fold(true, |all, is| all & is)
}

#[cfg(test)]
mod tests {
    use super::is_of;

    #[test]
    fn every_page_is_compared() {
        let mut block = vec![0; 3 << 12];
        block.chunks_mut(1 << 12).for_each(|page| page[0] = 7);
        assert!(is_of(7, 0, &block));
        assert!(is_of(7, 100, &block[100..]), "from the middle of a page");
        assert!(is_of(7, 0, &block[..1]) && !is_of(8, 0, &block[..1]), "less than a number");
        block[2 << 12] = 8;
        assert!(!is_of(7, 0, &block));
    }
}
