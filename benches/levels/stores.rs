//! The stores that are measured, with room for everything.

use larder_blockstore::BlockStore;
use tempfile::TempDir;

pub(crate) const MIB: u64 = 1 << 20;

/// A store with plenty of everything, and the directory it needs for as long.
pub(crate) fn roomy() -> (TempDir, BlockStore) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let store = BlockStore::builder().memory(2048 * MIB).off_heap(2048 * MIB).disk(scratch.path());
    let store = store.build().expect("a store");
    (scratch, store)
}
