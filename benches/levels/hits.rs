//! Getting a block that is in memory.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Barrier, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use larder_blockstore::{Block, StorageLevel, StoredDataset};

use crate::records::mix;
use crate::stores::{MIB, roomy};

const BLOCKS: u32 = 4_096;
const RECORDS_A_BLOCK: u64 = 16;

/// Ours: get and drop a handle of a resident block, at random. Bare: get, clone and drop an `Arc` in a `HashMap`
/// behind an `RwLock`, those of the standard library.
pub(crate) fn bench(c: &mut Criterion) {
    let (_scratch, store) = roomy();
    let blocks = store.dataset::<u64>("blocks").level(StorageLevel::MEMORY_ONLY).build().expect("a dataset");
    let bare = RwLock::new(HashMap::new());
    for partition in 0..BLOCKS {
        fill(&blocks, partition);
        let records: Arc<Vec<u64>> = Arc::new((0..RECORDS_A_BLOCK).collect());
        bare.write().expect("no writer panicked").insert(u64::from(partition), records);
    }
    assert!(store.memory().snapshot().heap.storage_bytes < 64 * MIB, "all of it stays");
    let order: Vec<u32> = (0..u64::from(BLOCKS) * 4).map(|i| (mix(i) % u64::from(BLOCKS)) as u32).collect();

    let ours = |partition: u32| drop(black_box(blocks.get(partition).expect("a sound block")));
    let bare = |partition: u32| {
        drop(black_box(bare.read().expect("no writer panicked").get(&u64::from(partition)).map(Arc::clone)));
    };
    let mut group = c.benchmark_group("get_hit");
    group.sample_size(50);
    group.bench_function("ours", |b| b.iter_custom(|gets| one_thread(gets, &order, 0, ours)));
    group.bench_function("bare", |b| b.iter_custom(|gets| one_thread(gets, &order, 0, bare)));
    group.finish();
    let mut group = c.benchmark_group("get_hit_2t");
    group.sample_size(50);
    group.bench_function("ours", |b| b.iter_custom(|gets| two_threads(gets, &order, ours)));
    group.bench_function("bare", |b| b.iter_custom(|gets| two_threads(gets, &order, bare)));
    group.finish();
}

fn fill(blocks: &StoredDataset<u64>, partition: u32) -> Block<u64> {
    blocks
        .get_or_compute(partition, |out| (0..RECORDS_A_BLOCK).try_for_each(|n| out.push(n)))
        .expect("a block that fits")
}

fn one_thread(gets: u64, order: &[u32], start: usize, get: impl Fn(u32)) -> Duration {
    let mut partitions = order.iter().copied().cycle().skip(start);
    let started = Instant::now();
    for partition in partitions.by_ref().take(usize::try_from(gets).unwrap_or(usize::MAX)) {
        get(partition);
    }
    started.elapsed()
}

/// Each thread does all the gets: with perfect scaling it takes as long as one thread does.
fn two_threads(gets: u64, order: &[u32], get: impl Fn(u32) + Sync) -> Duration {
    let (get, start) = (&get, &Barrier::new(2));
    let timed = move |offset: usize| {
        start.wait();
        one_thread(gets, order, offset, get)
    };
    thread::scope(|scope| {
        let other = scope.spawn(move || timed(order.len() / 2));
        let mine = timed(0);
        mine.max(other.join().expect("no get panicked"))
    })
}
