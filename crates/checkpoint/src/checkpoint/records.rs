//! Decodes the records of one part.

use std::fmt;
use std::iter::FusedIterator;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use larder_blockstore::Viewed;
use larder_blockstore::codec::{Bincode, ChunkReader, Codec, CodecError, CodecId};

use super::PartReader;
use crate::Error;
use crate::error::PartError;

/// Records that are decoded at once.
const BATCH_RECORDS: usize = 1024;

/// The records of one part, in order. Holds one chunk, and up to 1,024 of its records decoded.
///
/// After an error it is at its end: what came before is right, but not all.
pub struct Records<T> {
    part: PartReader,
    codec: Arc<dyn Codec<T>>,
    decoded: std::vec::IntoIter<T>,
    /// The open chunk, and where in it the next record begins.
    raw: Bytes,
    offset: usize,
    /// Records of the open chunk that are not decoded yet.
    in_chunk: usize,
    /// The chunk that is read next.
    chunk: usize,
    /// Records before the first that was asked for.
    skip: u64,
    /// Records that are still to be given.
    left: u64,
}

impl<T: 'static> Records<T> {
    pub(super) fn start(
        part: PartReader,
        codec: Arc<dyn Codec<T>>,
        skip: u64,
        left: u64,
    ) -> Result<Self, Error> {
        part.expect_codec(codec.id())?;
        let (decoded, chunk) = (Vec::new().into_iter(), part.next_chunk());
        Ok(Self { part, codec, decoded, raw: Bytes::new(), offset: 0, in_chunk: 0, chunk, skip, left })
    }

    /// Shows the next records, at most `records_max`, each as it is decoded and dropped before the next is. How many there
    /// were, 0 at the end.
    ///
    /// # Errors
    /// [`Error::Part`], [`Error::Codec`], [`Error::Io`]; the records before the bad one were shown.
    pub fn visit(&mut self, records_max: usize, mut see: impl FnMut(&[T])) -> Result<usize, Error> {
        let seen = self.try_visit(records_max.max(1), &mut see);
        if seen.is_err() {
            self.left = 0;
        }
        seen
    }

    /// As [`visit`](Self::visit), the [views](Viewed) of the records: of those that [`Bincode`] has written nothing is made,
    /// others are decoded and then looked at.
    ///
    /// # Errors
    /// As [`visit`](Self::visit). A view that is not one of the record's fields in their order is not recognized as that:
    /// it fails, or shows other numbers than the record has.
    pub fn visit_views(
        &mut self,
        records_max: usize,
        mut see: impl FnMut(T::View<'_>),
    ) -> Result<usize, Error>
    where
        T: Viewed,
    {
        let seen = self.try_visit_views(records_max.max(1), &mut see);
        if seen.is_err() {
            self.left = 0;
        }
        seen
    }

    fn try_visit_views(
        &mut self,
        records_max: usize,
        see: &mut impl FnMut(T::View<'_>),
    ) -> Result<usize, Error>
    where
        T: Viewed,
    {
        let is_decoded = self.decoded.len() > 0 || self.codec.id() != CodecId::BINCODE;
        if is_decoded || self.skip > 0 {
            return self
                .try_visit(records_max, &mut |records| records.iter().map(T::view).for_each(&mut *see));
        }
        if self.left == 0 || !self.open()? {
            return Ok(0);
        }
        let count = self.in_chunk.min(records_max).min(count_of(self.left));
        let mut reader = ChunkReader::at(&self.raw, self.offset);
        let done = Bincode.decode_views::<T>(&mut reader, count, see);
        let offset = reader.offset();
        self.pass(count, count, done.map(|()| offset))?;
        self.left -= count as u64;
        Ok(count)
    }

    fn try_visit(&mut self, records_max: usize, see: &mut impl FnMut(&[T])) -> Result<usize, Error> {
        while self.left > 0 {
            if self.decoded.len() > 0 {
                let skipped = count_of(self.skip).min(self.decoded.len());
                self.decoded.by_ref().take(skipped).for_each(drop);
                self.skip -= skipped as u64;
                let count = self.decoded.len().min(records_max).min(count_of(self.left));
                if let Some(records) = self.decoded.as_slice().get(..count).filter(|_| count > 0) {
                    see(records);
                    self.decoded.by_ref().take(count).for_each(drop);
                    self.left -= count as u64;
                    return Ok(count);
                }
            }
            if !self.open()? {
                return Ok(0);
            }
            if self.skip > 0 {
                let count = self.in_chunk.min(count_of(self.skip));
                self.decode_each(count, &mut |_| ())?;
                self.skip -= count as u64;
                continue;
            }
            let count = self.in_chunk.min(records_max).min(count_of(self.left));
            self.decode_each(count, &mut |record| see(slice::from_ref(record)))?;
            self.left -= count as u64;
            return Ok(count);
        }
        Ok(0)
    }

    /// Makes sure that records are left in the open chunk; false at the end.
    fn open(&mut self) -> Result<bool, Error> {
        while self.in_chunk == 0 {
            // The one before it goes first.
            self.raw = Bytes::new();
            let Some(chunk) = self.part.next() else { return Ok(false) };
            let raw = chunk.and_then(|chunk| {
                self.in_chunk = usize::try_from(chunk.records()).unwrap_or(usize::MAX);
                let damaged = |source| self.part.damaged(PartError::Chunk { chunk: self.chunk, source });
                chunk.raw().map_err(damaged)
            });
            self.chunk += 1;
            (self.raw, self.offset) = (raw?, 0);
            self.check_end()?;
        }
        Ok(true)
    }

    fn decode_each(&mut self, count: usize, each: &mut dyn FnMut(&T)) -> Result<(), Error> {
        let mut reader = ChunkReader::at(&self.raw, self.offset);
        let mut decoded = 0;
        let done = self.codec.decode_each(&mut reader, count, &mut |record| {
            decoded += 1;
            each(record);
        });
        let offset = reader.offset();
        self.pass(count, decoded, done.map(|()| offset))
    }

    fn decode_batch(&mut self) -> Result<(), Error> {
        let count = self.in_chunk.min(BATCH_RECORDS);
        let mut reader = ChunkReader::at(&self.raw, self.offset);
        let mut records = Vec::with_capacity(count);
        let done = self.codec.decode_into(&mut reader, count, &mut records);
        let offset = reader.offset();
        self.pass(count, records.len(), done.map(|()| offset))?;
        self.decoded = records.into_iter();
        Ok(())
    }

    /// Goes past records of the open chunk: so many were asked for, so many decoded, up to an offset.
    fn pass(&mut self, asked: usize, decoded: usize, to: Result<usize, CodecError>) -> Result<(), Error> {
        let to = match to {
            Ok(_) if decoded != asked => Err(CodecError::RecordCount { asked, decoded }),
            to => to,
        };
        self.offset = to.map_err(|e| self.codec_error(e))?;
        self.in_chunk -= asked;
        self.check_end()
    }

    /// A chunk ends with its last record.
    fn check_end(&self) -> Result<(), Error> {
        match self.raw.len() - self.offset {
            bytes if bytes > 0 && self.in_chunk == 0 => {
                Err(self.codec_error(CodecError::TrailingBytes { bytes }))
            }
            _ => Ok(()),
        }
    }

    fn codec_error(&self, source: CodecError) -> Error {
        Error::Codec { at: self.part.place(), source }
    }

    fn try_next(&mut self) -> Result<Option<T>, Error> {
        while self.left > 0 {
            while self.skip > 0 && self.decoded.next().is_some() {
                self.skip -= 1;
            }
            if let Some(record) = self.decoded.next() {
                self.left -= 1;
                return Ok(Some(record));
            }
            if !self.open()? {
                break;
            }
            self.decode_batch()?;
        }
        Ok(None)
    }
}

fn count_of(records: u64) -> usize {
    usize::try_from(records).unwrap_or(usize::MAX)
}

impl<T: 'static> Iterator for Records<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.try_next();
        if next.is_err() {
            self.left = 0;
        }
        next.transpose()
    }
}

impl<T: 'static> FusedIterator for Records<T> {}

impl<T> fmt::Debug for Records<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("part", &self.part).finish_non_exhaustive()
    }
}
