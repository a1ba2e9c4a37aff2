//! One task computes a block, the others await it: behaviours 4, 5 and 6 without blocking a thread.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use larder_blockstore::{Block, Entry, Flight, StorageLevel, StoredDataset};

use crate::support::{
    PATIENCE, Woken, World, all_levels, block_on, finish, keep, on_a_thread, put, read, record, vacant,
};

fn in_flight(dataset: &StoredDataset<Vec<u8>>, partition: u32) -> Flight<Vec<u8>> {
    match dataset.entry(partition).unwrap() {
        Entry::InFlight(flight) => flight,
        other => panic!("partition {partition} is {other:?}"),
    }
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Arc<Woken>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(waker))))
}

/// Gives the other tasks a turn.
async fn turn() {
    let mut waited = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs all tasks on this thread, each in its turn, and gives their outputs in order.
fn run_all<R>(mut tasks: Vec<Pin<Box<dyn Future<Output = R> + '_>>>) -> Vec<R> {
    let mut outputs: Vec<Option<R>> = tasks.iter().map(|_| None).collect();
    block_on(poll_fn(|context| {
        for (task, output) in tasks.iter_mut().zip(&mut outputs).filter(|(_, output)| output.is_none()) {
            if let Poll::Ready(ready) = task.as_mut().poll(context) {
                *output = Some(ready);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    }));
    outputs.into_iter().flatten().collect()
}

/// What an async engine does: read it, write it a record a turn, or await whoever writes it.
async fn get_or_write(dataset: &StoredDataset<Vec<u8>>, writes: &RefCell<u32>) -> Block<Vec<u8>> {
    loop {
        match dataset.entry(0).unwrap() {
            Entry::Resident(block) => return block,
            Entry::Vacant(mut writer) => {
                *writes.borrow_mut() += 1;
                for i in 0..20 {
                    keep(&mut writer, record(i, 100));
                    turn().await;
                }
                return finish(writer);
            }
            Entry::InFlight(flight) => {
                if let Some(block) = flight.await {
                    return block;
                }
            }
        }
    }
}

#[test]
fn a_flight_is_pending_until_its_writer_finishes_and_wakes_its_task_once() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let mut writer = vacant(&dataset, 0);
        let (mut first, mut second) = (in_flight(&dataset, 0), in_flight(&dataset, 0));
        let (task, other) = (Woken::here(), Woken::here());
        assert!(poll(&mut first, &task).is_pending());
        assert!(poll(&mut first, &task).is_pending(), "polled again, it is still woken once");
        assert!(poll(&mut second, &other).is_pending());
        keep(&mut writer, record(1, 10));
        assert_eq!((task.times(), other.times()), (0, 0), "{level}");
        drop(finish(writer));
        assert_eq!((task.times(), other.times()), (1, 1), "{level}");
        for (flight, task) in [(&mut first, task), (&mut second, other)] {
            let Poll::Ready(Some(block)) = poll(flight, &task) else { panic!("the block was stored") };
            assert_eq!(read(&block), [record(1, 10)], "{level}");
        }
    }
}

#[test]
fn tasks_on_one_thread_share_one_computation() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY_SER);
    let writes = RefCell::new(0);
    let tasks = (0..5).map(|_| Box::pin(get_or_write(&dataset, &writes)) as Pin<Box<dyn Future<Output = _>>>);
    let blocks = run_all(tasks.collect());
    assert_eq!(*writes.borrow(), 1);
    for block in blocks {
        assert_eq!(read(&block), (0..20).map(|i| record(i, 100)).collect::<Vec<_>>());
    }
}

#[test]
fn when_the_writing_task_is_cancelled_an_awaiting_one_writes() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let writes = RefCell::new(0);
        let mut cancelled = Box::pin(get_or_write(&dataset, &writes));
        let task = Woken::here();
        for _ in 0..5 {
            assert!(poll(&mut cancelled, &task).is_pending());
        }
        let mut awaiting = Box::pin(get_or_write(&dataset, &writes));
        let waiter = Woken::here();
        assert!(poll(&mut awaiting, &waiter).is_pending());
        assert_eq!((*writes.borrow(), waiter.times()), (1, 0));
        drop(cancelled);
        assert_eq!(waiter.times(), 1, "{level}");
        let block = block_on(awaiting);
        assert_eq!(read(&block), (0..20).map(|i| record(i, 100)).collect::<Vec<_>>(), "{level}");
        assert_eq!(*writes.borrow(), 2, "{level}");
    }
}

#[test]
fn an_awaiting_task_that_is_cancelled_is_forgotten() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    let mut writer = vacant(&dataset, 0);
    let (task, other) = (Woken::here(), Woken::here());
    let mut cancelled = in_flight(&dataset, 0);
    let mut awaiting = in_flight(&dataset, 0);
    assert!(poll(&mut cancelled, &task).is_pending() && poll(&mut awaiting, &other).is_pending());
    drop(cancelled);
    keep(&mut writer, record(1, 10));
    drop(finish(writer));
    assert_eq!(other.times(), 1);
    assert!(matches!(poll(&mut awaiting, &other), Poll::Ready(Some(_))));
}

#[test]
fn a_block_removed_while_tasks_await_it_is_absent_to_them() {
    type Remove = fn(&World, &StoredDataset<Vec<u8>>);
    let ways: [Remove; 3] = [
        |_, dataset| assert!(dataset.remove(0)),
        |_, dataset| dataset.unpersist(),
        |world, dataset| assert!(world.store.remove_dataset(dataset.id())),
    ];
    for remove in ways {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", StorageLevel::MEMORY_AND_DISK);
        let writer = vacant(&dataset, 0);
        let mut awaiting = in_flight(&dataset, 0);
        let task = Woken::here();
        assert!(poll(&mut awaiting, &task).is_pending());
        remove(&world, &dataset);
        assert_eq!(task.times(), 1);
        assert!(matches!(poll(&mut awaiting, &task), Poll::Ready(None)));
        drop(finish(writer));
    }
}

#[test]
fn a_task_awaits_a_thread_and_a_thread_waits_for_a_task() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    let writer = vacant(&dataset, 0);
    let thread = {
        let dataset = dataset.clone();
        on_a_thread(move || read(&put(&dataset, 0, [record(9, 9)]).unwrap()))
    };
    let task = {
        let flight = in_flight(&dataset, 0);
        on_a_thread(move || block_on(flight).map(|block| read(&block)))
    };
    let mut writer = writer;
    keep(&mut writer, record(1, 10));
    drop(finish(writer));
    assert_eq!(task.recv_timeout(PATIENCE).unwrap(), Some(vec![record(1, 10)]));
    assert_eq!(thread.recv_timeout(PATIENCE).unwrap(), [record(1, 10)]);
}

#[test]
fn tasks_see_the_wakers_they_last_polled_with() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    let writer = vacant(&dataset, 0);
    let mut moved = in_flight(&dataset, 0);
    let (before, after) = (Woken::here(), Woken::here());
    assert!(poll(&mut moved, &before).is_pending());
    assert!(poll(&mut moved, &after).is_pending());
    writer.abort();
    assert_eq!(after.times(), 1, "the task moved to another executor before it was woken");
    assert!(matches!(poll(&mut moved, &after), Poll::Ready(None)));
}
