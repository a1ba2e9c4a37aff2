//! Copies that go bad, made by hand: what a cosmic ray does to memory no test can do from outside.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::{Bincode, CodecId, Pod};
use crate::error::{Error, Residence};
use crate::format::{Chunk, ChunkEncoder, ChunkInfo, Compression};
use crate::memory::MemoryMode;
use crate::residence::Form;
use crate::serialized::SerializedBlock;
use crate::table::{Claim, Stored};
use crate::unroll::BytesUnroll;
use crate::{BlockStore, StorageLevel, StoredDataset};

fn store() -> (tempfile::TempDir, BlockStore) {
    let scratch = tempfile::tempdir().unwrap();
    let builder = BlockStore::builder().memory(1 << 20).off_heap(1 << 20).disk(scratch.path());
    (scratch, builder.verify_memory(true).build().unwrap())
}

fn dataset(store: &BlockStore, level: StorageLevel) -> StoredDataset<u64> {
    store.dataset("d").level(level).compression(Compression::Lz4).build().unwrap()
}

/// The numbers below 1,000 as a block, in its chunks' bytes.
fn good() -> SerializedBlock {
    let mut encoder = ChunkEncoder::new(Arc::new(Bincode), Compression::Lz4, 1_000);
    let mut chunks: Vec<Chunk> = (0..1_000).filter_map(|n: u64| encoder.push(&n).unwrap()).collect();
    chunks.extend(encoder.finish());
    SerializedBlock::new(CodecId::BINCODE, Compression::Lz4, chunks)
}

/// The same with one bit flipped in one chunk.
fn damaged() -> SerializedBlock {
    let with = |chunk: &Chunk| {
        let mut bytes = chunk.stored().unwrap().to_vec();
        bytes[10] ^= 1;
        Chunk::found(bytes.into(), chunk.info())
    };
    replaced(3, with)
}

/// The same with one chunk that has the checksum of its bytes, and they do not decompress.
fn undecodable() -> SerializedBlock {
    replaced(3, |chunk| {
        let garbage = Chunk::seal(vec![0xFF; 100], chunk.records(), Compression::None);
        let info = ChunkInfo { raw_len: chunk.raw_len(), ..garbage.info() };
        Chunk::found(garbage.stored().unwrap(), info)
    })
}

fn replaced(index: usize, with: impl Fn(&Chunk) -> Chunk) -> SerializedBlock {
    let mut chunks = good().chunks().to_vec();
    chunks[index] = with(&chunks[index]);
    SerializedBlock::new(CodecId::BINCODE, Compression::Lz4, chunks)
}

/// Stores a block with these copies as partition 0.
fn plant(dataset: &StoredDataset<u64>, memory: Option<SerializedBlock>, disk: Option<SerializedBlock>) {
    let inner = dataset.inner();
    let Claim::Granted(flight) = inner.table.claim(0) else { panic!("partition 0 is there already") };
    let mode = if dataset.level().uses_off_heap() { MemoryMode::OffHeap } else { MemoryMode::Heap };
    let list = |bytes| {
        inner.list(inner.copy(0, Form::Bytes { mode, bytes }), disk.as_ref().map(|_| Duration::ZERO), 0)
    };
    let memory = memory.map(list);
    let disk = disk.map(Arc::new);
    let stored = Stored { replicas: 1, memory, disk, memory_bytes: 0, compute_nanos: 0 };
    assert!(inner.table.publish(0, &flight, stored).0.is_none());
    flight.settle(None);
}

#[test]
fn each_copy_is_somebodys_own_and_those_made_ahead_keep_nothing_alive() {
    let (_scratch, store) = store();
    let dataset = dataset(&store, StorageLevel::MEMORY_ONLY_SER);
    let inner = dataset.inner();
    let form = || Form::Bytes { mode: MemoryMode::Heap, bytes: good() };
    let copies: Vec<_> = (0..200).map(|partition| inner.copy(partition, form())).collect();
    for (partition, copy) in (0..).zip(&copies) {
        assert_eq!((copy.partition, copy.records(), Arc::strong_count(copy)), (partition, 1_000, 1));
        assert_eq!(copy.residence(), Residence::HeapBytes);
    }
    let facts = Arc::downgrade(&copies[0].facts);
    assert!(facts.strong_count() > 200, "some are made ahead");
    drop(copies);
    drop(dataset);
    assert_eq!(facts.strong_count(), 0);
}

