//! The rules of the budget, with the numbers users know them by.

mod fair_shares;
mod fake_store;
mod model;
mod reservations;

use std::sync::Arc;

use super::MemoryMode::{Heap, OffHeap};
use super::*;
use fake_store::{FakeStore, weak};

const A: DatasetId = DatasetId(1);
const B: DatasetId = DatasetId(2);

/// 1,000 bytes each of heap and off-heap, 500 of them protected.
fn manager() -> MemoryManager {
    MemoryManager::builder().heap(1_000).off_heap(1_000).storage_fraction(0.5).build().unwrap()
}

/// With a store that holds `blocks` blocks of 50 bytes of dataset A on the heap.
fn manager_with_blocks(blocks: usize) -> (MemoryManager, Arc<FakeStore>) {
    let memory = manager();
    let store = FakeStore::new(&memory);
    for _ in 0..blocks {
        store.put(Heap, A, 50).unwrap();
    }
    (memory, store)
}

fn heap(memory: &MemoryManager) -> (u64, u64, u64) {
    memory.shell.validate().unwrap();
    let heap = memory.snapshot().heap;
    (heap.storage_bytes, heap.execution_bytes, heap.free_bytes)
}

#[test]
fn execution_takes_all_free_memory() {
    let memory = manager();
    let task = memory.task();
    let all = task.reserve(Heap, 1_000).unwrap();
    assert_eq!(heap(&memory), (0, 1_000, 0));
    assert_eq!(task.bytes(Heap), 1_000);
    drop(all);
    assert_eq!(heap(&memory), (0, 0, 1_000));
}

#[test]
fn execution_evicts_storage_down_to_the_protected_region_and_no_further() {
    let (memory, store) = manager_with_blocks(20);
    let task = memory.task();
    let half = task.reserve(Heap, 500).unwrap();
    assert_eq!(heap(&memory), (500, 500, 0));
    assert_eq!(store.asked(), [(Heap, 500, None)]);
    let refused = task.reserve(Heap, 1).unwrap_err();
    assert_eq!((refused.available_bytes, refused.budget_bytes), (0, 1_000));
    assert_eq!(heap(&memory), (500, 500, 0));
    assert_eq!(store.asked().len(), 1, "storage in its region is not asked");
    drop(half);
    assert!(task.reserve(Heap, 501).is_err());
    assert_eq!(store.asked().len(), 1, "nothing is evicted for what can not be met");
}

#[test]
fn execution_takes_100_of_250_free_without_evicting_and_200_more_evict_exactly_50() {
    let (memory, store) = manager_with_blocks(15);
    let task = memory.task();
    let first = task.reserve(Heap, 100).unwrap();
    assert_eq!(heap(&memory), (750, 100, 150));
    assert_eq!(store.asked(), []);
    let second = task.reserve(Heap, 200).unwrap();
    assert_eq!(heap(&memory), (700, 300, 0));
    assert_eq!(store.asked(), [(Heap, 50, None)]);
    drop((first, second));
    assert_eq!(heap(&memory), (700, 0, 300));
}

#[test]
fn growing_execution_evicts_as_reserving_does_and_spares_the_requester() {
    let (memory, store) = manager_with_blocks(15);
    let task = memory.task();
    let mut sort = task.reserve(Heap, 100).unwrap();
    assert!(sort.try_grow(200).is_err(), "try_grow does not evict");
    assert!(sort.grow(200, Some(A)).is_err());
    sort.grow(200, None).unwrap();
    assert_eq!(store.asked(), [(Heap, 50, Some(A)), (Heap, 50, None)]);
    assert_eq!((sort.bytes(), heap(&memory)), (300, (700, 300, 0)));
}

#[test]
fn storage_borrows_what_execution_does_not_use_and_never_takes_what_it_uses() {
    let memory = manager();
    let store = FakeStore::new(&memory);
    let task = memory.task();
    let work = task.reserve(Heap, 800).unwrap();
    let refused = store.put(Heap, A, 250).unwrap_err();
    assert_eq!(store.asked(), [], "no eviction is attempted");
    assert_eq!((refused.requested_bytes, refused.available_bytes), (250, 200));
    store.put(Heap, A, 200).unwrap();
    assert_eq!(heap(&memory), (200, 800, 0));
    assert!(store.put(Heap, B, 201).is_err());
    assert_eq!(store.asked(), []);
    drop(work);
    store.put(Heap, B, 800).unwrap();
    assert_eq!(heap(&memory), (1_000, 0, 0));
}

