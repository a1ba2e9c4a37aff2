//! Blocks inside the budget: behaviours 8 and 10, and what execution takes.

use larder_blockstore::{Finished, HeapSize, MemoryMode, Residence, StorageLevel};

use crate::support::{
    SPILLING_LEVELS, World, finish, keep, memory_levels, put, read, record, stored, vacant,
};

#[test]
fn a_put_that_fits_gives_equal_values_and_keeps_nothing_of_its_unrolling() {
    for level in memory_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let records: Vec<_> = (0..200).map(|i| record(i, i as usize)).collect();
        let block = put(&dataset, 0, records.clone()).unwrap();
        assert_eq!(read(&block), records, "{level}");
        let status = dataset.block_status(0).unwrap();
        assert_eq!(status.heap_bytes + status.off_heap_bytes, world.charged(), "{level}");
        assert_eq!(world.store.memory().snapshot().scratch_bytes, 0, "{level}");
    }
}

#[test]
fn values_are_charged_what_they_measure() {
    let world = World::new(8 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    let records: Vec<Vec<u8>> = (0..5_000).map(|i| Vec::with_capacity(i % 300)).collect();
    let measured: usize = records.iter().map(|r| size_of::<Vec<u8>>() + r.heap_bytes()).sum();
    drop(put(&dataset, 0, records).unwrap());
    assert_eq!(dataset.status().heap_bytes, measured as u64);
}

#[test]
fn bytes_are_charged_as_they_are_stored() {
    for level in [StorageLevel::MEMORY_ONLY_SER, StorageLevel::OFF_HEAP] {
        let world = World::new(8 << 20);
        let dataset = world.dataset("d", level);
        let block = put(&dataset, 0, (0..5_000).map(|i| record(i, (i % 300) as usize))).unwrap();
        let unit = if level.uses_off_heap() { 64 } else { 1 };
        let chunks = block.serialized().unwrap().chunks();
        let stored: usize = chunks.iter().map(|chunk| chunk.stored().len().next_multiple_of(unit)).sum();
        assert_eq!(world.charged(), stored as u64, "{level}");
    }
}

#[test]
fn while_a_writer_unrolls_the_budget_holds_and_its_abort_gives_all_back() {
    for level in memory_levels() {
        let world = World::new(64 << 10);
        let dataset = world.dataset("d", level);
        let mut writer = vacant(&dataset, 0);
        for i in 0..40 {
            keep(&mut writer, record(i, 1_000));
            assert!((i + 1) * 1_000 <= world.charged() + world.store.memory().snapshot().scratch_bytes);
            assert!(world.charged() <= 64 << 10, "{level}");
        }
        writer.abort();
        assert_eq!(world.charged(), 0, "{level}");
        assert!(dataset.get(0).unwrap().is_none(), "{level}");
    }
}

#[test]
fn a_block_larger_than_the_budget_comes_back_record_by_record_and_evicts_nobody_once_that_is_known() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let (small, large) = (world.dataset("small", level), world.dataset("large", level));
        assert!(stored(&small, 0, [record(0, 4_100)]), "{level}");
        let block = put(&large, 0, [record(1, 20_000), record(2, 10), record(3, 30_000)]).unwrap();
        assert_eq!(read(&block), [record(1, 20_000), record(2, 10), record(3, 30_000)], "{level}");
        drop(block);
        assert!(!large.contains(0) && small.contains(0), "{level}");
        assert_eq!(large.status().counters.refused, 1, "{level}");
        assert_eq!(small.status().counters.evictions, 0, "{level}");
    }
}

#[test]
fn a_block_that_turns_out_larger_than_the_budget_is_not_stored_and_loses_no_record() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let dataset = world.dataset("d", level);
        let records: Vec<_> = (0..50).map(|i| record(i, 1_000)).collect();
        assert_eq!(read(&put(&dataset, 0, records.clone()).unwrap()), records, "{level}");
        assert!(!dataset.contains(0), "{level}");
        assert_eq!(world.charged(), 0, "{level}");
    }
}

