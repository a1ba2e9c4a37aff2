//! The handle on a dataset in a store.

use std::fmt;
use std::sync::Arc;

use crate::block::Block;
use crate::compute::{Computed, Sink};
use crate::dataset::{AnyDataset, Inner};
use crate::entry::Entry;
use crate::error::Error;
use crate::id::DatasetId;
use crate::level::StorageLevel;
use crate::status::{BlockStatus, DatasetStatus};

/// A dataset in a block store: its blocks, by partition.
///
/// Cheap to clone. When the last clone drops, the dataset's blocks are removed; whoever holds a [`Block`] keeps it.
pub struct StoredDataset<T: Send + Sync + 'static> {
    handle: Arc<Handle<T>>,
}

struct Handle<T: Send + Sync + 'static> {
    inner: Arc<Inner<T>>,
}

impl<T: Send + Sync + 'static> Drop for Handle<T> {
    fn drop(&mut self) {
        self.inner.close();
        self.inner.core.forget(self.inner.facts.id, self.inner.counters());
    }
}

impl<T: Send + Sync + 'static> Clone for StoredDataset<T> {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle) }
    }
}

impl<T: Send + Sync + 'static> StoredDataset<T> {
    pub(crate) fn new(inner: Arc<Inner<T>>) -> Self {
        Self { handle: Arc::new(Handle { inner }) }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner<T>> {
        &self.handle.inner
    }

    /// Its number in the store.
    #[must_use]
    pub fn id(&self) -> DatasetId {
        self.inner().facts.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner().facts.name
    }

    /// How its blocks are kept.
    #[must_use]
    pub fn level(&self) -> StorageLevel {
        self.inner().facts.level
    }

    /// The block, if it has a copy anywhere. Does not wait for one that is being written.
    ///
    /// A block on disk is verified, a large one as it is [read](Block::iter), and promoted to memory where its level says
    /// so and memory is granted.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Unreadable`] when the last copy turned out damaged; it is discarded, and the
    /// block absent from then on.
    pub fn get(&self, partition: u32) -> Result<Option<Block<T>>, Error> {
        let block = self.inner().read(partition)?;
        if block.is_none() {
            self.inner().count_miss(partition);
        }
        Ok(block)
    }

    /// The block, or a writer for it, or whoever is writing it. For engines that stream or await.
    ///
    /// # Errors
    /// [`Error::DatasetRemoved`].
    pub fn entry(&self, partition: u32) -> Result<Entry<T>, Error> {
        self.inner().entry(partition)
    }

    /// The block; computed by `compute` if it has no copy, and kept.
    ///
    /// A single flight: one caller computes, the others wait for it. If it fails or panics, one of them computes in
    /// its place. A block that is refused memory is returned all the same, and not kept; the records beyond what was
    /// granted are then on the heap at the caller's expense, and at a level of bytes all its records are. Where that could be much, use
    /// [`get_or_compute_iter`](Self::get_or_compute_iter), which streams them.
    ///
    /// # Errors
    /// Whatever `compute` returns; [`Error::Encode`], [`Error::Disk`]; [`Error::ComputesItself`] when `compute` asks
    /// for the block it computes. Nothing is stored then.
    ///
    /// A thread that holds a writer of the block, from [`entry`](Self::entry), would wait for itself here.
    pub fn get_or_compute<E: From<Error>>(
        &self,
        partition: u32,
        compute: impl FnOnce(&mut Sink<T>) -> Result<(), E>,
    ) -> Result<Block<T>, E> {
        self.inner().get_or_compute(partition, compute)
    }

    /// As [`get_or_compute`](Self::get_or_compute), for a computation that is an iterator. When memory is refused,
    /// what was kept and the rest of the iterator come back as one, each record once.
    ///
    /// ```
    /// # use larder_blockstore::{BlockStore, Computed, Error, StorageLevel};
    /// let store = BlockStore::builder().memory(1_000).build()?;   // room for 125 of them
    /// let numbers = store.dataset::<u64>("numbers").level(StorageLevel::MEMORY_ONLY).build()?;
    /// let sum: u64 = match numbers.get_or_compute_iter(0, || Ok::<_, Error>((0..1_000).map(Ok::<_, Error>)))? {
    ///     Computed::Stored(block) => block.into_records().sum::<Result<_, _>>()?,
    ///     Computed::Uncached(records) => records.sum::<Result<_, _>>()?,
    /// };
    /// assert_eq!(sum, 499_500);
    /// assert_eq!(store.memory().snapshot().heap.storage_bytes, 0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`get_or_compute`](Self::get_or_compute).
    pub fn get_or_compute_iter<I, E>(
        &self,
        partition: u32,
        compute: impl FnOnce() -> Result<I, E>,
    ) -> Result<Computed<T, I>, E>
    where
        I: Iterator<Item = Result<T, E>>,
        E: From<Error>,
    {
        self.inner().get_or_compute_iter(partition, compute)
    }

    /// Has the block a copy? Does not count as a use.
    #[must_use]
    pub fn contains(&self, partition: u32) -> bool {
        self.block_status(partition).is_some()
    }

    /// Removes a block; whether there was one. Readers that hold it keep it; whoever waits for it gets nothing.
    pub fn remove(&self, partition: u32) -> bool {
        self.inner().remove(partition)
    }

    /// Gives up a block's copy in memory, after writing it to disk where its level says so; whether there was one.
    ///
    /// # Errors
    /// [`Error::Disk`] or [`Error::Encode`]; the copy then stays.
    pub fn evict(&self, partition: u32) -> Result<bool, Error> {
        self.inner().evict(partition, None).map(|freed| freed.is_some())
    }

    /// Removes all blocks. The dataset stays and can be filled again.
    pub fn unpersist(&self) {
        self.inner().clear();
    }

    /// How the dataset is stored now, and what happened to its blocks. Costs a look at every block.
    #[must_use]
    pub fn status(&self) -> DatasetStatus {
        self.inner().status()
    }

    /// How a block is stored now; none when it has no copy.
    #[must_use]
    pub fn block_status(&self, partition: u32) -> Option<BlockStatus> {
        self.inner().block_status(partition)
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for StoredDataset<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredDataset")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("level", &self.level())
            .finish_non_exhaustive()
    }
}
