//! An arena in which blocks of many sizes come and go.

use larder_blockstore::codec::Pod;
use larder_blockstore::{Finished, Residence, StorageLevel, StoredDataset};

use crate::support::{World, off_heap_only, vacant};

const BUDGET: u64 = 64 << 20;

/// Numbers, which are copied to their place as they are.
fn numbers(world: &World, name: &str, level: StorageLevel) -> StoredDataset<u64> {
    world.store.dataset_with(name, Pod, |_: &u64| 0).level(level).build().unwrap()
}

fn stored(dataset: &StoredDataset<u64>, partition: u32, numbers: &[u64]) -> bool {
    let mut writer = vacant(dataset, partition);
    let _ = writer.push_slice(numbers).unwrap();
    matches!(writer.finish().unwrap(), Finished::Stored(_))
}

/// From 4 KiB to 8 MiB, each power of two as often as the others.
fn size(random: &mut fastrand::Rng) -> usize {
    let base = 4_096 << random.u32(0..11);
    base + random.usize(0..base)
}

/// Puts blocks until one is refused; how much was in use then, with what it would have taken.
fn fill(dataset: &StoredDataset<u64>, random: &mut fastrand::Rng, world: &World) -> u64 {
    let numbers = vec![7; 16 << 20 >> 3];
    for partition in 0.. {
        if dataset.contains(partition) {
            continue;
        }
        let bytes = size(random);
        if !stored(dataset, partition, &numbers[..bytes / 8]) {
            return world.charged() + bytes as u64;
        }
    }
    0
}

#[test]
fn blocks_of_all_sizes_that_come_and_go_leave_nine_tenths_of_the_arena_usable() {
    let world = World::new(BUDGET);
    let dataset = numbers(&world, "d", off_heap_only());
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..12 {
        let usable = fill(&dataset, &mut random, &world);
        assert!(usable * 10 >= BUDGET * 9, "round {round}: refused at {usable} bytes of {BUDGET}");
        let blocks: Vec<u32> = (0..10_000).filter(|partition| dataset.contains(*partition)).collect();
        for partition in blocks {
            if random.u32(..100) < 60 {
                assert!(dataset.remove(partition));
            }
        }
        assert!(world.store.arena_resident_bytes_max() <= 2 * BUDGET);
    }
}

#[test]
fn a_block_larger_than_any_free_run_lies_in_several() {
    const SMALL: usize = 100_000;
    // Chunks of 16 MiB heap budget / 64 = 256 KiB.
    let world = World::with(16 << 20, |builder| builder.off_heap(16 << 20));
    let small = numbers(&world, "small", off_heap_only());
    let content = vec![7; SMALL / 8];
    let stored_small = (0..).take_while(|partition| stored(&small, *partition, &content)).count();
    // Every second one goes, and others take address space beyond the budget's until none is left in long runs.
    let mut partitions: Vec<u32> = (0..stored_small as u32).collect();
    for round in 0..6 {
        for partition in partitions.iter().skip(round % 2).step_by(2) {
            assert!(small.remove(*partition));
        }
        partitions = (0..)
            .take_while(|partition| small.contains(*partition) || stored(&small, *partition, &content))
            .collect();
    }
    for partition in partitions.iter().step_by(2) {
        assert!(small.remove(*partition));
    }
    let large = numbers(&world, "large", StorageLevel::OFF_HEAP);
    let content: Vec<u64> = (0..600_000).collect();
    let mut writer = vacant(&large, 0);
    assert_eq!(writer.push_slice(&content).unwrap(), content.len());
    let Finished::Stored(block) = writer.finish().unwrap() else { panic!("there is room for it") };
    assert_eq!(block.residence(), Residence::OffHeap);
    assert_eq!(block.into_records().collect::<Result<Vec<_>, _>>().unwrap(), content);
}