#[test]
fn a_block_larger_than_the_budget_is_stored_on_disk_alone_where_the_level_has_one() {
    for level in SPILLING_LEVELS {
        let world = World::new(12_000);
        let dataset = world.dataset("d", level);
        for (partition, len) in [(0, 20_000), (1, 1_000)] {
            let records: Vec<_> = (0..50).map(|i| record(i, len)).collect();
            let block = put(&dataset, partition, records.clone()).unwrap();
            assert_eq!(block.residence(), Residence::Disk, "{level}");
            assert_eq!(read(&block), records, "{level}");
            let status = dataset.block_status(partition).unwrap();
            assert_eq!(status.effective, StorageLevel::DISK_ONLY, "{level}");
            assert_eq!(status.residences, [Residence::Disk], "{level}");
            assert_eq!(read(&dataset.get(partition).unwrap().unwrap()), records, "{level}");
        }
        assert_eq!((world.charged(), dataset.status().blocks_in_memory), (0, 0), "{level}");
        assert_eq!(dataset.status().counters.refused, 0, "{level}");
    }
}

#[test]
fn with_no_memory_at_all_every_level_with_disk_works_and_the_others_refuse() {
    for level in SPILLING_LEVELS {
        let scratch = tempfile::tempdir().unwrap();
        let store = larder_blockstore::BlockStore::builder()
            .memory(0)
            .off_heap(1)
            .disk(scratch.path())
            .build()
            .unwrap();
        let dataset = store.dataset::<Vec<u8>>("d").level(level).build().unwrap();
        assert_eq!(read(&put(&dataset, 0, [record(1, 100)]).unwrap()), [record(1, 100)]);
        assert_eq!(read(&dataset.get(0).unwrap().unwrap()), [record(1, 100)]);
        drop(dataset);
        crate::support::assert_empty(&store);
    }
    let world = World::new(0);
    for level in [StorageLevel::MEMORY_ONLY, StorageLevel::MEMORY_ONLY_SER] {
        let dataset = world.dataset("d", level);
        assert_eq!(read(&put(&dataset, 0, [record(1, 100)]).unwrap()), [record(1, 100)]);
        assert!(!dataset.contains(0), "{level}");
    }
}

#[test]
fn storage_never_takes_what_execution_holds() {
    let world = World::new(1_000);
    let b = world.dataset("b", StorageLevel::MEMORY_ONLY);
    assert!(stored(&b, 0, [record(0, 100)]));
    let execution = world.store.memory().task().reserve(MemoryMode::Heap, 800).unwrap();
    let a = world.dataset("a", StorageLevel::MEMORY_ONLY);
    assert!(!stored(&a, 0, [record(1, 250)]));
    assert!(b.contains(0), "nobody is evicted for what cannot be");
    drop(execution);
    assert!(stored(&a, 0, [record(1, 250)]));
}

#[test]
fn execution_evicts_blocks_down_to_the_protected_region_and_no_further() {
    for level in memory_levels().into_iter().chain(SPILLING_LEVELS) {
        let mode = if level.uses_off_heap() { MemoryMode::OffHeap } else { MemoryMode::Heap };
        let world = World::new(80_000);
        let dataset = world.dataset("d", level);
        for partition in 0..7 {
            let put = put(&dataset, partition, [record(partition.into(), 10_000)]).unwrap();
            assert_eq!(read(&put), [record(partition.into(), 10_000)]);
        }
        assert_eq!(dataset.status().blocks_in_memory, 7, "{level}");
        let task = world.store.memory().task();
        let mut held = task.reserve(mode, 9_000).unwrap();
        assert_eq!(dataset.status().blocks_in_memory, 7, "there was room: {level}");
        held.grow(10_000, None).unwrap();
        assert_eq!(dataset.status().blocks_in_memory, 6, "{level}");
        assert!(!dataset.block_status(0).is_some_and(|block| block.effective.uses_memory()), "{level}");
        held.grow(10_000, None).unwrap();
        assert_eq!(dataset.status().blocks_in_memory, 5, "{level}");
        assert!(held.grow(40_000, None).is_err(), "{level}");
        assert!(dataset.status().blocks_in_memory >= 4, "{level}");
        drop(held);
        for partition in 0..7 {
            let again = put(&dataset, partition, [record(partition.into(), 10_000)]).unwrap();
            assert_eq!(read(&again), [record(partition.into(), 10_000)], "{level}");
        }
    }
}

