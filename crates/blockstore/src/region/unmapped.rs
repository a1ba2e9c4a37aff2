//! Bytes on disk that no mapping shows.

use std::fmt;

use bytes::Bytes;

use super::cipher::{ChunkId, DiskCipher, Forged};
use super::disk::Held;
use super::error::RegionError;
use crate::memory::MemoryManager;

/// Bytes of an extent, wherever they are read.
#[derive(Clone, Debug)]
pub(crate) enum StoredBytes {
    /// On the heap, in an arena or in a mapped segment.
    Memory(Bytes),
    /// On disk alone: read into memory each time.
    Disk(std::sync::Arc<DiskExtent>),
}

impl From<Bytes> for StoredBytes {
    fn from(bytes: Bytes) -> Self {
        Self::Memory(bytes)
    }
}

impl StoredBytes {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::Disk(extent) => extent.len(),
        }
    }
}

/// A live extent whose bytes are read into memory when they are asked for. Dropping it frees it.
pub(crate) struct DiskExtent {
    held: Held,
    memory: MemoryManager,
    /// Of the bytes, without what encryption adds.
    len: usize,
    sealed: Option<Sealed>,
}

/// What it takes to decrypt an extent.
pub(super) struct Sealed {
    pub(super) cipher: std::sync::Arc<DiskCipher>,
    pub(super) nonce: u64,
    pub(super) chunk: ChunkId,
}

/// Why an extent cannot be had.
#[derive(Debug)]
pub(crate) enum LoadError {
    Unreadable(RegionError),
    /// The disk answered, and not with what was encrypted.
    Forged,
}

impl From<RegionError> for LoadError {
    fn from(error: RegionError) -> Self {
        Self::Unreadable(error)
    }
}

impl From<Forged> for LoadError {
    fn from(_: Forged) -> Self {
        Self::Forged
    }
}

impl DiskExtent {
    pub(super) fn new(held: Held, memory: MemoryManager, len: usize, sealed: Option<Sealed>) -> Self {
        Self { held, memory, len, sealed }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Its bytes on the heap, charged until the last clone drops: as storage where that much is free, else counted as
    /// scratch. Evicts nobody.
    ///
    /// # Errors
    /// [`RegionError::Read`]; the directory is then put aside. [`LoadError::Forged`].
    pub(crate) fn load(&self) -> Result<Bytes, LoadError> {
        self.load_with(self.memory.reader_buffer(self.len as u64))
    }

    /// As [`load`](Self::load), charged by the caller.
    pub(crate) fn load_with(&self, charge: impl Send + 'static) -> Result<Bytes, LoadError> {
        let added = if self.sealed.is_some() { DiskCipher::TAG_BYTES } else { 0 };
        let mut bytes = vec![0; self.len + added];
        self.held.read(&mut bytes)?;
        if let Some(Sealed { cipher, nonce, chunk }) = &self.sealed {
            cipher.open(&mut bytes, *nonce, *chunk)?;
        }
        Ok(Bytes::from_owner(Loaded { bytes, _charge: charge }))
    }
}

impl fmt::Debug for DiskExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskExtent").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Bytes and what they are charged, given back after them.
struct Loaded<C> {
    bytes: Vec<u8>,
    _charge: C,
}

impl<C> AsRef<[u8]> for Loaded<C> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
