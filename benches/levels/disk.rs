//! A GiB on disk: written when it is evicted, and read when no page of it is in memory.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use criterion::Criterion;
use larder_blockstore::codec::Pod;
use larder_blockstore::{BlockStore, Error, StorageLevel, StoredDataset};
use rustix::fs::Advice;

use crate::records::mix;
use crate::stores::roomy;
use crate::turns::{compare, prepared};

const BLOCKS: u32 = 256;
const BLOCK_BYTES: usize = 4 << 20;

pub(crate) fn bench(c: &mut Criterion) {
    let numbers: Vec<u64> = (0..BLOCK_BYTES as u64 / 8).map(mix).collect();
    bench_spill(c, &numbers);
    bench_cold(c, &numbers);
}

fn filled(store: &BlockStore, level: StorageLevel, numbers: &[u64]) -> StoredDataset<u64> {
    let dataset = store.dataset_with("numbers", Pod, |_: &u64| 0).level(level).build().expect("a dataset");
    for partition in 0..BLOCKS {
        let put = dataset.get_or_compute::<Error>(partition, |out| out.append(&mut numbers.to_vec()));
        drop(put.expect("a block that fits"));
    }
    dataset
}

/// Ours: evict a GiB of serialized blocks to disk. Bare: `pwrite` a GiB from memory to a new file, 4 MiB at a time.
fn bench_spill(c: &mut Criterion, numbers: &[u64]) {
    let (scratch, store) = roomy();
    let evict_all = |dataset: StoredDataset<u64>| {
        for partition in 0..BLOCKS {
            assert!(dataset.evict(partition).expect("space on disk"));
        }
        dataset
    };
    let filled = || filled(&store, StorageLevel::MEMORY_AND_DISK_SER, numbers);
    let blocks: Vec<Vec<u64>> = (0..BLOCKS).map(|_| numbers.to_vec()).collect();
    let new_file = || tempfile::tempfile_in(scratch.path()).expect("a file");
    let write_all = |file: File| {
        for (at, block) in (0_u64..).zip(&blocks) {
            file.write_all_at(bytemuck::cast_slice(block), at * BLOCK_BYTES as u64).expect("space on disk");
        }
        file
    };
    compare(c, "spill", prepared(filled, evict_all), prepared(new_file, write_all));
}

/// Ours: read a GiB of blocks on disk, none of which is in the page cache, compared with its checksums. Bare: read a
/// file of a GiB from its beginning to its end, as cold.
fn bench_cold(c: &mut Criterion, numbers: &[u64]) {
    let (scratch, store) = roomy();
    let dataset = filled(&store, StorageLevel::DISK_ONLY, numbers);
    let read_all = |()| {
        let mut records = 0;
        for partition in 0..BLOCKS {
            let block = dataset.get(partition).expect("a sound block").expect("the block that was put");
            let mut batches = block.batches();
            while let Some(batch) = batches.next_batch().expect("a sound block") {
                records += black_box(batch).len();
            }
        }
        assert_eq!(records, BLOCKS as usize * numbers.len());
    };
    let cool = || cool(scratch.path());

    let file = tempfile::NamedTempFile::new_in(scratch.path()).expect("a file");
    for at in 0..u64::from(BLOCKS) {
        let bytes = bytemuck::cast_slice(numbers);
        file.as_file().write_all_at(bytes, at * BLOCK_BYTES as u64).expect("space on disk");
    }
    let mut buffer = vec![0; BLOCK_BYTES];
    let read_file = |()| {
        let mut reader = file.reopen().expect("a file that is there");
        for _ in 0..BLOCKS {
            reader.read_exact(&mut buffer).expect("a file of a GiB");
            black_box(&buffer);
        }
    };
    compare(c, "read_disk_cold", prepared(cool, read_all), prepared(cool, read_file));
}

/// Takes the files below `scratch` that this process has open out of the page cache. A store's have no name.
fn cool(scratch: &Path) {
    for entry in fs::read_dir("/proc/self/fd").expect("a list of open files") {
        let link = entry.expect("an open file").path();
        if !fs::read_link(&link).is_ok_and(|target| target.starts_with(scratch)) {
            continue;
        }
        let file = File::open(&link).expect("an open file");
        file.sync_data().expect("a disk that writes");
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("advice that is taken");
    }
}
