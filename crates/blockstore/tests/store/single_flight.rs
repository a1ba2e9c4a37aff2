//! One thread computes a block, the others wait for it: behaviours 4, 5 and 6.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use larder_blockstore::{Entry, Error, Flight, StorageLevel, StoredDataset};

use crate::support::{
    PATIENCE, World, all_levels, finish, keep, memory_levels, on_a_thread, put, read, record, vacant,
    wait_until,
};

fn in_flight(dataset: &StoredDataset<Vec<u8>>, partition: u32) -> Flight<Vec<u8>> {
    match dataset.entry(partition).unwrap() {
        Entry::InFlight(flight) => flight,
        other => panic!("partition {partition} is {other:?}"),
    }
}

/// Waits until so many readers wait for blocks of the dataset.
fn wait_for_waiters(dataset: &StoredDataset<Vec<u8>>, waiters: u64) {
    wait_until("waiters", || dataset.status().counters.waits >= waiters);
}

#[test]
fn one_of_eight_threads_computes_and_all_read_its_result() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let computed = AtomicUsize::new(0);
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let block = dataset.get_or_compute(0, |out| {
                        computed.fetch_add(1, Ordering::SeqCst);
                        (0..100).try_for_each(|i| out.push(record(i, 50)))
                    });
                    assert_eq!(read(&block.unwrap()), (0..100).map(|i| record(i, 50)).collect::<Vec<_>>());
                });
            }
        });
        assert_eq!(computed.load(Ordering::SeqCst), 1, "{level}");
        let counters = dataset.status().counters;
        assert_eq!((counters.computed, counters.recomputed, counters.stored), (1, 0, 1), "{level}");
    }
}

#[test]
fn the_first_writer_wins_and_the_others_read_what_it_wrote() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let mut writer = vacant(&dataset, 0);
        let waiters: Vec<_> =
            (0..3).map(|_| in_flight(&dataset, 0)).map(|f| on_a_thread(|| f.wait().unwrap())).collect();
        let computing = {
            let dataset = dataset.clone();
            on_a_thread(move || put(&dataset, 0, [record(2, 10)]).unwrap())
        };
        wait_for_waiters(&dataset, 4);
        keep(&mut writer, record(1, 10));
        let block = finish(writer);
        for waiter in waiters {
            let seen = waiter.recv_timeout(PATIENCE).unwrap().expect("the block was stored");
            assert_eq!((seen.id(), read(&seen)), (block.id(), vec![record(1, 10)]), "{level}");
        }
        assert_eq!(read(&computing.recv_timeout(PATIENCE).unwrap()), [record(1, 10)], "{level}");
    }
}

#[test]
fn when_the_writer_gives_up_one_of_the_waiters_becomes_the_writer() {
    type GiveUp = fn(larder_blockstore::BlockWriter<Vec<u8>>);
    let ways: [GiveUp; 4] = [
        |writer| writer.abort(),
        drop,
        |writer| drop(writer.into_unrolled()),
        |writer| {
            let panicked = thread::spawn(move || {
                let _writer = writer;
                panic!("a writer panics on purpose");
            });
            assert!(panicked.join().is_err());
        },
    ];
    for give_up in ways {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
        let mut writer = vacant(&dataset, 0);
        keep(&mut writer, record(1, 10));
        let flight = in_flight(&dataset, 0);
        let computed = Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let (dataset, computed) = (dataset.clone(), Arc::clone(&computed));
                on_a_thread(move || {
                    dataset.get_or_compute(0, |out| {
                        computed.fetch_add(1, Ordering::SeqCst);
                        out.push(record(2, 10))
                    })
                })
            })
            .collect();
        wait_for_waiters(&dataset, 5);
        give_up(writer);
        assert!(flight.wait().unwrap().is_none());
        for waiter in waiters {
            assert_eq!(read(&waiter.recv_timeout(PATIENCE).unwrap().unwrap()), [record(2, 10)]);
        }
        assert_eq!(computed.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn when_the_computation_fails_its_caller_gets_the_error_and_a_waiter_computes() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_AND_DISK_SER);
    let (started, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let failing = {
        let (dataset, started, go) = (dataset.clone(), Arc::clone(&started), Arc::clone(&go));
        on_a_thread(move || {
            dataset.get_or_compute(0, |out| {
                out.push(record(1, 10))?;
                started.wait();
                go.wait();
                Err::<(), Box<dyn std::error::Error + Send + Sync>>("it fails on purpose".into())
            })
        })
    };
    started.wait();
    let waiting = {
        let dataset = dataset.clone();
        on_a_thread(move || put(&dataset, 0, [record(2, 10)]))
    };
    wait_for_waiters(&dataset, 1);
    go.wait();
    let error = failing.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "it fails on purpose");
    assert_eq!(read(&waiting.recv_timeout(PATIENCE).unwrap().unwrap()), [record(2, 10)]);
}

