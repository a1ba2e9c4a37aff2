//! The default codec. The only module that names the bincode crate.

use ::bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use ::bincode::enc::write::Writer;
use ::bincode::error::{DecodeError, EncodeError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ChunkBuffer, ChunkReader, Codec, CodecError, CodecId, RECORD_BYTES_MAX};
use crate::viewed::Viewed;

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

/// Writes fields where they stay. To ask the chunk for room for each costs more than to write them: most are a few bytes
/// long.
struct WindowWriter<'a> {
    left: &'a mut [u8],
    is_full: bool,
}

impl Writer for WindowWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        match std::mem::take(&mut self.left).split_at_mut_checked(bytes.len()) {
            Some((place, left)) => {
                place.copy_from_slice(bytes);
                self.left = left;
                Ok(())
            }
            None => {
                self.is_full = true;
                Err(EncodeError::UnexpectedEnd)
            }
        }
    }
}

/// Writes fields of a record that is longer than the window.
struct ChunkWriter<'a> {
    chunk: &'a mut ChunkBuffer,
    bytes: usize,
}

impl Writer for ChunkWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.chunk.extend_from_slice(bytes);
        self.bytes += bytes.len();
        Ok(())
    }
}

fn encode_error(error: EncodeError) -> CodecError {
    CodecError::Encode { codec: CodecId::BINCODE, source: error.into() }
}

fn decode_error(error: DecodeError, offset: usize) -> CodecError {
    CodecError::Decode { codec: CodecId::BINCODE, offset, source: error.into() }
}

#[cold]
fn encode_long<T: Serialize>(record: &T, out: &mut ChunkBuffer) -> Result<(), CodecError> {
    let mut writer = ChunkWriter { chunk: out, bytes: 0 };
    ::bincode::serde::encode_into_writer(record, &mut writer, CONFIG).map_err(encode_error)?;
    let bytes = writer.bytes;
    out.widen_window(bytes);
    Ok(())
}

impl Bincode {
    /// Reads the next `count` records as their [views](Viewed) and shows each.
    ///
    /// # Errors
    /// [`CodecError::Decode`]; the views before the bad one were shown. A view that is not one of the record's fields in
    /// their order is not recognized as that: it fails here, or shows other numbers than the record has.
    #[inline]
    pub fn decode_views<T: Viewed>(
        &self,
        input: &mut ChunkReader<'_>,
        count: usize,
        mut each: impl FnMut(T::View<'_>),
    ) -> Result<(), CodecError> {
        let mut rest = input.remaining();
        for _ in 0..count {
            match ::bincode::serde::borrow_decode_from_slice::<T::View<'_>, _>(rest, CONFIG) {
                Ok((view, used)) => {
                    rest = rest.get(used..).unwrap_or_default();
                    each(view);
                }
                Err(e) => {
                    input.advance(input.remaining().len() - rest.len());
                    return Err(decode_error(e, input.offset()));
                }
            }
        }
        input.advance(input.remaining().len() - rest.len());
        Ok(())
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    fn id(&self) -> CodecId {
        CodecId::BINCODE
    }

    #[inline]
    fn encode(&self, record: &T, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        let window = out.window();
        let bytes = window.len();
        let mut writer = WindowWriter { left: window, is_full: false };
        match ::bincode::serde::encode_into_writer(record, &mut writer, CONFIG) {
            // Whatever the record's own code has made of the error.
            _ if writer.is_full => encode_long(record, out),
            Ok(()) => {
                let written = bytes - writer.left.len();
                out.keep(written);
                Ok(())
            }
            Err(e) => Err(encode_error(e)),
        }
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
                return Err(decode_error(e, input.offset()));
            }
        }
    }
    input.advance(input.remaining().len() - rest.len());
    Ok(())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use serde::ser::SerializeTuple;

    use super::*;

    /// Writes two texts, and does not care whether it could.
    struct Careless(String);

    impl Serialize for Careless {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut texts = serializer.serialize_tuple(2)?;
            let _ = texts.serialize_element(&self.0);
            let _ = texts.serialize_element(&self.0);
            texts.end()
        }
    }

    impl<'de> serde::Deserialize<'de> for Careless {
        fn deserialize<D: serde::Deserializer<'de>>(texts: D) -> Result<Self, D::Error> {
            <(String, String)>::deserialize(texts).map(|(text, _)| Self(text))
        }
    }

    #[test]
    fn a_record_that_hides_that_it_did_not_fit_is_written_whole() {
        for len in 200..600 {
            let record = Careless("x".repeat(len));
            let mut buffer = ChunkBuffer::with_capacity(1 << 12);
            Bincode.encode(&record, &mut buffer).unwrap();
            assert!(buffer.end_record());
            assert_eq!(buffer.finished(), ::bincode::serde::encode_to_vec(&record, CONFIG).unwrap());
        }
    }

    #[test]
    fn writes_what_bincode_writes_however_long_the_fields_are() {
        let text = |len| "ab".chars().cycle().take(len).collect::<String>();
        for len in (0..200).chain([500, 511, 512, 513, 4_000, 5_000]) {
            let record = (7_u8, text(len), len as u64, vec![(text(len / 2), 1_u16); 3]);
            // With room for all, and for next to nothing.
            for capacity in [1 << 16, 1] {
                let mut buffer = ChunkBuffer::with_capacity(capacity);
                Bincode.encode(&record, &mut buffer).unwrap();
                if !buffer.end_record() {
                    buffer.grow(1 << 16);
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
