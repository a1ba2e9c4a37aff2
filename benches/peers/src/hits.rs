//! Getting what is in memory: a resident block of the store, an entry of a cache.
//!
//! Both hold the same 4,096 blocks of 64 records and have room for all of them. A get ends with the handle dropped.
//! quick_cache keeps approximate recency and neither pins nor charges what it hands out; the store does all three.

use std::error::Error;
use std::hint::black_box;
use std::panic::resume_unwind;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use larder_blockstore::{BlockStore, StorageLevel, StoredDataset};
use quick_cache::sync::Cache;

use crate::rounds::{Row, in_turn};

const BLOCKS: u32 = 4_096;
const RECORDS_A_BLOCK: i64 = 64;
const GETS: u32 = 1_000_000;

type Record = (i64, String);

pub fn rows() -> Result<Vec<Row>, Box<dyn Error>> {
    let store = BlockStore::builder().memory(512 << 20).build()?;
    let dataset = store.dataset::<Record>("blocks").level(StorageLevel::MEMORY_ONLY).build()?;
    let cache: Cache<u64, Arc<Vec<Record>>> = Cache::new(2 * BLOCKS as usize);
    for partition in 0..BLOCKS {
        let records = records(partition);
        cache.insert(u64::from(partition), Arc::new(records.clone()));
        dataset.get_or_compute::<larder_blockstore::Error>(partition, |out| {
            records.into_iter().try_for_each(|record| out.push(record))
        })?;
    }
    let mut rows = Vec::new();
    for (shape, order) in [("random", random()), ("hot", hot())] {
        check(&dataset, &cache, &order)?;
        for threads in [1, 2] {
            let larder = |partition: u32| drop(black_box(dataset.get(partition)));
            let peer = |partition: u32| drop(black_box(cache.get(&u64::from(partition))));
            let larder = || timed(threads, &order, larder);
            let (larder_ns, peer_ns) = in_turn(GETS, larder, || timed(threads, &order, peer));
            let name = format!("memory_hit_{shape}_{threads}t");
            eprintln!("{name}: {larder_ns:.1} ns, quick_cache {peer_ns:.1} ns");
            rows.push(Row { name, peer_name: "quick_cache", larder_ns, peer_ns });
        }
    }
    Ok(rows)
}

fn records(partition: u32) -> Vec<Record> {
    let first = i64::from(partition) * RECORDS_A_BLOCK;
    (first..first + RECORDS_A_BLOCK).map(|id| (id, format!("record {id}"))).collect()
}

/// Both have every block that is asked for, with the same records.
fn check(
    dataset: &StoredDataset<Record>,
    cache: &Cache<u64, Arc<Vec<Record>>>,
    order: &[u32],
) -> Result<(), Box<dyn Error>> {
    for &partition in order {
        let block = dataset.get(partition)?.ok_or("the store misses a block")?;
        let cached = cache.get(&u64::from(partition)).ok_or("quick_cache misses a block")?;
        if block.slices().is_none_or(|slices| !slices.flatten().eq(cached.iter())) {
            return Err(format!("block {partition} is not the same in both").into());
        }
    }
    Ok(())
}

/// Every block as often as any other.
fn random() -> Vec<u32> {
    (0..16_384).map(|i| (mix(i) % u64::from(BLOCKS)) as u32).collect()
}

/// Four gets of five go to a hundredth of the blocks.
fn hot() -> Vec<u32> {
    let pick = |i: u64| {
        let among = if mix(i ^ 0x5eed).is_multiple_of(5) { BLOCKS } else { BLOCKS / 100 };
        (mix(i) % u64::from(among)) as u32
    };
    (0..16_384).map(pick).collect()
}

/// A number that looks random (the finalizer of SplitMix64).
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The time until each of `threads` threads has done all the gets.
fn timed(threads: usize, order: &[u32], get: impl Fn(u32) + Sync) -> Duration {
    let (get, start) = (&get, &Barrier::new(threads));
    let run = move |thread: usize| {
        let partitions = order.iter().copied().cycle().skip(thread * order.len() / threads);
        start.wait();
        let started = Instant::now();
        partitions.take(GETS as usize).for_each(get);
        started.elapsed()
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let times =
            running.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        times.max().unwrap_or_default()
    })
}
