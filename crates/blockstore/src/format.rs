//! The serialized form of a block, the same in every tier: chunks, and a header that describes them.
//!
//! `docs/formats.md` has the byte tables. The header is written by hand, little-endian, so that it outlives every
//! codec. Within one process it stays parsed, beside its chunks; in a file it stands after them, because whoever
//! streams a block learns its counts last.

mod chunk;
mod encoder;
mod header;

pub use chunk::{Chunk, ChunkError, Compression};
pub(crate) use chunk::{checksum_of, compress_into};
pub use encoder::ChunkEncoder;
pub use header::{BlockHeader, ChunkInfo, HeaderError, TRAILER_BYTES};

/// The most bytes a chunk of several records has before compression: 4 MiB. A larger record has a chunk alone.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;
