//! The stores that are measured, and one way to read a block.

use larder_blockstore::{Block, BlockStore};
use tempfile::TempDir;

pub(crate) const MIB: u64 = 1 << 20;

/// A store with plenty of everything, and the directory it needs for as long.
pub(crate) fn roomy() -> (TempDir, BlockStore) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let store = BlockStore::builder().memory(2048 * MIB).off_heap(2048 * MIB).disk(scratch.path());
    let store = store.build().expect("a store");
    (scratch, store)
}

/// Folds over the records, a batch at a time.
pub(crate) fn fold<T: 'static, A>(block: &Block<T>, start: A, mut add: impl FnMut(A, &T) -> A) -> A {
    let mut sum = Some(start);
    let mut batches = block.batches();
    while let Some(batch) = batches.next_batch().expect("a readable block") {
        sum = sum.map(|sum| batch.iter().fold(sum, &mut add));
    }
    sum.expect("put back after each batch")
}
