//! Eviction policies: which block goes first when memory is short.
//!
//! A policy ranks and does nothing else. The block store tells it what happens to evictable blocks, and asks for
//! victims; the store alone decides how many it takes, skips those a reader has pinned, writes them to disk where
//! their level says so, and frees them. So a policy needs no lock, no `unsafe` and no I/O, and cannot lose data.
//!
//! ```text
//! a block can be evicted      insert(slot, block, bytes)
//! it is read                  touch(slot)
//! memory is short             rank(requester, offer)      the store takes some of what is offered
//! it is evicted or removed    remove(slot)                the slot's number will be used again
//! ```
//!
//! [`Lru`] is the default. To write another, implement [`EvictionPolicy`] and run [`conformance::check`] in a test.
//! A policy of one's own pays when the access pattern is known and recency is wrong for it, as with cyclic
//! scans over more than fits. Where the cost of getting a block back differs much between datasets, choosing
//! their storage levels usually does more.

pub mod conformance;
mod links;
mod lru;

use std::fmt;

pub use lru::Lru;

use crate::{BlockId, DatasetId};

/// A dense number the store gives a block while it is evictable, so that a policy can keep its book-keeping in a
/// `Vec` indexed by it. Used again after [`remove`](EvictionPolicy::remove).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// The store's answer to an offered slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "after `Stop` a policy offers no more"]
pub enum Offer {
    /// Go on: offer the next one. The store took this one or skipped it; if it took it, `remove` follows later.
    Next,
    /// It has enough.
    Stop,
}

/// Ranks the evictable blocks of one store and one memory mode.
///
/// # The contract
///
/// The store calls one method at a time, and
/// - inserts a slot only while it is not in, touches and removes a slot only while it is;
/// - does not change anything during `rank`; what it takes it removes afterwards.
///
/// The policy
/// - offers in `rank` only slots that are in, each at most once a call, and none after [`Offer::Stop`];
/// - never offers a block of the requester's own dataset: a dataset does not evict its own blocks to make room
///   for itself;
/// - offers every slot, sooner or later in the call, when there is no requester and the store keeps answering
///   [`Offer::Next`];
/// - gives the same order for the same calls: no clock, no randomness that is not seeded;
/// - never panics, and frees nothing: it only orders numbers.
///
/// [`conformance::check`] tests the policy's side of it.
///
/// # Cost
///
/// `touch` is called for every read of a block in memory and under the store's lock: tens of nanoseconds are
/// right. `rank` is called when memory is short; the store usually stops after a few offers, so find the
/// coldest without sorting everything.
pub trait EvictionPolicy: Send + fmt::Debug {
    /// For messages and metrics: a short lower-case word.
    fn name(&self) -> &'static str;

    /// `block`, of `bytes` bytes in memory, is evictable from now on, under the number `slot`.
    fn insert(&mut self, slot: Slot, block: BlockId, bytes: u64);

    /// The block was read.
    fn touch(&mut self, slot: Slot);

    /// The block was evicted or removed. The number may come back with another `insert`.
    fn remove(&mut self, slot: Slot);

    /// Offers evictable slots for `requester`, coldest first, until `offer` answers [`Offer::Stop`].
    fn rank(&mut self, requester: Option<DatasetId>, offer: &mut dyn FnMut(Slot) -> Offer);

    /// Checks the policy's own book-keeping; called by tests after every operation.
    ///
    /// # Errors
    /// What is inconsistent.
    fn validate(&self) -> Result<(), String>;
}
