//! Many threads at once: behaviour 7.

use std::sync::Barrier;
use std::thread;

use fastrand::Rng;
use larder_blockstore::{MemoryMode, StoredDataset};

use crate::support::{World, all_levels, put, record};

const THREADS: u64 = 4;
const PARTITIONS: u64 = 6;

/// What a block must hold, whoever computes it and whenever.
fn records(dataset: usize, partition: u32) -> Vec<Vec<u8>> {
    let seed = dataset as u64 * 100 + u64::from(partition);
    (0..10 + seed % 7).map(|i| record(seed + i, 200)).collect()
}

fn step(random: &mut Rng, world: &World, datasets: &[StoredDataset<Vec<u8>>]) {
    let which = random.u64(..datasets.len() as u64) as usize;
    let dataset = &datasets[which];
    let partition = random.u64(..PARTITIONS) as u32;
    let expected = records(which, partition);
    match random.u64(..20) {
        0..8 => {
            let block = put(dataset, partition, expected.clone()).unwrap();
            assert!(block.into_records().eq_by_record(&expected));
        }
        8..13 => {
            if let Some(block) = dataset.get(partition).unwrap() {
                assert!(block.into_records().eq_by_record(&expected));
            }
        }
        13..15 => drop(dataset.entry(partition).unwrap()),
        15..17 => drop(dataset.evict(partition).unwrap()),
        17 => drop(dataset.remove(partition)),
        18 => drop(world.store.memory().nonblocking_task().reserve(MemoryMode::Heap, random.u64(..20_000))),
        _ if random.u64(..5) == 0 => dataset.unpersist(),
        _ => drop((dataset.status(), world.store.counters())),
    }
    let memory = world.store.memory().snapshot();
    assert!(memory.heap.charged_bytes() <= memory.heap.budget_bytes);
    assert!(memory.off_heap.charged_bytes() <= memory.off_heap.budget_bytes);
}

trait EqByRecord {
    fn eq_by_record(self, expected: &[Vec<u8>]) -> bool;
}

impl<I: Iterator<Item = Result<Vec<u8>, larder_blockstore::Error>>> EqByRecord for I {
    fn eq_by_record(self, expected: &[Vec<u8>]) -> bool {
        self.map(Result::unwrap).eq(expected.iter().cloned())
    }
}

#[test]
fn a_hundred_rounds_of_everything_from_four_threads_neither_hang_nor_leave_a_byte() {
    for round in 0..100 {
        let world = World::with(30_000, |builder| builder.verify_memory(round % 2 == 0));
        let datasets: Vec<_> = all_levels().into_iter().map(|level| world.dataset("d", level)).collect();
        let start = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (world, datasets, start) = (&world, &datasets, &start);
                scope.spawn(move || {
                    let mut random = Rng::with_seed(round * THREADS + thread);
                    start.wait();
                    for _ in 0..60 {
                        step(&mut random, world, datasets);
                    }
                });
            }
        });
        let sums = datasets.iter().map(|dataset| dataset.status());
        let listed: u64 = sums.map(|status| status.heap_bytes + status.off_heap_bytes).sum();
        assert_eq!(listed, world.charged(), "round {round}: all that is charged is listed");
        datasets.iter().for_each(StoredDataset::unpersist);
        assert_eq!((world.charged(), world.disk_bytes()), (0, 0), "round {round}");
        assert_eq!(datasets.iter().map(|dataset| dataset.status().counters.corrupt).sum::<u64>(), 0);
    }
}
