//! A handle on a stored block.

mod cursor;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use self::cursor::Cursor;
use crate::codec::CodecError;
use crate::dataset::DatasetFacts;
use crate::error::{Error, Residence};
use crate::format::{Chunk, ChunkError};
use crate::id::BlockId;
use crate::mark::Mark;
use crate::residence::{Form, MemoryCopy};
use crate::serialized::SerializedBlock;
use crate::store::Core;
use crate::viewed::Viewed;

/// Records decoded at a time, where records have to be decoded.
const BATCH_RECORDS: usize = 1024;

/// The records of one block, pinned.
///
/// What a handle reads from cannot be evicted, unmapped or reused before the handle drops; an evicted or removed
/// block leaves the store at once for new readers, and stays valid and charged for the handles that are out.
/// Cloning a handle clones the pin, not the records.
///
/// Values, and plain-old-data bytes, are read by reference and nothing is cloned. Other bytes are decoded as they
/// are read, a batch at a time; the whole block is never decoded at once.
pub struct Block<T> {
    copy: BlockCopy<T>,
}

enum BlockCopy<T> {
    Memory(Arc<MemoryCopy<T>>),
    Disk(Arc<DiskRead<T>>),
}

/// Reads a copy on disk. When the last reader is gone, the mapped pages leave the process; the kernel may cache them.
pub(crate) struct DiskRead<T> {
    pub(crate) facts: Arc<DatasetFacts<T>>,
    pub(crate) core: Arc<Core>,
    pub(crate) partition: u32,
    /// The copy as the store lists it.
    pub(crate) listed: Arc<SerializedBlock>,
    /// What is read: the same, or its bytes in memory.
    pub(crate) bytes: Arc<SerializedBlock>,
    pub(crate) access: DiskAccess,
}

/// How the chunks of a copy on disk are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskAccess {
    /// In place; they were compared with their checksums when the handle was made.
    Verified,
    /// In place, compared as they are read.
    Verifying,
    /// Into memory, compared as they are read: for a reader who copies their records once, and for whom it does not
    /// pay to map pages and unmap them on every processor.
    Copying,
}

impl<T> DiskRead<T> {
    /// The bytes of a chunk before compression.
    fn raw(&self, chunk: &Chunk) -> Result<Bytes, ChunkError> {
        let memory = &self.facts.memory;
        let buffer = |bytes| memory.reader_buffer(bytes);
        match self.access {
            DiskAccess::Verified => chunk.raw_with(buffer),
            DiskAccess::Verifying => self.core.ready(chunk).and_then(|()| chunk.raw_with(buffer)),
            DiskAccess::Copying => {
                self.core.loaded(chunk, buffer(chunk.stored_len() as u64))?.raw_with(buffer)
            }
        }
    }
}

impl<T> Drop for DiskRead<T> {
    fn drop(&mut self) {
        if self.access != DiskAccess::Copying {
            self.core.release(&self.bytes);
        }
    }
}

impl<T> Clone for BlockCopy<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Memory(copy) => Self::Memory(Arc::clone(copy)),
            Self::Disk(read) => Self::Disk(Arc::clone(read)),
        }
    }
}

impl<T> Clone for Block<T> {
    fn clone(&self) -> Self {
        Self { copy: self.copy.clone() }
    }
}

impl<T> fmt::Debug for Block<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("id", &self.id())
            .field("name", &self.facts().name)
            .field("residence", &self.residence())
            .field("records", &self.len())
            .finish_non_exhaustive()
    }
}

impl<T> Block<T> {
    pub(crate) fn in_memory(copy: Arc<MemoryCopy<T>>) -> Self {
        Self { copy: BlockCopy::Memory(copy) }
    }

    pub(crate) fn on_disk(read: DiskRead<T>) -> Self {
        Self { copy: BlockCopy::Disk(Arc::new(read)) }
    }

    fn facts(&self) -> &DatasetFacts<T> {
        match &self.copy {
            BlockCopy::Memory(copy) => &copy.facts,
            BlockCopy::Disk(read) => &read.facts,
        }
    }

    /// Which block this is.
    #[must_use]
    pub fn id(&self) -> BlockId {
        let partition = match &self.copy {
            BlockCopy::Memory(copy) => copy.partition,
            BlockCopy::Disk(read) => read.partition,
        };
        self.facts().block(partition)
    }

