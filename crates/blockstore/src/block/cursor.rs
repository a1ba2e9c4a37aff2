//! Where a reader stands in a block.

use std::ops::Range;
use std::slice;

use bytes::Bytes;

use super::{BATCH_RECORDS, Block, BlockCopy, DiskAccess};
use crate::codec::{Bincode, ChunkReader, CodecError, CodecId};
use crate::error::Error;
use crate::format::Chunk;
use crate::mark::{Mark, Place};
use crate::serialized::SerializedBlock;
use crate::viewed::Viewed;

/// Where a reader stands in a block, and how far it reads.
pub(super) struct Cursor<T> {
    /// The next run of values, or chunk, to open.
    next: usize,
    /// Where to begin in the next chunk.
    begin: Place,
    raw: Bytes,
    offset: usize,
    /// Records left in the open chunk.
    records_left: usize,
    /// Records left of those that are read.
    wanted: u64,
    batch: Vec<T>,
}

impl<T> Default for Cursor<T> {
    fn default() -> Self {
        let begin = Place::default();
        Self {
            next: 0,
            begin,
            raw: Bytes::new(),
            offset: 0,
            records_left: 0,
            wanted: u64::MAX,
            batch: Vec::new(),
        }
    }
}

impl<T> Cursor<T> {
    /// At the end of every block.
    pub(super) fn at_end() -> Self {
        Self { next: usize::MAX, ..Self::default() }
    }
}

