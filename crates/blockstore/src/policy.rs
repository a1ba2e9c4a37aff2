//! Eviction policies: which block goes first when memory is short.
//!
//! A policy ranks and does nothing else. The block store tells it what happens to evictable blocks, and asks for
//! victims; the store alone decides how many it takes, skips those a reader has pinned, writes them to disk where
//! their level says so, and frees them. So a policy needs no lock, no `unsafe` and no I/O, and cannot lose data.
//!
//! ```text
//! a block can be evicted      insert(slot, candidate)
//! it is read                  touch(slot)
//! memory is short             rank(requester, offer)      the store takes some of what is offered
//! it is evicted or removed    remove(slot, removed)       the slot's number will be used again
//! ```
//!
//! # Which one
//!
//! | policy | goes first | take it when |
//! |---|---|---|
//! | [`Lru`] | least recently used | in doubt; it is the default |
//! | [`Sieve`] | not read since the hand last passed | some blocks are read much more often than others, or scans pass through |
//! | [`S3Fifo`] | read less than twice soon after it came | the same, and many blocks are read once and never again |
//! | [`GreedyDual`] | cheapest to have back for its size, with age | blocks differ much in what it costs to compute them, or some are lost when evicted and others are not |
//! | [`Fifo`] | oldest | to compare with |
//!
//! Hits of 100 reads, measured with 10,000 blocks of which the `n`-th is read in proportion to `1 / n` and memory for 200,
//! 1,000 or 2,000 of them; and with a loop over 1.5 times what fits:
//!
//! | | 200 | 1,000 | 2,000 | loop |
//! |---|---|---|---|---|
//! | [`Fifo`] | 43 | 63 | 72 | 0 |
//! | [`Lru`], and [`GreedyDual`] where all blocks are worth the same | 47 | 67 | 76 | 0 |
//! | [`Sieve`] | 57 | 73 | 79 | 0 |
//! | [`S3Fifo`] | 57 | 73 | 79 | 45 |
//!
//! Where the cost of getting a block back differs much between datasets, choosing their storage levels usually does
//! more than any policy.
//!
//! # Choosing one
//!
//! ```
//! use larder_blockstore::BlockStore;
//! use larder_blockstore::policy::{self, Sieve};
//!
//! let store = BlockStore::builder().policy(Sieve::new).build()?;
//! // Or by a name from a command line or a file of settings:
//! let store = BlockStore::builder().policy(policy::by_name("s3-fifo")?).build()?;
//!
//! let unknown = policy::by_name("lur").unwrap_err();
//! assert_eq!(unknown.to_string(), "no eviction policy is named `lur`: there are lru, fifo, s3-fifo, sieve, greedy-dual");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To write another, implement [`EvictionPolicy`] and run [`conformance::check`] in a test.

pub mod conformance;
mod fifo;
mod ghosts;
mod greedy_dual;
mod lru;
mod named;
mod queues;
mod s3_fifo;
mod sieve;
#[cfg(test)]
mod tests;
mod tournament;

use std::fmt;
use std::time::Duration;

pub use fifo::Fifo;
pub use greedy_dual::GreedyDual;
pub use lru::Lru;
pub use named::{UnknownPolicy, by_name, names};
pub use s3_fifo::S3Fifo;
pub use sieve::Sieve;

use crate::{BlockId, DatasetId};

/// A dense number the store gives a block while it is evictable, so that a policy can keep its book-keeping in a
/// `Vec` indexed by it. Used again after [`remove`](EvictionPolicy::remove).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// What a policy is told of a block that can be evicted from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// Which block it is. One that comes back after it was evicted has the same name and a new slot.
    pub block: BlockId,
    /// What it takes in memory, in bytes.
    pub bytes: u64,
    /// How long it took to compute, from when its writer was granted to when it finished, waiting for its inputs and
    /// for memory included. Zero where that is not known. A block that comes back from disk has the time it took to
    /// compute it first.
    pub compute: Duration,
    /// How long it takes to read back, where its level has a disk: as measured when it last came back, or estimated by
    /// its size. None for a block that is lost when it is evicted.
    pub restore: Option<Duration>,
}

