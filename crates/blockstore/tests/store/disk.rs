//! Blocks on disk: behaviours 16, 22 and 23.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::thread;

use larder_blockstore::codec::Pod;
use larder_blockstore::format::Compression;
use larder_blockstore::{BlockStore, DiskReads, Residence, StorageLevel};

use crate::support::{SPILLING_LEVELS, World, assert_empty, finish, put, read, record, stored, vacant};

/// Tells the test's own child process where to store.
const CHILD: &str = "LARDER_TEST_KILLED_CHILD";

#[test]
fn blocks_on_disk_that_exceed_memory_many_times_over_are_all_readable() {
    let world = World::new(64 << 10);
    let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
    for partition in 0..64 {
        let records = (0..64).map(|i| record(u64::from(partition) * 100 + i, 1_000));
        assert!(stored(&dataset, partition, records));
        assert_eq!(world.charged(), 0);
    }
    assert!(world.disk_bytes() > 60 * (64 << 10));
    for partition in (0..64).rev() {
        let block = dataset.get(partition).unwrap().unwrap();
        assert_eq!(block.residence(), Residence::Disk);
        let expected: Vec<_> = (0..64).map(|i| record(u64::from(partition) * 100 + i, 1_000)).collect();
        assert_eq!(read(&block), expected);
    }
    assert!(world.store.memory().snapshot().scratch_peak_bytes <= 8 << 10, "about a chunk beside the budget");
}

#[test]
fn what_is_removed_gives_its_disk_space_back() {
    let world = World::new(0);
    let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
    for partition in 0..20 {
        assert!(stored(&dataset, partition, [record(partition.into(), 50_000)]));
    }
    let full = world.disk_bytes();
    (0..10).for_each(|partition| assert!(dataset.remove(partition)));
    assert_eq!(world.disk_bytes(), full / 2);
    for partition in 10..20 {
        assert_eq!(read(&dataset.get(partition).unwrap().unwrap()), [record(partition.into(), 50_000)]);
    }
    dataset.unpersist();
    assert_eq!(world.disk_bytes(), 0);
    assert!(stored(&dataset, 0, [record(0, 50_000)]));
}

#[test]
fn small_blocks_share_files_and_mappings() {
    let world = World::new(0);
    let dataset = world.store.dataset::<u64>("d").level(StorageLevel::DISK_ONLY).codec(Pod).build().unwrap();
    let records = |partition: u32| [u64::from(partition); 126];
    for partition in 0..200_000 {
        let mut writer = vacant(&dataset, partition);
        assert_eq!(writer.push_slice(&records(partition)).unwrap(), 126);
        drop(finish(writer));
    }
    let named = |link: std::path::PathBuf| {
        fs::read_link(link).is_ok_and(|target| target.starts_with(world.scratch.path()))
    };
    let files =
        fs::read_dir("/proc/self/fd").unwrap().filter(|fd| named(fd.as_ref().unwrap().path())).count();
    let scratch = world.scratch.path().to_str().unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mappings = maps.lines().filter(|line| line.contains(scratch)).count();
    assert_eq!((files, mappings), (1, 1));
    let disk = world.store.disk().unwrap();
    let stored = dataset.status().disk_bytes;
    assert!(stored == 200_000 * 1_008 && disk.taken_bytes < stored + stored / 16 + (4 << 20), "{disk:?}");
    for partition in (0..200_000).step_by(997) {
        assert_eq!(read(&dataset.get(partition).unwrap().unwrap()), records(partition));
    }
    dataset.unpersist();
    assert_eq!(world.store.disk().unwrap().taken_bytes, 0);
}

fn unmapped(budget_bytes: u64) -> World {
    World::with(budget_bytes, |builder| builder.disk_reads(DiskReads::Buffered).chunk_bytes(4_096))
}

