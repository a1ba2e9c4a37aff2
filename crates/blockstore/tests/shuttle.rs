//! A whole store under random schedules of four threads. Built and run by `cargo xtask shuttle`.

#![cfg(shuttle)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

use larder_blockstore::{Block, BlockStore, Entry, Error, MemoryMode, Pushed, StorageLevel, StoredDataset};
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

/// Schedules tried of each scenario.
const SCHEDULES: usize = 400;
const RECORDS: u64 = 500;
/// A block of values or of fixed-width integers.
const BLOCK_BYTES: u64 = 8 * RECORDS;

const LEVELS: [StorageLevel; 6] = [
    StorageLevel::MEMORY_ONLY,
    StorageLevel::MEMORY_ONLY_SER,
    StorageLevel::MEMORY_AND_DISK,
    StorageLevel::MEMORY_AND_DISK_SER,
    StorageLevel::OFF_HEAP,
    StorageLevel::DISK_ONLY,
];

/// Runs the scenario at every level, under the seed in `SHUTTLE_RANDOM_SEED` or a new one each time.
fn at_every_level(scenario: impl Fn(StorageLevel) + Send + Sync + Copy + 'static) {
    for level in LEVELS {
        shuttle::check_random(move || scenario(level), SCHEDULES);
    }
}

/// Room for three blocks in each kind of memory.
fn store() -> BlockStore {
    let bytes = 3 * BLOCK_BYTES + BLOCK_BYTES / 2;
    BlockStore::builder().memory(bytes).off_heap(bytes).disk(std::env::temp_dir()).build().unwrap()
}

fn dataset(store: &BlockStore, name: &str, level: StorageLevel) -> StoredDataset<u64> {
    store.dataset(name).level(level).build().unwrap()
}

/// What a block of the dataset must hold, whoever computes it.
fn expected(dataset: &StoredDataset<u64>, partition: u32) -> impl Iterator<Item = u64> + use<> {
    let first = 1_000 * (u64::from(partition) + 1) + dataset.name().len() as u64;
    first..first + RECORDS
}

fn compute(dataset: &StoredDataset<u64>, partition: u32) -> Result<Block<u64>, Error> {
    dataset
        .get_or_compute(partition, |out| expected(dataset, partition).try_for_each(|number| out.push(number)))
}

fn check(dataset: &StoredDataset<u64>, block: &Block<u64>) {
    let partition = block.id().partition;
    let mut expected = expected(dataset, partition);
    for record in block.iter() {
        assert_eq!(Some(*record.unwrap()), expected.next(), "{} {partition}", dataset.name());
    }
    assert_eq!(expected.next(), None, "{} {partition}", dataset.name());
}

fn assert_within_budget(store: &BlockStore) {
    let memory = store.memory().snapshot();
    for mode in [MemoryMode::Heap, MemoryMode::OffHeap] {
        let mode = memory.mode(mode);
        assert!(mode.charged_bytes() <= mode.budget_bytes, "{mode:?}");
    }
}

