//! Records into chunks, on the heap, with no store around them.

use std::sync::Arc;

use super::{CHUNK_BYTES_MAX, Chunk, Compression};
use crate::codec::{ChunkBuffer, Codec, CodecError, RECORD_BYTES_MAX};

/// Bytes the buffer starts with; it doubles from there.
const BUFFER_BYTES_MIN: usize = 4 << 10;

/// Cuts a sequence of records into sealed chunks of up to a given size.
///
/// Needs no store and charges nobody: at most one chunk and one record are held.
///
/// ```
/// use std::sync::Arc;
/// use larder_blockstore::codec::Bincode;
/// use larder_blockstore::format::{ChunkEncoder, Compression};
///
/// let mut encoder = ChunkEncoder::<u64>::new(Arc::new(Bincode), Compression::None, 80);
/// let mut chunks = Vec::new();
/// for record in 0..25 {
///     chunks.extend(encoder.push(&record)?);
/// }
/// chunks.extend(encoder.finish());
/// assert_eq!(chunks.iter().map(|chunk| chunk.records()).collect::<Vec<_>>(), [10, 10, 5]);
/// # Ok::<(), larder_blockstore::codec::CodecError>(())
/// ```
pub struct ChunkEncoder<T> {
    codec: Arc<dyn Codec<T>>,
    compression: Compression,
    chunk_bytes: usize,
    buffer: ChunkBuffer,
}

impl<T: 'static> std::fmt::Debug for ChunkEncoder<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkEncoder")
            .field("codec", &self.codec.id())
            .field("buffered_records", &self.buffer.records())
            .finish_non_exhaustive()
    }
}

impl<T: 'static> ChunkEncoder<T> {
    /// An encoder whose chunks have up to `chunk_bytes` bytes before compression, at most [`CHUNK_BYTES_MAX`].
    #[must_use]
    pub fn new(codec: Arc<dyn Codec<T>>, compression: Compression, chunk_bytes: usize) -> Self {
        let chunk_bytes = chunk_bytes.clamp(1, CHUNK_BYTES_MAX);
        let buffer = ChunkBuffer::with_capacity(BUFFER_BYTES_MIN.min(chunk_bytes));
        Self { codec, compression, chunk_bytes, buffer }
    }

    /// Appends a record; gives the chunk before it when that is full.
    ///
    /// # Errors
    /// The codec's; the record is then left out and the encoder goes on.
    pub fn push(&mut self, record: &T) -> Result<Option<Chunk>, CodecError> {
        self.buffer.encode(&*self.codec, record)?;
        if self.buffer.end_record() { Ok(None) } else { self.make_room() }
    }

    #[cold]
    fn make_room(&mut self) -> Result<Option<Chunk>, CodecError> {
        let overflow = self.buffer.overflow_len();
        if overflow > RECORD_BYTES_MAX {
            self.buffer.discard_record();
            return Err(CodecError::RecordTooLarge { bytes: overflow, limit: RECORD_BYTES_MAX });
        }
        let needed = self.buffer.finished_len() + overflow;
        // Records of no size never fill a chunk's bytes, only its count.
        let fits = needed <= self.chunk_bytes && self.buffer.records() < u32::MAX;
        let sealed = if fits || self.buffer.records() == 0 {
            let doubled = self.buffer.capacity().saturating_mul(2);
            self.buffer.grow(doubled.min(self.chunk_bytes).max(needed));
            None
        } else {
            let sealed = self.seal();
            self.buffer.grow(self.chunk_bytes.max(overflow));
            Some(sealed)
        };
        self.buffer.end_record();
        Ok(sealed)
    }

    /// Bytes that the chunk under way takes: its buffer, filled or not.
    #[must_use]
    pub fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// The last chunk, if records are left in it. The encoder goes on empty.
    #[must_use]
    pub fn finish(&mut self) -> Option<Chunk> {
        (self.buffer.records() > 0).then(|| self.seal())
    }

    fn seal(&mut self) -> Chunk {
        let records = self.buffer.records();
        Chunk::seal(self.buffer.take(), records, self.compression)
    }
}
