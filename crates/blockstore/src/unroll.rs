//! Unrolling: a block on its way into the store, with a reservation that grows with it.

mod bytes;
mod values;

use std::sync::Arc;

use ::bytes::Bytes;

pub(crate) use self::bytes::BytesUnroll;
pub(crate) use self::values::ValuesUnroll;
use crate::codec::CodecError;
use crate::dataset::DatasetFacts;
use crate::error::Error;
use crate::id::BlockId;
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

    pub(crate) fn write_to_disk(&self, stored: &[u8]) -> Result<Bytes, Error> {
        self.core.write_to_disk(self.block, &self.facts.name, &self.facts.counters, stored)
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
