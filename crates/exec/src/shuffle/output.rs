//! The output of a map task, as it is kept.

use std::sync::Arc;

use larder_blockstore::memory::Scratch;
use larder_blockstore::{BlockStore, Mark};

/// The output of one map task.
pub(super) enum Output {
    Missing,
    Running,
    Done(Arc<[Round]>),
}

/// One round of a map task: a block whose records lie in the order of their reduce partitions, and where each of these
/// begins.
pub(super) struct Round {
    pub(super) block: u32,
    /// How many records a reader decodes at once: fewer than usual where they are large.
    pub(super) batch_records: usize,
    /// Those that have records, in order.
    slices: Box<[Slice]>,
    records: u64,
    /// Counts the slices. There may be as many as map partitions times reduce partitions, though never more than
    /// records.
    _counted: Scratch,
}

/// Where the records of a reduce partition begin. They end where the next ones do.
#[derive(Clone, Copy)]
pub(super) struct Slice {
    pub(super) reduce_partition: u32,
    pub(super) start: Mark,
}

impl Round {
    pub(super) fn new(
        store: &BlockStore,
        block: u32,
        slices: Vec<Slice>,
        records: u64,
        batch_records: usize,
    ) -> Self {
        let slices = slices.into_boxed_slice();
        let counted = store.memory().scratch(size_of_val::<[Slice]>(&slices) as u64);
        Self { block, batch_records, slices, records, _counted: counted }
    }

    /// Where the records of a reduce partition are, and how many; nothing if there are none.
    pub(super) fn slice(&self, reduce_partition: u32) -> Option<(Mark, u64)> {
        let target = |slice: &Slice| slice.reduce_partition;
        // Where most have records, it is found at once.
        let first = reduce_partition as usize;
        let at = match self.slices.get(first) {
            Some(slice) if slice.reduce_partition == reduce_partition => first,
            _ => self.slices.binary_search_by_key(&reduce_partition, target).ok()?,
        };
        let start = self.slices.get(at)?.start;
        let end = self.slices.get(at + 1).map_or(self.records, |next| next.start.record());
        Some((start, end - start.record()))
    }
}
