//! Panics of user code leave nothing behind: behaviour 6.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use larder_blockstore::codec::{Bincode, ChunkBuffer, ChunkReader, Codec, CodecError, CodecId};
use larder_blockstore::format::{ChunkEncoder, Compression};
use larder_blockstore::{Error, HeapSize, StorageLevel, StoredDataset};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::support::{World, all_levels, finish, keep, put, read, record, vacant};

fn panics<R>(work: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_err()
}

/// Nothing is charged, nothing is on disk, and the block can be had.
fn assert_unharmed(world: &World, dataset: &StoredDataset<Vec<u8>>, what: &str) {
    assert_eq!((world.charged(), world.disk_bytes()), (0, 0), "{what}");
    assert_eq!(world.store.memory().snapshot().scratch_bytes, 0, "{what}");
    assert!(dataset.get(0).unwrap().is_none(), "{what}");
    assert_eq!(read(&put(dataset, 0, [record(7, 70)]).unwrap()), [record(7, 70)], "{what}");
}

#[test]
fn a_computation_that_panics_leaves_no_placeholder_and_no_reservation() {
    for level in all_levels() {
        for pushed in [0, 1, 1_000] {
            let world = World::new(64 << 10);
            let dataset = world.dataset("d", level);
            assert!(panics(|| dataset.get_or_compute(0, |out| -> Result<(), Error> {
                (0..pushed).try_for_each(|i| out.push(record(i, 100)))?;
                panic!("a computation panics on purpose")
            })));
            assert_unharmed(&world, &dataset, &format!("{level} after {pushed}"));
        }
    }
}

#[test]
fn an_iterator_that_panics_leaves_no_placeholder_and_no_reservation() {
    for level in all_levels() {
        let world = World::new(64 << 10);
        let dataset = world.dataset("d", level);
        let records = (0..2_000).map(|i| {
            assert!(i < 100, "an iterator panics on purpose");
            Ok::<_, Error>(record(i, 100))
        });
        assert!(panics(|| dataset.get_or_compute_iter(0, || Ok::<_, Error>(records)).map(drop)));
        assert_unharmed(&world, &dataset, &level.to_string());
    }
}

#[test]
fn a_reader_that_panics_leaves_no_pin() {
    for level in all_levels() {
        let world = World::new(64 << 10);
        let dataset = world.dataset("d", level);
        drop(put(&dataset, 0, (0..100).map(|i| record(i, 100))).unwrap());
        assert!(panics(|| {
            let block = dataset.get(0).unwrap().unwrap();
            for (nth, record) in block.iter().enumerate() {
                assert!(nth < 50 || record.unwrap().is_empty(), "a reader panics on purpose");
            }
        }));
        let read = dataset.get(0).unwrap().unwrap();
        assert_eq!(read.len(), 100, "{level}");
        drop(read);
        dataset.unpersist();
        assert_unharmed(&world, &dataset, &level.to_string());
    }
}

/// Panics when its countdown reaches 0: on encoding, or on decoding.
struct Mined {
    encodes_left: Arc<AtomicI64>,
    decodes_left: Arc<AtomicI64>,
}

impl Codec<Vec<u8>> for Mined {
    fn id(&self) -> CodecId {
        CodecId { id: 301, version: 1 }
    }

    fn encode(&self, record: &Vec<u8>, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        assert_ne!(self.encodes_left.fetch_sub(1, Ordering::SeqCst), 0, "a codec panics on purpose");
        Bincode.encode(record, out)
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<Vec<u8>, CodecError> {
        assert_ne!(self.decodes_left.fetch_sub(1, Ordering::SeqCst), 0, "a codec panics on purpose");
        Bincode.decode(input)
    }
}

fn mined(world: &World, level: StorageLevel) -> (StoredDataset<Vec<u8>>, [Arc<AtomicI64>; 2]) {
    let mines = [-1, -1].map(|never| Arc::new(AtomicI64::new(never)));
    let codec = Mined { encodes_left: Arc::clone(&mines[0]), decodes_left: Arc::clone(&mines[1]) };
    let dataset = world.store.dataset_with("mined", codec, Vec::heap_bytes).level(level).build().unwrap();
    (dataset, mines)
}

#[test]
fn a_codec_that_panics_while_it_encodes_leaves_nothing_behind() {
    for level in all_levels().into_iter().filter(|level| !level.is_deserialized()) {
        let world = World::new(64 << 10);
        let (dataset, [encodes, _]) = mined(&world, level);
        encodes.store(40, Ordering::SeqCst);
        assert!(panics(|| put(&dataset, 0, (0..100).map(|i| record(i, 100)))));
        assert_unharmed(&world, &dataset, &level.to_string());
    }
}

/// A record whose own code panics when half of it is written; longer than what a codec sees of a chunk at once.
#[derive(Deserialize, Clone, Debug, PartialEq)]
struct HalfWritten {
    text: String,
    panics: bool,
}

impl Serialize for HalfWritten {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("HalfWritten", 2)?;
        fields.serialize_field("text", &self.text)?;
        assert!(!self.panics, "a record panics on purpose");
        fields.serialize_field("panics", &self.panics)?;
        fields.end()
    }
}

