//! Blocks of every shape: empty, of nothing, of one huge record, of many small ones.

use larder_blockstore::codec::Pod;
use larder_blockstore::format::{Chunk, Compression};
use larder_blockstore::{BlockStore, StorageLevel};

use crate::support::{World, all_levels, put, read, record, stored};

fn every_way(block: &larder_blockstore::Block<Vec<u8>>, expected: &[Vec<u8>], what: &str) {
    assert_eq!(block.len(), expected.len() as u64, "{what}");
    assert_eq!(block.is_empty(), expected.is_empty(), "{what}");
    assert_eq!(read(block), expected, "{what}");
    let folded = block.fold(Vec::new(), |mut records, record| {
        records.push(record.clone());
        records
    });
    assert_eq!(folded.unwrap(), expected, "{what}");
    assert_eq!(block.clone().into_records().map(Result::unwrap).collect::<Vec<_>>(), expected, "{what}");
    let mut batches = block.batches();
    let mut batched = Vec::new();
    while let Some(batch) = batches.next_batch().unwrap() {
        assert!(!batch.is_empty(), "{what}");
        batched.extend_from_slice(batch);
    }
    assert!(batches.next_batch().unwrap().is_none(), "{what}");
    assert_eq!(batched, expected, "{what}");
    let mut owned = block.clone().into_batches();
    assert_eq!(
        owned.next_batch().unwrap().map(<[_]>::len),
        batched.first().map(|_| {
            let mut again = block.batches();
            again.next_batch().unwrap().unwrap().len()
        })
    );
    if let Some(slices) = block.slices() {
        assert_eq!(slices.flatten().cloned().collect::<Vec<_>>(), expected, "{what}");
    }
}

#[test]
fn blocks_of_every_shape_come_back_from_every_tier_with_and_without_compression() {
    let shapes: [(&str, Vec<Vec<u8>>); 7] = [
        ("no record", vec![]),
        ("one empty record", vec![vec![]]),
        ("many empty records", vec![vec![]; 3_000]),
        ("one record larger than a chunk", vec![record(1, 40_000)]),
        ("records larger than a chunk among small ones", {
            [10, 20_000, 3, 0, 9_000, 4_088, 4_087, 4_089, 1]
                .iter()
                .map(|len| record(*len, *len as usize))
                .collect()
        }),
        ("records that compress", vec![vec![7; 700]; 300]),
        ("more records than a batch", (0..5_000).map(|i| record(i, (i % 40) as usize)).collect()),
    ];
    for compression in [Compression::None, Compression::Lz4] {
        for level in all_levels() {
            let world = World::with(4 << 20, |builder| builder.chunk_bytes(4_096));
            for (name, records) in &shapes {
                let what = format!("{name}, {level}, {compression}");
                let dataset = world.store.dataset("d").level(level).compression(compression).build().unwrap();
                every_way(&put(&dataset, 0, records.clone()).unwrap(), records, &what);
                assert!(dataset.contains(0), "{what}");
                if level.uses_disk() {
                    dataset.evict(0).unwrap();
                    every_way(&dataset.get(0).unwrap().unwrap(), records, &what);
                }
                every_way(&dataset.get(0).unwrap().unwrap(), records, &what);
            }
        }
    }
}

#[test]
fn compression_is_kept_where_it_pays_and_counted_as_stored() {
    for level in [StorageLevel::MEMORY_ONLY_SER, StorageLevel::OFF_HEAP, StorageLevel::DISK_ONLY] {
        let world = World::new(4 << 20);
        let dataset =
            world.store.dataset::<Vec<u8>>("d").level(level).compression(Compression::Lz4).build().unwrap();
        let block = put(&dataset, 0, vec![vec![7; 1_000]; 100]).unwrap();
        let bytes = block.serialized().unwrap();
        assert!(bytes.chunks().iter().all(|chunk| chunk.is_compressed()), "{level}");
        assert!(bytes.stored_bytes() < 10_000, "{level}");
        let status = dataset.block_status(0).unwrap();
        let unit = if level.uses_off_heap() { 64 } else { 1 };
        let stored: usize =
            bytes.chunks().iter().map(|chunk| chunk.stored_len().next_multiple_of(unit)).sum();
        let counted = status.heap_bytes + status.off_heap_bytes + status.disk_bytes;
        assert_eq!(counted, stored as u64, "{level}");
        assert_eq!(bytes.header().records(), 100);
        let plain = put(&dataset, 1, (0..100).map(|i| record(i, 1_000))).unwrap();
        assert!(!plain.serialized().unwrap().chunks()[0].is_compressed(), "{level}");

        let counters = dataset.status().counters;
        let (compressed, kept_plain) = (bytes.chunks().len(), plain.serialized().unwrap().chunks().len());
        assert_eq!(counters.chunks_compressed, compressed as u64, "{level}");
        assert_eq!(counters.chunks_kept_plain, kept_plain as u64, "{level}");
        let raw = |chunks: &[Chunk]| chunks.iter().map(|chunk| u64::from(chunk.raw_len())).sum::<u64>();
        assert_eq!(counters.compressed_raw_bytes, raw(bytes.chunks()), "{level}");
        assert_eq!(counters.compressed_bytes, bytes.stored_bytes(), "{level}");
        assert_eq!(counters.kept_plain_bytes, plain.serialized().unwrap().stored_bytes(), "{level}");
        let ratio = counters.compression_ratio();
        assert!((1.8..2.0).contains(&ratio), "{ratio} {level}");
    }
}

