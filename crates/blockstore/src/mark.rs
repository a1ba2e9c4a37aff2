//! Marks: places in a block from which it can be read.

use crate::block::OwnedBatches;
use crate::error::Error;
use crate::format::Chunk;
use crate::stored::StoredDataset;

/// A chunk this long is closed at a mark, so that who reads from there need not read or verify much else.
pub(crate) const MARKED_CHUNK_BYTES: usize = 8 << 10;

/// A place between two records of a block, from which it can be read.
///
/// Made by [`BlockWriter::mark`](crate::BlockWriter::mark) while the block is written, kept by whoever wants to read parts
/// of it, and good as long as the block is stored, wherever it moves. Bytes are found by their place and nothing
/// before them is decoded. 16 bytes.
///
/// Not for another block, nor for one that was removed and written anew: its chunks may be others.
///
/// ```
/// # use larder_blockstore::{BlockStore, Entry, StorageLevel};
/// let store = BlockStore::builder().memory(1 << 20).build()?;
/// let words = store.dataset::<String>("words").level(StorageLevel::MEMORY_ONLY_SER).build()?;
/// let Entry::Vacant(mut writer) = words.entry(0)? else { panic!("nothing is stored yet") };
/// for word in ["apple", "avocado"] {
///     writer.push(word.to_owned())?;
/// }
/// let b = writer.mark()?;
/// for word in ["banana", "blackberry", "cherry"] {
///     writer.push(word.to_owned())?;
/// }
/// writer.finish()?;
///
/// let mut range = words.get_range(0, b, 2)?.expect("it is stored");
/// assert_eq!(range.next_owned(1_000)?, Some(vec!["banana".to_owned(), "blackberry".to_owned()]));
/// assert_eq!(range.next_owned(1_000)?, None);
/// # Ok::<(), larder_blockstore::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    record: u64,
    /// [`NOWHERE`] where only the number of the record is known: in a block that is kept as values, whose chunks are
    /// cut when it is spilled.
    chunk: u32,
    /// In the chunk before compression.
    offset: u32,
}

const NOWHERE: u32 = u32::MAX;

impl Mark {
    /// Before the first record of any block.
    pub const START: Self = Self { record: 0, chunk: 0, offset: 0 };

    /// Before this record of a block of values.
    pub(crate) fn of_value(record: u64) -> Self {
        Self { record, chunk: NOWHERE, offset: 0 }
    }

    /// Before this record, which begins at this byte of this chunk.
    pub(crate) fn of_bytes(record: u64, chunk: usize, offset: usize) -> Self {
        match (u32::try_from(chunk), u32::try_from(offset)) {
            (Ok(chunk), Ok(offset)) => Self { record, chunk, offset },
            _ => Self::of_value(record),
        }
    }

    /// How many records of the block are before it.
    #[must_use]
    pub fn record(self) -> u64 {
        self.record
    }

    /// Where to begin to read `chunks`.
    pub(crate) fn place_in(self, chunks: &[Chunk], record_bytes: Option<usize>) -> Place {
        let by_number = || Place::among(chunks.iter().map(|chunk| chunk.records() as usize), self.record);
        let index = self.chunk as usize;
        let Some(chunk) = chunks.get(index) else { return by_number().by_bytes(record_bytes) };
        let before: u64 = chunks.iter().take(index).map(|chunk| u64::from(chunk.records())).sum();
        match self.record.checked_sub(before) {
            Some(records) if records < u64::from(chunk.records()) => {
                Place { index, records: records as usize, offset: self.offset as usize, skip: 0 }
            }
            _ => by_number().by_bytes(record_bytes),
        }
    }
}

/// Where to begin in a sequence of chunks, or of runs of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which of them.
    pub(crate) index: usize,
    /// Records before `offset`.
    pub(crate) records: usize,
    /// The byte to begin at.
    pub(crate) offset: usize,
    /// Records to skip from there on.
    pub(crate) skip: usize,
}

impl Place {
    /// Where a record is, in pieces of so many records.
    pub(crate) fn among(pieces: impl Iterator<Item = usize>, record: u64) -> Self {
        let mut left = record;
        let mut index = 0;
        for records in pieces {
            match left.checked_sub(records as u64) {
                Some(beyond) => left = beyond,
                None => break,
            }
            index += 1;
        }
        Self { index, skip: left as usize, ..Self::default() }
    }

    /// Where all records have the same bytes, they need not be decoded to be skipped.
    fn by_bytes(self, record_bytes: Option<usize>) -> Self {
        match record_bytes {
            Some(bytes) => Self { records: self.skip, offset: self.skip * bytes, skip: 0, ..self },
            None => self,
        }
    }
}

impl<T: Send + Sync + 'static> StoredDataset<T> {
    /// Records of a block from a mark on, so many of them or what there is, if the block has a copy anywhere.
    ///
    /// For blocks that many readers read parts of. It counts as a use of the block like [`get`](Self::get), but a copy
    /// on disk is not promoted for it, and no more of it is read and verified than the chunks with these records, as
    /// they are read. A chunk is read and decompressed as a whole.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when bytes in memory that are verified turn out damaged, and no other copy is there; the block is
    /// absent from then on.
    pub fn get_range(
        &self,
        partition: u32,
        from: Mark,
        records: u64,
    ) -> Result<Option<OwnedBatches<T>>, Error> {
        let block = self.inner().read_range(partition, from, records)?;
        if block.is_none() {
            self.inner().count_miss(partition);
        }
        Ok(block.map(|block| block.into_range(from, records)))
    }
}
