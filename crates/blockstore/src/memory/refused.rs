//! What is answered when memory is not to be had.

use super::{MemoryMode, MemoryUse};

/// The memory asked for is not to be had now: an outcome to act on, not a failure.
///
/// Whoever gets it goes another way: to disk, by spilling, uncached, or in smaller pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{requested_bytes} bytes of {mode} {memory_use} memory refused: {available_bytes} of the budget of \
     {budget_bytes} bytes are available to it"
)]
#[non_exhaustive]
pub struct Refused {
    /// The budget that was asked.
    pub mode: MemoryMode,
    /// For whom.
    pub memory_use: MemoryUse,
    /// Bytes asked for, beyond what the requester held already.
    pub requested_bytes: u64,
    /// Bytes that were there for the requester when it was refused. For storage: free. For execution: free or
    /// lent to storage, and within the task's fair share.
    pub available_bytes: u64,
    /// The whole budget of the mode.
    pub budget_bytes: u64,
}

/// A memory manager that cannot be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// An off-heap budget is to grow beyond the address space that was reserved for it.
    #[error(
        "the off-heap budget cannot grow to {requested_bytes} bytes: address space was reserved for \
         {reserved_bytes}; build the memory manager with the most it is ever to have"
    )]
    OffHeapReserved {
        /// The budget asked for.
        requested_bytes: u64,
        /// The budget the manager was built with.
        reserved_bytes: u64,
    },
    /// The storage fraction is no fraction.
    #[error(
        "the storage fraction is {fraction}: give a number from 0 (execution may evict every block) to 1 (none)"
    )]
    StorageFraction {
        /// What was given.
        fraction: f64,
    },
}