#[test]
fn records_of_no_size_are_counted_and_come_back_at_every_level() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let serde = world.store.dataset::<()>("serde").level(level).build().unwrap();
        let pod = world.store.dataset_with("pod", Pod, |(): &()| 0).level(level).build().unwrap();
        for dataset in [serde, pod] {
            for (partition, count) in [(0, 0), (1, 1), (2, 1_024), (3, 5_000)] {
                let block = put(&dataset, partition, vec![(); count]).unwrap();
                assert_eq!((block.len(), read(&block).len()), (count as u64, count), "{level}");
                if level.uses_disk() {
                    dataset.evict(partition).unwrap();
                }
                let block = dataset.get(partition).unwrap().unwrap();
                assert_eq!((block.len(), read(&block).len()), (count as u64, count), "{level}");
                assert_eq!(block.clone().into_records().count(), count, "{level}");
                let mut batched = 0;
                let mut batches = block.batches();
                while let Some(batch) = batches.next_batch().unwrap() {
                    assert!(!batch.is_empty(), "{level}");
                    batched += batch.len();
                }
                assert_eq!(batched, count, "{level}");
                assert_eq!(block.fold(0, |count, ()| count + 1).unwrap(), count, "{level}");
            }
        }
    }
}

#[test]
fn records_appended_in_batches_of_any_size_keep_their_order() {
    let records: Vec<_> = (0..3_000).map(|i| record(i, (i % 20) as usize)).collect();
    for level in all_levels() {
        for batch in [1, 7, 169, 170, 171, 1_000, 3_000] {
            for budget_bytes in [16 << 10, 1 << 20] {
                let world = World::new(budget_bytes);
                let dataset = world.dataset("d", level);
                let block = dataset.get_or_compute(0, |out| {
                    records.chunks(batch).try_for_each(|batch| out.append(&mut batch.to_vec()))
                });
                assert_eq!(
                    read(&block.unwrap()),
                    records,
                    "{level}, {batch} at a time, {budget_bytes} bytes"
                );
            }
        }
    }
}

#[test]
fn chunks_hold_whole_records_and_no_more_than_they_may() {
    let world = World::with(4 << 20, |builder| builder.chunk_bytes(1_000));
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY_SER);
    let block = put(&dataset, 0, (0..500).map(|i| record(i, (i % 400) as usize))).unwrap();
    let chunks = block.serialized().unwrap().chunks();
    assert!(chunks.len() > 50);
    assert_eq!(chunks.iter().map(|chunk| u64::from(chunk.records())).sum::<u64>(), 500);
    assert!(chunks.iter().all(|chunk| chunk.raw_len() <= 1_000 && chunk.records() > 0));
}

#[test]
fn a_chunk_size_of_one_byte_makes_a_chunk_a_record() {
    for level in all_levels() {
        let world = World::with(4 << 20, |builder| builder.chunk_bytes(0));
        let dataset = world.dataset("d", level);
        let block = put(&dataset, 0, (0..50).map(|i| record(i, 10))).unwrap();
        assert_eq!(read(&block), (0..50).map(|i| record(i, 10)).collect::<Vec<_>>());
        if let Some(bytes) = block.serialized() {
            assert_eq!(bytes.chunks().len(), 50, "{level}");
        }
    }
}

#[test]
fn a_store_without_disk_or_off_heap_memory_works_with_what_it_has() {
    let store = BlockStore::builder().memory(1 << 20).build().unwrap();
    let dataset = store.dataset::<Vec<u8>>("d").level(StorageLevel::MEMORY_ONLY_SER).build().unwrap();
    assert!(stored(&dataset, 0, [record(1, 100)]));
    assert_eq!(store.disk(), None);
    drop(dataset);
    crate::support::assert_empty(&store);
}
