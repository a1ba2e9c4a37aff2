//! Writes one part record by record.

use std::sync::Arc;

use larder_blockstore::codec::Codec;
use larder_blockstore::format::ChunkEncoder;

use super::PartWriter;
use crate::{Error, Step};

/// Encodes records into the chunks of one part. Holds up to two chunks.
#[derive(Debug)]
pub struct RecordWriter<T: 'static> {
    part: PartWriter,
    encoder: ChunkEncoder<T>,
}

impl<T: 'static> RecordWriter<T> {
    pub(super) fn start(part: PartWriter, codec: Arc<dyn Codec<T>>) -> Result<Self, Error> {
        part.expect_codec(codec.id())?;
        let encoder = ChunkEncoder::new(codec, part.compression(), part.chunk_bytes());
        Ok(Self { part, encoder })
    }

    /// Bytes that it holds at most right now: the chunk that fills, and what its [`PartWriter`] holds.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.encoder.buffer_bytes() as u64 + self.part.held_bytes()
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`Error::Codec`], after which the record is left out and writing may go on; else as [`PartWriter::write`].
    pub fn push(&mut self, record: &T) -> Result<(), Error> {
        let full = self.encoder.push(record);
        let full = full.map_err(|source| Error::Codec { at: self.part.place(Step::WriteChunk), source })?;
        full.map_or(Ok(()), |chunk| self.part.write(&chunk))
    }

    /// Writes the last chunk and the header, and makes the part durable.
    ///
    /// # Errors
    /// As [`PartWriter::finish`].
    pub fn finish(mut self) -> Result<(), Error> {
        if let Some(chunk) = self.encoder.finish() {
            self.part.write(&chunk)?;
        }
        self.part.finish()
    }
}
