//! Decodes the records of one part.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use larder_blockstore::codec::{ChunkReader, Codec, CodecError};
use larder_blockstore::format::Chunk;

use super::PartReader;
use crate::Error;
use crate::error::PartError;

/// The records of one part, in order. Holds those of one chunk.
///
/// After an error it is at its end: what came before is right, but not all.
pub struct Records<T> {
    part: PartReader,
    codec: Arc<dyn Codec<T>>,
    decoded: std::vec::IntoIter<T>,
    /// The chunk that is read next.
    chunk: usize,
    /// Decoded records before the first that was asked for.
    skip: u64,
    /// Records that are still to be given.
    left: u64,
    failed: bool,
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
        Ok(Self { part, codec, decoded, chunk, skip, left, failed: false })
    }

    fn decode(&self, chunk: &Chunk) -> Result<Vec<T>, Error> {
        let raw = chunk
            .raw()
            .map_err(|source| self.part.damaged(PartError::Chunk { chunk: self.chunk, source }))?;
        let codec_error = |source| Error::Codec { at: self.part.place(), source };
        let mut reader = ChunkReader::at(&raw, 0);
        let count = usize::try_from(chunk.records()).unwrap_or(usize::MAX);
        let mut records = Vec::with_capacity(count.min(raw.len()));
        self.codec.decode_into(&mut reader, count, &mut records).map_err(codec_error)?;
        match reader.remaining().len() {
            0 => Ok(records),
            bytes => Err(codec_error(CodecError::TrailingBytes { bytes })),
        }
    }

    fn next_chunk(&mut self) -> Option<Result<(), Error>> {
        let records = self.part.next()?.and_then(|chunk| self.decode(&chunk));
        self.chunk += 1;
        match records {
            Ok(records) => self.decoded = records.into_iter(),
            Err(e) => {
                self.failed = true;
                return Some(Err(e));
            }
        }
        Some(Ok(()))
    }
}

impl<T: 'static> Iterator for Records<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.left == 0 || self.failed {
                return None;
            }
            while self.skip > 0 && self.decoded.next().is_some() {
                self.skip -= 1;
            }
            if let Some(record) = self.decoded.next() {
                self.left -= 1;
                return Some(Ok(record));
            }
            if let Err(e) = self.next_chunk()? {
                return Some(Err(e));
            }
        }
    }
}

impl<T: 'static> FusedIterator for Records<T> {}

impl<T> fmt::Debug for Records<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("part", &self.part).finish_non_exhaustive()
    }
}