#[test]
fn storage_evicts_other_datasets_and_never_its_own() {
    let (memory, store) = manager_with_blocks(20);
    assert!(store.put(Heap, A, 50).is_err());
    assert_eq!(heap(&memory), (1_000, 0, 0));
    store.put(Heap, B, 120).unwrap();
    assert_eq!(store.asked(), [(Heap, 50, Some(A)), (Heap, 120, Some(B))]);
    assert_eq!(heap(&memory), (970, 0, 30));
    assert!(store.put(Heap, B, 900).is_err(), "B's own 120 bytes are in the way");
    assert_eq!(heap(&memory), (970, 0, 30), "then nothing is evicted");
}

#[test]
fn a_request_beyond_what_storage_could_ever_have_evicts_nothing() {
    let (memory, store) = manager_with_blocks(20);
    assert!(memory.reserve_storage(Heap, 1_001, None).is_err());
    assert!(memory.reserve_storage(Heap, u64::MAX, None).is_err());
    drop(store.blocks.lock().split_off(8));
    let mut unrolled = memory.reserve_storage(Heap, 600, Some(B)).unwrap();
    assert!(unrolled.grow(401, Some(B)).is_err(), "600 of the 1,000 are its own");
    assert!(unrolled.grow(u64::MAX, Some(B)).is_err());
    assert_eq!(store.asked(), []);
    assert_eq!((unrolled.bytes(), heap(&memory)), (600, (1_000, 0, 0)));
    unrolled.grow(400, Some(B)).unwrap();
    assert_eq!(store.asked(), [(Heap, 400, Some(B))]);
    assert_eq!((unrolled.bytes(), heap(&memory)), (1_000, (1_000, 0, 0)));
}

#[test]
fn try_reserve_never_evicts() {
    let (memory, store) = manager_with_blocks(20);
    assert!(memory.try_reserve_storage(Heap, 1).is_err());
    assert!(memory.task().try_reserve(Heap, 1).is_err());
    assert_eq!(store.asked(), []);
    assert_eq!(memory.try_reserve_storage(Heap, 0).unwrap().bytes(), 0);
    assert_eq!(memory.try_reserve_storage(OffHeap, 1_000).unwrap().mode(), OffHeap);
}

#[test]
fn the_two_modes_do_not_touch_each_other() {
    let (memory, store) = manager_with_blocks(20);
    store.put(OffHeap, A, 1_000).unwrap();
    store.put(OffHeap, B, 10).unwrap();
    assert_eq!(store.asked(), [(OffHeap, 10, Some(B))]);
    let snapshot = memory.snapshot();
    assert_eq!((snapshot.heap.storage_bytes, snapshot.off_heap.storage_bytes), (1_000, 10));
}

#[test]
fn an_evicted_block_is_charged_until_its_last_reader_lets_go() {
    let (memory, store) = manager_with_blocks(20);
    store.pin_victims();
    assert!(memory.reserve_storage(Heap, 100, None).is_err());
    assert_eq!(heap(&memory), (1_000, 0, 0));
    assert_eq!(store.blocks.lock().len(), 0, "each round evicts more, until there is no more");
    let readers = store.take_pinned();
    drop(readers);
    assert_eq!(memory.reserve_storage(Heap, 100, None).unwrap().bytes(), 100);
}

#[test]
fn what_another_takes_meanwhile_is_evicted_again() {
    let (memory, store) = manager_with_blocks(20);
    store.during_reclaim({
        let (memory, taken) = (memory.clone(), std::sync::Mutex::new(Vec::new()));
        move |round| {
            if round == 1 {
                taken.lock().unwrap().push(memory.try_reserve_storage(Heap, 50).unwrap());
            }
        }
    });
    let granted = memory.reserve_storage(Heap, 50, None).unwrap();
    assert_eq!(store.asked(), [(Heap, 50, None), (Heap, 50, None)]);
    assert_eq!((granted.bytes(), heap(&memory)), (50, (1_000, 0, 0)));
}

#[test]
fn evicting_holds_no_lock_of_the_manager() {
    let (memory, store) = manager_with_blocks(20);
    store.during_reclaim({
        let memory = memory.clone();
        move |_| {
            let other = FakeStore::new(&memory);
            assert_eq!(memory.snapshot().tasks, 1);
            drop((other, memory.task(), memory.scratch(1)));
        }
    });
    assert_eq!(memory.task().reserve(Heap, 50).unwrap().bytes(), 50);
}

