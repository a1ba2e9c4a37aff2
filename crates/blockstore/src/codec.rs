//! Codecs: how records become bytes, and back.
//!
//! A [`Codec`] writes records into a [`ChunkBuffer`] and reads them from a [`ChunkReader`]. Its [`CodecId`] stands
//! in the header of every serialized block, so that a block outlives the choice of codec: bytes are never
//! decoded by a codec that did not write them. Chunks hold whole records; none spans two of them.

mod bincode;
mod buffer;
mod pod;

use std::fmt;

pub use self::bincode::Bincode;
pub use self::buffer::{ChunkBuffer, ChunkReader};
pub use self::pod::Pod;

/// Names a codec in the header of a block.
///
/// Ids below 256 belong to Larder; take yours from 256 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CodecId {
    /// Which codec.
    pub id: u16,
    /// Which revision of its bytes.
    pub version: u16,
}

impl CodecId {
    /// bincode 2 through serde, little-endian, fixed-width integers. See [`Bincode`].
    pub const BINCODE: Self = Self { id: 1, version: 1 };
    /// The bytes of the records themselves, little-endian. See [`Pod`].
    pub const POD: Self = Self { id: 2, version: 1 };
    /// One Arrow IPC stream a record batch.
    pub const ARROW_IPC: Self = Self { id: 3, version: 1 };
}

impl fmt::Display for CodecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.id {
            1 => "bincode",
            2 => "pod",
            3 => "arrow-ipc",
            id => return write!(f, "codec {id} version {}", self.version),
        };
        write!(f, "{name} version {}", self.version)
    }
}

/// Why a record could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The record's type or value cannot be written by this codec.
    #[error("{codec} cannot encode the record")]
    Encode {
        /// Which codec.
        codec: CodecId,
        /// Its own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bytes are no record of the expected type.
    #[error("{codec} cannot decode a record at byte {offset} of its chunk")]
    Decode {
        /// Which codec.
        codec: CodecId,
        /// Where in the uncompressed chunk the record starts.
        offset: usize,
        /// Its own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The chunk ends inside a record.
    #[error("the chunk ends {missing} bytes early at byte {offset}")]
    Truncated {
        /// Where in the uncompressed chunk the read started.
        offset: usize,
        /// How many bytes are not there.
        missing: usize,
    },
    /// The chunk holds more bytes than its records.
    #[error("{bytes} bytes are left after the last record of the chunk")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A record is longer than the codec said, by its `record_bytes` or when it encoded it the first time.
    #[error("a record was said to take {said} bytes and takes more")]
    RecordSize {
        /// What the codec said.
        said: usize,
    },
    /// The codec decoded fewer or more records than it was asked for.
    #[error("{asked} records were to be decoded, and {decoded} were")]
    RecordCount {
        /// What was asked for.
        asked: usize,
        /// What came.
        decoded: usize,
    },
    /// One record alone is larger than a chunk can be.
    #[error("a record of {bytes} bytes exceeds the {limit} bytes a record may have")]
    RecordTooLarge {
        /// Its encoded size.
        bytes: usize,
        /// The limit: [`RECORD_BYTES_MAX`].
        limit: usize,
    },
}

/// The most bytes one encoded record may have: 1 GiB.
pub const RECORD_BYTES_MAX: usize = 1 << 30;

/// Turns records of one type into bytes and back.
///
/// An implementation is stateless: every record decodes from its own bytes alone, and encoding the same record
/// twice gives the same bytes. It is called with a memory grant already in hand and with no lock held.
///
/// ```
/// use larder_blockstore::codec::{ChunkBuffer, ChunkReader, Codec, CodecError, CodecId};
///
/// /// Words, each with a length byte before it.
/// struct ShortWords;
///
/// impl Codec<String> for ShortWords {
///     fn id(&self) -> CodecId {
///         CodecId { id: 256, version: 1 }
///     }
///
///     fn encode(&self, word: &String, out: &mut ChunkBuffer) -> Result<(), CodecError> {
///         let len = u8::try_from(word.len())
///             .map_err(|e| CodecError::Encode { codec: Codec::<String>::id(self), source: e.into() })?;
///         out.extend_from_slice(&[len]);
///         out.extend_from_slice(word.as_bytes());
///         Ok(())
///     }
///
///     fn decode(&self, input: &mut ChunkReader<'_>) -> Result<String, CodecError> {
///         let offset = input.offset();
///         let len = input.take(1)?.iter().map(|&len| usize::from(len)).sum();
///         let word = input.take(len)?.to_vec();
///         String::from_utf8(word)
///             .map_err(|e| CodecError::Decode { codec: Codec::<String>::id(self), offset, source: e.into() })
///     }
/// }
/// ```
pub trait Codec<T>: Send + Sync + 'static {
    /// What to write into block headers.
    fn id(&self) -> CodecId;

    /// Appends one record.
    ///
    /// # Errors
    /// [`CodecError::Encode`]; the caller discards what the record had written so far.
    fn encode(&self, record: &T, out: &mut ChunkBuffer) -> Result<(), CodecError>;

    /// Reads the next record.
    ///
    /// # Errors
    /// [`CodecError::Decode`] or [`CodecError::Truncated`].
    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<T, CodecError>;

    /// Reads the next `count` records, shows each and drops it before the next is read.
    ///
    /// # Errors
    /// As [`decode`](Self::decode); the records before the bad one were shown.
    fn decode_each(
        &self,
        input: &mut ChunkReader<'_>,
        count: usize,
        each: &mut dyn FnMut(&T),
    ) -> Result<(), CodecError> {
        for _ in 0..count {
            each(&self.decode(input)?);
        }
        Ok(())
    }

    /// Reads the next `count` records and appends them to `out`.
    ///
    /// # Errors
    /// As [`decode`](Self::decode); `out` then holds the records before the bad one.
    fn decode_into(
        &self,
        input: &mut ChunkReader<'_>,
        count: usize,
        out: &mut Vec<T>,
    ) -> Result<(), CodecError> {
        for _ in 0..count {
            out.push(self.decode(input)?);
        }
        Ok(())
    }

    /// The exact bytes of every record, where all have the same, so that writers can hand over many at once.
    fn record_bytes(&self) -> Option<usize> {
        None
    }

    /// Appends many records. The writer passes no more than fit when [`record_bytes`](Self::record_bytes) is known.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn encode_slice(&self, records: &[T], out: &mut ChunkBuffer) -> Result<(), CodecError> {
        for record in records {
            self.encode(record, out)?;
        }
        Ok(())
    }

    /// Appends records one by one and [ends](ChunkBuffer::end_record) each, until one does not fit.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), for the record after those that were ended.
    fn encode_run(&self, records: &[T], out: &mut ChunkBuffer) -> Result<(), CodecError> {
        for record in records {
            self.encode(record, out)?;
            if !out.end_record() {
                break;
            }
        }
        Ok(())
    }

    /// The records of an uncompressed chunk, in place, where their bytes are the records themselves.
    fn view<'a>(&self, chunk: &'a [u8]) -> Option<&'a [T]> {
        let _ = chunk;
        None
    }
}
