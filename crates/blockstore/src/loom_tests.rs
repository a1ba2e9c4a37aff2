//! The store's cells together, exhaustively, on two or three threads.

use crate::sync::{Arc, thread};
use crate::{BlockStore, Entry, Error, StorageLevel, StoredDataset};

fn numbers(store: &BlockStore) -> StoredDataset<u64> {
    store.dataset("numbers").level(StorageLevel::MEMORY_ONLY).build().unwrap()
}

fn put(dataset: &StoredDataset<u64>, partition: u32) {
    dataset.get_or_compute(partition, |out| (0..4).try_for_each(|n| out.push(n))).map(drop).unwrap();
}

fn charged(store: &BlockStore) -> u64 {
    store.memory().snapshot().heap.storage_bytes
}

#[test]
fn loom_a_pinned_block_stays_charged_and_readable_while_it_is_evicted() {
    loom::model(|| {
        let store = BlockStore::builder().memory(1_000).build().unwrap();
        let dataset = numbers(&store);
        put(&dataset, 0);
        let dataset = Arc::new(dataset);
        let evictor = {
            let dataset = Arc::clone(&dataset);
            thread::spawn(move || dataset.evict(0).unwrap())
        };
        let block = dataset.get(0).unwrap();
        if let Some(block) = block {
            assert_eq!(charged(&store), 32);
            assert_eq!(block.into_records().sum::<Result<u64, Error>>().unwrap(), 6);
        }
        assert!(evictor.join().unwrap());
        assert_eq!(charged(&store), 0);
    });
}

#[test]
fn loom_a_removed_flight_leaves_nothing_behind() {
    loom::model(|| {
        let store = BlockStore::builder().memory(1_000).build().unwrap();
        let dataset = Arc::new(numbers(&store));
        let writer = {
            let dataset = Arc::clone(&dataset);
            thread::spawn(move || put(&dataset, 0))
        };
        dataset.unpersist();
        match dataset.entry(0).unwrap() {
            Entry::InFlight(flight) => drop(flight.wait().unwrap()),
            Entry::Resident(_) | Entry::Vacant(_) => {}
        }
        writer.join().unwrap();
        dataset.unpersist();
        assert_eq!(charged(&store), 0);
    });
}
