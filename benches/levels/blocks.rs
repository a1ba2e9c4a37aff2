//! Many blocks: small ones, and more of them than fit.

use std::collections::HashMap;
use std::hint::black_box;

use criterion::Criterion;
use larder_blockstore::codec::Pod;
use larder_blockstore::{BlockStore, Entry, Error, Finished, StorageLevel, StoredDataset};

use crate::records::mix;
use crate::stores::{MIB, roomy};
use crate::turns::{compare, prepared};

pub(crate) fn bench(c: &mut Criterion) {
    bench_small(c);
    bench_evict(c);
}

const SMALL_BLOCKS: u32 = 1_000_000;
/// 1 KiB of plain old data.
type Small = [u64; 128];

/// Ours: put a million serialized blocks of 1 KiB and get each again. Bare: the same with boxed slices in a
/// `HashMap`.
fn bench_small(c: &mut Criterion) {
    let (_scratch, store) = roomy();
    let record: Small = std::array::from_fn(|i| mix(i as u64));
    let new_dataset = || {
        let dataset = store.dataset_with("small", Pod, |_: &Small| 0).level(StorageLevel::MEMORY_ONLY_SER);
        dataset.build().expect("a dataset")
    };
    let bytes: &[u8] = bytemuck::bytes_of(&record);
    let ours = prepared(new_dataset, |dataset| put_and_get_small(dataset, &record));
    let bare = prepared(HashMap::new, |map| put_and_get_bare(map, bytes));
    compare(c, "small_blocks", ours, bare);
}

fn put_and_get_small(dataset: StoredDataset<Small>, record: &Small) -> (StoredDataset<Small>, u64) {
    for partition in 0..SMALL_BLOCKS {
        let Ok(Entry::Vacant(mut writer)) = dataset.entry(partition) else { unreachable!("a new dataset") };
        assert_eq!(writer.push_slice(std::slice::from_ref(record)).expect("an encodable record"), 1);
        let Ok(Finished::Stored(_)) = writer.finish() else { unreachable!("the store is roomy") };
    }
    let mut records = 0;
    for partition in 0..SMALL_BLOCKS {
        let block = dataset.get(partition).expect("a sound block").expect("the block that was put");
        records += black_box(block).len();
    }
    assert_eq!(records, u64::from(SMALL_BLOCKS));
    (dataset, records)
}

fn put_and_get_bare(mut map: HashMap<u64, Box<[u8]>>, bytes: &[u8]) -> (HashMap<u64, Box<[u8]>>, usize) {
    for partition in 0..u64::from(SMALL_BLOCKS) {
        map.insert(partition, black_box(bytes).into());
    }
    let mut total = 0;
    for partition in 0..u64::from(SMALL_BLOCKS) {
        total += black_box(map.get(&partition)).map_or(0, |bytes| bytes.len());
    }
    assert_eq!(total, bytes.len() * SMALL_BLOCKS as usize);
    (map, total)
}

const BLOCK_BYTES: u64 = 64 << 10;
const BLOCK_NUMBERS: u64 = BLOCK_BYTES / 8;
const BUDGET_BLOCKS: u64 = 256;
/// One and a half times the budget, so that in a loop the least recently used block is always the next one asked for.
const LOOP_BLOCKS: u64 = BUDGET_BLOCKS * 3 / 2;

fn number(block: u64, i: u64) -> u64 {
    mix(block * BLOCK_NUMBERS + i)
}

/// Ours: get or compute blocks of 64 KiB in a loop that is one and a half times the budget. They belong to two
/// datasets in turn, because a dataset does not evict its own blocks. Bare: compute them, and copy them into place.
fn bench_evict(c: &mut Criterion) {
    let room = BUDGET_BLOCKS * (BLOCK_BYTES + BLOCK_BYTES / 16);
    let store = BlockStore::builder().memory(room).build().expect("a store");
    let dataset = |name: &str| {
        let dataset = store.dataset_with(name, Pod, |_: &u64| 0).level(StorageLevel::MEMORY_ONLY_SER);
        dataset.build().expect("a dataset")
    };
    let datasets = [dataset("even"), dataset("odd")];
    let get_or_compute = |block: u64| {
        let dataset = if block.is_multiple_of(2) { &datasets[0] } else { &datasets[1] };
        let partition = u32::try_from(block / 2).expect("a small number");
        let compute = |out: &mut larder_blockstore::Sink<u64>| {
            let mut numbers: Vec<u64> = (0..BLOCK_NUMBERS).map(|i| number(block, i)).collect();
            out.append(&mut numbers)
        };
        dataset.get_or_compute::<Error>(partition, compute).expect("a block that fits").len()
    };
    let ours = || (0..LOOP_BLOCKS).map(get_or_compute).sum::<u64>();
    let mut kept = vec![vec![0; BLOCK_NUMBERS as usize]; LOOP_BLOCKS as usize];
    let mut bare = || {
        for (block, slot) in (0..LOOP_BLOCKS).zip(&mut kept) {
            let numbers: Vec<u64> = (0..BLOCK_NUMBERS).map(|i| number(block, i)).collect();
            slot.copy_from_slice(black_box(&numbers));
        }
    };
    ours();
    ours();
    let counters = store.counters();
    assert!(counters.evictions >= LOOP_BLOCKS, "it did evict");
    assert_eq!(counters.refused, 0, "and refused nothing");
    assert!(store.memory().snapshot().heap.charged_peak_bytes < room + MIB);
    let mut group = c.benchmark_group("evict_cycle");
    group.bench_function("ours", |b| b.iter(ours));
    group.bench_function("bare", |b| b.iter(&mut bare));
    group.finish();
}