impl<T: 'static> Cursor<T> {
    /// From a mark on, so many records.
    pub(super) fn range(block: &Block<T>, from: Mark, records: u64) -> Self {
        let begin = match (block.runs(), block.serialized()) {
            (Some(runs), _) => Place::among(runs.iter().map(Vec::len), from.record()),
            (None, Some(bytes)) => from.place_in(bytes.chunks(), block.facts().kind.codec.record_bytes()),
            (None, None) => Place::default(),
        };
        let offset = if block.runs().is_some() { begin.skip } else { 0 };
        Self { next: begin.index, begin, offset, wanted: records, ..Self::default() }
    }

    /// Records that may be read, of so many that are there.
    fn wanted_of(&self, records: usize) -> usize {
        usize::try_from(self.wanted).unwrap_or(usize::MAX).min(records)
    }

    pub(super) fn next_batch<'a>(&'a mut self, block: &'a Block<T>) -> Result<Option<&'a [T]>, Error> {
        if let Some(runs) = block.runs() {
            return Ok(self.next_slice(runs, usize::MAX));
        }
        if !self.open(block)? {
            return Ok(None);
        }
        if let Some(range) = self.next_view(block, usize::MAX) {
            return Ok(block.facts().kind.codec.view(&self.raw).and_then(|view| view.get(range)));
        }
        self.batch.clear();
        self.decode(block, self.wanted_of(self.records_left).min(BATCH_RECORDS))?;
        Ok(Some(&self.batch))
    }

    /// Shows the next records, at most `records_max`: in one slice where they lie, or one by one as they are decoded. How
    /// many there were, 0 at the end.
    pub(super) fn visit(
        &mut self,
        block: &Block<T>,
        records_max: usize,
        mut see: impl FnMut(&[T]),
    ) -> Result<usize, Error> {
        if let Some(runs) = block.runs() {
            return Ok(self.next_slice(runs, records_max).map_or(0, |slice| {
                see(slice);
                slice.len()
            }));
        }
        if !self.open(block)? {
            return Ok(0);
        }
        if let Some(range) = self.next_view(block, records_max) {
            let asked = range.len();
            let records = block.facts().kind.codec.view(&self.raw).and_then(|view| view.get(range));
            let Some(records) = records else {
                return Err(block.decode_error(self.next - 1, CodecError::RecordCount { asked, decoded: 0 }));
            };
            see(records);
            return Ok(asked);
        }
        let asked = self.wanted_of(self.records_left).min(records_max);
        let mut reader = ChunkReader::at(&self.raw, self.offset);
        let mut decoded = 0;
        let done = block.facts().kind.codec.decode_each(&mut reader, asked, &mut |record| {
            decoded += 1;
            see(slice::from_ref(record));
        });
        let offset = done.map(|()| reader.offset());
        self.pass(block, (asked, decoded), offset)?;
        Ok(asked)
    }

    /// Shows the views of the next records, at most `records_max`. How many there were, 0 at the end.
    pub(super) fn visit_views(
        &mut self,
        block: &Block<T>,
        records_max: usize,
        mut see: impl FnMut(T::View<'_>),
    ) -> Result<usize, Error>
    where
        T: Viewed,
    {
        if block.runs().is_some() || block.facts().kind.codec.id() != CodecId::BINCODE {
            return self.visit(block, records_max, |records| records.iter().map(T::view).for_each(&mut see));
        }
        if !self.open(block)? {
            return Ok(0);
        }
        let asked = self.wanted_of(self.records_left).min(records_max);
        let mut reader = ChunkReader::at(&self.raw, self.offset);
        let done = Bincode.decode_views::<T>(&mut reader, asked, see);
        let offset = done.map(|()| reader.offset());
        self.pass(block, (asked, asked), offset)?;
        Ok(asked)
    }

    /// Goes past the next records of the open chunk, at most `records_max`, if they can be viewed in place. Gives which of
    /// the chunk's they are.
    fn next_view(&mut self, block: &Block<T>, records_max: usize) -> Option<Range<usize>> {
        let view = block.facts().kind.codec.view(&self.raw)?;
        let record_bytes = self.raw.len().checked_div(view.len())?;
        let start = self.offset.checked_div(record_bytes)?;
        // A codec whose view is of other records than the chunk's is not trusted with it.
        let is_all = view.len() * record_bytes == self.raw.len() && start * record_bytes == self.offset;
        if !is_all || view.len().saturating_sub(start) != self.records_left {
            return None;
        }
        let count = self.wanted_of(self.records_left).min(records_max);
        self.offset += count * record_bytes;
        self.records_left -= count;
        self.wanted -= count as u64;
        Some(start..start + count)
    }

    /// The next records of runs of values, where they lie.
    pub(super) fn next_slice<'a>(&mut self, runs: &'a [Vec<T>], records_max: usize) -> Option<&'a [T]> {
        loop {
            let rest = runs.get(self.next)?.get(self.offset..).unwrap_or_default();
            let len = self.wanted_of(rest.len()).min(records_max);
            if let Some(slice) = rest.get(..len).filter(|slice| !slice.is_empty()) {
                self.offset += len;
                self.wanted -= len as u64;
                return Some(slice);
            }
            if self.wanted == 0 {
                return None;
            }
            self.next += 1;
            self.offset = 0;
        }
    }

    /// Makes sure that records are left in the open chunk; false at the end of what is read.
    pub(super) fn open(&mut self, block: &Block<T>) -> Result<bool, Error> {
        let chunks = block.serialized().map_or(&[][..], SerializedBlock::chunks);
        while self.wanted > 0 && self.records_left == 0 {
            let Some(chunk) = chunks.get(self.next) else { return Ok(false) };
            // The one before it goes first: a reader holds one chunk.
            self.raw = Bytes::new();
            if let (BlockCopy::Disk(read), Some(before)) = (&block.copy, self.next.checked_sub(1))
                && read.access == DiskAccess::Verifying
                && let Some(before) = chunks.get(before)
            {
                read.core.release_chunk(before);
            }
            self.raw = raw_of(block, self.next, chunk)?;
            self.next += 1;
            let begin = std::mem::take(&mut self.begin);
            self.offset = begin.offset;
            self.records_left = (chunk.records() as usize).saturating_sub(begin.records);
            self.skip(block, begin.skip)?;
        }
        Ok(self.wanted > 0)
    }

    /// Decodes records of the open chunk that are not wanted.
    fn skip(&mut self, block: &Block<T>, mut records: usize) -> Result<(), Error> {
        self.wanted = self.wanted.saturating_add(records as u64);
        while records > 0 {
            let count = records.min(BATCH_RECORDS);
            self.decode(block, count)?;
            self.batch.clear();
            records -= count;
        }
        Ok(())
    }

    /// The next records of the open chunk, decoded.
    pub(super) fn decode_next(&mut self, block: &Block<T>, records_max: usize) -> Result<Vec<T>, Error> {
        let count = self.wanted_of(self.records_left).min(records_max);
        self.batch = Vec::with_capacity(count);
        self.decode(block, count)?;
        Ok(std::mem::take(&mut self.batch))
    }

    /// Decodes records of the open chunk, no more than are left in it, onto `self.batch`.
    fn decode(&mut self, block: &Block<T>, count: usize) -> Result<(), Error> {
        let mut reader = ChunkReader::at(&self.raw, self.offset);
        let before = self.batch.len();
        let done = block.facts().kind.codec.decode_into(&mut reader, count, &mut self.batch);
        let decoded = self.batch.len() - before.min(self.batch.len());
        let offset = done.map(|()| reader.offset());
        self.pass(block, (count, decoded), offset)
    }

    /// Goes past records of the open chunk: so many were asked for, so many decoded, up to an offset.
    fn pass(
        &mut self,
        block: &Block<T>,
        (asked, decoded): (usize, usize),
        offset: Result<usize, CodecError>,
    ) -> Result<(), Error> {
        let failed = |error| Err(block.decode_error(self.next - 1, error));
        match offset {
            Err(e) => return failed(e),
            Ok(_) if decoded != asked => return failed(CodecError::RecordCount { asked, decoded }),
            Ok(offset) => self.offset = offset,
        }
        self.records_left -= asked;
        self.wanted = self.wanted.saturating_sub(asked as u64);
        let left = self.raw.len() - self.offset;
        if self.records_left == 0 && left > 0 {
            return Err(block.decode_error(self.next - 1, CodecError::TrailingBytes { bytes: left }));
        }
        Ok(())
    }
}

/// The records of a chunk, uncompressed. A chunk that is damaged costs the store its copy of the block.
fn raw_of<T: 'static>(block: &Block<T>, index: usize, chunk: &Chunk) -> Result<Bytes, Error> {
    let raw = match &block.copy {
        BlockCopy::Memory(copy) => chunk.raw_with(|bytes| copy.facts.memory.reader_buffer(bytes)),
        BlockCopy::Disk(read) => read.raw(chunk),
    };
    raw.map_err(|source| {
        if let Some(owner) = block.facts().owner.upgrade() {
            match &block.copy {
                BlockCopy::Memory(copy) => owner.discard_memory(copy),
                BlockCopy::Disk(read) => owner.discard_disk(read.partition, &read.listed),
            }
        }
        block.facts().chunk_error(block.id().partition, block.residence(), index, source)
    })
}
