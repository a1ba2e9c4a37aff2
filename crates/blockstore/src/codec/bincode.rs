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

/// Fields are gathered here and go to the chunk together: most are a few bytes long, and asking the chunk for room each time
/// costs more than to write them.
const GATHERED_BYTES: usize = 64;

struct ChunkWriter<'a> {
    chunk: &'a mut ChunkBuffer,
    gathered: [u8; GATHERED_BYTES],
    len: usize,
}

impl ChunkWriter<'_> {
    fn flush(&mut self) {
        self.chunk.extend_from_slice(self.gathered.get(..self.len).unwrap_or_default());
        self.len = 0;
    }

    #[cold]
    fn write_long(&mut self, bytes: &[u8]) {
        self.flush();
        self.chunk.extend_from_slice(bytes);
    }
}

impl Writer for ChunkWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        match self.gathered.get_mut(self.len..self.len + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            None => self.write_long(bytes),
        }
        Ok(())
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    fn id(&self) -> CodecId {
        CodecId::BINCODE
    }

    #[inline]
    fn encode(&self, record: &T, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        let mut writer = ChunkWriter { chunk: out, gathered: [0; GATHERED_BYTES], len: 0 };
        ::bincode::serde::encode_into_writer(record, &mut writer, CONFIG)
            .map_err(|e| CodecError::Encode { codec: CodecId::BINCODE, source: e.into() })?;
        writer.flush();
        Ok(())
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<T, CodecError> {
        let mut record = None;
        decode_run(input, 1, &mut Sink::One(&mut record))?;
        record.ok_or(CodecError::RecordCount { asked: 1, decoded: 0 })
    }

    fn decode_into(
        &self,
        input: &mut ChunkReader<'_>,
        count: usize,
        out: &mut Vec<T>,
    ) -> Result<(), CodecError> {
        decode_run(input, count, &mut Sink::Many(out))
    }

    fn decode_each(
        &self,
        input: &mut ChunkReader<'_>,
        count: usize,
        each: &mut dyn FnMut(&T),
    ) -> Result<(), CodecError> {
        decode_run(input, count, &mut Sink::Each(each))
    }
}

/// What becomes of decoded records.
enum Sink<'a, T> {
    One(&'a mut Option<T>),
    Many(&'a mut Vec<T>),
    Each(&'a mut dyn FnMut(&T)),
}

/// Decodes records one after the other. The only place that calls bincode for it, so that its code becomes part of the
/// loop.
#[inline(never)]
fn decode_run<T: DeserializeOwned>(
    input: &mut ChunkReader<'_>,
    count: usize,
    sink: &mut Sink<'_, T>,
) -> Result<(), CodecError> {
    let mut rest = input.remaining();
    for _ in 0..count {
        let decoded = ::bincode::serde::decode_from_slice::<T, _>(rest, CONFIG);
        if let Ok((record, used)) = &decoded {
            rest = rest.get(*used..).unwrap_or_default();
            // Where it was put together: to move it waits for its fields, which were stored one by one just now.
            if let Sink::Each(each) = sink {
                each(record);
                continue;
            }
        }
        match (decoded, &mut *sink) {
            (Ok((record, _)), Sink::Many(records)) => records.push(record),
            (Ok((record, _)), Sink::One(place)) => **place = Some(record),
            (Ok(_), Sink::Each(_)) => {}
            (Err(e), _) => {
                input.advance(input.remaining().len() - rest.len());
                let source = e.into();
                return Err(CodecError::Decode { codec: CodecId::BINCODE, offset: input.offset(), source });
            }
        }
    }
    input.advance(input.remaining().len() - rest.len());
    Ok(())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn writes_what_bincode_writes_however_long_the_fields_are() {
        let text = |len| "ab".chars().cycle().take(len).collect::<String>();
        for len in 0..3 * GATHERED_BYTES {
            let record = (7_u8, text(len), len as u64, vec![(text(len / 2), 1_u16); 3]);
            // With room for all, and for next to nothing.
            for capacity in [1 << 12, 1] {
                let mut buffer = ChunkBuffer::with_capacity(capacity);
                Bincode.encode(&record, &mut buffer).unwrap();
                if !buffer.end_record() {
                    buffer.grow(1 << 12);
                    assert!(buffer.end_record());
                }
                assert_eq!(
                    buffer.finished(),
                    ::bincode::serde::encode_to_vec(&record, CONFIG).unwrap(),
                    "{len}"
                );
            }
        }
    }
}
