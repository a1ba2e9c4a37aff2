//! The default codec. The only module that names the bincode crate.

use ::bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use ::bincode::enc::write::Writer;
use ::bincode::error::EncodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ChunkBuffer, ChunkReader, Codec, CodecError, CodecId, RECORD_BYTES_MAX};

/// bincode 2.0.1 through serde: little-endian, fixed-width integers, lengths as `u64`.
///
/// Takes every type that serde can write without being told what comes next: no `flatten`, `untagged` or
/// `skip_serializing_if`. The configuration is frozen as version 1 of [`CodecId::BINCODE`]. Fixed-width integers
/// were chosen over variable ones because a block's numbers then encode and decode at the speed of a copy; LZ4
/// wins the size back where it matters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bincode;

/// The limit keeps a foreign length prefix from asking for more memory than any record may have.
const CONFIG: Configuration<LittleEndian, Fixint, Limit<RECORD_BYTES_MAX>> = ::bincode::config::standard()
    .with_little_endian()
    .with_fixed_int_encoding()
    .with_limit::<RECORD_BYTES_MAX>();

struct ChunkWriter<'a>(&'a mut ChunkBuffer);

impl Writer for ChunkWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    fn id(&self) -> CodecId {
        CodecId::BINCODE
    }

    #[inline]
    fn encode(&self, record: &T, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        ::bincode::serde::encode_into_writer(record, ChunkWriter(out), CONFIG)
            .map_err(|e| CodecError::Encode { codec: CodecId::BINCODE, source: e.into() })
    }

    #[inline]
    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<T, CodecError> {
        match ::bincode::serde::decode_from_slice(input.remaining(), CONFIG) {
            Ok((record, used)) => {
                input.advance(used);
                Ok(record)
            }
            Err(e) => {
                Err(CodecError::Decode { codec: CodecId::BINCODE, offset: input.offset(), source: e.into() })
            }
        }
    }
}