#[test]
fn a_writer_goes_on_after_a_record_that_panicked_half_written() {
    let record = |nth: usize| {
        let panics = nth == 1_000;
        HalfWritten { text: "x".repeat(if panics { 20_000 } else { nth }), panics }
    };
    for level in all_levels().into_iter().filter(|level| !level.is_deserialized()) {
        let world = World::new(16 << 20);
        let dataset = world
            .store
            .dataset_with("half", Bincode, |record: &HalfWritten| record.text.len())
            .level(level)
            .build()
            .unwrap();
        let mut writer = vacant(&dataset, 0);
        let mut batch: Vec<_> = (0..1_500).map(record).collect();
        assert!(panics(|| writer.append(&mut batch)), "{level}");
        assert_eq!((batch.len(), batch.first().map(|bad| bad.panics)), (500, Some(true)), "{level}");
        assert!(panics(|| writer.push(batch.remove(0))), "{level}");
        assert!(panics(|| writer.push_slice(&[record(1_000)])), "{level}");
        writer.append(&mut batch).unwrap();
        keep(&mut writer, record(1_500));
        let block = finish(writer);
        assert_eq!(
            read(&block),
            (0..=1_500).filter(|nth| *nth != 1_000).map(record).collect::<Vec<_>>(),
            "{level}"
        );
        drop(block);
        dataset.unpersist();
        assert_eq!((world.charged(), world.disk_bytes()), (0, 0), "{level}");
    }
}

#[test]
fn a_chunk_encoder_goes_on_after_a_record_that_panicked_half_written() {
    let record = |nth: usize| {
        let panics = nth == 600;
        HalfWritten { text: "x".repeat(if panics { 20_000 } else { nth }), panics }
    };
    let mut encoder = ChunkEncoder::new(Arc::new(Bincode), Compression::None, 1 << 20);
    let mut expected = Vec::new();
    for nth in 0..1_000 {
        if nth == 600 {
            assert!(panics(|| encoder.push(&record(nth))));
        } else {
            assert!(encoder.push(&record(nth)).unwrap().is_none());
            expected.push(record(nth));
        }
    }
    let chunk = encoder.finish().unwrap();
    assert_eq!(chunk.records(), 999);
    let bytes = chunk.raw().unwrap();
    let mut records = Vec::<HalfWritten>::new();
    Bincode.decode_into(&mut ChunkReader::at(&bytes, 0), 999, &mut records).unwrap();
    assert_eq!(records, expected);
}

#[test]
fn a_codec_that_panics_while_a_block_moves_on_to_disk_leaves_nothing_behind() {
    let world = World::new(12_000);
    let (dataset, [encodes, _]) = mined(&world, StorageLevel::MEMORY_AND_DISK);
    encodes.store(10, Ordering::SeqCst);
    assert!(panics(|| put(&dataset, 0, (0..1_000).map(|i| record(i, 100)))));
    assert_unharmed(&world, &dataset, "MEMORY_AND_DISK");
}

#[test]
fn a_codec_that_panics_while_it_decodes_leaves_the_block_readable() {
    for level in all_levels().into_iter().filter(|level| level.uses_disk()) {
        let world = World::new(64 << 10);
        let (dataset, [_, decodes]) = mined(&world, level);
        let mut writer = vacant(&dataset, 0);
        (0..100).for_each(|i| keep(&mut writer, record(i, 100)));
        drop(finish(writer));
        dataset.evict(0).unwrap();
        decodes.store(40, Ordering::SeqCst);
        assert!(panics(|| read(&dataset.get(0).unwrap().unwrap())));
        assert_eq!(world.store.memory().snapshot().scratch_bytes, 0);
        let block = dataset.get(0).unwrap().unwrap();
        assert_eq!(read(&block), (0..100).map(|i| record(i, 100)).collect::<Vec<_>>(), "{level}");
        drop(block);
        dataset.unpersist();
        assert_unharmed(&world, &dataset, &level.to_string());
    }
}