#[test]
fn when_the_computation_panics_a_waiter_computes() {
    for level in all_levels() {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let started = Arc::new(Barrier::new(2));
        let panicking = {
            let (dataset, started) = (dataset.clone(), Arc::clone(&started));
            thread::spawn(move || {
                dataset.get_or_compute(0, |out| -> Result<(), Error> {
                    out.push(record(1, 10))?;
                    started.wait();
                    wait_for_waiters(&dataset, 1);
                    panic!("a computation panics on purpose");
                })
            })
        };
        started.wait();
        let waiting = {
            let dataset = dataset.clone();
            on_a_thread(move || put(&dataset, 0, [record(2, 10)]))
        };
        assert!(panicking.join().is_err());
        assert_eq!(read(&waiting.recv_timeout(PATIENCE).unwrap().unwrap()), [record(2, 10)], "{level}");
    }
}

#[test]
fn when_the_block_is_refused_each_waiter_gets_the_right_records_all_the_same() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let dataset = world.dataset("d", level);
        let start = Arc::new(Barrier::new(4));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (dataset, start) = (dataset.clone(), Arc::clone(&start));
                on_a_thread(move || {
                    start.wait();
                    read(&put(&dataset, 0, (0..100).map(|i| record(i, 500))).unwrap())
                })
            })
            .collect();
        for reader in readers {
            let records = reader.recv_timeout(PATIENCE).unwrap();
            assert_eq!(records, (0..100).map(|i| record(i, 500)).collect::<Vec<_>>(), "{level}");
        }
    }
}

#[test]
fn whoever_waits_for_a_block_that_is_removed_gets_nothing_and_nobody_hangs() {
    type Remove = fn(&World, &StoredDataset<Vec<u8>>);
    let ways: [Remove; 3] = [
        |_, dataset| assert!(dataset.remove(0)),
        |_, dataset| dataset.unpersist(),
        |world, dataset| assert!(world.store.remove_dataset(dataset.id())),
    ];
    for remove in ways {
        for level in all_levels() {
            let world = World::new(1 << 20);
            let dataset = world.dataset("d", level);
            let mut writer = vacant(&dataset, 0);
            keep(&mut writer, record(1, 10));
            let waiters: Vec<_> = (0..3)
                .map(|_| in_flight(&dataset, 0))
                .map(|flight| on_a_thread(|| flight.wait().unwrap()))
                .collect();
            remove(&world, &dataset);
            for waiter in waiters {
                assert!(waiter.recv_timeout(PATIENCE).unwrap().is_none(), "{level}");
            }
            let block = finish(writer);
            assert_eq!(read(&block), [record(1, 10)], "the writer's own, and nobody else's: {level}");
            assert!(dataset.get(0).unwrap().is_none(), "{level}");
        }
    }
}

#[test]
fn a_block_removed_while_it_is_written_can_be_written_anew_at_once() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    let mut first = vacant(&dataset, 0);
    keep(&mut first, record(1, 10));
    dataset.remove(0);
    let mut second = vacant(&dataset, 0);
    keep(&mut second, record(2, 10));
    let first = finish(first);
    assert!(dataset.get(0).unwrap().is_none(), "the first writer's block is not what is being written");
    let waiter = in_flight(&dataset, 0);
    let second = finish(second);
    assert_eq!(read(&waiter.wait().unwrap().unwrap()), [record(2, 10)]);
    assert_eq!(read(&dataset.get(0).unwrap().unwrap()), [record(2, 10)]);
    assert_eq!((read(&first), read(&second)), (vec![record(1, 10)], vec![record(2, 10)]));
}

#[test]
fn a_late_abort_of_a_removed_writer_leaves_its_successor_alone() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    let first = vacant(&dataset, 0);
    dataset.remove(0);
    let mut second = vacant(&dataset, 0);
    first.abort();
    let waiter = in_flight(&dataset, 0);
    keep(&mut second, record(2, 10));
    drop(finish(second));
    assert_eq!(read(&waiter.wait().unwrap().unwrap()), [record(2, 10)]);
}

