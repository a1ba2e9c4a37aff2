//! Every interleaving of a few threads at the budget.
//!
//! Each model has two or three threads and runs in seconds:
//! `RUSTFLAGS="--cfg loom" cargo test -p larder-blockstore --release --lib loom_`

use std::sync::{Arc as StdArc, Weak as StdWeak};

use super::MemoryMode::Heap;
use super::*;
use crate::sync::{Mutex, thread};

/// Blocks of one byte.
struct Blocks(Mutex<Vec<Reservation>>);

impl Reclaim for Blocks {
    fn reclaim(&self, _: MemoryMode, bytes: u64, _: Option<DatasetId>) -> Reclaimed {
        let mut blocks = self.0.lock();
        let kept = blocks.len().saturating_sub(bytes as usize);
        let victims = blocks.split_off(kept);
        drop(blocks);
        Reclaimed { bytes: victims.iter().map(Reservation::bytes).sum(), others_gave_back: false }
    }
}

fn manager(budget_bytes: u64, blocks: usize) -> (MemoryManager, StdArc<Blocks>) {
    let memory = MemoryManager::builder().heap(budget_bytes).storage_fraction(0.5).build().unwrap();
    let store = StdArc::new(Blocks(Mutex::new(Vec::new())));
    let weak: StdWeak<Blocks> = StdArc::downgrade(&store);
    memory.register(weak);
    for _ in 0..blocks {
        store.0.lock().push(memory.try_reserve_storage(Heap, 1).unwrap());
    }
    (memory, store)
}

fn check(memory: &MemoryManager, storage_bytes: u64, execution_bytes: u64) {
    memory.shell.validate().unwrap();
    let heap = memory.snapshot().heap;
    assert_eq!((heap.storage_bytes, heap.execution_bytes), (storage_bytes, execution_bytes));
    assert!(heap.charged_peak_bytes <= heap.budget_bytes);
}

/// Storage and execution both evict for the last bytes: the budget holds and no byte is lost, whoever wins.
#[test]
fn loom_budget_borrow() {
    loom::model(|| {
        let (memory, store) = manager(4, 3);
        let putting = thread::spawn({
            let memory = memory.clone();
            move || memory.reserve_storage(Heap, 2, None)
        });
        let task = memory.task();
        let work = task.reserve(Heap, 2);
        let block = putting.join().unwrap();
        let bytes = |granted: &Result<Reservation, Refused>| granted.as_ref().map_or(0, Reservation::bytes);
        assert!(bytes(&work) + bytes(&block) > 0, "one of them at least gets it");
        check(&memory, bytes(&block) + store.0.lock().len() as u64, bytes(&work));
        drop((work, block));
        store.0.lock().clear();
        check(&memory, 0, 0);
    });
}

/// A block is given back while another thread evicts for what is missing: none is counted twice.
#[test]
fn loom_evict_against_release() {
    loom::model(|| {
        let (memory, store) = manager(2, 2);
        let releasing = thread::spawn({
            let store = StdArc::clone(&store);
            move || {
                let block = store.0.lock().pop();
                drop(block);
            }
        });
        let mine = memory.reserve_storage(Heap, 1, None).unwrap();
        releasing.join().unwrap();
        check(&memory, mine.bytes() + store.0.lock().len() as u64, 0);
        drop(mine);
    });
}

/// A task that waits for its sure share is woken by whatever makes room, and never sleeps through it.
#[test]
fn loom_a_waiting_task_is_woken() {
    loom::model(|| {
        let (memory, _store) = manager(4, 0);
        let first = memory.task();
        let mut all = first.reserve(Heap, 4).unwrap();
        let second = memory.task();
        let waiting = thread::spawn(move || second.reserve(Heap, 1).unwrap());
        all.shrink(1);
        let granted = waiting.join().unwrap();
        assert_eq!((granted.bytes(), all.bytes()), (1, 3));
        check(&memory, 0, 4);
        drop((granted, all, first));
        check(&memory, 0, 0);
        assert_eq!(memory.snapshot().tasks, 0);
    });
}
