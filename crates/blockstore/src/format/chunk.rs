//! One chunk of a serialized block.

use std::cell::RefCell;
use std::fmt;
use std::hash::Hasher as _;
use std::str::FromStr;

use bytes::Bytes;

use crate::region::{LoadError, RegionError, StoredBytes};
use crate::unroll::HeapChunk;
use twox_hash::XxHash3_64;

/// How chunks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 blocks. A chunk that would not shrink by an eighth is stored plain.
    Lz4,
}

impl Compression {
    pub(crate) fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
        }
    }

    pub(crate) fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            _ => None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
        })
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            _ => Err(format!("unknown compression `{text}`; the known ones are none, lz4")),
        }
    }
}

/// Why a chunk's records cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The stored bytes are not those that were written.
    #[error("checksum {actual:016x} where {expected:016x} was written")]
    Checksum {
        /// As recorded when the chunk was sealed.
        expected: u64,
        /// Of the bytes found.
        actual: u64,
    },
    /// LZ4 refused the bytes, though their checksum is right.
    #[error("{stored_bytes} stored bytes do not decompress to {raw_bytes}: {reason}")]
    Decompress {
        /// Compressed length.
        stored_bytes: usize,
        /// Length expected after decompression.
        raw_bytes: usize,
        /// LZ4's own words.
        reason: String,
    },
    /// The encrypted bytes on disk are not those that were written there.
    #[error("the encrypted bytes are not those that were written")]
    Authentication,
    /// The disk they are on cannot be read.
    #[error("the stored bytes cannot be read")]
    Unreadable {
        /// What the directory said.
        source: Box<RegionError>,
    },
}

impl From<LoadError> for ChunkError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unreadable(source) => source.into(),
            LoadError::Forged => Self::Authentication,
        }
    }
}

impl From<RegionError> for ChunkError {
    fn from(source: RegionError) -> Self {
        Self::Unreadable { source: Box::new(source) }
    }
}

/// A sealed chunk: its bytes as stored, wherever they lie, and what is needed to read and verify them.
///
/// Cheap to clone; the bytes live, and stay charged, until the last clone drops.
#[derive(Clone, Debug)]
pub struct Chunk {
    stored: StoredBytes,
    raw_len: u32,
    records: u32,
    /// None only while it lies in memory and nobody has asked to have memory verified: it is taken when it leaves.
    checksum: Option<u64>,
}

/// Bytes that are hashed, and shown to someone else, while they are in a processor's second cache.
const PIECE_BYTES: usize = 128 << 10;

/// The checksum of stored bytes: XXH3, 64 bits.
pub(crate) fn checksum_of(stored: &[u8]) -> u64 {
    XxHash3_64::oneshot(stored)
}

/// No LZ4 block decompresses to more than this many times its length: a damaged length asks for no absurd memory.
const LZ4_RATIO_MAX: usize = 255;

thread_local! {
    static TABLE: RefCell<lz4_flex::block::CompressTable> = RefCell::new(lz4_flex::block::CompressTable::default());
}

/// The compressed bytes, or none when they would not be at least an eighth fewer.
fn compress(raw: &[u8], compression: Compression) -> Option<Vec<u8>> {
    let mut room = Vec::new();
    let len = compress_into(raw, compression, &mut room)?.len();
    room.truncate(len);
    room.shrink_to_fit();
    Some(room)
}

/// As [`compress`], in memory that is used again: clearing it costs as much as copying what is in it.
pub(crate) fn compress_into<'a>(
    raw: &[u8],
    compression: Compression,
    room: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    match compression {
        Compression::None => None,
        Compression::Lz4 => {
            let most = lz4_flex::block::get_maximum_output_size(raw.len());
            if room.len() < most {
                room.resize(most, 0);
            }
            let compressed = TABLE
                .with(|table| lz4_flex::block::compress_into_with_table(raw, room, &mut table.borrow_mut()));
            room.get(..compressed.ok()?).filter(|compressed| pays(raw.len(), compressed.len()))
        }
    }
}

/// Is a chunk at least an eighth shorter compressed? What is not would cost a copy on each read, for little.
fn pays(raw_len: usize, compressed_len: usize) -> bool {
    raw_len > 0 && raw_len.saturating_sub(compressed_len) >= raw_len.div_ceil(8)
}

impl Chunk {
    /// Seals `records` records that lie in `raw`, compressed where that pays. Costs one pass for the checksum.
    #[must_use]
    pub fn seal(raw: Vec<u8>, records: u32, compression: Compression) -> Self {
        let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        let stored = compress(&raw, compression).unwrap_or(raw);
        let checksum = Some(checksum_of(&stored));
        Self { stored: Bytes::from(stored).into(), raw_len, records, checksum }
    }

