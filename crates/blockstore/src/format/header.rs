//! The header of a serialized block.

use twox_hash::XxHash3_64;

use super::Compression;
use crate::codec::CodecId;

const MAGIC: [u8; 8] = *b"LARDERBK";
const FORMAT_VERSION: u16 = 1;
const CHUNK_INFO_BYTES: usize = 24;

/// The fixed part of a header in a file, its last bytes.
pub const TRAILER_BYTES: usize = 64;

/// One chunk's line in a [`BlockHeader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Bytes as stored.
    pub stored_len: u32,
    /// Bytes before compression; equal to `stored_len` where the chunk is plain.
    pub raw_len: u32,
    /// Records it holds.
    pub records: u32,
    /// xxh3-64 of the bytes as stored.
    pub checksum: u64,
}

/// Describes a serialized block: who wrote it and how, and where its chunks are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// The codec that wrote the records.
    pub codec: CodecId,
    /// The compression that was asked for.
    pub compression: Compression,
    /// Its chunks, in order, back to back.
    pub chunks: Vec<ChunkInfo>,
}

/// Why bytes are no block header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// Too short, or cut.
    #[error("{found} bytes where a block header needs {needed}")]
    Truncated {
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        needed: usize,
    },
    /// Not a block at all.
    #[error("no Larder block: it does not end in a block header")]
    Magic,
    /// Written by a later Larder.
    #[error("block format {found}; this version reads up to {FORMAT_VERSION}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// An unknown compression.
    #[error("unknown compression id {id}")]
    Compression {
        /// The id found.
        id: u8,
    },
    /// The header does not match its own checksum.
    #[error("the block header is damaged: checksum {actual:016x} where {expected:016x} was written")]
    Checksum {
        /// As recorded.
        expected: u64,
        /// Of the bytes found.
        actual: u64,
    },
    /// Counts in the header contradict each other.
    #[error("the block header contradicts itself: {what} {stated}, but its chunks add up to {actual}")]
    Inconsistent {
        /// Which count.
        what: &'static str,
        /// The count in the fixed part.
        stated: u64,
        /// The count of the chunks.
        actual: u64,
    },
}

impl BlockHeader {
    /// Records in the block.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.records)).sum()
    }

    /// Bytes of all chunks, as stored.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.stored_len)).sum()
    }

    /// Where chunk `index` lies in a file: its first byte and the one after its last.
    #[must_use]
    pub fn chunk_range(&self, index: usize) -> Option<std::ops::Range<u64>> {
        let chunk = self.chunks.get(index)?;
        let start = self.chunks.iter().take(index).map(|chunk| u64::from(chunk.stored_len)).sum();
        Some(start..start + u64::from(chunk.stored_len))
    }

    /// Bytes of the header in a file that has `chunks` chunks.
    #[must_use]
    pub fn encoded_len(chunks: usize) -> usize {
        chunks * CHUNK_INFO_BYTES + TRAILER_BYTES
    }

    /// The header as it stands at the end of a file: a line a chunk, then the fixed part.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::encoded_len(self.chunks.len()));
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk.stored_len.to_le_bytes());
            out.extend_from_slice(&chunk.raw_len.to_le_bytes());
            out.extend_from_slice(&chunk.records.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&chunk.checksum.to_le_bytes());
        }
        let index_checksum = XxHash3_64::oneshot(&out);
        let index_len = out.len();
        out.extend_from_slice(&index_checksum.to_le_bytes());
        out.extend_from_slice(&self.records().to_le_bytes());
        out.extend_from_slice(&self.stored_bytes().to_le_bytes());
        out.extend_from_slice(&(self.chunks.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.codec.id.to_le_bytes());
        out.extend_from_slice(&self.codec.version.to_le_bytes());
        out.push(self.compression.id());
        out.push(0);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        let checksum = XxHash3_64::oneshot(out.get(index_len..).unwrap_or_default());
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out
    }

    /// How many bytes at the end of a file its header takes, judged by the file's last [`TRAILER_BYTES`].
    ///
    /// # Errors
    /// Any [`HeaderError`] but `Inconsistent`.
    pub fn len_from_trailer(trailer: &[u8]) -> Result<u64, HeaderError> {
        let fixed = Fixed::parse(trailer)?;
        Ok(fixed.chunks.saturating_mul(CHUNK_INFO_BYTES as u64).saturating_add(TRAILER_BYTES as u64))
    }

    /// Parses a header that stands at the end of `bytes`.
    ///
    /// # Errors
    /// A [`HeaderError`]: nothing is believed that its checksum does not vouch for.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let fixed = Fixed::parse(bytes)?;
        let needed = Self::len_from_trailer(bytes)?;
        let truncated = || HeaderError::Truncated {
            found: bytes.len(),
            needed: usize::try_from(needed).unwrap_or(usize::MAX),
        };
        let start = usize::try_from(needed).ok().and_then(|needed| bytes.len().checked_sub(needed));
        let index =
            start.and_then(|start| bytes.get(start..bytes.len() - TRAILER_BYTES)).ok_or_else(truncated)?;
        let actual = XxHash3_64::oneshot(index);
        if actual != fixed.index_checksum {
            return Err(HeaderError::Checksum { expected: fixed.index_checksum, actual });
        }
        let chunks = index.chunks_exact(CHUNK_INFO_BYTES).map(chunk_info).collect();
        let header = Self { codec: fixed.codec, compression: fixed.compression, chunks };
        for (what, stated, actual) in [
            ("records", fixed.records, header.records()),
            ("stored bytes", fixed.stored_bytes, header.stored_bytes()),
        ] {
            if stated != actual {
                return Err(HeaderError::Inconsistent { what, stated, actual });
            }
        }
        Ok(header)
    }
}

