//! A block in serialized form, wherever its chunks lie.

use crate::codec::CodecId;
use crate::format::{BlockHeader, Chunk, ChunkError, Compression};
use crate::memory::Reservation;

/// A whole block as bytes: the parsed header and the chunks, each a handle on where it lies.
///
/// Cheap to clone. What it refers to stays valid, and charged, until the last clone drops.
#[derive(Clone, Debug)]
pub struct SerializedBlock {
    codec: CodecId,
    compression: Compression,
    chunks: Vec<Chunk>,
}

impl SerializedBlock {
    pub(crate) fn new(codec: CodecId, compression: Compression, chunks: Vec<Chunk>) -> Self {
        Self { codec, compression, chunks }
    }

    /// The codec that wrote the records.
    #[must_use]
    pub fn codec(&self) -> CodecId {
        self.codec
    }

    /// The compression that was asked for; each chunk is compressed only where that paid.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Its chunks, in the order of the records.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Records in all chunks.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.records())).sum()
    }

    /// Bytes of all chunks, as stored.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.stored_len() as u64).sum()
    }

    /// The header a file of this block ends with.
    #[must_use]
    pub fn header(&self) -> BlockHeader {
        BlockHeader {
            codec: self.codec,
            compression: self.compression,
            chunks: self.chunks.iter().map(Chunk::info).collect(),
        }
    }

    /// Can all its bytes be had without reading a disk by hand?
    pub(crate) fn is_in_memory(&self) -> bool {
        self.chunks.iter().all(|chunk| chunk.in_memory().is_some())
    }

    /// The same block in memory, verified where it had to be read; `charge` covers it.
    pub(crate) fn loaded(&self, mut charge: Reservation) -> Result<Self, (usize, ChunkError)> {
        let chunks = self.chunks.iter().enumerate().map(|(index, chunk)| {
            chunk.loaded(charge.split(chunk.stored_len() as u64)).map_err(|e| (index, e))
        });
        Ok(Self::new(self.codec, self.compression, chunks.collect::<Result<_, _>>()?))
    }

    /// Compares every chunk with its checksum. One pass over the bytes.
    ///
    /// # Errors
    /// The first damaged chunk, by index.
    pub fn verify(&self) -> Result<(), (usize, ChunkError)> {
        self.chunks.iter().enumerate().try_for_each(|(index, chunk)| chunk.verify().map_err(|e| (index, e)))
    }
}