    /// A chunk whose bytes are already as stored, with their checksum if it is known.
    pub(crate) fn placed(stored: StoredBytes, raw_len: u32, records: u32, checksum: Option<u64>) -> Self {
        Self { stored, raw_len, records, checksum }
    }

    fn checksum(&self) -> u64 {
        self.checksum.unwrap_or_else(|| self.in_memory().map_or(0, |stored| checksum_of(stored)))
    }

    /// A chunk that was read back: `stored` is what was found, `info` what was recorded. Nothing is verified yet.
    #[must_use]
    pub fn found(stored: Bytes, info: super::ChunkInfo) -> Self {
        Self {
            stored: stored.into(),
            raw_len: info.raw_len,
            records: info.records,
            checksum: Some(info.checksum),
        }
    }

    /// The bytes as stored, compressed or not. They are not copied, unless they are on a disk that is not mapped: then
    /// they are read into memory, which stays charged until the last clone drops.
    ///
    /// # Errors
    /// [`ChunkError::Unreadable`], and [`ChunkError::Checksum`] for bytes that were read; those in memory are not
    /// compared.
    pub fn stored(&self) -> Result<Bytes, ChunkError> {
        match &self.stored {
            StoredBytes::Memory(bytes) => Ok(bytes.clone()),
            StoredBytes::Disk(extent) => self.checked(extent.load()?),
        }
    }

