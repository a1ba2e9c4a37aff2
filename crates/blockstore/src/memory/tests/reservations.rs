//! Reservations give back what they took, and no more.

use super::*;

#[test]
fn releasing_more_than_taken_is_impossible() {
    let memory = manager();
    let keep = memory.reserve_storage(Heap, 100, None).unwrap();
    let mut block = memory.reserve_storage(Heap, 200, None).unwrap();
    assert_eq!(block.shrink(150), 150);
    assert_eq!(block.shrink(u64::MAX), 50);
    assert_eq!(block.shrink(1), 0);
    assert_eq!((block.bytes(), block.split(10).bytes()), (0, 0));
    drop(block);
    assert_eq!(heap(&memory), (100, 0, 900));
    drop(keep);
    assert_eq!(heap(&memory), (0, 0, 1_000));
}

#[test]
fn splitting_and_merging_charge_nothing_twice() {
    let memory = manager();
    let mut whole = memory.reserve_storage(Heap, 300, None).unwrap();
    let mut part = whole.split(120);
    let rest = part.split(1_000);
    assert_eq!((whole.bytes(), part.bytes(), rest.bytes()), (180, 0, 120));
    assert_eq!(heap(&memory), (300, 0, 700));
    part.merge(rest).unwrap();
    whole.merge(part).unwrap();
    assert_eq!((whole.bytes(), heap(&memory)), (300, (300, 0, 700)));
    drop(whole);
    assert_eq!(heap(&memory), (0, 0, 1_000));
}

#[test]
fn only_what_is_of_the_same_pool_merges() {
    let (memory, other) = (manager(), manager());
    let (one, two) = (memory.task(), memory.task());
    let mut block = memory.reserve_storage(Heap, 1, None).unwrap();
    let mut work = one.reserve(Heap, 1).unwrap();
    for stranger in [
        memory.reserve_storage(OffHeap, 7, None).unwrap(),
        other.reserve_storage(Heap, 7, None).unwrap(),
        two.reserve(Heap, 7).unwrap(),
    ] {
        let stranger = block.merge(stranger).unwrap_err();
        let stranger = work.merge(stranger).unwrap_err();
        assert_eq!(stranger.bytes(), 7);
    }
    work.merge(one.clone().reserve(Heap, 5).unwrap()).unwrap();
    assert_eq!((block.bytes(), work.bytes(), heap(&memory)), (1, 6, (1, 6, 993)));
}

#[test]
fn a_refused_growth_keeps_what_was_held() {
    let memory = manager();
    let mut block = memory.reserve_storage(Heap, 600, None).unwrap();
    assert!(block.try_grow(401).is_err());
    block.try_grow(400).unwrap();
    assert!(block.try_grow(u64::MAX).is_err());
    assert!(block.grow(1, None).is_err());
    assert_eq!((block.bytes(), heap(&memory)), (1_000, (1_000, 0, 0)));
}

#[test]
fn reservations_outlive_the_handles_of_their_manager() {
    let memory = manager();
    let watch = memory.clone();
    let block = memory.reserve_storage(Heap, 10, None).unwrap();
    let work = memory.task().reserve(Heap, 20).unwrap();
    drop(memory);
    assert_eq!((heap(&watch), watch.snapshot().tasks), ((10, 20, 970), 1));
    drop((block, work));
    assert_eq!((heap(&watch), watch.snapshot().tasks), ((0, 0, 1_000), 0));
}

#[test]
fn handles_are_small_and_go_anywhere() {
    fn anywhere<T: Send + Sync + 'static>() {}
    anywhere::<MemoryManager>();
    anywhere::<Reservation>();
    anywhere::<TaskMemory>();
    anywhere::<Scratch>();
    assert!(size_of::<Reservation>() <= 32);
}

#[test]
fn the_budget_holds_while_threads_reserve_evict_and_release() {
    let memory = manager();
    let store = FakeStore::new(&memory);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (memory, store) = (&memory, &store);
            scope.spawn(move || {
                let (mut random, task) = (crate::random::Random::new(thread), memory.task());
                for _ in 0..2_000 {
                    let (mode, bytes) = (MemoryMode::ALL[random.below(2) as usize], random.below(300));
                    match random.below(3) {
                        0 => drop(store.put(mode, DatasetId(thread), bytes)),
                        1 => drop(task.reserve(mode, bytes)),
                        _ => drop(memory.try_reserve_storage(mode, bytes)),
                    }
                    memory.shell.validate().unwrap();
                }
            });
        }
    });
    let held: u64 = store.blocks.lock().iter().map(|(_, block)| block.bytes()).sum();
    let snapshot = memory.snapshot();
    assert_eq!(snapshot.heap.charged_bytes() + snapshot.off_heap.charged_bytes(), held);
    assert!(store.asked().len() > 100, "memory was short");
    store.blocks.lock().clear();
    assert_eq!(heap(&memory), (0, 0, 1_000));
}
