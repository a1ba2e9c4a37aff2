//! Who holds memory, and a budget that changes while it is held.

use larder_blockstore::format::Compression;
use larder_blockstore::memory::MemoryError;
use larder_blockstore::{MemoryMode, StorageLevel};

use crate::support::{World, keep, off_heap_only, put, read, record, stored, vacant};

#[test]
fn a_snapshot_says_who_holds_what() {
    let world = World::new(100_000);
    let (a, b) = (world.dataset("a", StorageLevel::MEMORY_ONLY_SER), world.dataset("b", off_heap_only()));
    assert!(stored(&a, 0, [record(1, 2_000)]) && stored(&a, 1, [record(2, 3_000)]));
    assert!(stored(&b, 0, [record(3, 992)]));
    let pinned = a.get(1).unwrap().unwrap();
    assert!(a.remove(1));
    let mut writer = vacant(&a, 2);
    keep(&mut writer, record(4, 10_000));
    let sort = world.store.memory().task().named("sort of a");
    let run = sort.reserve(MemoryMode::Heap, 500).unwrap();

    let memory = world.store.memory().snapshot();
    assert_eq!((memory.heap.block_bytes, memory.heap.pinned_evicted_bytes), (2_008, 3_008));
    assert!((10_008..40_000).contains(&memory.heap.in_flight_bytes), "{memory:?}");
    let heap = &memory.heap;
    assert_eq!(heap.block_bytes + heap.pinned_evicted_bytes + heap.in_flight_bytes, heap.storage_bytes);
    assert_eq!((memory.off_heap.block_bytes, memory.off_heap.in_flight_bytes), (1_024, 0));
    let datasets: Vec<_> =
        memory.datasets.iter().map(|d| (d.dataset, &*d.name, d.heap_bytes, d.off_heap_bytes)).collect();
    assert_eq!(datasets, [(a.id(), "a", 2_008, 0), (b.id(), "b", 0, 1_024)]);
    let [consumer] = &memory.consumers[..] else { panic!("{memory:?}") };
    assert_eq!((&*consumer.name, consumer.heap_bytes, consumer.off_heap_bytes), ("sort of a", 500, 0));

    drop((pinned, writer, run, sort));
    let memory = world.store.memory().snapshot();
    assert_eq!((memory.heap.pinned_evicted_bytes, memory.heap.in_flight_bytes), (0, 0));
    assert!(memory.consumers.is_empty());
    a.unpersist();
    assert_eq!(world.store.memory().snapshot().datasets.len(), 1);
}

#[test]
fn a_decompressed_chunk_is_charged_while_it_is_read() {
    let world = World::new(4 << 20);
    let dataset = world
        .store
        .dataset::<Vec<u8>>("d")
        .level(StorageLevel::MEMORY_ONLY_SER)
        .compression(Compression::Lz4)
        .build()
        .unwrap();
    let block = put(&dataset, 0, vec![vec![7; 1_000]; 60]).unwrap();
    let charged = world.charged();
    let mut records = block.iter();
    assert!(records.next().is_some());
    assert_eq!(world.charged(), charged + 60 * 1_008);
    assert_eq!(world.store.memory().snapshot().heap.in_flight_bytes, 60 * 1_008);
    drop(records);
    assert_eq!(world.charged(), charged);

    let other = world.store.memory().snapshot().heap.free_bytes;
    let full = world.store.memory().try_reserve_storage(MemoryMode::Heap, other).unwrap();
    let mut records = block.iter();
    assert!(records.next().is_some(), "where nothing is free it is counted all the same");
    assert_eq!(world.store.memory().snapshot().scratch_bytes, 60 * 1_008);
    drop((records, full));
    assert_eq!(world.store.memory().snapshot().scratch_bytes, 0);
}

#[test]
fn a_smaller_budget_evicts_down_to_it_coldest_first() {
    for level in [StorageLevel::MEMORY_ONLY, StorageLevel::MEMORY_AND_DISK_SER, StorageLevel::OFF_HEAP] {
        let world = World::new(100_000);
        let mode = if level.uses_off_heap() { MemoryMode::OffHeap } else { MemoryMode::Heap };
        let dataset = world.dataset("d", level);
        for partition in 0..9 {
            assert!(stored(&dataset, partition, [record(partition.into(), 10_000)]));
        }
        assert!(dataset.get(0).unwrap().is_some());
        assert_eq!(world.store.memory().set_budget(mode, 45_000).unwrap(), 0);
        assert!(world.charged() <= 45_000, "{level}");
        let status = dataset.status();
        assert_eq!((status.blocks_in_memory, status.counters.evictions), (4, 5), "{level}");
        assert!(dataset.block_status(0).unwrap().effective.uses_memory(), "it was read last: {level}");
        if level.uses_disk() {
            assert_eq!(read(&dataset.get(1).unwrap().unwrap()), [record(1, 10_000)], "{level}");
        }
        assert_eq!(world.store.memory().set_budget(mode, 100_000).unwrap(), 0);
        assert_eq!(world.store.memory().snapshot().mode(mode).protected_storage_bytes, 50_000);
        let other = world.dataset("other", level);
        assert!(stored(&other, 0, [record(1, 50_000)]), "there is room again: {level}");
    }
}

#[test]
fn what_is_pinned_or_executions_stays_charged_over_a_smaller_budget_and_nothing_is_granted() {
    let world = World::new(100_000);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY_SER);
    let pinned = put(&dataset, 0, [record(1, 29_992)]).unwrap();
    let task = world.store.memory().task();
    let execution = task.reserve(MemoryMode::Heap, 40_000).unwrap();
    assert_eq!(world.store.memory().set_budget(MemoryMode::Heap, 20_000).unwrap(), 50_000);
    assert!(task.reserve(MemoryMode::Heap, 1).is_err());
    assert!(world.store.memory().try_reserve_storage(MemoryMode::Heap, 1).is_err());
    drop(execution);
    assert!(!stored(&world.dataset("e", StorageLevel::MEMORY_ONLY_SER), 0, [record(1, 100)]));
    assert_eq!(read(&pinned), [record(1, 29_992)]);
    drop(pinned);
    assert!(stored(&world.dataset("e", StorageLevel::MEMORY_ONLY_SER), 0, [record(1, 100)]));
    assert!(!dataset.contains(0), "it was evicted, and is free with its last reader");
    assert_eq!(world.store.memory().set_budget(MemoryMode::Heap, 100_000).unwrap(), 0);
}

#[test]
fn an_off_heap_budget_does_not_grow_beyond_what_was_reserved() {
    let world = World::new(100_000);
    let error = world.store.memory().set_budget(MemoryMode::OffHeap, 100_001).unwrap_err();
    assert!(matches!(error, MemoryError::OffHeapReserved { reserved_bytes: 100_000, .. }), "{error}");
    assert_eq!(world.store.memory().set_budget(MemoryMode::Heap, 1 << 30).unwrap(), 0);
    assert!(stored(&world.dataset("d", StorageLevel::MEMORY_ONLY), 0, [record(1, 1 << 20)]));
}