fn read(dataset: &StoredDataset<u64>) -> Result<Option<Vec<u64>>, Error> {
    dataset.get(0)?.map(|block| block.into_records().collect()).transpose()
}

fn computed(dataset: &StoredDataset<u64>) -> Vec<u64> {
    let block = dataset.get_or_compute(0, |out| (0..1_000).try_for_each(|n| out.push(n))).unwrap();
    block.into_records().collect::<Result<_, _>>().unwrap()
}

fn numbers() -> Vec<u64> {
    (0..1_000).collect()
}

const MEMORY: [(StorageLevel, Residence); 2] =
    [(StorageLevel::MEMORY_AND_DISK_SER, Residence::HeapBytes), (StorageLevel::OFF_HEAP, Residence::OffHeap)];

#[test]
fn a_flipped_bit_in_memory_is_a_typed_error_and_the_block_is_gone() {
    let (_scratch, store) = store();
    for (level, place) in MEMORY {
        let dataset = dataset(&store, level);
        plant(&dataset, Some(damaged()), None);
        let error = read(&dataset).unwrap_err();
        assert!(matches!(error, Error::Corrupt { residence, chunk: 3, .. } if residence == place), "{error}");
        assert_eq!(read(&dataset).unwrap(), None);
        assert_eq!(dataset.status().counters.corrupt, 1);
    }
}

#[test]
fn a_flipped_bit_in_memory_is_served_from_disk_where_there_is_a_good_copy() {
    let (_scratch, store) = store();
    for (level, place) in MEMORY {
        let dataset = dataset(&store, level);
        plant(&dataset, Some(damaged()), Some(good()));
        assert_eq!(read(&dataset).unwrap(), Some(numbers()));
        let counters = dataset.status().counters;
        assert_eq!((counters.corrupt, counters.hits_disk, counters.promotions), (1, 1, 1));
        assert_eq!(dataset.block_status(0).unwrap().residences, [place, Residence::Disk]);
        assert_eq!(read(&dataset).unwrap(), Some(numbers()));
        assert_eq!(dataset.status().counters.corrupt, 1);
    }
}

#[test]
fn a_block_whose_every_copy_is_damaged_is_computed_again_and_each_is_counted() {
    let (_scratch, store) = store();
    for (level, _) in MEMORY {
        let dataset = dataset(&store, level);
        plant(&dataset, Some(damaged()), Some(damaged()));
        assert_eq!(computed(&dataset), numbers());
        assert_eq!(dataset.status().counters.corrupt, 2);
        dataset.remove(0);
        plant(&dataset, Some(damaged()), Some(damaged()));
        assert!(matches!(read(&dataset).unwrap_err(), Error::Corrupt { residence: Residence::Disk, .. }));
        assert!(!dataset.contains(0));
    }
}

#[test]
fn bytes_in_memory_are_believed_where_the_store_was_not_told_to_verify_them() {
    let store = BlockStore::builder().memory(1 << 20).build().unwrap();
    let dataset = dataset(&store, StorageLevel::MEMORY_ONLY_SER);
    plant(&dataset, Some(damaged()), None);
    assert!(dataset.get(0).unwrap().is_some());
    assert_eq!(dataset.status().counters.corrupt, 0);
}

#[test]
fn bytes_in_memory_that_do_not_decompress_while_they_are_read_are_gone_and_computed_again() {
    let store = BlockStore::builder().memory(1 << 20).build().unwrap();
    let dataset = dataset(&store, StorageLevel::MEMORY_ONLY_SER);
    plant(&dataset, Some(undecodable()), None);
    let error = read(&dataset).unwrap_err();
    assert!(matches!(error, Error::Corrupt { residence: Residence::HeapBytes, chunk: 3, .. }), "{error}");
    assert!(error.is_lost_copy() && !dataset.contains(0));
    assert_eq!(dataset.status().counters.corrupt, 1);
    assert_eq!(computed(&dataset), numbers());
}

