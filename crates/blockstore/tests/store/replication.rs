//! The seam to other processes that hold copies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use larder_blockstore::{BlockId, Error, Replicator, SerializedBlock, StorageLevel, StoredDataset};

use crate::support::{World, finish, keep, put, read, record, stored, vacant};

/// Peers that are this process: copies of blocks, by block.
#[derive(Debug, Default)]
struct Peers {
    copies_max: u8,
    blocks: Mutex<BTreeMap<BlockId, (SerializedBlock, u8)>>,
}

impl Replicator for Peers {
    fn replicate(&self, block: BlockId, bytes: &SerializedBlock, copies: u8) -> u8 {
        bytes.verify().unwrap();
        let placed = copies.min(self.copies_max);
        if placed > 0 {
            self.blocks.lock().unwrap().insert(block, (bytes.clone(), placed));
        }
        placed
    }

    fn remove(&self, block: BlockId) {
        assert!(self.blocks.lock().unwrap().remove(&block).is_some(), "{block} has no copies");
    }
}

fn world(copies_max: u8) -> (World, Arc<Peers>) {
    let peers = Arc::new(Peers { copies_max, ..Peers::default() });
    let replicator: Arc<dyn Replicator> = peers.clone();
    (World::with(12_000, |builder| builder.replicator(replicator)), peers)
}

fn held(peers: &Peers) -> usize {
    peers.blocks.lock().unwrap().len()
}

const LEVELS: [StorageLevel; 5] = [
    StorageLevel::MEMORY_ONLY_2,
    StorageLevel::MEMORY_ONLY_SER_2,
    StorageLevel::MEMORY_AND_DISK_2,
    StorageLevel::MEMORY_AND_DISK_SER_2,
    StorageLevel::DISK_ONLY_2,
];

#[test]
fn a_block_is_placed_elsewhere_once_it_is_stored_and_goes_with_it() {
    for level in LEVELS {
        let (world, peers) = world(1);
        let dataset = world.dataset("d", level);
        assert!(stored(&dataset, 0, [record(1, 1_000), record(2, 1_000)]), "{level}");
        let (copy, copies) = peers.blocks.lock().unwrap().values().next().unwrap().clone();
        assert_eq!((copy.records(), copies), (2, 1), "{level}");
        let status = dataset.block_status(0).unwrap();
        assert_eq!((status.replicas, status.effective.replication()), (2, 2), "{level}");
        assert_eq!(dataset.status().under_replicated, 0, "{level}");
        drop(copy);
        assert!(dataset.remove(0));
        assert_eq!(held(&peers), 0, "{level}");
        assert!(stored(&dataset, 1, [record(1, 10)]) && stored(&dataset, 2, [record(2, 10)]));
        assert_eq!(held(&peers), 2, "{level}");
        drop(dataset);
        assert_eq!(held(&peers), 0, "{level}");
    }
}

#[test]
fn fewer_copies_than_asked_for_are_reported() {
    for (copies_max, replicas) in [(0, 1), (1, 2), (2, 3), (9, 3)] {
        let (world, peers) = world(copies_max);
        let dataset = world.dataset("d", StorageLevel::DISK_ONLY_3);
        assert!(stored(&dataset, 0, [record(1, 1_000)]));
        assert_eq!(dataset.block_status(0).unwrap().replicas, replicas);
        assert_eq!(dataset.status().under_replicated, u64::from(replicas < 3));
        drop(dataset);
        assert_eq!(held(&peers), 0);
    }
}

#[test]
fn a_level_that_asks_for_one_copy_asks_nobody() {
    let (world, peers) = world(1);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    assert!(stored(&dataset, 0, [record(1, 1_000)]));
    assert_eq!(held(&peers), 0);
}

#[test]
fn a_block_that_loses_its_last_copy_here_gives_up_those_elsewhere() {
    for level in [StorageLevel::MEMORY_ONLY_2, StorageLevel::MEMORY_ONLY_SER_2] {
        let (world, peers) = world(1);
        let dataset = world.dataset("d", level);
        assert!(stored(&dataset, 0, [record(1, 4_100)]) && stored(&dataset, 1, [record(2, 4_100)]));
        // The copies elsewhere are this process's memory too.
        peers.blocks.lock().unwrap().values_mut().for_each(|(copy, _)| *copy = empty(&world));
        assert!(dataset.evict(0).unwrap());
        assert_eq!(held(&peers), 1, "asked for: {level}");
        let other = world.dataset("other", level);
        assert!(stored(&other, 0, [record(3, 9_000)]), "{level}");
        assert!(!dataset.contains(1), "{level}");
        peers.blocks.lock().unwrap().values_mut().for_each(|(copy, _)| *copy = empty(&world));
        assert_eq!(held(&peers), 1, "for room: {level}");
        drop((dataset, other));
        assert_eq!(held(&peers), 0, "{level}");
    }
}

/// A block of no bytes.
fn empty(world: &World) -> SerializedBlock {
    let dataset: StoredDataset<Vec<u8>> = world.dataset("empty", StorageLevel::DISK_ONLY);
    put(&dataset, 0, []).unwrap().serialized().unwrap().clone()
}

#[test]
fn a_block_that_moves_to_disk_keeps_its_copies() {
    for level in [StorageLevel::MEMORY_AND_DISK_2, StorageLevel::MEMORY_AND_DISK_SER_2] {
        let (world, peers) = world(1);
        let dataset = world.dataset("d", level);
        assert!(stored(&dataset, 0, [record(1, 1_000)]));
        assert!(dataset.evict(0).unwrap());
        assert_eq!(held(&peers), 1, "{level}");
        assert_eq!(read(&dataset.get(0).unwrap().unwrap()), [record(1, 1_000)]);
        drop(dataset);
        assert_eq!(held(&peers), 0, "{level}");
    }
}

#[test]
fn a_block_removed_while_it_was_written_leaves_no_copies_elsewhere() {
    for level in LEVELS {
        let (world, peers) = world(1);
        let dataset = world.dataset("d", level);
        let mut writer = vacant(&dataset, 0);
        keep(&mut writer, record(1, 1_000));
        dataset.remove(0);
        let block = finish(writer);
        assert_eq!(held(&peers), 0, "{level}");
        assert_eq!(read(&block), [record(1, 1_000)], "{level}");
    }
}

#[test]
fn a_refused_block_is_placed_nowhere() {
    let (world, peers) = world(1);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY_2);
    assert!(!stored(&dataset, 0, [record(1, 50_000)]));
    let failed = dataset.get_or_compute(0, |_| {
        Err::<(), Error>(Error::LevelStoresNothing { dataset: "d".to_owned(), level: StorageLevel::NONE })
    });
    assert!(failed.is_err());
    assert_eq!(held(&peers), 0);
}