impl Candidate {
    /// A block of so many bytes, of which no computing time is known.
    #[must_use]
    pub fn new(block: BlockId, bytes: u64) -> Self {
        Self { block, bytes, compute: Duration::ZERO, restore: None }
    }

    /// The same, at a level with a disk, from which it is read back in so long.
    #[must_use]
    pub fn restored_in(self, restore: Duration) -> Self {
        Self { restore: Some(restore), ..self }
    }

    /// What it costs to have it back in memory once it was evicted.
    #[must_use]
    pub fn cost(&self) -> Duration {
        self.restore.unwrap_or(self.compute)
    }

    /// The same, with the time it took to compute.
    #[must_use]
    pub fn computed_in(self, compute: Duration) -> Self {
        Self { compute, ..self }
    }
}

/// Why a slot leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Removed {
    /// The store took it to make room: it was offered, and may be wanted back.
    Evicted,
    /// Anything else: its user removed it or asked for its eviction, its dataset is gone, it turned out damaged.
    Dropped,
}

/// The store's answer to an offered slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "after `Stop` a policy offers no more"]
pub enum Offer {
    /// Go on: offer the next one. The store took this one or skipped it; if it took it, `remove` follows later.
    Next,
    /// It has enough. Some of those offered in this call are going to be removed.
    Stop,
}

/// Ranks the evictable blocks of one store and one memory mode.
///
/// # The contract
///
/// The store calls one method at a time, and
/// - inserts a slot only while it is not in, touches and removes a slot only while it is;
/// - does not change anything during `rank`; what it takes it removes afterwards, and other calls, also of `rank`,
///   may come before that;
/// - skips what a reader has pinned, and what it took before. Where all that it did not skip is not enough, it never
///   answers [`Offer::Stop`] and takes nothing;
/// - may keep what it took after all, where it could not be written to disk;
/// - may have a block in twice for a moment, under two slots, when it comes back while it is being evicted.
///
/// The policy
/// - offers in `rank` only slots that are in, each at most once a call, and none after [`Offer::Stop`];
/// - never offers a block of the requester's own dataset: a dataset does not evict its own blocks to make room
///   for itself;
/// - offers every other slot, sooner or later in the call, while the store keeps answering [`Offer::Next`], and
///   does so again in the next call: what was offered once and stayed is not lost;
/// - gives the same order for the same calls: no clock, no randomness that is not seeded;
/// - never panics, and frees nothing: it only orders numbers.
///
/// [`conformance::check`] tests the policy's side of it.
///
/// # Cost
///
/// `touch` is called for every read of a block in memory, soon after it and under the store's lock: tens of
/// nanoseconds are right. `rank` is called when memory is short; the store usually stops after a few offers, so find the
/// coldest without sorting everything. A requester may have a million colder blocks of its own: find a way past them.
pub trait EvictionPolicy: Send + fmt::Debug {
    /// For messages and metrics: a short lower-case word.
    fn name(&self) -> &'static str;

    /// A block is evictable from now on, under the number `slot`.
    fn insert(&mut self, slot: Slot, candidate: &Candidate);

    /// The block was read.
    fn touch(&mut self, slot: Slot);

    /// The block was evicted or removed. The number may come back with another `insert`.
    fn remove(&mut self, slot: Slot, removed: Removed);

    /// Offers evictable slots for `requester`, coldest first, until `offer` answers [`Offer::Stop`].
    fn rank(&mut self, requester: Option<DatasetId>, offer: &mut dyn FnMut(Slot) -> Offer);

    /// Checks the policy's own book-keeping; called by tests after every operation.
    ///
    /// # Errors
    /// What is inconsistent.
    fn validate(&self) -> Result<(), String>;
}

impl<P: EvictionPolicy + ?Sized> EvictionPolicy for Box<P> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn insert(&mut self, slot: Slot, candidate: &Candidate) {
        (**self).insert(slot, candidate);
    }

    fn touch(&mut self, slot: Slot) {
        (**self).touch(slot);
    }

    fn remove(&mut self, slot: Slot, removed: Removed) {
        (**self).remove(slot, removed);
    }

    fn rank(&mut self, requester: Option<DatasetId>, offer: &mut dyn FnMut(Slot) -> Offer) {
        (**self).rank(requester, offer);
    }

    fn validate(&self) -> Result<(), String> {
        (**self).validate()
    }
}
