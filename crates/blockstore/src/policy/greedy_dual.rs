//! GreedyDual-Size: what it costs to have a block back, by its size, and how long ago it was read.

use super::tournament::Tournament;
use super::{Candidate, EvictionPolicy, Offer, Removed, Slot};
use crate::DatasetId;

/// Units of worth in a nanosecond of computing for a byte of memory.
const UNITS: u128 = 1 << 16;
/// The most a block can be worth: 4.3 seconds of computing for each byte.
const WORTH_MAX: u128 = 1 << 48;
/// Where the inflation starts again from zero, so that it never overflows.
const INFLATION_MAX: u64 = 1 << 62;

/// GreedyDual-Size of Cao and Irani (1997), which is Landlord of Young (1998) for blocks that are renewed in full.
///
/// A block is worth the time it takes to have it back, for each byte it takes: to compute it again, or to read it from
/// disk where its level has one. When it comes in and whenever it is read, it
/// gets a credit: what it is worth, on top of the *inflation*. The block with the least credit goes first, and the
/// inflation rises to the credit it had. So a block that was dear stays longer than one that was cheap for its size,
/// but not forever: once others have been paid for that outbid it, it goes. Among blocks of equal credit the least
/// recently used goes first; where no time is known, or all blocks are worth the same, that makes it an LRU.
///
/// # What a `rank` leaves behind
///
/// Nothing. The inflation rises when a block was evicted, and not for one that left for another reason.
///
/// # Cost
///
/// `insert` and `remove` are O(log n) for n blocks at most. `touch` too, and O(1) for most blocks: it stops where the
/// block is not among the first. The first victim of a rank is O(1), each further one O(log n), also behind a million
/// worthless blocks of the requester's own. Book-keeping is 48 bytes a block, up to 97
/// just after the vectors have grown; it does not shrink. Measured with a million blocks of 1 to 1,000 datasets: 60 to
/// 80 ns to insert, 20 ns to touch in order and 200 to 350 in random order, most of it cache misses, as to remove; 0.8
/// to 1.3 us to find and remove a victim and put another block in its place; 250 ns for each further victim of a rank.
#[derive(Debug, Default)]
pub struct GreedyDual {
    credits: Tournament<Credit>,
    inflation: u64,
    /// The number of the last use.
    clock: u64,
}

/// Compared by credit, then by last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Credit {
    credit: u64,
    used: u64,
    worth: u64,
}

fn worth(candidate: &Candidate) -> u64 {
    let nanos = candidate.cost().as_nanos().min(u128::from(u64::MAX));
    let worth = nanos * UNITS / u128::from(candidate.bytes.max(1));
    worth.min(WORTH_MAX) as u64
}

impl GreedyDual {
    /// With no blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn credit(&mut self, worth: u64) -> Credit {
        self.clock += 1;
        Credit { credit: self.inflation + worth, used: self.clock, worth }
    }

    fn inflate(&mut self, credit: u64) {
        self.inflation = self.inflation.max(credit);
        if self.inflation >= INFLATION_MAX {
            let inflation = self.inflation;
            self.credits.update_all(|credit| credit.credit = credit.credit.saturating_sub(inflation));
            self.inflation = 0;
        }
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn allocated_bytes(&self) -> usize {
        self.credits.allocated_bytes()
    }
}

impl EvictionPolicy for GreedyDual {
    fn name(&self) -> &'static str {
        "greedy-dual"
    }

    fn insert(&mut self, slot: Slot, candidate: &Candidate) {
        debug_assert!(self.credits.get(slot).is_none(), "{slot:?} is in already");
        let credit = self.credit(worth(candidate));
        self.credits.insert(slot, candidate.block.dataset, credit);
    }

    fn touch(&mut self, slot: Slot) {
        let Some(Credit { worth, .. }) = self.credits.get(slot) else {
            debug_assert!(false, "{slot:?} is touched and not in");
            return;
        };
        let credit = self.credit(worth);
        self.credits.set(slot, credit);
    }

    fn remove(&mut self, slot: Slot, removed: Removed) {
        let Some(Credit { credit, .. }) = self.credits.remove(slot) else {
            debug_assert!(false, "{slot:?} is removed and not in");
            return;
        };
        if removed == Removed::Evicted {
            self.inflate(credit);
        }
    }

    fn rank(&mut self, requester: Option<DatasetId>, offer: &mut dyn FnMut(Slot) -> Offer) {
        let _ = self.credits.iter(requester).find(|slot| offer(*slot) == Offer::Stop);
    }

    fn validate(&self) -> Result<(), String> {
        self.credits.check().map(drop)
    }
}

#[cfg(test)]
mod tests;