    /// The copy this handle reads.
    #[must_use]
    pub fn residence(&self) -> Residence {
        match &self.copy {
            BlockCopy::Memory(copy) => copy.residence(),
            BlockCopy::Disk(_) => Residence::Disk,
        }
    }

    /// How many records it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.copy {
            BlockCopy::Memory(copy) => copy.records(),
            BlockCopy::Disk(read) => read.bytes.records(),
        }
    }

    /// Has it no records?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The block as bytes, unless this handle reads values. Copies nothing; chunks on a disk that is not mapped are
    /// read when their bytes are asked for.
    #[must_use]
    pub fn serialized(&self) -> Option<&SerializedBlock> {
        match &self.copy {
            BlockCopy::Memory(copy) => match &copy.form {
                Form::Values(_) => None,
                Form::Bytes { bytes, .. } => Some(bytes),
            },
            BlockCopy::Disk(read) => Some(&read.bytes),
        }
    }

    /// Takes the mapped pages of one of its [chunks](SerializedBlock::chunks) out of the process's resident memory, for
    /// who goes through a long block on disk chunk by chunk; when the last handle drops, all are. Reading them again is
    /// as good as before. Does nothing to what is not mapped.
    pub fn release(&self, chunk: &Chunk) {
        if let BlockCopy::Disk(read) = &self.copy {
            read.core.release_chunk(chunk);
        }
    }

    /// The values by reference, unless this handle reads bytes: the stored runs of records, in order.
    #[must_use]
    pub fn slices(&self) -> Option<impl Iterator<Item = &[T]>> {
        self.runs().map(|runs| runs.iter().map(Vec::as_slice))
    }

    fn runs(&self) -> Option<&[Vec<T>]> {
        match &self.copy {
            BlockCopy::Memory(copy) => match &copy.form {
                Form::Values(values) => Some(&values.runs),
                Form::Bytes { .. } => None,
            },
            BlockCopy::Disk(_) => None,
        }
    }
}

