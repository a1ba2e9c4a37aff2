//! Damaged copies on disk: behaviour 18. Damage in memory is tested beside the store's own code, which can make it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use larder_blockstore::format::Compression;
use larder_blockstore::{BlockStore, DiskReads, Error, Residence, StorageLevel, StoredDataset};

use crate::support::{World, put, read, record};

/// Flips one bit of a record that is on disk, behind the store's back; whether it was found.
///
/// The files have no name, but the process holds them open, and `/proc` opens them again.
pub(crate) fn flip(directory: &std::path::Path, record: &[u8], bit: usize) -> bool {
    let mut flipped = false;
    for fd in fs::read_dir("/proc/self/fd").unwrap() {
        let link = fd.unwrap().path();
        if !fs::read_link(&link).is_ok_and(|target| target.starts_with(directory)) {
            continue;
        }
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&link) else { continue };
        let mut content = vec![0; 1 << 20];
        let len = file.read_at(&mut content, 0).unwrap();
        let Some(at) = content[..len].windows(record.len()).position(|window| window == record) else {
            continue;
        };
        let byte = content[at + bit / 8] ^ 1 << (bit % 8);
        file.write_all_at(&[byte], (at + bit / 8) as u64).unwrap();
        flipped = true;
    }
    flipped
}

fn worlds() -> [World; 2] {
    [DiskReads::Mapped, DiskReads::Buffered]
        .map(|reads| World::with(1 << 20, |builder| builder.disk_reads(reads)))
}

fn on_disk(world: &World, level: StorageLevel) -> StoredDataset<Vec<u8>> {
    let dataset = world.dataset("d", level);
    drop(put(&dataset, 0, [record(1, 3_000), record(2, 3_000)]).unwrap());
    dataset.evict(0).unwrap();
    assert_eq!(dataset.block_status(0).unwrap().residences, [Residence::Disk]);
    dataset
}

const LEVELS: [StorageLevel; 4] = [
    StorageLevel::DISK_ONLY,
    StorageLevel::MEMORY_AND_DISK,
    StorageLevel::MEMORY_AND_DISK_SER,
    StorageLevel::OFF_HEAP,
];

#[test]
fn a_flipped_bit_anywhere_is_a_typed_error_and_the_copy_is_gone() {
    for level in LEVELS {
        for (bit, world) in
            [0, 7, 12_345, 23_999].into_iter().flat_map(|bit| worlds().map(|world| (bit, world)))
        {
            let dataset = on_disk(&world, level);
            assert!(flip(world.scratch.path(), &record(2, 3_000), bit));
            let error = dataset.get(0).unwrap_err();
            let Error::Corrupt { block, residence: Residence::Disk, chunk: 0, .. } = &error else {
                panic!("{error}")
            };
            assert_eq!((block.partition, block.dataset), (0, dataset.id()));
            assert!(error.to_string().contains("`d`") && error.to_string().contains("disk"), "{error}");
            assert!(dataset.get(0).unwrap().is_none() && !dataset.contains(0), "{level}");
            assert_eq!(dataset.status().counters.corrupt, 1, "{level}");
            assert_eq!(world.disk_bytes(), 0, "{level}");
        }
    }
}

#[test]
fn a_handle_from_the_writer_compares_what_it_reads_and_a_damaged_copy_is_gone() {
    for world in worlds() {
        let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
        let block = put(&dataset, 0, [record(1, 3_000), record(2, 3_000)]).unwrap();
        let other = dataset.get(0).unwrap().unwrap();
        assert!(flip(world.scratch.path(), &record(2, 3_000), 77));
        let error = block.iter().find_map(Result::err).unwrap();
        assert!(matches!(error, Error::Corrupt { residence: Residence::Disk, .. }), "{error}");
        assert!(!dataset.contains(0));
        assert_eq!(dataset.status().counters.corrupt, 1);
        drop((block, other));
        assert_eq!(world.disk_bytes(), 0);
        assert_eq!(read(&put(&dataset, 0, [record(1, 3_000)]).unwrap()), [record(1, 3_000)]);
    }
}