struct Fixed {
    index_checksum: u64,
    records: u64,
    stored_bytes: u64,
    chunks: u64,
    codec: CodecId,
    compression: Compression,
}

impl Fixed {
    fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let trailer = bytes
            .len()
            .checked_sub(TRAILER_BYTES)
            .and_then(|start| bytes.get(start..))
            .ok_or(HeaderError::Truncated { found: bytes.len(), needed: TRAILER_BYTES })?;
        let (fixed, tail) = trailer.split_at(TRAILER_BYTES - 16);
        let mut tail = Fields(tail);
        let expected = tail.u64();
        if tail.0 != MAGIC {
            return Err(HeaderError::Magic);
        }
        let actual = XxHash3_64::oneshot(fixed);
        if actual != expected {
            return Err(HeaderError::Checksum { expected, actual });
        }
        let mut fields = Fields(fixed);
        let index_checksum = fields.u64();
        let records = fields.u64();
        let stored_bytes = fields.u64();
        let chunks = fields.u64();
        let codec = CodecId { id: fields.u16(), version: fields.u16() };
        let [compression, _] = fields.u16().to_le_bytes();
        let version = fields.u16();
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version { found: version });
        }
        let compression =
            Compression::from_id(compression).ok_or(HeaderError::Compression { id: compression })?;
        Ok(Self { index_checksum, records, stored_bytes, chunks, codec, compression })
    }
}

fn chunk_info(line: &[u8]) -> ChunkInfo {
    let mut fields = Fields(line);
    let (stored_len, raw_len, records) = (fields.u32(), fields.u32(), fields.u32());
    fields.u32();
    ChunkInfo { stored_len, raw_len, records, checksum: fields.u64() }
}

/// Little-endian fields from the front of a slice whose length was checked.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> BlockHeader {
        BlockHeader {
            codec: CodecId::BINCODE,
            compression: Compression::Lz4,
            chunks: vec![
                ChunkInfo { stored_len: 100, raw_len: 400, records: 7, checksum: 1 },
                ChunkInfo { stored_len: 50, raw_len: 50, records: 1, checksum: u64::MAX },
            ],
        }
    }

    #[test]
    fn a_header_round_trips_at_the_end_of_a_file() {
        let header = header();
        let mut file = vec![9; 150];
        file.extend(header.encode());
        assert_eq!(file.len(), 150 + BlockHeader::encoded_len(2));
        assert_eq!(BlockHeader::decode(&file), Ok(header.clone()));
        assert_eq!(BlockHeader::len_from_trailer(&file), Ok(BlockHeader::encoded_len(2) as u64));
        assert_eq!(header.chunk_range(1), Some(100..150));
        assert_eq!((header.records(), header.stored_bytes()), (8, 150));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(BlockHeader::decode(&damaged).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(BlockHeader::decode(&bytes[..len]).is_err(), "cut to {len}");
            assert!(BlockHeader::decode(&bytes[bytes.len() - len..]).is_err(), "last {len}");
        }
    }
}