impl<T: 'static> Block<T> {
    /// Folds over the records in order: where they lie, or decoded one by one, each dropped before the next is decoded. The
    /// fastest way to go through a block once.
    ///
    /// # Errors
    /// As [`Batches::next_batch`]; `add` has then seen the records before the bad one.
    ///
    /// ```
    /// # use larder_blockstore::{BlockStore, StorageLevel};
    /// # let store = BlockStore::builder().memory(1 << 20).build()?;
    /// # let words = store.dataset::<String>("words").level(StorageLevel::MEMORY_ONLY_SER).build()?;
    /// # let block = words.get_or_compute(0, |out| (8..12).try_for_each(|n| out.push(n.to_string())))?;
    /// assert_eq!(block.fold(0, |bytes, word| bytes + word.len())?, 6);
    /// # Ok::<(), larder_blockstore::Error>(())
    /// ```
    pub fn fold<A>(&self, start: A, mut add: impl FnMut(A, &T) -> A) -> Result<A, Error> {
        let (mut cursor, mut folded) = (Cursor::default(), Some(start));
        let mut fold = |records: &[T]| {
            folded = folded.take().map(|folded| records.iter().fold(folded, &mut add));
        };
        while cursor.visit(self, usize::MAX, &mut fold)? > 0 {}
        // It is only ever taken to be put back.
        folded.ok_or_else(|| self.decode_error(0, CodecError::RecordCount { asked: 1, decoded: 0 }))
    }

    /// As [`fold`](Self::fold), over the [views](Viewed) of the records: of those that lie as bytes nothing is made. Records
    /// that their own codec has written, and not [`Bincode`](crate::codec::Bincode), are decoded and then looked at.
    ///
    /// # Errors
    /// As [`Batches::next_batch`]; `add` has then seen the records before the bad one. A view that is not one of the
    /// record's fields in their order is not recognized as that: it fails, or shows other numbers than the record has.
    pub fn fold_views<A>(&self, start: A, mut add: impl FnMut(A, T::View<'_>) -> A) -> Result<A, Error>
    where
        T: Viewed,
    {
        let (mut cursor, mut folded) = (Cursor::default(), Some(start));
        let mut fold = |view: T::View<'_>| folded = folded.take().map(|folded| add(folded, view));
        while cursor.visit_views(self, usize::MAX, &mut fold)? > 0 {}
        // It is only ever taken to be put back.
        folded.ok_or_else(|| self.decode_error(0, CodecError::RecordCount { asked: 1, decoded: 0 }))
    }

    /// The records in order, a slice at a time: stored slices where there are any, else decoded batches of up to
    /// 1,024.
    ///
    /// ```
    /// # use larder_blockstore::{BlockStore, StorageLevel};
    /// # let store = BlockStore::builder().memory(1 << 20).build()?;
    /// # let numbers = store.dataset::<i64>("numbers").level(StorageLevel::MEMORY_ONLY_SER).build()?;
    /// # let block = numbers.get_or_compute(0, |out| (0..10).try_for_each(|n| out.push(n)))?;
    /// let mut sum = 0;
    /// let mut batches = block.batches();
    /// while let Some(batch) = batches.next_batch()? {
    ///     sum += batch.iter().sum::<i64>();
    /// }
    /// assert_eq!(sum, 45);
    /// # Ok::<(), larder_blockstore::Error>(())
    /// ```
    #[must_use]
    pub fn batches(&self) -> Batches<'_, T> {
        Batches { block: self, cursor: Cursor::default() }
    }

    /// As [`batches`](Self::batches), with the pin inside.
    #[must_use]
    pub fn into_batches(self) -> OwnedBatches<T> {
        OwnedBatches { block: self, cursor: Cursor::default() }
    }

    /// The records from a mark on, so many of them or what there is, with the pin inside.
    pub(crate) fn into_range(self, from: Mark, records: u64) -> OwnedBatches<T> {
        let cursor = Cursor::range(&self, from, records);
        OwnedBatches { block: self, cursor }
    }

    /// The records one by one: by reference, or decoded as it goes.
    ///
    /// An error ends the iteration. Bytes were verified when the handle was made, so one means that the codec
    /// disagrees with what it wrote, or that a disk that is not mapped has failed since; but those of a block on disk that is
    /// more than a 16th of the heap budget, or 16 MiB, are verified as they are read.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, T> {
        Iter {
            block: self,
            cursor: Cursor::default(),
            run: [].iter(),
            decoded: Vec::new().into_iter(),
            next_run: 0,
        }
    }

    /// The records one by one, owned, with the pin inside. Values are cloned, bytes are decoded.
    #[must_use]
    pub fn into_records(self) -> IntoRecords<T>
    where
        T: Clone,
    {
        IntoRecords { batches: self.into_batches(), buffered: Vec::new().into_iter() }
    }

    fn decode_error(&self, chunk: usize, source: CodecError) -> Error {
        Error::Decode {
            block: self.id(),
            name: self.facts().name.to_string(),
            residence: self.residence(),
            chunk,
            source,
        }
    }
}

impl<'a, T: 'static> IntoIterator for &'a Block<T> {
    type Item = Result<RecordRef<'a, T>, Error>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The records of a block, a slice at a time. Made by [`Block::batches`].
pub struct Batches<'a, T> {
    block: &'a Block<T>,
    cursor: Cursor<T>,
}

impl<T: 'static> Batches<'_, T> {
    /// The next records, at least one, or none at the end.
    ///
    /// # Errors
    /// [`Error::Decode`] when the codec disagrees with what it wrote, [`Error::Corrupt`] when a chunk does not
    /// decompress, or is damaged and is verified only here, being of a large block on disk. [`Error::Unreadable`] on a
    /// disk that is not mapped, which is read here.
    pub fn next_batch(&mut self) -> Result<Option<&[T]>, Error> {
        self.cursor.next_batch(self.block)
    }
}

/// The records of a block, a slice at a time, with the pin inside. Made by [`Block::into_batches`].
pub struct OwnedBatches<T> {
    block: Block<T>,
    cursor: Cursor<T>,
}

