//! When records are encoded, and what happens when they cannot be: behaviours 13 and 14.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_blockstore::codec::{Bincode, ChunkBuffer, ChunkReader, Codec, CodecError, CodecId};
use larder_blockstore::{Entry, Error, HeapSize, MemoryMode, StorageLevel, StoredDataset};

use crate::support::{
    PATIENCE, SPILLING_LEVELS, World, all_levels, finish, keep, memory_levels, off_heap_only, on_a_thread,
    put, read, record, stored, vacant,
};

/// Counts what it encodes, and refuses every record that is [`bad`].
struct Counting(Arc<AtomicU64>);

fn bad() -> Vec<u8> {
    b"bad".to_vec()
}

const ID: CodecId = CodecId { id: 302, version: 1 };

impl Codec<Vec<u8>> for Counting {
    fn id(&self) -> CodecId {
        ID
    }

    fn encode(&self, record: &Vec<u8>, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        // Half of the record is written before it fails.
        out.extend_from_slice(b"half a record");
        if *record == bad() {
            return Err(CodecError::Encode { codec: ID, source: "a bad record".into() });
        }
        Bincode.encode(record, out)
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<Vec<u8>, CodecError> {
        input.take(13)?;
        Bincode.decode(input)
    }
}

fn counting(world: &World, level: StorageLevel) -> (StoredDataset<Vec<u8>>, Arc<AtomicU64>) {
    let encoded = Arc::new(AtomicU64::new(0));
    let codec = Counting(Arc::clone(&encoded));
    let dataset = world.store.dataset_with("counting", codec, Vec::heap_bytes).level(level).build().unwrap();
    (dataset, encoded)
}

#[test]
fn nothing_is_encoded_before_memory_is_granted() {
    for level in [StorageLevel::MEMORY_ONLY_SER, off_heap_only()] {
        let mode = if level.uses_off_heap() { MemoryMode::OffHeap } else { MemoryMode::Heap };
        let world = World::new(12_000);
        let (dataset, encoded) = counting(&world, level);
        let execution = world.store.memory().task().reserve(mode, 12_000).unwrap();
        assert!(!stored(&dataset, 0, (0..100).map(|i| record(i, 100))), "{level}");
        assert_eq!(encoded.load(Ordering::SeqCst), 0, "{level}");
        drop(execution);
        assert!(stored(&dataset, 0, (0..50).map(|i| record(i, 100))), "{level}");
        assert_eq!(encoded.load(Ordering::SeqCst), 50, "{level}");
    }
}

#[test]
fn after_a_refusal_nothing_more_is_encoded() {
    for level in [StorageLevel::MEMORY_ONLY_SER, off_heap_only()] {
        let world = World::new(12_000);
        let (dataset, encoded) = counting(&world, level);
        assert!(!stored(&dataset, 0, (0..1_000).map(|i| record(i, 100))), "{level}");
        let encoded = encoded.load(Ordering::SeqCst);
        assert!((50..=12_000 / 100).contains(&encoded), "{encoded} were encoded: {level}");
    }
}

#[test]
fn values_are_encoded_only_when_they_are_spilled() {
    let world = World::new(1 << 20);
    let (dataset, encoded) = counting(&world, StorageLevel::MEMORY_AND_DISK);
    assert!(stored(&dataset, 0, (0..100).map(|i| record(i, 100))));
    assert_eq!(encoded.load(Ordering::SeqCst), 0);
    dataset.evict(0).unwrap();
    assert_eq!(encoded.load(Ordering::SeqCst), 100);
    drop(dataset.get(0).unwrap().unwrap());
    dataset.evict(0).unwrap();
    assert_eq!(encoded.load(Ordering::SeqCst), 100);
}

#[test]
fn bytes_that_are_spilled_or_promoted_are_not_encoded_again() {
    for level in [StorageLevel::MEMORY_AND_DISK_SER, StorageLevel::OFF_HEAP] {
        let world = World::new(1 << 20);
        let (dataset, encoded) = counting(&world, level);
        assert!(stored(&dataset, 0, (0..100).map(|i| record(i, 100))));
        for _ in 0..3 {
            dataset.evict(0).unwrap();
            assert_eq!(read(&dataset.get(0).unwrap().unwrap()).len(), 100);
        }
        assert_eq!(encoded.load(Ordering::SeqCst), 100, "{level}");
    }
}

#[test]
fn a_block_with_a_record_that_cannot_be_encoded_is_an_error_and_absent_afterwards() {
    for level in all_levels().into_iter().filter(|level| !level.is_deserialized()) {
        let world = World::new(1 << 20);
        let (dataset, _) = counting(&world, level);
        let error = put(&dataset, 3, [record(1, 10), bad(), record(2, 10)]).unwrap_err();
        assert!(matches!(&error, Error::Encode { block, .. } if block.partition == 3), "{level}");
        assert!(error.to_string().contains("`counting`"), "{error}");
        let dataset_too = dataset.clone();
        let get = on_a_thread(move || dataset_too.get(3).map(|block| block.is_none()));
        assert!(get.recv_timeout(PATIENCE).unwrap().unwrap(), "{level}");
        assert_eq!((world.charged(), world.disk_bytes()), (0, 0), "{level}");
        assert!(stored(&dataset, 3, [record(1, 10)]), "{level}");
    }
}

#[test]
fn values_are_kept_in_memory_though_they_cannot_be_encoded() {
    let world = World::new(12_000);
    let (dataset, _) = counting(&world, StorageLevel::MEMORY_AND_DISK);
    assert!(stored(&dataset, 0, [record(1, 10), bad()]));
    assert!(matches!(dataset.evict(0).unwrap_err(), Error::Encode { .. }));
    assert_eq!(read(&dataset.get(0).unwrap().unwrap()), [record(1, 10), bad()]);
    assert_eq!(world.disk_bytes(), 0);
    let other = world.dataset("other", StorageLevel::MEMORY_ONLY);
    assert!(!stored(&other, 0, [record(1, 12_000)]), "nothing can make room");
    assert!(dataset.contains(0));
    let unrolled = put(&dataset, 1, (0..200).map(|i| record(i, 100)).chain([bad()]));
    assert!(
        matches!(unrolled.unwrap_err(), Error::Encode { .. }),
        "it moved on to disk and met the bad record"
    );
    assert!(!dataset.contains(1) && dataset.contains(0));
}

#[test]
fn a_waiter_takes_over_from_a_writer_whose_record_cannot_be_encoded() {
    let world = World::new(1 << 20);
    let (dataset, _) = counting(&world, StorageLevel::MEMORY_ONLY_SER);
    let mut writer = vacant(&dataset, 0);
    let Entry::InFlight(flight) = dataset.entry(0).unwrap() else { panic!("someone writes it") };
    assert!(writer.push(bad()).is_err());
    drop(writer);
    assert!(flight.wait().unwrap().is_none());
    assert!(stored(&dataset, 0, [record(1, 10)]));
}

#[test]
fn a_writer_may_leave_bad_records_out_and_loses_no_other() {
    for level in all_levels().into_iter().filter(|level| !level.is_deserialized()) {
        let world = World::new(1 << 20);
        let (dataset, _) = counting(&world, level);
        let mut writer = vacant(&dataset, 0);
        for i in 0..100 {
            keep(&mut writer, record(i, 100));
            assert!(writer.push(bad()).is_err(), "{level}");
        }
        assert_eq!(read(&finish(writer)), (0..100).map(|i| record(i, 100)).collect::<Vec<_>>(), "{level}");
    }
}

#[test]
fn a_batch_with_a_bad_record_holds_afterwards_what_is_not_part_of_the_block() {
    for level in all_levels().into_iter().filter(|level| !level.is_deserialized()) {
        let world = World::new(1 << 20);
        let (dataset, _) = counting(&world, level);
        let mut writer = vacant(&dataset, 0);
        let mut batch = vec![record(1, 10), record(2, 10), bad(), record(3, 10)];
        assert!(writer.append(&mut batch).is_err(), "{level}");
        assert_eq!(batch, [bad(), record(3, 10)], "{level}");
        batch.remove(0);
        writer.append(&mut batch).unwrap();
        assert_eq!(read(&finish(writer)), [record(1, 10), record(2, 10), record(3, 10)], "{level}");
    }
}

#[test]
fn values_on_their_way_to_disk_that_meet_a_bad_record_are_kept() {
    let world = World::new(12_000);
    let (dataset, _) = counting(&world, StorageLevel::MEMORY_AND_DISK);
    let mut writer = vacant(&dataset, 0);
    keep(&mut writer, bad());
    let mut kept = vec![bad()];
    let error = (0..200).find_map(|i| match writer.push(record(i, 100)) {
        Ok(_) => {
            kept.push(record(i, 100));
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(error, Some(Error::Encode { .. })));
    let unrolled: Vec<_> = writer.into_unrolled().map(Result::unwrap).collect();
    assert_eq!(unrolled, kept, "the failed spill took nothing away");
}

#[test]
fn the_levels_under_test_are_what_they_are_taken_for() {
    assert!(SPILLING_LEVELS.iter().all(|level| level.uses_disk() && level.uses_memory()));
    assert!(memory_levels().iter().all(|level| !level.uses_disk()));
}
