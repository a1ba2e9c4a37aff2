//! Every storage level stores, serves, evicts and removes as its name says.

use larder_blockstore::format::Compression;
use larder_blockstore::{BlockStore, Error, Residence, StorageLevel, StoredDataset};

type Record = (i64, String);

fn records(partition: u32, count: usize) -> Vec<Record> {
    (0..count)
        .map(|i| (i64::from(partition) * 1_000_000 + i as i64, format!("record {i} of {partition}")))
        .collect()
}

fn fill(dataset: &StoredDataset<Record>, partition: u32, count: usize) -> Result<Vec<Record>, Error> {
    let block = dataset.get_or_compute(partition, |out| {
        records(partition, count).into_iter().try_for_each(|record| out.push(record))
    })?;
    block.into_records().collect()
}

fn store(heap: u64, off_heap: u64) -> (tempfile::TempDir, BlockStore) {
    let scratch = tempfile::tempdir().unwrap();
    let store = BlockStore::builder().memory(heap).off_heap(off_heap).disk(scratch.path()).build().unwrap();
    (scratch, store)
}

#[test]
fn every_level_gives_back_what_was_put_and_is_empty_after_unpersist() {
    for compression in [Compression::None, Compression::Lz4] {
        for (name, level) in StorageLevel::NAMED.into_iter().skip(1) {
            let (_scratch, store) = store(8 << 20, 8 << 20);
            let dataset =
                store.dataset::<Record>(name).level(level).compression(compression).build().unwrap();
            for partition in 0..4 {
                assert_eq!(fill(&dataset, partition, 5_000).unwrap(), records(partition, 5_000), "{name}");
            }
            for partition in 0..4 {
                let block = dataset.get(partition).unwrap().expect(name);
                let expected = match level {
                    _ if !level.uses_memory() => Residence::Disk,
                    _ if level.is_deserialized() => Residence::Values,
                    _ if level.uses_off_heap() => Residence::OffHeap,
                    _ => Residence::HeapBytes,
                };
                assert_eq!(block.residence(), expected, "{name}");
                let read: Vec<_> = block.iter().map(|r| r.unwrap().into_owned()).collect();
                assert_eq!(read, records(partition, 5_000), "{name}");
            }
            let status = dataset.status();
            assert_eq!((status.blocks, status.records), (4, 20_000));
            assert_eq!(status.under_replicated, if level.replication() > 1 { 4 } else { 0 }, "{name}");
            dataset.unpersist();
            assert_eq!(dataset.status().blocks, 0);
            drop(dataset);
            let snapshot = store.memory().snapshot();
            assert_eq!((snapshot.heap.storage_bytes, snapshot.off_heap.storage_bytes), (0, 0), "{name}");
            assert_eq!((snapshot.scratch_bytes, store.arena_bytes()), (0, 0), "{name}");
            assert_eq!(store.disk().unwrap().used_bytes, 0, "{name}");
        }
    }
}

#[test]
fn an_evicted_block_comes_back_from_disk_and_evicting_it_again_writes_nothing() {
    for level in [StorageLevel::MEMORY_AND_DISK, StorageLevel::MEMORY_AND_DISK_SER, StorageLevel::OFF_HEAP] {
        let (_scratch, store) = store(8 << 20, 8 << 20);
        let dataset = store.dataset::<Record>("d").level(level).build().unwrap();
        fill(&dataset, 0, 1_000).unwrap();
        assert!(dataset.evict(0).unwrap());
        assert_eq!(dataset.block_status(0).unwrap().effective, StorageLevel::DISK_ONLY);
        let written = store.disk().unwrap().used_bytes;
        let block = dataset.get(0).unwrap().unwrap();
        assert_ne!(block.residence(), Residence::Disk, "promoted");
        assert_eq!(block.into_records().collect::<Result<Vec<_>, _>>().unwrap(), records(0, 1_000));
        let effective = dataset.block_status(0).unwrap().effective;
        assert!(effective.uses_disk() && effective.uses_memory(), "the copy on disk stays valid");
        assert!(dataset.evict(0).unwrap());
        assert_eq!(store.disk().unwrap().used_bytes, written);
        let counters = dataset.status().counters;
        assert_eq!((counters.spills, counters.promotions, counters.evictions), (1, 1, 2));
    }
}

#[test]
fn a_level_that_the_store_cannot_keep_is_refused_by_name() {
    let store = BlockStore::builder().memory(1 << 20).build().unwrap();
    let refused = |level| store.dataset::<Record>("edges").level(level).build().unwrap_err().to_string();
    assert!(
        refused(StorageLevel::MEMORY_AND_DISK)
            .contains("`edges`: storage level MEMORY_AND_DISK needs a disk")
    );
    let scratch = tempfile::tempdir().unwrap();
    let store = BlockStore::builder().disk(scratch.path()).build().unwrap();
    let refused = |level| store.dataset::<Record>("edges").level(level).build().unwrap_err().to_string();
    assert!(refused(StorageLevel::OFF_HEAP).contains("off-heap"));
    assert!(refused(StorageLevel::NONE).contains("keeps nothing"));
}
