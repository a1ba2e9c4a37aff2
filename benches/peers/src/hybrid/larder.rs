//! Our side.

use std::panic::resume_unwind;
use std::thread;
use std::time::Instant;

use larder_blockstore::codec::Pod;
use larder_blockstore::format::Compression;
use larder_blockstore::{BlockStore, Error, StorageLevel, StoredDataset};

use super::Case;
use super::load::{Lap, Load, Outcome, is_of};
use crate::Failure;

pub fn run(case: &Case) -> Result<Outcome, Failure> {
    let scratch = tempfile::tempdir_in(&case.scratch)?;
    let store = BlockStore::builder().memory(case.memory_bytes as u64).disk(scratch.path()).build()?;
    let blocks = store
        .dataset_with("blocks", Pod, |_: &u8| 0)
        .level(StorageLevel::MEMORY_AND_DISK)
        .evict_own(true)
        .evict_own(true)
        .compression(if case.lz4 { Compression::Lz4 } else { Compression::None })
        .build()?;
    let load = Load::new(case);
    on_threads(case.threads, |thread| load.fill(thread).try_for_each(|it| get(&blocks, &load, it)))?;
    let fetched_by_fill = load.fetched();
    let started = Instant::now();
    let laps = on_threads(case.threads, |thread| lap(&blocks, &load, thread))?;
    let time = started.elapsed();
    load.outcome(laps, time, fetched_by_fill, |partition| blocks.contains(partition))
}

fn lap(blocks: &StoredDataset<u8>, load: &Load, thread: usize) -> Result<Lap, Error> {
    let mut lap = load.lap(thread);
    while let Some(partition) = lap.next(load) {
        get(blocks, load, partition)?;
        lap.done();
    }
    Ok(lap)
}

fn get(blocks: &StoredDataset<u8>, load: &Load, partition: u32) -> Result<(), Error> {
    let block = blocks.get_or_compute(partition, |out| out.append(&mut load.fetch(partition)))?;
    let (mut batches, mut offset) = (block.batches(), 0);
    while let Some(bytes) = batches.next_batch()? {
        assert!(is_of(partition, offset, bytes), "block {partition} is not what was stored");
        offset += bytes.len();
    }
    Ok(())
}

fn on_threads<R: Send>(
    threads: usize,
    run: impl Fn(usize) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let run = &run;
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let results = running.into_iter().map(|it| it.join().unwrap_or_else(|panic| resume_unwind(panic)));
        results.collect()
    })
}