#[test]
fn a_store_that_only_claims_to_evict_is_asked_a_bounded_number_of_times() {
    struct Liar(std::sync::atomic::AtomicU32);
    impl Reclaim for Liar {
        fn reclaim(&self, _: MemoryMode, bytes: u64, _: Option<DatasetId>) -> Reclaimed {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Reclaimed { bytes, ..Reclaimed::default() }
        }
    }
    let (memory, liar) = (manager(), Arc::new(Liar(0.into())));
    memory.register(weak(&liar));
    let all = memory.reserve_storage(Heap, 1_000, None).unwrap();
    assert!(memory.reserve_storage(Heap, 1, None).is_err());
    assert!((2..=100).contains(&liar.0.load(std::sync::atomic::Ordering::Relaxed)));
    drop(all);
}

#[test]
fn a_panic_while_evicting_charges_nothing_and_locks_nothing() {
    let (memory, store) = manager_with_blocks(20);
    store.during_reclaim(|_| panic!("a record's drop panics"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        memory.reserve_storage(Heap, 100, None).map(|granted| granted.bytes())
    }));
    assert!(panicked.is_err());
    assert_eq!(heap(&memory), (900, 0, 100));
    assert_eq!(memory.reserve_storage(Heap, 100, None).unwrap().bytes(), 100);
}

#[test]
fn stores_that_share_a_manager_are_asked_in_turn_and_forgotten_when_dropped() {
    let (memory, first) = manager_with_blocks(10);
    let gone = FakeStore::new(&memory);
    let second = FakeStore::new(&memory);
    for _ in 0..10 {
        second.put(Heap, B, 50).unwrap();
    }
    drop(gone);
    let granted = memory.reserve_storage(Heap, 100, Some(A)).unwrap();
    assert_eq!(first.asked(), [(Heap, 100, Some(A))]);
    assert_eq!(second.asked(), [(Heap, 100, Some(A))]);
    assert_eq!((granted.bytes(), heap(&memory)), (100, (1_000, 0, 0)));
}

#[test]
fn the_storage_fraction_is_a_fraction() {
    for fraction in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let error = MemoryManager::builder().heap(1).storage_fraction(fraction).build().unwrap_err();
        assert!(error.to_string().contains(&fraction.to_string()), "{error}");
    }
    for (fraction, protected) in [(0.0, 0), (0.25, 250), (1.0, 1_000)] {
        let memory = MemoryManager::builder().heap(1_000).storage_fraction(fraction).build().unwrap();
        assert_eq!(memory.snapshot().heap.protected_storage_bytes, protected);
    }
    let huge = MemoryManager::builder().heap(u64::MAX).storage_fraction(1.0).build().unwrap();
    assert_eq!(huge.snapshot().heap.protected_storage_bytes, u64::MAX);
    assert_eq!(MemoryManager::builder().build().unwrap().snapshot().heap.budget_bytes, 0);
}

#[test]
fn refusals_and_peaks_are_counted() {
    let memory = manager();
    let task = memory.task();
    let block = memory.reserve_storage(Heap, 300, None).unwrap();
    let work = task.reserve(Heap, 400).unwrap();
    assert!(memory.reserve_storage(Heap, 601, None).is_err());
    assert!(memory.try_reserve_storage(Heap, 301).is_err());
    let refused = task.reserve(Heap, 301).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "301 bytes of heap execution memory refused: 300 of the budget of 1000 bytes are available to it"
    );
    drop((block, work));
    let heap = memory.snapshot().heap;
    assert_eq!((heap.storage_refused, heap.execution_refused), (1, 1));
    assert_eq!(
        (heap.storage_peak_bytes, heap.execution_peak_bytes, heap.charged_peak_bytes),
        (300, 400, 700)
    );
    assert_eq!(heap.charged_bytes(), 0);
}

#[test]
fn scratch_is_counted_outside_the_budget() {
    let memory = manager();
    let (one, two) = (memory.scratch(5_000), memory.scratch(7_000));
    assert_eq!((one.bytes(), memory.snapshot().scratch_bytes), (5_000, 12_000));
    assert_eq!(heap(&memory), (0, 0, 1_000));
    drop((one, two));
    let snapshot = memory.snapshot();
    assert_eq!((snapshot.scratch_bytes, snapshot.scratch_peak_bytes), (0, 12_000));
}
