//! One chunk of a serialized block.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
}

/// A sealed chunk: its bytes as stored, wherever they lie, and what is needed to read and verify them.
///
/// Cheap to clone; the bytes live, and stay charged, until the last clone drops.
#[derive(Clone, Debug)]
pub struct Chunk {
    stored: Bytes,
    raw_len: u32,
    records: u32,
    /// None while it lies in memory and nobody has asked to have memory verified: it is taken when it leaves.
    checksum: Option<u64>,
}

/// The checksum of stored bytes: XXH3, 64 bits.
pub(crate) fn checksum_of(stored: &[u8]) -> u64 {
    xxh3_64(stored)
}

/// No LZ4 block decompresses to more than this many times its length: a damaged length asks for no absurd memory.
const LZ4_RATIO_MAX: usize = 255;

thread_local! {
    static TABLE: RefCell<lz4_flex::block::CompressTable> = RefCell::new(lz4_flex::block::CompressTable::default());
}

/// The compressed bytes, or none when they would not be at least an eighth fewer.
pub(crate) fn compress(raw: &[u8], compression: Compression) -> Option<Vec<u8>> {
    match compression {
        Compression::None => None,
        Compression::Lz4 => {
            // Room for less than the worst case: LZ4 gives up as soon as it does not pay.
            let mut out = vec![0; lz4_flex::block::get_maximum_output_size(raw.len())];
            let len = TABLE
                .with(|table| {
                    lz4_flex::block::compress_into_with_table(raw, &mut out, &mut table.borrow_mut())
                })
                .ok()?;
            (len <= raw.len() - raw.len() / 8 && len < raw.len()).then(|| {
                out.truncate(len);
                out.shrink_to_fit();
                out
            })
        }
    }
}

impl Chunk {
    /// Seals `records` records that lie in `raw`, compressed where that pays. Costs one pass for the checksum.
    #[must_use]
    pub fn seal(raw: Vec<u8>, records: u32, compression: Compression) -> Self {
        let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        let stored = compress(&raw, compression).unwrap_or(raw);
        let checksum = Some(checksum_of(&stored));
        Self { stored: Bytes::from(stored), raw_len, records, checksum }
    }

    /// A chunk whose bytes are already as stored, with their checksum if it is known.
    pub(crate) fn placed(stored: Bytes, raw_len: u32, records: u32, checksum: Option<u64>) -> Self {
        Self { stored, raw_len, records, checksum }
    }

    fn checksum(&self) -> u64 {
        self.checksum.unwrap_or_else(|| checksum_of(&self.stored))
    }

    /// A chunk that was read back: `stored` is what was found, `info` what was recorded. Nothing is verified yet.
    #[must_use]
    pub fn found(stored: Bytes, info: super::ChunkInfo) -> Self {
        Self { stored, raw_len: info.raw_len, records: info.records, checksum: Some(info.checksum) }
    }

    /// The bytes as stored, compressed or not.
    #[must_use]
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// The chunk's line in a block header. Costs a pass over the bytes where no checksum was needed before.
    #[must_use]
    pub fn info(&self) -> super::ChunkInfo {
        super::ChunkInfo {
            stored_len: u32::try_from(self.stored.len()).unwrap_or(u32::MAX),
            raw_len: self.raw_len,
            records: self.records,
            checksum: self.checksum(),
        }
    }

    /// The same chunk at another place that holds the same bytes.
    pub(crate) fn moved_to(&self, stored: Bytes) -> Self {
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
        self.stored.len() != self.raw_len as usize
    }

    /// Compares the bytes with their checksum, if they have one: those in memory that is not verified have none. One
    /// pass over them.
    ///
    /// # Errors
    /// [`ChunkError::Checksum`].
    pub fn verify(&self) -> Result<(), ChunkError> {
        let Some(expected) = self.checksum else { return Ok(()) };
        let actual = checksum_of(&self.stored);
        if actual == expected { Ok(()) } else { Err(ChunkError::Checksum { expected, actual }) }
    }

    /// The bytes before compression: the same ones, or a decompressed copy on the heap.
    ///
    /// # Errors
    /// [`ChunkError::Decompress`].
    pub fn raw(&self) -> Result<Bytes, ChunkError> {
        if !self.is_compressed() {
            return Ok(self.stored.clone());
        }
        let raw_bytes = self.raw_len as usize;
        let failed =
            |reason: String| ChunkError::Decompress { stored_bytes: self.stored.len(), raw_bytes, reason };
        if raw_bytes / LZ4_RATIO_MAX > self.stored.len() {
            return Err(failed("so few bytes never do".to_owned()));
        }
        let mut out = vec![0; raw_bytes];
        match lz4_flex::block::decompress_into(&self.stored, &mut out) {
            Ok(len) if len == raw_bytes => Ok(Bytes::from(out)),
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
    fn what_compresses_is_compressed_and_comes_back() {
        let raw = b"larder ".repeat(1_000);
        let chunk = Chunk::seal(raw.clone(), 1_000, Compression::Lz4);
        assert!(chunk.is_compressed() && chunk.stored().len() < raw.len() / 8);
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
    fn a_length_that_no_lz4_block_has_is_an_error_before_memory_is_asked_for() {
        let chunk = Chunk::seal(vec![7; 100_000], 1, Compression::Lz4);
        assert!(chunk.is_compressed() && chunk.raw().is_ok(), "nothing shrinks further than this");
        for raw_len in [0, 1, 99_999, 100_001, u32::MAX] {
            let damaged = Chunk::found(chunk.stored().clone(), ChunkInfo { raw_len, ..chunk.info() });
            assert!(matches!(damaged.raw(), Err(ChunkError::Decompress { .. })), "{raw_len}");
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let chunk = Chunk::seal(b"some records".to_vec(), 2, Compression::None);
        for bit in 0..chunk.stored().len() * 8 {
            let mut bytes = chunk.stored().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Chunk::found(bytes.into(), chunk.info()).verify().is_err());
        }
    }
}