/// Nothing is charged, nothing is on disk, nothing is pinned.
fn assert_empty(store: &BlockStore) {
    let memory = store.memory().snapshot();
    assert_eq!((memory.heap.charged_bytes(), memory.off_heap.charged_bytes()), (0, 0), "{memory:?}");
    assert_eq!(store.disk().map_or(0, |disk| disk.used_bytes), 0);
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn one_block_is_computed_abandoned_read_evicted_and_removed() {
    at_every_level(|level| {
        let store = store();
        let numbers = dataset(&store, "numbers", level);
        let on_a_thread = |body: fn(&StoredDataset<u64>)| {
            let numbers = numbers.clone();
            thread::spawn(move || body(&numbers))
        };
        join(vec![
            on_a_thread(|numbers| check(numbers, &compute(numbers, 0).unwrap())),
            on_a_thread(|numbers| match numbers.entry(0).unwrap() {
                Entry::Resident(block) => check(numbers, &block),
                Entry::Vacant(mut writer) => {
                    assert!(matches!(writer.push(7).unwrap(), Pushed::Kept));
                    writer.abort();
                }
                Entry::InFlight(flight) => {
                    if let Some(block) = shuttle::future::block_on(flight) {
                        check(numbers, &block);
                    }
                }
            }),
            on_a_thread(|numbers| {
                let result: Result<_, Box<dyn std::error::Error>> =
                    numbers.get_or_compute(0, |_| Err("on purpose".into()));
                if let Ok(block) = result {
                    check(numbers, &block);
                }
            }),
            on_a_thread(|numbers| {
                numbers.evict(0).unwrap();
                numbers.remove(0);
                if let Some(block) = numbers.get(0).unwrap() {
                    check(numbers, &block);
                }
            }),
        ]);
        numbers.unpersist();
        assert_empty(&store);
    });
}

#[test]
fn two_datasets_in_the_memory_of_one() {
    at_every_level(|level| {
        let store = store();
        let datasets = ["left", "right!"].map(|name| dataset(&store, name, level));
        let threads = (0..4).map(|_| {
            let (store, datasets) = (store.clone(), datasets.clone());
            thread::spawn(move || {
                for _ in 0..4 {
                    let numbers = &datasets[thread_rng().gen_range(0..2)];
                    let block = compute(numbers, thread_rng().gen_range(0..3)).unwrap();
                    assert_within_budget(&store);
                    check(numbers, &block);
                }
            })
        });
        join(threads.collect());
        let listed = datasets.iter().map(StoredDataset::status);
        let listed: u64 = listed.map(|status| status.heap_bytes + status.off_heap_bytes).sum();
        let memory = store.memory().snapshot();
        assert_eq!(listed, memory.heap.charged_bytes() + memory.off_heap.charged_bytes());
        drop(datasets);
        assert_empty(&store);
    });
}

#[test]
fn a_dataset_is_unpersisted_and_dropped_while_it_is_written_and_read() {
    at_every_level(|level| {
        let store = store();
        let numbers = dataset(&store, "numbers", level);
        let writers = (0..2).map(|_| {
            let numbers = numbers.clone();
            thread::spawn(move || {
                for partition in 0..2 {
                    let block = compute(&numbers, partition).unwrap();
                    drop(numbers.get(1 - partition).unwrap());
                    check(&numbers, &block);
                }
            })
        });
        let mut threads: Vec<_> = writers.collect();
        let unpersisted = numbers.clone();
        threads.push(thread::spawn(move || unpersisted.unpersist()));
        drop(numbers);
        join(threads);
        assert_empty(&store);
    });
}

#[test]
fn execution_takes_memory_back_while_blocks_are_stored() {
    at_every_level(|level| {
        let store = store();
        let numbers = dataset(&store, "numbers", level);
        let storing = (0..2).map(|thread| {
            let (store, numbers) = (store.clone(), numbers.clone());
            thread::spawn(move || {
                for partition in 0..3 {
                    check(&numbers, &compute(&numbers, 2 * partition + thread).unwrap());
                    assert_within_budget(&store);
                }
            })
        });
        let mut threads: Vec<_> = storing.collect();
        for mode in [MemoryMode::Heap, MemoryMode::OffHeap] {
            let store = store.clone();
            threads.push(thread::spawn(move || {
                let task = store.memory().nonblocking_task();
                for _ in 0..3 {
                    let taken = task.reserve(mode, BLOCK_BYTES);
                    assert_within_budget(&store);
                    drop(taken);
                }
            }));
        }
        join(threads);
        drop(numbers);
        assert_empty(&store);
    });
}

#[test]
fn a_panic_while_computing_hands_the_block_to_another_thread() {
    at_every_level(|level| {
        let store = store();
        let numbers = dataset(&store, "numbers", level);
        let panicking = numbers.clone();
        let panicking = thread::spawn(move || {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                panicking.get_or_compute(0, |out| -> Result<(), Error> {
                    out.push(7)?;
                    std::panic::resume_unwind(Box::new("on purpose"))
                })
            }));
            if let Ok(block) = caught {
                check(&panicking, &block.unwrap());
            }
        });
        let mut threads: Vec<_> = (0..2)
            .map(|_| {
                let numbers = numbers.clone();
                thread::spawn(move || check(&numbers, &compute(&numbers, 0).unwrap()))
            })
            .collect();
        threads.push(panicking);
        join(threads);
        drop(numbers);
        assert_empty(&store);
    });
}

#[test]
fn what_was_removed_while_it_was_computed_never_comes_back() {
    at_every_level(|level| {
        let store = store();
        let numbers = dataset(&store, "numbers", level);
        let source = Arc::new(AtomicU64::new(1));
        let compute = {
            let source = Arc::clone(&source);
            move |numbers: &StoredDataset<u64>| -> u64 {
                let block = numbers.get_or_compute(0, |out| out.push(source.load(Ordering::SeqCst))).unwrap();
                block.iter().map(|record| *record.unwrap()).sum()
            }
        };
        let threads = (0..3).map(|_| {
            let (numbers, compute) = (numbers.clone(), compute.clone());
            thread::spawn(move || {
                compute(&numbers);
            })
        });
        let threads = threads.collect();
        source.store(2, Ordering::SeqCst);
        numbers.remove(0);
        assert_eq!(compute(&numbers), 2);
        join(threads);
        assert_eq!(compute(&numbers), 2);
        drop((numbers, compute));
        assert_empty(&store);
    });
}