#[test]
fn a_damaged_block_is_computed_again_and_counted() {
    for (level, world) in LEVELS.into_iter().flat_map(|level| worlds().map(|world| (level, world))) {
        let dataset = on_disk(&world, level);
        assert!(flip(world.scratch.path(), &record(1, 3_000), 100));
        let block = put(&dataset, 0, [record(1, 3_000), record(2, 3_000)]).unwrap();
        assert_eq!(read(&block), [record(1, 3_000), record(2, 3_000)], "{level}");
        let counters = dataset.status().counters;
        assert_eq!((counters.corrupt, counters.computed, counters.recomputed), (1, 1, 1), "{level}");
        assert_eq!(read(&dataset.get(0).unwrap().unwrap()).len(), 2, "{level}");
        assert_eq!(dataset.status().counters.corrupt, 1, "{level}");
    }
}

#[test]
fn a_damaged_copy_on_disk_does_not_touch_the_copy_in_memory() {
    for level in [StorageLevel::MEMORY_AND_DISK, StorageLevel::MEMORY_AND_DISK_SER, StorageLevel::OFF_HEAP] {
        let world = World::new(1 << 20);
        let dataset = on_disk(&world, level);
        drop(dataset.get(0).unwrap().unwrap());
        assert_eq!(dataset.block_status(0).unwrap().residences.len(), 2, "{level}");
        assert!(flip(world.scratch.path(), &record(1, 3_000), 100));
        assert_eq!(read(&dataset.get(0).unwrap().unwrap())[0], record(1, 3_000), "{level}");
        assert_eq!(dataset.status().counters.corrupt, 0, "nobody has looked at it: {level}");
    }
}

#[test]
fn other_blocks_are_not_harmed() {
    let world = World::new(0);
    let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
    for partition in 0..10 {
        drop(put(&dataset, partition, [record(partition.into(), 5_000)]).unwrap());
    }
    assert!(flip(world.scratch.path(), &record(4, 5_000), 17));
    for partition in 0..10 {
        match dataset.get(partition) {
            Ok(block) => assert_eq!(read(&block.unwrap()), [record(partition.into(), 5_000)]),
            Err(error) => assert!(partition == 4 && matches!(error, Error::Corrupt { .. })),
        }
    }
    assert_eq!((dataset.status().blocks, dataset.status().counters.corrupt), (9, 1));
}

#[test]
fn damage_in_a_compressed_chunk_is_found_before_it_is_decompressed() {
    let scratch = tempfile::tempdir().unwrap();
    let store = BlockStore::builder().memory(1 << 20).disk(scratch.path()).build().unwrap();
    let dataset = store
        .dataset::<Vec<u8>>("d")
        .level(StorageLevel::DISK_ONLY)
        .compression(Compression::Lz4)
        .build()
        .unwrap();
    let records = || (0..50).map(|i| [record(i % 3, 100), vec![0; 500]].concat());
    let block = put(&dataset, 0, records()).unwrap();
    let chunk = block.serialized().unwrap().chunks()[0].stored().unwrap().to_vec();
    assert!(block.serialized().unwrap().chunks()[0].is_compressed());
    drop(block);
    assert!(flip(scratch.path(), &chunk, chunk.len() * 4));
    assert!(matches!(dataset.get(0).unwrap_err(), Error::Corrupt { .. }));
    assert_eq!(read(&put(&dataset, 0, records()).unwrap()), records().collect::<Vec<_>>());
}

#[test]
fn many_readers_of_a_damaged_copy_count_it_once_and_all_get_the_right_records() {
    let world = World::new(1 << 20);
    let dataset = on_disk(&world, StorageLevel::MEMORY_AND_DISK);
    assert!(flip(world.scratch.path(), &record(1, 3_000), 100));
    let start = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                let block = put(&dataset, 0, [record(1, 3_000), record(2, 3_000)]).unwrap();
                assert_eq!(read(&block), [record(1, 3_000), record(2, 3_000)]);
            });
        }
    });
    let counters = dataset.status().counters;
    assert_eq!((counters.corrupt, counters.recomputed), (1, 1));
}