#[test]
fn a_chunk_that_does_not_decompress_while_it_is_promoted_is_damage_like_any_other() {
    let (_scratch, store) = store();
    let dataset = dataset(&store, StorageLevel::MEMORY_AND_DISK);
    plant(&dataset, None, Some(undecodable()));
    assert!(matches!(
        read(&dataset).unwrap_err(),
        Error::Corrupt { residence: Residence::Disk, chunk: 3, .. }
    ));
    assert!(!dataset.contains(0));
    plant(&dataset, None, Some(undecodable()));
    assert_eq!(computed(&dataset), numbers());
    assert_eq!(dataset.status().counters.corrupt, 2);
    assert_eq!(store.memory().snapshot().scratch_bytes, 0);
}

#[test]
fn a_reader_of_bytes_that_do_not_decompress_gets_an_error_once_and_then_the_end() {
    let (_scratch, store) = store();
    for level in [StorageLevel::DISK_ONLY, StorageLevel::MEMORY_AND_DISK_SER] {
        let dataset = dataset(&store, level);
        plant(&dataset, None, Some(undecodable()));
        let block = dataset.get(0).unwrap().unwrap();
        for read in [
            block.iter().map(|n| n.map(|n| *n)).collect::<Vec<_>>(),
            block.clone().into_records().collect::<Vec<_>>(),
        ] {
            let (bad, before) = read.split_last().unwrap();
            assert!(matches!(bad, Err(Error::Corrupt { chunk: 3, .. })));
            assert_eq!(
                before.iter().map(|n| *n.as_ref().unwrap()).collect::<Vec<_>>(),
                numbers()[..before.len()]
            );
        }
    }
}

#[test]
fn a_copy_in_memory_stays_when_its_copy_on_disk_is_lost_while_it_is_evicted() {
    let (_scratch, store) = store();
    let dataset = dataset(&store, StorageLevel::MEMORY_AND_DISK_SER);
    plant(&dataset, Some(good()), Some(good()));
    let table = &dataset.inner().table;
    // Evicting looks, then takes; in between a reader finds the copy on disk damaged.
    let (copy, on_disk) = table.memory_copy(0, None).unwrap();
    assert!(on_disk);
    let disk = table.with_stored(0, |stored| stored.disk.clone()).flatten().unwrap();
    drop(table.take_disk(0, &disk).unwrap());
    assert!(table.replace_memory(0, &copy, None).is_none());
    drop(copy);
    assert_eq!(read(&dataset).unwrap(), Some(numbers()));
    assert!(dataset.evict(0).unwrap(), "and is written anew");
    assert_eq!(dataset.block_status(0).unwrap().residences, [Residence::Disk]);
}

#[test]
fn a_chunk_holds_no_more_records_of_no_size_than_it_can_count() {
    let (_scratch, store) = store();
    for level in [StorageLevel::MEMORY_ONLY_SER, StorageLevel::OFF_HEAP, StorageLevel::DISK_ONLY] {
        let dataset = store.dataset_with("d", Pod, |(): &()| 0).level(level).build().unwrap();
        let ground = dataset.inner().ground(0);
        let mut unroll = if level.uses_memory() {
            let mode = if level.uses_off_heap() { MemoryMode::OffHeap } else { MemoryMode::Heap };
            BytesUnroll::in_memory(store.memory().try_reserve_storage(mode, 0).unwrap())
        } else {
            BytesUnroll::on_disk()
        };
        assert!(unroll.push(&ground, &()).unwrap());
        unroll.count_as_buffered(u32::MAX - 1);
        for _ in 0..3 {
            assert!(unroll.push(&ground, &()).unwrap());
        }
        let block = unroll.finish(&ground).unwrap().unwrap();
        let records: Vec<_> = block.chunks().iter().map(Chunk::records).collect();
        assert_eq!((records, block.records()), (vec![u32::MAX, 2], u64::from(u32::MAX) + 2), "{level}");
    }
}