#[test]
fn stores_that_share_a_budget_evict_each_others_blocks() {
    let world = World::new(12_000);
    let scratch = tempfile::tempdir().unwrap();
    let other = larder_blockstore::BlockStore::builder()
        .memory_manager(world.store.memory().clone())
        .disk(scratch.path())
        .build()
        .unwrap();
    let mine = world.dataset("mine", StorageLevel::MEMORY_ONLY);
    let theirs = other.dataset::<Vec<u8>>("theirs").level(StorageLevel::MEMORY_AND_DISK).build().unwrap();
    assert_ne!(mine.id(), theirs.id(), "a dataset spares its own blocks, not those of a namesake elsewhere");
    assert!(stored(&mine, 0, [record(0, 4_100)]) && stored(&mine, 1, [record(1, 4_100)]));
    assert!(stored(&theirs, 0, [record(2, 4_100)]) && stored(&theirs, 1, [record(3, 4_100)]));
    assert!(!mine.contains(0) && !mine.contains(1));
    assert!(stored(&mine, 0, [record(0, 4_100)]));
    assert_eq!(theirs.block_status(0).unwrap().effective, StorageLevel::DISK_ONLY);
    assert_eq!(read(&theirs.get(0).unwrap().unwrap()), [record(2, 4_100)]);
}

#[test]
fn a_block_is_charged_the_same_however_it_was_pushed() {
    for level in memory_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let records: Vec<_> = (0..300).map(|i| record(i, 100)).collect();
        let mut one_by_one = vacant(&dataset, 0);
        records.iter().for_each(|r| keep(&mut one_by_one, r.clone()));
        let mut at_once = vacant(&dataset, 1);
        let mut batch = records.clone();
        at_once.append(&mut batch).unwrap();
        assert!(batch.is_empty());
        let mut by_reference = vacant(&dataset, 2);
        assert_eq!(by_reference.push_slice(&records).unwrap(), records.len());
        for writer in [one_by_one, at_once, by_reference] {
            assert_eq!(read(&finish(writer)), records, "{level}");
        }
        let charged = |partition| dataset.block_status(partition).unwrap().heap_bytes;
        assert_eq!((charged(0), charged(0)), (charged(1), charged(2)), "{level}");
    }
}

#[test]
fn what_does_not_fit_comes_back_however_it_was_pushed() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let dataset = world.dataset("d", level);
        let records: Vec<_> = (0..100).map(|i| record(i, 500)).collect();

        let mut writer = vacant(&dataset, 0);
        let mut batch = records.clone();
        writer.append(&mut batch).unwrap();
        let Finished::Refused(kept) = writer.finish().unwrap() else {
            panic!("50,000 bytes fit into 12,000")
        };
        let kept: Vec<_> = kept.map(Result::unwrap).collect();
        assert!(kept.len() >= 5, "{level} kept {}", kept.len());
        assert_eq!([kept, batch].concat(), records, "{level}");

        let mut writer = vacant(&dataset, 0);
        let kept = writer.push_slice(&records).unwrap();
        assert!((5..100).contains(&kept), "{level}");
        assert_eq!(writer.push_slice(&records).unwrap(), 0, "once refused, always refused");
        assert_eq!(
            writer.into_unrolled().map(Result::unwrap).collect::<Vec<_>>(),
            records[..kept],
            "{level}"
        );
        assert_eq!(world.charged(), 0, "{level}");
    }
}
