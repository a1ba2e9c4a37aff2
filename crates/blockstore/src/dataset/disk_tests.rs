//! Disks that fail under a whole store: behaviour 20, for blocks that are mapped and for blocks that are not.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use tempfile::TempDir;

use crate::error::{Error, Residence};
use crate::events::{Event, Subscription};
use crate::format::Compression;
use crate::region::told_disks::{SharedDisks, Step, told_files};
use crate::{BlockStore, DiskReads, RegionError, StorageLevel, StoredDataset};

/// A store over two directories that do as they are told.
struct World {
    disks: SharedDisks,
    store: BlockStore,
    directories: [TempDir; 2],
    told: Arc<Mutex<Vec<Event>>>,
    _subscription: Subscription,
}

const WAYS: [DiskReads; 2] = [DiskReads::Mapped, DiskReads::Buffered];

fn world(reads: DiskReads) -> World {
    let disks = SharedDisks::default();
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let builder = BlockStore::builder().memory(1 << 20).off_heap(1 << 20).disk_reads(reads);
    let builder = directories.iter().fold(builder, |builder, directory| builder.disk(directory.path()));
    let store = builder.chunk_bytes(8_000).segment_files(told_files(&disks)).build().unwrap();
    let told: Arc<Mutex<Vec<Event>>> = Arc::default();
    let telling = Arc::clone(&told);
    let subscription = store.subscribe(move |event| telling.lock().unwrap().push(event.clone()));
    World { disks, store, directories, told, _subscription: subscription }
}

impl World {
    fn dataset(&self, level: StorageLevel) -> StoredDataset<u64> {
        self.store.dataset("d").level(level).compression(Compression::Lz4).build().unwrap()
    }

    fn path(&self, at: usize) -> &Path {
        self.directories[at].path()
    }

    fn break_at(&self, directory: usize, step: Step) {
        self.disks.lock().unwrap().broken.insert(self.path(directory).to_owned(), (step, Errno::IO));
    }

    fn used(&self) -> [u64; 2] {
        let status = self.store.disk().unwrap();
        [0, 1].map(|at| status.directories[at].used_bytes)
    }

    /// Directories that events told of.
    fn warned(&self) -> Vec<std::path::PathBuf> {
        let told = self.told.lock().unwrap();
        told.iter()
            .filter_map(|event| match event {
                Event::DirectoryFailed { directory, .. } => Some(directory.clone()),
                _ => None,
            })
            .collect()
    }
}