impl<T: 'static> OwnedBatches<T> {
    /// As [`Batches::next_batch`].
    ///
    /// # Errors
    /// As [`Batches::next_batch`].
    pub fn next_batch(&mut self) -> Result<Option<&[T]>, Error> {
        self.cursor.next_batch(&self.block)
    }

    /// The next records, at least one and at most `records_max`, owned, or none at the end. Values are cloned, bytes
    /// are decoded.
    ///
    /// # Errors
    /// As [`Batches::next_batch`].
    pub fn next_owned(&mut self, records_max: usize) -> Result<Option<Vec<T>>, Error>
    where
        T: Clone,
    {
        let Self { block, cursor } = self;
        match block.runs() {
            Some(runs) => Ok(cursor.next_slice(runs, records_max.max(1)).map(<[T]>::to_vec)),
            None => self.next_decoded(records_max.min(BATCH_RECORDS)),
        }
    }

    /// Shows the next records, at most `records_max`: in one slice where they lie, or one by one as they are decoded, each
    /// dropped before the next is. How many there were, 0 at the end.
    ///
    /// # Errors
    /// As [`Batches::next_batch`]; the records before the bad one were shown.
    pub fn visit(&mut self, records_max: usize, see: impl FnMut(&[T])) -> Result<usize, Error> {
        self.cursor.visit(&self.block, records_max.max(1), see)
    }

    /// As [`visit`](Self::visit), the [views](Viewed) of the records: see [`Block::fold_views`].
    ///
    /// # Errors
    /// As [`Block::fold_views`].
    pub fn visit_views(&mut self, records_max: usize, see: impl FnMut(T::View<'_>)) -> Result<usize, Error>
    where
        T: Viewed,
    {
        self.cursor.visit_views(&self.block, records_max.max(1), see)
    }

    /// As [`next_owned`](Self::next_owned), for a block of bytes: no record has to be cloned.
    pub(crate) fn next_decoded(&mut self, records_max: usize) -> Result<Option<Vec<T>>, Error> {
        let Self { block, cursor } = self;
        if !cursor.open(block)? {
            return Ok(None);
        }
        cursor.decode_next(block, records_max.max(1)).map(Some)
    }

    /// The block that is read.
    #[must_use]
    pub fn block(&self) -> &Block<T> {
        &self.block
    }
}

/// A record read from a block: borrowed from it, or decoded.
#[derive(Debug)]
pub enum RecordRef<'a, T> {
    /// Lies in the block.
    Borrowed(&'a T),
    /// Was decoded for the reader.
    Owned(T),
}

impl<T> Deref for RecordRef<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Borrowed(record) => record,
            Self::Owned(record) => record,
        }
    }
}

impl<T: Clone> RecordRef<'_, T> {
    /// The record itself, cloned where it lies in the block.
    #[must_use]
    pub fn into_owned(self) -> T {
        match self {
            Self::Borrowed(record) => record.clone(),
            Self::Owned(record) => record,
        }
    }
}

/// The records of a block, one by one. Made by [`Block::iter`].
pub struct Iter<'a, T> {
    block: &'a Block<T>,
    cursor: Cursor<T>,
    run: std::slice::Iter<'a, T>,
    decoded: std::vec::IntoIter<T>,
    next_run: usize,
}

impl<'a, T: 'static> Iterator for Iter<'a, T> {
    type Item = Result<RecordRef<'a, T>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(runs) = self.block.runs() {
            loop {
                if let Some(record) = self.run.next() {
                    return Some(Ok(RecordRef::Borrowed(record)));
                }
                self.run = runs.get(self.next_run)?.iter();
                self.next_run += 1;
            }
        }
        if let Some(record) = self.decoded.next() {
            return Some(Ok(RecordRef::Owned(record)));
        }
        let refilled = self.cursor.open(self.block).and_then(|more| {
            if more { self.cursor.decode_next(self.block, BATCH_RECORDS).map(Some) } else { Ok(None) }
        });
        match refilled {
            Ok(Some(batch)) => {
                self.decoded = batch.into_iter();
                self.decoded.next().map(|record| Ok(RecordRef::Owned(record)))
            }
            Ok(None) => None,
            Err(e) => {
                self.cursor = Cursor::at_end();
                Some(Err(e))
            }
        }
    }
}

/// The records of a block, one by one and owned. Made by [`Block::into_records`].
pub struct IntoRecords<T> {
    batches: OwnedBatches<T>,
    buffered: std::vec::IntoIter<T>,
}

impl<T: Clone + 'static> Iterator for IntoRecords<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.buffered.next() {
                return Some(Ok(record));
            }
            match self.batches.next_owned(BATCH_RECORDS) {
                Ok(batch) => self.buffered = batch?.into_iter(),
                Err(e) => {
                    self.batches.cursor = Cursor::at_end();
                    return Some(Err(e));
                }
            }
        }
    }
}

macro_rules! opaque_debug {
    ($($name:ident $(<$lifetime:lifetime>)?),*) => {$(
        impl<T> fmt::Debug for $name<$($lifetime,)? T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

opaque_debug!(Batches<'_>, OwnedBatches, Iter<'_>, IntoRecords);