#[test]
fn a_get_never_waits_for_a_writer() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    let writer = vacant(&dataset, 0);
    assert!(dataset.get(0).unwrap().is_none() && !dataset.contains(0));
    assert!(dataset.block_status(0).is_none());
    assert!(!dataset.evict(0).unwrap());
    drop(writer);
}

#[test]
fn a_computation_that_asks_for_its_own_block_gets_an_error_and_no_deadlock() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    let asked = {
        let dataset = dataset.clone();
        on_a_thread(move || {
            dataset.get_or_compute(0, |_| dataset.get_or_compute(0, |_| Ok::<_, Error>(())).map(drop))
        })
    };
    let error = asked.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert!(matches!(error, Error::ComputesItself { block, .. } if block.partition == 0), "{error}");
    assert!(error.to_string().contains("`d`"));
    assert!(!dataset.contains(0));
    assert_eq!(read(&put(&dataset, 0, [record(1, 10)]).unwrap()), [record(1, 10)]);
}

#[test]
fn computations_that_ask_for_each_other_get_an_error_and_no_deadlock() {
    for circle in 2..5 {
        for level in all_levels() {
            let world = World::new(1 << 20);
            let dataset = world.dataset("d", level);
            let all_compute = Arc::new(Barrier::new(circle as usize));
            let asked: Vec<_> = (0..circle)
                .map(|partition| {
                    let (dataset, all_compute) = (dataset.clone(), Arc::clone(&all_compute));
                    on_a_thread(move || {
                        dataset.get_or_compute(partition, |out| {
                            all_compute.wait();
                            // Computes it in its place when its thread was the one that was told.
                            let next = dataset
                                .get_or_compute((partition + 1) % circle, |out| out.push(record(9, 9)))?;
                            read(&next).into_iter().try_for_each(|record| out.push(record))
                        })
                    })
                })
                .collect();
            let results: Vec<_> = asked.iter().map(|asked| asked.recv_timeout(PATIENCE).unwrap()).collect();
            let told: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
            assert!(matches!(*told, [Error::ComputesItself { .. }]), "{level}, {circle}: {told:?}");
            assert!(told[0].to_string().contains("`d`"), "{}", told[0]);
            drop(results);
            assert!((0..circle).all(|partition| dataset.contains(partition)), "{level}, {circle}");
        }
    }
}

#[test]
fn waiting_for_who_waits_for_others_is_no_circle() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    for _ in 0..50 {
        let start = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (dataset, start) = (dataset.clone(), Arc::clone(&start));
                on_a_thread(move || {
                    start.wait();
                    // From above, from below and from the middle.
                    [[9, 0, 4], [0, 9, 5], [5, 7, 9], [8, 1, 9]][thread]
                        .map(|top| fibonacci(&dataset, top).unwrap())
                })
            })
            .collect();
        for thread in threads {
            thread.recv_timeout(PATIENCE).unwrap();
        }
        assert_eq!(fibonacci(&dataset, 9).unwrap(), 55);
        dataset.unpersist();
    }
}

/// From two blocks below, each computed by whoever comes first.
fn fibonacci(dataset: &StoredDataset<Vec<u8>>, number: u32) -> Result<u8, Error> {
    let block = dataset.get_or_compute(number, |out| {
        let sum = match number {
            0 | 1 => 1,
            _ => fibonacci(dataset, number - 1)? + fibonacci(dataset, number - 2)?,
        };
        out.push(vec![sum])
    })?;
    Ok(read(&block)[0][0])
}

#[test]
fn a_computation_may_ask_for_other_blocks_of_its_dataset() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    let sum = dataset.get_or_compute(9, |out| {
        for partition in 0..9 {
            let block = put(&dataset, partition, [record(partition.into(), 10)])?;
            read(&block).into_iter().try_for_each(|record| out.push(record))?;
        }
        Ok::<_, Error>(())
    });
    assert_eq!(sum.unwrap().len(), 9);
    assert_eq!(dataset.status().blocks, 10);
}

#[test]
fn a_thread_that_computed_a_block_may_compute_it_again_after_its_loss() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    for _ in 0..3 {
        assert_eq!(read(&put(&dataset, 0, [record(1, 10)]).unwrap()), [record(1, 10)]);
        assert!(dataset.evict(0).unwrap());
    }
    let counters = dataset.status().counters;
    assert_eq!((counters.computed, counters.recomputed), (1, 2));
}
