//! Unrolling: a block on its way into the store, with a reservation that grows with it.

mod bytes;
mod values;

use std::sync::Arc;

pub(crate) use self::bytes::BytesUnroll;
pub(crate) use self::values::ValuesUnroll;
use crate::codec::CodecError;
use crate::dataset::DatasetFacts;
use crate::error::{Error, Residence};
use crate::format::Chunk;
use crate::id::BlockId;
use crate::region::{ChunkId, StoredBytes};
use crate::store::Core;

/// What a writer may touch while it unrolls.
pub(crate) struct Ground<T> {
    pub(crate) core: Arc<Core>,
    pub(crate) facts: Arc<DatasetFacts<T>>,
    pub(crate) block: BlockId,
}

impl<T> Ground<T> {
    pub(crate) fn encode_error(&self, source: CodecError) -> Error {
        Error::Encode { block: self.block, name: self.facts.name.to_string(), source }
    }

    /// Writes what is chunk number `index` of the block.
    pub(crate) fn write_to_disk(&self, index: usize, stored: &[u8]) -> Result<StoredBytes, Error> {
        let chunk = ChunkId { block: self.block, index: u32::try_from(index).unwrap_or(u32::MAX) };
        self.core.write_to_disk(chunk, &self.facts.name, &self.facts.counters, stored)
    }

    /// The same chunks on disk, as they are stored.
    pub(crate) fn moved_to_disk(&self, chunks: &[Chunk]) -> Result<Vec<Chunk>, Error> {
        let moved = |(index, chunk): (usize, &Chunk)| {
            let (partition, residence) = (self.block.partition, Residence::HeapBytes);
            let stored =
                chunk.stored().map_err(|e| self.facts.chunk_error(partition, residence, index, e))?;
            Ok(chunk.moved_to(self.write_to_disk(index, &stored)?))
        };
        chunks.iter().enumerate().map(moved).collect()
    }
}

/// A chunk on the heap with what it is charged, given back after it.
pub(crate) struct HeapChunk<C> {
    pub(crate) bytes: Vec<u8>,
    pub(crate) _charge: C,
}

impl<C> AsRef<[u8]> for HeapChunk<C> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
