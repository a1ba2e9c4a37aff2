//! The seam to other processes that hold copies of blocks.

use std::fmt::Debug;

use crate::id::BlockId;
use crate::serialized::SerializedBlock;

/// Places further copies of blocks elsewhere, for levels that ask for more than one.
///
/// A store without a replicator keeps one copy and reports such blocks as under-replicated.
pub trait Replicator: Debug + Send + Sync + 'static {
    /// Places up to `copies` further copies of a block and tells how many it placed. Called once a block is
    /// stored, with no lock held; the writer waits for it.
    fn replicate(&self, block: BlockId, bytes: &SerializedBlock, copies: u8) -> u8;

    /// A block was removed; its copies may go.
    fn remove(&self, block: BlockId);
}