    /// Length of the bytes as stored.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        self.stored.len()
    }

    /// The bytes as stored, where they are in memory or mapped.
    pub(crate) fn in_memory(&self) -> Option<&Bytes> {
        match &self.stored {
            StoredBytes::Memory(bytes) => Some(bytes),
            StoredBytes::Disk(_) => None,
        }
    }

    /// The same chunk in memory, charged with `charge` if it has to be read.
    pub(crate) fn loaded(&self, charge: impl Send + 'static) -> Result<Self, ChunkError> {
        match &self.stored {
            StoredBytes::Memory(_) => Ok(self.clone()),
            StoredBytes::Disk(extent) => Ok(self.moved_to(self.checked(extent.load_with(charge)?)?)),
        }
    }

    /// The chunk's line in a block header. Costs a pass over the bytes where no checksum was needed before.
    #[must_use]
    pub fn info(&self) -> super::ChunkInfo {
        self.info_with(self.checksum())
    }

    fn info_with(&self, checksum: u64) -> super::ChunkInfo {
        super::ChunkInfo {
            stored_len: u32::try_from(self.stored_len()).unwrap_or(u32::MAX),
            raw_len: self.raw_len,
            records: self.records,
            checksum,
        }
    }

    /// The bytes as stored, compared with their checksum if they have one, and the chunk's line in a block header. `see` is
    /// shown them in the same pass, a piece at a time while that is in a cache.
    ///
    /// # Errors
    /// [`ChunkError::Checksum`] and [`ChunkError::Unreadable`]; what was seen is then worth nothing.
    pub fn verified(&self, mut see: impl FnMut(&[u8])) -> Result<(Bytes, super::ChunkInfo), ChunkError> {
        let stored = match &self.stored {
            StoredBytes::Memory(bytes) => bytes.clone(),
            StoredBytes::Disk(extent) => extent.load()?,
        };
        let mut checksum = XxHash3_64::new();
        for piece in stored.chunks(PIECE_BYTES) {
            checksum.write(piece);
            see(piece);
        }
        let actual = checksum.finish();
        match self.checksum {
            Some(expected) if expected != actual => Err(ChunkError::Checksum { expected, actual }),
            _ => Ok((stored, self.info_with(actual))),
        }
    }

    /// The same chunk at another place that holds the same bytes.
    pub(crate) fn moved_to(&self, stored: impl Into<StoredBytes>) -> Self {
        let stored = stored.into();
        debug_assert_eq!(stored.len(), self.stored.len());
        Self { stored, raw_len: self.raw_len, records: self.records, checksum: Some(self.checksum()) }
    }

    /// How many records it holds.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Bytes before compression.
    #[must_use]
    pub fn raw_len(&self) -> u32 {
        self.raw_len
    }

    /// Is it compressed?
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.stored_len() != self.raw_len as usize
    }

    /// Compares the bytes with their checksum, if they have one: those in memory that is not verified have none. One
    /// pass over them.
    ///
    /// # Errors
    /// [`ChunkError::Checksum`], [`ChunkError::Unreadable`].
    pub fn verify(&self) -> Result<(), ChunkError> {
        match &self.stored {
            StoredBytes::Memory(bytes) => self.check(bytes),
            StoredBytes::Disk(extent) => self.check(&extent.load()?),
        }
    }

    pub(crate) fn check(&self, stored: &[u8]) -> Result<(), ChunkError> {
        let Some(expected) = self.checksum else { return Ok(()) };
        let actual = checksum_of(stored);
        if actual == expected { Ok(()) } else { Err(ChunkError::Checksum { expected, actual }) }
    }

    fn checked(&self, stored: Bytes) -> Result<Bytes, ChunkError> {
        self.check(&stored).map(|()| stored)
    }

    /// The bytes before compression: the same ones, or a decompressed copy on the heap.
    ///
    /// # Errors
    /// [`ChunkError::Decompress`], and those of [`stored`](Self::stored).
    pub fn raw(&self) -> Result<Bytes, ChunkError> {
        self.raw_with(|_| ())
    }

    /// As [`raw`](Self::raw); a copy is charged with what `charge` gives for its length, until its last handle drops.
    pub(crate) fn raw_with<C: Send + 'static>(
        &self,
        charge: impl FnOnce(u64) -> C,
    ) -> Result<Bytes, ChunkError> {
        let stored = self.stored()?;
        if !self.is_compressed() {
            return Ok(stored);
        }
        let raw_bytes = self.raw_len as usize;
        let failed =
            |reason: String| ChunkError::Decompress { stored_bytes: stored.len(), raw_bytes, reason };
        if raw_bytes / LZ4_RATIO_MAX > stored.len() {
            return Err(failed("so few bytes never do".to_owned()));
        }
        let charge = charge(u64::from(self.raw_len));
        let mut out = vec![0; raw_bytes];
        match lz4_flex::block::decompress_into(&stored, &mut out) {
            Ok(len) if len == raw_bytes => Ok(Bytes::from_owner(HeapChunk { bytes: out, _charge: charge })),
            Ok(len) => Err(failed(format!("it gave {len} bytes"))),
            Err(e) => Err(failed(e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ChunkInfo;

    #[test]
    fn verifying_shows_all_bytes_and_says_what_the_header_needs() {
        let raw: Vec<u8> = (0..PIECE_BYTES * 3 + 7).map(|i| (i * 7) as u8).collect();
        let chunk = Chunk::seal(raw.clone(), 5, Compression::None);
        let mut seen = Vec::new();
        let (stored, info) = chunk.verified(|piece| seen.extend_from_slice(piece)).unwrap();
        assert_eq!((&stored[..], &seen[..], info), (&raw[..], &raw[..], chunk.info()));

        let mut damaged = raw;
        damaged[PIECE_BYTES + 1] ^= 1;
        let damaged = Chunk::found(damaged.into(), info);
        let error = damaged.verified(|_| ()).unwrap_err();
        assert!(matches!(error, ChunkError::Checksum { expected, .. } if expected == info.checksum));
    }

    #[test]
    fn what_compresses_is_compressed_and_comes_back() {
        let raw = b"larder ".repeat(1_000);
        let chunk = Chunk::seal(raw.clone(), 1_000, Compression::Lz4);
        assert!(chunk.is_compressed() && chunk.stored_len() < raw.len() / 8);
        chunk.verify().unwrap();
        assert_eq!(chunk.raw().unwrap(), raw);
    }

    #[test]
    fn what_does_not_shrink_by_an_eighth_is_stored_plain() {
        let mut state = 1_u64;
        let raw: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(4_096)
        .collect();
        let chunk = Chunk::seal(raw.clone(), 1, Compression::Lz4);
        assert!(!chunk.is_compressed());
        assert_eq!(chunk.raw().unwrap(), raw);
        assert!(!Chunk::seal(Vec::new(), 0, Compression::Lz4).is_compressed());
    }

    #[test]
    fn an_eighth_is_an_eighth() {
        assert!(pays(8, 7) && pays(80, 70) && pays(1, 0) && pays(4 << 20, 7 << 19));
        assert!(!pays(9, 8) && !pays(80, 71) && !pays(7, 7) && !pays(0, 0) && !pays(10, 20));
    }

    #[test]
    fn a_length_that_no_lz4_block_has_is_an_error_before_memory_is_asked_for() {
        let chunk = Chunk::seal(vec![7; 100_000], 1, Compression::Lz4);
        assert!(chunk.is_compressed() && chunk.raw().is_ok(), "nothing shrinks further than this");
        for raw_len in [0, 1, 99_999, 100_001, u32::MAX] {
            let damaged = Chunk::found(chunk.stored().unwrap(), ChunkInfo { raw_len, ..chunk.info() });
            assert!(matches!(damaged.raw(), Err(ChunkError::Decompress { .. })), "{raw_len}");
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let chunk = Chunk::seal(b"some records".to_vec(), 2, Compression::None);
        for bit in 0..chunk.stored_len() * 8 {
            let mut bytes = chunk.stored().unwrap().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Chunk::found(bytes.into(), chunk.info()).verify().is_err());
        }
    }
}