#[test]
fn without_a_mapping_blocks_of_every_level_come_back_and_are_promoted() {
    for level in SPILLING_LEVELS.into_iter().chain([StorageLevel::DISK_ONLY]) {
        for compression in [Compression::None, Compression::Lz4] {
            let world = unmapped(1 << 20);
            let dataset = world.store.dataset("d").level(level).compression(compression).build().unwrap();
            let records = || (0..100).map(|i| [record(i, 300), vec![7; 300]].concat());
            for partition in 0..10 {
                drop(put(&dataset, partition, records()).unwrap());
                dataset.evict(partition).unwrap();
                assert_eq!(dataset.block_status(partition).unwrap().residences, [Residence::Disk]);
            }
            for partition in 0..10 {
                let block = dataset.get(partition).unwrap().unwrap();
                assert_eq!(block.residence() == Residence::Disk, !level.uses_memory(), "{level}");
                assert_eq!(read(&block), records().collect::<Vec<_>>(), "{level}");
                assert_eq!(block.into_records().map(Result::unwrap).count(), 100);
            }
            let scratch = world.scratch.path().to_str().unwrap();
            assert!(!fs::read_to_string("/proc/self/maps").unwrap().contains(scratch));
            assert_eq!(world.store.counters().corrupt, 0);
        }
    }
}

#[test]
fn without_a_mapping_a_block_larger_than_the_budget_is_read_a_chunk_at_a_time() {
    let world = unmapped(20_000);
    let dataset = world.store.dataset::<u64>("d").level(StorageLevel::DISK_ONLY).codec(Pod).build().unwrap();
    drop(put(&dataset, 0, 0..100_000).unwrap());
    let begun = world.store.memory().snapshot();
    let block = dataset.get(0).unwrap().unwrap();
    assert_eq!(block.into_records().map(Result::unwrap).sum::<u64>(), 99_999 * 50_000);
    let memory = world.store.memory().snapshot();
    assert!(memory.heap.charged_peak_bytes <= 4_096, "{memory:?}");
    assert!(memory.scratch_peak_bytes <= begun.scratch_peak_bytes.max(2 * 4_096), "{memory:?}");
}

#[test]
fn without_a_mapping_a_small_block_is_read_once_and_charged_while_it_is_held() {
    let world = unmapped(1 << 20);
    let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
    drop(put(&dataset, 0, [record(1, 30_000)]).unwrap());
    assert_eq!(world.charged(), 0);
    let block = dataset.get(0).unwrap().unwrap();
    let stored = block.serialized().unwrap().stored_bytes();
    assert_eq!(world.charged(), stored);
    let again = block.clone();
    drop((block, dataset));
    assert_eq!((world.charged(), read(&again)), (stored, vec![record(1, 30_000)]));
    drop(again);
    assert_eq!(world.charged(), 0);
}

#[test]
fn no_file_of_a_store_can_be_seen_in_its_directory() {
    let world = World::new(0);
    let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
    assert!(stored(&dataset, 0, [record(0, 50_000)]));
    assert_eq!(fs::read_dir(world.scratch.path()).unwrap().count(), 0);
}

#[test]
fn two_stores_in_one_directory_do_not_see_or_harm_each_other() {
    let world = World::new(1 << 20);
    let other = BlockStore::builder().memory(1 << 20).disk(world.scratch.path()).build().unwrap();
    let mine = world.dataset("d", StorageLevel::DISK_ONLY);
    let theirs = other.dataset::<Vec<u8>>("d").level(StorageLevel::DISK_ONLY).build().unwrap();
    for partition in 0..10 {
        assert!(stored(&mine, partition, [record(partition.into(), 10_000)]));
        assert!(!theirs.contains(partition));
        assert!(stored(&theirs, partition, [record(100 + u64::from(partition), 10_000)]));
    }
    for partition in 0..10 {
        assert_eq!(
            read(&theirs.get(partition).unwrap().unwrap()),
            [record(100 + u64::from(partition), 10_000)]
        );
    }
    drop(theirs);
    assert_empty(&other);
    drop(other);
    for partition in 0..10 {
        assert_eq!(read(&mine.get(partition).unwrap().unwrap()), [record(partition.into(), 10_000)]);
    }
}

