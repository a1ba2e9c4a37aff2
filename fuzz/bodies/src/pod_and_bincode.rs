//! Arbitrary bytes as records of several types.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use larder_blockstore::Viewed;
use larder_blockstore::codec::{Bincode, ChunkReader, Codec, CodecError, Pod};
use larder_blockstore::format::{Chunk, ChunkEncoder, Compression};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The most records read as one type from one input.
const RECORDS_MAX: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle { radius: u32 },
    Path(Vec<(i16, i16)>),
    Named(String, Option<Box<Shape>>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    id: i64,
    key: i32,
    flag: bool,
    letter: char,
    name: String,
    tags: Vec<Option<String>>,
    counts: BTreeMap<String, u64>,
    shape: Shape,
}

/// Whatever the bytes are, reading them ends with records or a typed error; what was read writes and reads back.
pub fn pod_and_bincode(data: &[u8]) {
    check::<u64>(Bincode, data);
    check::<(i64, i32, u8, bool)>(Bincode, data);
    check::<String>(Bincode, data);
    check::<Vec<u8>>(Bincode, data);
    check::<Vec<String>>(Bincode, data);
    check::<Option<Vec<Option<char>>>>(Bincode, data);
    check::<BTreeMap<u16, String>>(Bincode, data);
    check::<Row>(Bincode, data);
    check::<[u8; 17]>(Bincode, data);
    check::<()>(Bincode, data);
    looked_at::<u64>(data);
    looked_at::<String>(data);
    looked_at::<Option<Option<char>>>(data);
    looked_at::<(i64, Option<String>, bool, (String, u8))>(data);

    check::<u8>(Pod, data);
    check::<u64>(Pod, data);
    check::<[i32; 3]>(Pod, data);
    check::<u128>(Pod, data);
    check::<()>(Pod, data);
    views::<u8>(data);
    views::<[i32; 3]>(data);
    views::<u128>(data);
}

fn check<T: Debug + PartialEq + 'static>(codec: impl Codec<T> + Copy, data: &[u8]) {
    let chunk = data.to_vec().into();
    let mut reader = ChunkReader::at(&chunk, 0);
    let mut records: Vec<T> = Vec::new();
    while !reader.is_empty() && records.len() < RECORDS_MAX {
        let before = reader.offset();
        match codec.decode(&mut reader) {
            Ok(record) => records.push(record),
            Err(CodecError::Decode { offset, .. } | CodecError::Truncated { offset, .. }) => {
                assert_eq!((offset, reader.offset()), (before, before), "an error reads nothing");
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let read = reader.offset();
    for batch in [1, 7, RECORDS_MAX] {
        round_trip(codec, &records, batch);
    }
    // The same in batches, which may stop at a bad record: those before it are there.
    let mut reader = ChunkReader::at(&chunk, 0);
    let mut together = Vec::new();
    let whole = codec.decode_into(&mut reader, records.len(), &mut together);
    assert!(whole.is_ok() && reader.offset() == read, "{whole:?}");
    assert_eq!(format!("{together:?}"), format!("{records:?}"));
    // And shown one by one.
    let mut reader = ChunkReader::at(&chunk, 0);
    let mut shown = Vec::new();
    let whole =
        codec.decode_each(&mut reader, records.len(), &mut |record| shown.push(format!("{record:?}")));
    assert!(whole.is_ok() && reader.offset() == read, "{whole:?}");
    assert_eq!(format!("[{}]", shown.join(", ")), format!("{records:?}"));
    let _ = codec.decode_into(&mut reader, RECORDS_MAX, &mut together);
}

/// Views are those of the records, as far as there are records.
fn looked_at<T>(data: &[u8])
where
    T: Viewed + Serialize + DeserializeOwned,
    for<'a> T::View<'a>: Debug,
{
    let chunk = data.to_vec().into();
    let (mut by_record, mut by_view) = (ChunkReader::at(&chunk, 0), ChunkReader::at(&chunk, 0));
    let (mut records, mut views) = (Vec::new(), Vec::new());
    let made = Bincode.decode_each(&mut by_record, RECORDS_MAX, &mut |record: &T| {
        records.push(format!("{:?}", record.view()));
    });
    let seen = Bincode.decode_views::<T>(&mut by_view, RECORDS_MAX, |view| views.push(format!("{view:?}")));
    assert_eq!(views, records);
    assert_eq!((made.is_ok(), by_record.offset()), (seen.is_ok(), by_view.offset()), "{made:?} {seen:?}");
}

/// Written again, the records read back as they were. Compared as text: a NaN is not equal to itself.
fn round_trip<T: Debug + 'static>(codec: impl Codec<T> + Copy, records: &[T], chunk_bytes: usize) {
    let mut encoder = ChunkEncoder::<T>::new(Arc::new(codec), Compression::Lz4, chunk_bytes);
    let mut chunks: Vec<Chunk> = Vec::new();
    for record in records {
        chunks.extend(encoder.push(record).expect("what was decoded can be encoded"));
    }
    chunks.extend(encoder.finish());
    let mut read = Vec::new();
    for chunk in chunks {
        let raw = chunk.raw().expect("as it was written");
        let mut reader = ChunkReader::at(&raw, 0);
        codec.decode_into(&mut reader, chunk.records() as usize, &mut read).expect("as it was written");
        assert!(reader.is_empty());
    }
    assert_eq!(format!("{read:?}"), format!("{records:?}"));
}

/// A view is all of the chunk, in place, or refused.
fn views<T: Debug + 'static>(data: &[u8])
where
    Pod: Codec<T>,
{
    if let Some(view) = Codec::<T>::view(&Pod, data) {
        assert_eq!(size_of_val(view), data.len());
        assert_eq!(view.as_ptr().cast::<u8>(), data.as_ptr());
    }
}
