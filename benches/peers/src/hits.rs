//! Getting what is in memory: a resident block of the store, an entry of a cache.
//!
//! Both hold the same 4,096 blocks of 64 records and have room for all of them. A get ends with the handle dropped.
//! quick_cache keeps approximate recency and neither pins nor charges what it hands out; moka keeps its order behind
//! the gets; foyer charges and pins, in eight shards. The store pins, charges and keeps an exact order.

use std::hint::black_box;
use std::panic::resume_unwind;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use larder_blockstore::{BlockStore, StorageLevel, StoredDataset};

use crate::Failure;
use crate::random::mix;
use crate::rounds::{in_turn, median};
use crate::rows::Row;

const BLOCKS: u32 = 4_096;
const RECORDS_A_BLOCK: i64 = 64;
const GETS: u32 = 1_000_000;

type Record = (i64, String);
type Records = Arc<Vec<Record>>;

pub fn quick_cache(quick: bool) -> Result<Vec<Row>, Failure> {
    let cache = quick_cache::sync::Cache::new(2 * BLOCKS as usize);
    let insert = |key, records| cache.insert(key, records);
    compare("quick_cache", quick, insert, |key| cache.get(&key), |records: &Records| records)
}

pub fn moka(quick: bool) -> Result<Vec<Row>, Failure> {
    let cache = moka::sync::Cache::new(2 * u64::from(BLOCKS));
    let insert = |key, records| cache.insert(key, records);
    compare("moka", quick, insert, |key| cache.get(&key), |records: &Records| records)
}

pub fn foyer(quick: bool) -> Result<Vec<Row>, Failure> {
    let cache: foyer::Cache<u64, Records> = foyer::CacheBuilder::new(2 * BLOCKS as usize).build();
    let insert = |key, records| drop(cache.insert(key, records));
    compare("foyer", quick, insert, |key| cache.get(&key), |entry| entry.value())
}

fn compare<H>(
    peer_name: &'static str,
    quick: bool,
    insert: impl Fn(u64, Records),
    get: impl Fn(u64) -> Option<H> + Sync,
    records_of: impl Fn(&H) -> &Records,
) -> Result<Vec<Row>, Failure> {
    let store = BlockStore::builder().memory(512 << 20).build()?;
    let dataset = store.dataset::<Record>("blocks").level(StorageLevel::MEMORY_ONLY).build()?;
    for partition in 0..BLOCKS {
        let records = records(partition);
        insert(u64::from(partition), Arc::new(records.clone()));
        dataset.get_or_compute::<larder_blockstore::Error>(partition, |out| {
            records.into_iter().try_for_each(|record| out.push(record))
        })?;
    }
    let rounds = if quick { 5 } else { 15 };
    let mut rows = Vec::new();
    for (shape, order) in [("random", random()), ("hot", hot())] {
        check(&dataset, peer_name, &order, |key| get(key).map(|handle| Arc::clone(records_of(&handle))))?;
        for threads in [1, 2] {
            let larder = || timed(threads, &order, |partition| drop(black_box(dataset.get(partition))));
            let peer = || timed(threads, &order, |partition| drop(black_box(get(u64::from(partition)))));
            larder();
            peer();
            let (ours, theirs) = in_turn(rounds, || Ok::<_, Failure>(larder()), || Ok(peer()))?;
            let row = Row {
                name: format!("{peer_name}_memory_hit_{shape}_{threads}t"),
                peer_name,
                unit: "ns",
                larder: median(ours.into_iter().map(ns_a_get)),
                peer: median(theirs.into_iter().map(ns_a_get)),
            };
            row.tell();
            rows.push(row);
        }
    }
    Ok(rows)
}

fn ns_a_get(time: Duration) -> f64 {
    time.as_nanos() as f64 / f64::from(GETS)
}

fn records(partition: u32) -> Vec<Record> {
    let first = i64::from(partition) * RECORDS_A_BLOCK;
    (first..first + RECORDS_A_BLOCK).map(|id| (id, format!("record {id}"))).collect()
}

/// Both have every block that is asked for, with the same records.
fn check(
    dataset: &StoredDataset<Record>,
    peer_name: &str,
    order: &[u32],
    get: impl Fn(u64) -> Option<Records>,
) -> Result<(), Failure> {
    for &partition in order {
        let block = dataset.get(partition)?.ok_or("the store misses a block")?;
        let cached = get(u64::from(partition)).ok_or_else(|| format!("{peer_name} misses a block"))?;
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