#[test]
fn several_directories_take_turns() {
    let second = tempfile::tempdir().unwrap();
    let world = World::with(1 << 20, |builder| builder.disk(second.path()));
    let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
    for partition in 0..10 {
        assert!(stored(&dataset, partition, [record(partition.into(), 10_000)]));
    }
    let directories = world.store.disk().unwrap().directories;
    assert_eq!(directories.len(), 2);
    assert!(directories.iter().all(|directory| directory.used_bytes >= 50_000 && directory.failed.is_none()));
    for partition in 0..10 {
        assert_eq!(read(&dataset.get(partition).unwrap().unwrap()), [record(partition.into(), 10_000)]);
    }
}

#[test]
fn a_directory_is_made_where_there_is_none_and_refused_by_name_where_it_cannot_be() {
    let scratch = tempfile::tempdir().unwrap();
    let deep = scratch.path().join("a/b");
    drop(BlockStore::builder().disk(&deep).build().unwrap());
    assert!(deep.is_dir());
    let file = scratch.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = BlockStore::builder().disk(&file).build().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains(file.to_str().unwrap()), "{source}");
}

/// Killed when it drops, whatever happens before.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // SIGKILL; it may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn after_kill_9_no_file_of_the_store_remains_and_a_new_one_starts_clean() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let store = BlockStore::builder().memory(200_000).disk(directory).build().unwrap();
        let mut held = Vec::new();
        for level in
            [StorageLevel::DISK_ONLY, StorageLevel::MEMORY_AND_DISK, StorageLevel::MEMORY_AND_DISK_SER]
        {
            let dataset = store.dataset::<Vec<u8>>("d").level(level).build().unwrap();
            for partition in 0..8 {
                drop(put(&dataset, partition, [record(partition.into(), 100_000)]).unwrap());
            }
            held.push(dataset);
        }
        println!("stored");
        std::io::stdout().flush().unwrap();
        loop {
            thread::park();
        }
    }
    let home = tempfile::tempdir().unwrap();
    let name = "disk::after_kill_9_no_file_of_the_store_remains_and_a_new_one_starts_clean";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, home.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("stored")), "the child died before it stored anything");
    let open = fs::read_dir(format!("/proc/{}/fd", child.0.id())).unwrap();
    let nameless = open.filter_map(|fd| fs::metadata(fd.unwrap().path()).ok());
    let in_use: u64 =
        nameless.filter(|file| file.is_file() && file.nlink() == 0).map(|file| file.blocks() * 512).sum();
    assert!(in_use >= 1_500_000, "{in_use} bytes in nameless files");
    drop(child);

    // They had no name, and the only process that held them is gone.
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    let store = BlockStore::builder().memory(200_000).disk(home.path()).build().unwrap();
    assert_empty(&store);
    let dataset = store.dataset::<Vec<u8>>("d").level(StorageLevel::DISK_ONLY).build().unwrap();
    assert!(dataset.get(0).unwrap().is_none());
    assert_eq!(read(&put(&dataset, 0, [record(1, 1_000)]).unwrap()), [record(1, 1_000)]);
}

/// Pages of files that this process maps and has in memory.
fn resident_file_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

#[test]
fn a_large_block_is_read_from_disk_with_a_chunk_of_it_in_memory() {
    let world = World::new(8 << 20);
    let dataset =
        world.store.dataset_with("d", Pod, |_: &u64| 0).level(StorageLevel::DISK_ONLY).build().unwrap();
    let numbers: Vec<u64> = (0..96 << 20 >> 3).collect();
    let mut writer = vacant(&dataset, 0);
    assert_eq!(writer.push_slice(&numbers).unwrap(), numbers.len());
    drop(writer.finish().unwrap());
    let before = resident_file_bytes();
    let block = dataset.get(0).unwrap().unwrap();
    let (mut batches, mut most, mut sum) = (block.batches(), 0, 0_u64);
    while let Some(batch) = batches.next_batch().unwrap() {
        sum += batch.iter().sum::<u64>();
        most = most.max(resident_file_bytes().saturating_sub(before));
    }
    assert_eq!(sum, numbers.iter().sum());
    // Other tests of this process map files too.
    assert!(most < 48 << 20, "{most} bytes of 96 MiB were in memory");
}
