//! Handles pin what they read: behaviour 3.

use larder_blockstore::{Block, BlockWriter, Flight, StorageLevel, StoredDataset};

use crate::support::{World, all_levels, memory_levels, off_heap_only, put, read, record, stored};

#[test]
fn handles_writers_and_flights_go_to_other_threads() {
    fn goes<T: Send + 'static>() {}
    goes::<Block<String>>();
    goes::<BlockWriter<String>>();
    goes::<Flight<String>>();
    goes::<StoredDataset<String>>();
    fn is_shared<T: Sync>() {}
    is_shared::<Block<String>>();
    is_shared::<StoredDataset<String>>();
}

#[test]
fn a_removed_block_is_absent_at_once_and_its_bytes_stay_valid_and_charged_for_its_readers() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let first = put(&dataset, 0, [record(1, 10_000)]).unwrap();
        let second = dataset.get(0).unwrap().unwrap();
        let third = second.clone();
        let (charged, on_disk) = (world.charged(), world.disk_bytes());
        assert!(charged + on_disk >= 10_000, "{level}");

        assert!(dataset.remove(0), "{level}");
        assert!(!dataset.remove(0), "{level}");
        assert!(dataset.get(0).unwrap().is_none() && !dataset.contains(0), "{level}");
        for handle in [first, second] {
            assert_eq!((world.charged(), world.disk_bytes()), (charged, on_disk), "{level}");
            assert_eq!(read(&handle), [record(1, 10_000)], "{level}");
        }
        assert_eq!((world.charged(), world.disk_bytes()), (charged, on_disk), "{level}");
        drop(third);
        assert_eq!((world.charged(), world.disk_bytes()), (0, 0), "{level}");
    }
}

#[test]
fn an_evicted_block_leaves_memory_with_its_last_reader() {
    for level in all_levels().into_iter().filter(|level| level.uses_memory()) {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let block = put(&dataset, 0, [record(1, 10_000)]).unwrap();
        let charged = world.charged();
        assert!(dataset.evict(0).unwrap(), "{level}");
        assert!(!dataset.evict(0).unwrap(), "{level}");
        assert_eq!(dataset.contains(0), level.uses_disk(), "{level}");
        assert_eq!(dataset.status().heap_bytes + dataset.status().off_heap_bytes, 0, "{level}");
        assert_eq!(world.charged(), charged, "{level}");
        assert_eq!(read(&block), [record(1, 10_000)], "{level}");
        drop(block);
        assert_eq!(world.charged(), 0, "{level}");
    }
}

#[test]
fn bytes_that_are_pinned_are_not_used_again() {
    for level in
        [off_heap_only(), StorageLevel::OFF_HEAP, StorageLevel::DISK_ONLY, StorageLevel::MEMORY_ONLY_SER]
    {
        let world = World::new(64 << 10);
        let dataset = world.dataset("d", level);
        let pinned = put(&dataset, 0, [record(0, 20_000)]).unwrap();
        dataset.remove(0);
        for round in 1..40 {
            drop(put(&dataset, round, [record(u64::from(round), 20_000)]).unwrap());
            dataset.remove(round);
        }
        assert_eq!(read(&pinned), [record(0, 20_000)], "{level}");
    }
}

#[test]
fn a_block_that_is_read_is_never_the_victim() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let (a, b) = (world.dataset("a", level), world.dataset("b", level));
        let first = put(&a, 1, [record(1, 4_100)]).unwrap();
        assert!(stored(&a, 2, [record(2, 4_100)]), "{level}");
        assert!(stored(&b, 1, [record(3, 4_100)]), "{level}");
        assert!(
            a.contains(1) && !a.contains(2),
            "the elder block is pinned, so the younger one goes: {level}"
        );
        let third = put(&b, 1, []).unwrap();
        assert!(!stored(&b, 2, [record(4, 4_100)]), "all are pinned: {level}");
        assert!(a.contains(1) && b.contains(1), "{level}");
        drop((first, third));
        assert!(stored(&b, 2, [record(4, 4_100)]) && !a.contains(1), "{level}");
    }
}

#[test]
fn chunks_taken_from_a_handle_keep_their_bytes_charged() {
    for level in [StorageLevel::MEMORY_ONLY_SER, off_heap_only(), StorageLevel::DISK_ONLY] {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let block = put(&dataset, 0, [record(1, 10_000)]).unwrap();
        let chunk = block.serialized().unwrap().chunks()[0].stored().unwrap();
        drop((block, dataset));
        assert!(world.charged() + world.disk_bytes() >= 10_000, "{level}");
        assert!(chunk.ends_with(&record(1, 10_000)), "{level}");
        drop(chunk);
        assert_eq!(world.charged() + world.disk_bytes(), 0, "{level}");
    }
}

#[test]
fn a_block_outlives_its_dataset_and_its_store() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let block = put(&world.dataset("d", level), 0, [record(1, 10_000)]).unwrap();
        let memory = world.store.memory().clone();
        let other = {
            let store = larder_blockstore::BlockStore::builder()
                .memory_manager(memory)
                .disk(world.scratch.path())
                .build()
                .unwrap();
            let dataset = store.dataset::<Vec<u8>>("d").level(level).build().unwrap();
            put(&dataset, 7, [record(7, 10_000)]).unwrap()
        };
        assert_eq!(read(&block), [record(1, 10_000)], "{level}");
        assert_eq!(read(&other), [record(7, 10_000)], "{level}");
    }
}