/// Three chunks that LZ4 does not make smaller by much.
fn numbers(partition: u32) -> impl Iterator<Item = u64> {
    (0..3_000).map(move |n| (u64::from(partition) * 3_000 + n).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn put(dataset: &StoredDataset<u64>, partition: u32) -> Result<Vec<u64>, Error> {
    let block = dataset.get_or_compute(partition, |out| numbers(partition).try_for_each(|n| out.push(n)))?;
    block.into_records().collect()
}

#[test]
fn when_a_directory_fails_on_write_new_blocks_go_to_the_other_and_it_is_told_once() {
    for reads in WAYS {
        let world = world(reads);
        let dataset = world.dataset(StorageLevel::DISK_ONLY);
        (0..4).for_each(|partition| {
            assert!(put(&dataset, partition).unwrap().into_iter().eq(numbers(partition)))
        });
        let before = world.used();
        assert!(before[0] > 0 && before[1] > 0);
        world.break_at(0, Step::Write);
        for partition in 4..10 {
            assert!(put(&dataset, partition).unwrap().into_iter().eq(numbers(partition)), "{reads:?}");
        }
        assert!(world.used()[0] == before[0] && world.used()[1] > before[1]);
        // What can still be read there is.
        for partition in 0..10 {
            assert!(
                dataset
                    .get(partition)
                    .unwrap()
                    .unwrap()
                    .into_records()
                    .map(Result::unwrap)
                    .eq(numbers(partition))
            );
        }
        let counters = dataset.status().counters;
        assert_eq!((counters.directories_failed, counters.disk_errors, counters.recomputed), (1, 0, 0));
        assert_eq!(world.warned(), [world.path(0)]);
        let status = world.store.disk().unwrap();
        assert!(status.directories[0].failed.is_some() && status.directories[1].failed.is_none());
    }
}

#[test]
fn when_a_directory_fails_on_read_its_blocks_are_computed_again_on_the_other() {
    for reads in WAYS {
        for level in
            [StorageLevel::DISK_ONLY, StorageLevel::MEMORY_AND_DISK, StorageLevel::MEMORY_AND_DISK_SER]
        {
            let world = world(reads);
            let dataset = world.dataset(level);
            for partition in 0..6 {
                put(&dataset, partition).unwrap();
                dataset.evict(partition).unwrap();
            }
            assert!(world.used().iter().all(|used| *used > 0));
            if reads == DiskReads::Mapped {
                // What a bad sector does to a page, a missing page does too: files[0] is of directory 0.
                world.disks.lock().unwrap().files[0].set_len(4096).unwrap();
            } else {
                world.break_at(0, Step::Read);
            }
            let lost = (0..6).filter(|partition| match dataset.get(*partition) {
                Ok(Some(block)) => {
                    assert!(block.into_records().map(Result::unwrap).eq(numbers(*partition)));
                    false
                }
                Err(Error::Unreadable { source: RegionError::Read { directory, .. }, .. }) => {
                    assert_eq!(directory, world.path(0), "{reads:?} {level}");
                    true
                }
                other => panic!("{other:?}"),
            });
            let lost: Vec<_> = lost.collect();
            assert!(!lost.is_empty(), "{reads:?} {level}");
            for partition in lost.iter().copied() {
                assert!(!dataset.contains(partition));
                assert!(put(&dataset, partition).unwrap().into_iter().eq(numbers(partition)));
            }
            let counters = dataset.status().counters;
            assert_eq!((counters.corrupt, counters.recomputed), (lost.len() as u64, lost.len() as u64));
            assert_eq!((counters.directories_failed, world.warned().len()), (1, 1), "{reads:?} {level}");
        }
    }
}

#[test]
fn when_every_directory_has_failed_the_error_says_so_and_memory_goes_on() {
    for reads in WAYS {
        let world = world(reads);
        let dataset = world.dataset(StorageLevel::DISK_ONLY);
        put(&dataset, 0).unwrap();
        [0, 1].into_iter().for_each(|directory| world.break_at(directory, Step::Write));
        for partition in 1..3 {
            let error = put(&dataset, partition).unwrap_err();
            let Error::Disk { source: source @ RegionError::NoDirectory { .. }, .. } = &error else {
                panic!("{error:?}")
            };
            let text = source.to_string();
            assert!(text.contains("no directory is left") && text.contains("Input/output error"), "{text}");
        }
        assert_eq!(dataset.status().counters.directories_failed, 2);
        assert_eq!(world.warned().len(), 2);
        assert!(put(&dataset, 0).unwrap().into_iter().eq(numbers(0)), "it was stored before");
        let memory = world.dataset(StorageLevel::MEMORY_ONLY_SER);
        assert!(put(&memory, 0).unwrap().into_iter().eq(numbers(0)) && memory.contains(0));
        // It is not tried again, even if it could be written to now.
        world.disks.lock().unwrap().broken.clear();
        assert!(put(&dataset, 9).is_err());
    }
}

#[test]
fn a_disk_that_fails_while_a_block_is_read_chunk_by_chunk_is_a_typed_error() {
    let world = world(DiskReads::Buffered);
    let dataset = world.dataset(StorageLevel::DISK_ONLY);
    put(&dataset, 0).unwrap();
    // No memory is free, so no chunk stays in memory.
    let budget = world.store.memory().snapshot().heap.budget_bytes;
    let all = world.store.memory().try_reserve_storage(crate::MemoryMode::Heap, budget).unwrap();
    let block = dataset.get(0).unwrap().unwrap();
    assert_eq!((block.residence(), world.store.memory().snapshot().scratch_bytes), (Residence::Disk, 0));
    let mut batches = block.batches();
    assert!(batches.next_batch().unwrap().is_some());
    let scratch = world.store.memory().snapshot().scratch_bytes;
    assert!((1..10_000).contains(&scratch), "a chunk is {scratch}");
    [0, 1].into_iter().for_each(|directory| world.break_at(directory, Step::Read));
    let error = std::iter::repeat_with(|| batches.next_batch().map(|batch| batch.map(<[u64]>::len)))
        .find_map(|read| if read.as_ref().is_ok_and(Option::is_some) { None } else { Some(read) });
    let Some(Err(error @ Error::Unreadable { .. })) = error else { panic!("{error:?}") };
    assert!(error.is_lost_copy() && dataset.status().counters.directories_failed == 1);
    drop((block, all));
    assert!(put(&dataset, 0).is_err() || dataset.contains(0));
    assert_eq!(world.store.memory().snapshot().scratch_bytes, 0);
}
