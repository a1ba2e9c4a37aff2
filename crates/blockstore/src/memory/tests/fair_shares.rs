//! Of N active tasks each may hold 1/N of execution memory and is sure of 1/(2N).

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::*;

/// Far beyond what a right manager takes; a wrong one would hang.
const PATIENCE: Duration = Duration::from_secs(20);

fn until_waiting(memory: &MemoryManager, tasks: usize) {
    let begun = Instant::now();
    while memory.snapshot().tasks_waiting != tasks {
        assert!(begun.elapsed() < PATIENCE, "{tasks} should wait: {memory:?}");
        std::thread::yield_now();
    }
}

/// A request on a thread of its own.
struct Request(Receiver<Result<Reservation, Refused>>);

impl Request {
    fn new(task: &TaskMemory, bytes: u64) -> Self {
        let (task, (sender, receiver)) = (task.clone(), channel());
        std::thread::spawn(move || sender.send(task.reserve(Heap, bytes)));
        Self(receiver)
    }

    fn answer(self) -> Result<Reservation, Refused> {
        self.0.recv_timeout(PATIENCE).expect("the task is answered")
    }
}

#[test]
fn a_task_of_n_holds_at_most_one_nth_even_of_free_memory() {
    let memory = manager();
    for tasks in [1_u64, 2, 4, 5] {
        let registered: Vec<_> = (0..tasks).map(|_| memory.task()).collect();
        let most = 1_000 / tasks;
        assert!(registered[0].reserve(Heap, most + 1).is_err());
        let mut held = registered[0].reserve(Heap, most).unwrap();
        let refused = held.grow(1, None).unwrap_err();
        assert_eq!((refused.available_bytes, memory.snapshot().tasks as u64), (0, tasks));
        held.grow(0, None).unwrap();
        assert_eq!(
            registered[0].reserve(OffHeap, most).unwrap().bytes(),
            most,
            "each mode has its own shares"
        );
    }
    assert_eq!(memory.snapshot().tasks, 0);
}

#[test]
fn the_shares_are_of_what_storage_does_not_hold_in_its_region() {
    let (memory, _store) = manager_with_blocks(6);
    let (one, _two) = (memory.task(), memory.task());
    assert!(one.reserve(Heap, 351).is_err());
    assert_eq!(one.reserve(Heap, 350).unwrap().bytes(), 350);
}

#[test]
fn a_task_waits_for_the_half_share_it_is_sure_of() {
    let memory = manager();
    let first = memory.task();
    let mut all = first.reserve(Heap, 1_000).unwrap();
    let second = memory.task();
    assert!(Request::new(&second, 251).answer().is_err(), "beyond 1/4 it is refused and not made to wait");
    let waiter = Request::new(&second, 250);
    until_waiting(&memory, 1);
    assert!(all.grow(1, None).is_err(), "who holds more than its share is refused, and spills");
    all.shrink(249);
    until_waiting(&memory, 1);
    all.shrink(1);
    let granted = waiter.answer().unwrap();
    assert_eq!((granted.bytes(), heap(&memory)), (250, (0, 1_000, 0)));
}

#[test]
fn a_task_that_ends_wakes_those_that_wait() {
    let memory = manager();
    let first = memory.task();
    let all = first.reserve(Heap, 1_000).unwrap();
    let (second, third) = (memory.task(), memory.task());
    let waiters = [Request::new(&second, 166), Request::new(&third, 166)];
    until_waiting(&memory, 2);
    drop((first, all));
    let granted: Vec<_> = waiters.map(|waiter| waiter.answer().unwrap().bytes()).into();
    assert_eq!(granted, [166, 166]);
}

#[test]
fn a_waiting_task_is_refused_when_more_tasks_make_its_share_too_small() {
    let memory = manager();
    let first = memory.task();
    let _all = first.reserve(Heap, 1_000).unwrap();
    let second = memory.task();
    let waiter = Request::new(&second, 250);
    until_waiting(&memory, 1);
    let _third = memory.task();
    let refused = waiter.answer().unwrap_err();
    assert_eq!(refused.requested_bytes, 250);
}

#[test]
fn a_waiting_task_evicts_when_that_has_become_enough() {
    let (memory, store) = manager_with_blocks(15);
    let first = memory.task();
    let mut most = first.reserve(Heap, 500).unwrap();
    let second = memory.task();
    let waiter = Request::new(&second, 125);
    until_waiting(&memory, 1);
    let asked = store.asked().len();
    most.shrink(100);
    store.blocks.lock().push((B, memory.try_reserve_storage(Heap, 100).unwrap()));
    most.shrink(25);
    assert_eq!(waiter.answer().unwrap().bytes(), 125);
    assert_eq!(store.asked()[asked..], [(Heap, 100, None)]);
    drop(most);
}

#[test]
fn a_nonblocking_task_never_waits() {
    let memory = manager();
    let first = memory.task();
    let _all = first.reserve(Heap, 1_000).unwrap();
    let second = memory.nonblocking_task();
    assert!(second.reserve(Heap, 250).is_err());
    assert!(second.reserve(Heap, 0).unwrap().grow(250, None).is_err());
    assert!(memory.task().try_reserve(Heap, 1).is_err());
}

#[test]
fn tasks_over_their_share_of_one_mode_do_not_wait_for_the_other() {
    let mut pools = Pools::new(1_000, 1_000, 0.5);
    let mut take = |mode, bytes, task: Option<pools::TaskId>| {
        let task = task.unwrap_or_else(|| pools.register_task());
        (pools.acquire(mode, Claim::Execution { task }, bytes), task)
    };
    let granted = pools::Verdict::Granted;
    let (x, a) = (take(Heap, 1_000, None), take(OffHeap, 500, None));
    let (b, c) = (take(OffHeap, 333, None), take(OffHeap, 167, None));
    assert_eq!([x.0, a.0, b.0, c.0], [granted; 4]);
    assert_eq!(
        take(OffHeap, 100, Some(x.1)).0,
        pools::Verdict::Refused,
        "it holds what the next ones wait for"
    );
    assert_eq!(take(Heap, 100, Some(a.1)).0, pools::Verdict::Refused);
    assert_eq!(take(Heap, 100, Some(c.1)).0, pools::Verdict::Wait);
}
