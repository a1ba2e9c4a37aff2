//! The seam to other processes that hold copies of blocks.

use std::fmt::Debug;

use crate::id::BlockId;
use crate::serialized::SerializedBlock;

/// Places further copies of blocks elsewhere, for levels that ask for more than one.
///
/// A store without a replicator keeps one copy and reports such blocks as under-replicated. The store places and
/// removes further copies and does not read them: one that lost its own copy computes the block again.
pub trait Replicator: Debug + Send + Sync + 'static {
    /// Places up to `copies` further copies of a block and tells how many it placed. Called when a block is
    /// written, before others can read it, with no lock held; the writer waits for it.
    fn replicate(&self, block: BlockId, bytes: &SerializedBlock, copies: u8) -> u8;

    /// A block is here no more, or never came to be: it was removed, evicted or damaged. Its copies may go.
    fn remove(&self, block: BlockId);
}
