//! Plain old data: records whose bytes in memory are their bytes in a block.

use bytemuck::{AnyBitPattern, NoUninit};

use super::{ChunkBuffer, ChunkReader, Codec, CodecError, CodecId};

#[cfg(not(target_endian = "little"))]
compile_error!("the plain-old-data codec writes the machine's own bytes, and blocks are little-endian");

/// Writes records as they lie in memory and views them in place: neither encoding nor decoding touches a field.
///
/// For types without padding, pointers or invalid bit patterns, which is what `bytemuck::Pod` vouches for:
/// numbers, arrays of them and `#[repr(C)]` structs of them. Chunks are aligned to at least 16 bytes wherever they
/// live, so a record type may be aligned to 16. Whether a chunk's bytes are records of the reader's type is not
/// written in the block; the dataset that wrote it knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pod;

impl<T: NoUninit + AnyBitPattern + Send + Sync> Codec<T> for Pod {
    fn id(&self) -> CodecId {
        CodecId::POD
    }

    fn encode(&self, record: &T, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        out.extend_from_slice(bytemuck::bytes_of(record));
        Ok(())
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<T, CodecError> {
        Ok(bytemuck::pod_read_unaligned(input.take(size_of::<T>())?))
    }

    fn decode_into(
        &self,
        input: &mut ChunkReader<'_>,
        count: usize,
        out: &mut Vec<T>,
    ) -> Result<(), CodecError> {
        if size_of::<T>() == 0 {
            out.extend(std::iter::repeat_with(T::zeroed).take(count));
            return Ok(());
        }
        let bytes = input.take(size_of::<T>().saturating_mul(count))?;
        match bytemuck::try_cast_slice(bytes) {
            Ok(records) => out.extend_from_slice(records),
            Err(_) => {
                out.extend(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned::<T>));
            }
        }
        Ok(())
    }

    fn record_bytes(&self) -> Option<usize> {
        (size_of::<T>() > 0).then_some(size_of::<T>())
    }

    fn encode_slice(&self, records: &[T], out: &mut ChunkBuffer) -> Result<(), CodecError> {
        out.extend_from_slice(bytemuck::cast_slice(records));
        Ok(())
    }

    fn view<'a>(&self, chunk: &'a [u8]) -> Option<&'a [T]> {
        // No bytes tell how many records of no size there are.
        if size_of::<T>() == 0 { None } else { bytemuck::try_cast_slice(chunk).ok() }
    }
}
