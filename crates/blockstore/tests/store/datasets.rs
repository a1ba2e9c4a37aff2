//! Datasets come and go.

use larder_blockstore::{BlockId, DatasetId, Error, Residence, StorageLevel};

use crate::support::{World, all_levels, finish, keep, put, read, record, stored, vacant};

#[test]
fn the_last_handle_takes_the_blocks_with_it() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        assert!(stored(&dataset, 0, [record(1, 1_000)]) && stored(&dataset, 1, [record(2, 1_000)]));
        let clone = dataset.clone();
        drop(dataset);
        assert_eq!(read(&clone.get(0).unwrap().unwrap()), [record(1, 1_000)], "{level}");
        drop(clone);
        assert_eq!((world.charged(), world.disk_bytes()), (0, 0), "{level}");
    }
}

#[test]
fn a_handle_dropped_while_a_writer_is_at_work_leaves_the_writer_its_block_and_the_store_nothing() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let mut writer = vacant(&dataset, 0);
        keep(&mut writer, record(1, 1_000));
        drop(dataset);
        keep(&mut writer, record(2, 1_000));
        let block = finish(writer);
        assert_eq!(read(&block), [record(1, 1_000), record(2, 1_000)], "{level}");
        assert_eq!(world.store.block_status(block.id()), None, "{level}");
        assert!(world.charged() + world.disk_bytes() >= 2_000, "{level}");
        drop(block);
        assert_eq!((world.charged(), world.disk_bytes()), (0, 0), "{level}");
    }
}

#[test]
fn a_handle_dropped_while_a_writer_is_at_work_that_then_aborts_leaves_nothing() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let mut writer = vacant(&dataset, 0);
        keep(&mut writer, record(1, 1_000));
        drop(dataset);
        writer.abort();
    }
}

#[test]
fn unpersist_removes_all_blocks_and_the_dataset_can_be_filled_again() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        for round in 0..3 {
            for partition in 0..5 {
                assert!(stored(&dataset, partition, [record(round, 1_000)]), "{level}");
            }
            dataset.unpersist();
            assert_eq!((dataset.status().blocks, world.charged(), world.disk_bytes()), (0, 0, 0), "{level}");
        }
        assert_eq!(dataset.status().counters.removed, 15, "{level}");
    }
}

#[test]
fn a_removed_dataset_grants_no_writers_and_its_readers_keep_their_blocks() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let block = put(&dataset, 0, [record(1, 1_000)]).unwrap();
        assert!(world.store.remove_dataset(dataset.id()));
        assert!(dataset.get(0).unwrap().is_none(), "{level}");
        let error = put(&dataset, 0, [record(1, 1_000)]).unwrap_err();
        assert!(matches!(&error, Error::DatasetRemoved { name, .. } if name == "d"), "{error}");
        assert!(dataset.entry(1).is_err());
        assert_eq!(read(&block), [record(1, 1_000)], "{level}");
    }
}

#[test]
fn an_unknown_dataset_is_not_removed() {
    let world = World::new(0);
    let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
    let unknown = DatasetId(dataset.id().0 + 1);
    assert!(!world.store.remove_dataset(unknown));
    assert_eq!(world.store.block_status(BlockId { dataset: unknown, partition: 0 }), None);
}

#[test]
fn removing_one_dataset_leaves_the_others() {
    let world = World::new(1 << 20);
    let (a, b) =
        (world.dataset("a", StorageLevel::MEMORY_ONLY), world.dataset("a", StorageLevel::MEMORY_ONLY));
    assert_ne!(a.id(), b.id(), "a name is no identity");
    assert!(stored(&a, 0, [record(1, 10)]) && stored(&b, 0, [record(2, 10)]));
    assert!(world.store.remove_dataset(a.id()));
    assert_eq!(read(&b.get(0).unwrap().unwrap()), [record(2, 10)]);
}

#[test]
fn partitions_are_numbered_up_to_the_largest_number() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        for partition in [0, u32::MAX, u32::MAX - 1, 1 << 31] {
            assert!(stored(&dataset, partition, [record(partition.into(), 10)]), "{level}");
        }
        for partition in [0, u32::MAX, u32::MAX - 1, 1 << 31] {
            let block = dataset.get(partition).unwrap().unwrap();
            assert_eq!(block.id().partition, partition);
            assert_eq!(read(&block), [record(partition.into(), 10)], "{level}");
        }
        assert!(dataset.evict(u32::MAX).unwrap() == level.uses_memory() && dataset.remove(u32::MAX - 1));
    }
}

#[test]
fn status_adds_up_to_what_the_store_holds() {
    let world = World::new(1 << 20);
    let datasets: Vec<_> = all_levels().into_iter().map(|level| world.dataset("d", level)).collect();
    for dataset in &datasets {
        for partition in 0..4 {
            assert!(stored(dataset, partition, [record(1, 1_000), record(2, 500)]));
        }
        dataset.evict(3).unwrap();
    }
    let all = world.store.datasets();
    assert_eq!(all, datasets.iter().map(|dataset| dataset.status()).collect::<Vec<_>>());
    let memory = world.store.memory().snapshot();
    assert_eq!(all.iter().map(|status| status.heap_bytes).sum::<u64>(), memory.heap.storage_bytes);
    assert_eq!(all.iter().map(|status| status.off_heap_bytes).sum::<u64>(), memory.off_heap.storage_bytes);
    for (dataset, status) in datasets.iter().zip(&all) {
        let blocks = (0..4).filter_map(|partition| dataset.block_status(partition)).collect::<Vec<_>>();
        assert_eq!(status.blocks, blocks.len() as u64);
        assert_eq!(status.records, 2 * status.blocks);
        assert_eq!(status.disk_bytes, blocks.iter().map(|block| block.disk_bytes).sum::<u64>());
        let in_memory = blocks.iter().filter(|block| block.residences != [Residence::Disk]).count();
        assert_eq!(status.blocks_in_memory, in_memory as u64);
        assert_eq!(world.store.block_status(blocks[0].block).as_ref(), Some(&blocks[0]));
        assert!(blocks.iter().all(|block| block.requested == dataset.level()));
        assert!(blocks.iter().take(3).all(|block| {
            block.effective == dataset.level() || block.effective.uses_disk() != dataset.level().uses_disk()
        }));
    }
}

#[test]
fn a_store_counts_what_happened_also_in_datasets_that_are_gone() {
    let world = World::new(1 << 20);
    for _ in 0..3 {
        let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
        assert!(stored(&dataset, 0, [record(1, 10)]));
        drop(dataset.get(0).unwrap().unwrap());
    }
    let counters = world.store.counters();
    assert_eq!((counters.stored, counters.computed, counters.hits()), (3, 3, 3));
}
