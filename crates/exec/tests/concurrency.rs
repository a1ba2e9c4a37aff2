//! Jobs beside each other, while datasets are persisted, lost, checkpointed and dropped under them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use larder_exec::{BoxError, Context, Dataset, Error, HeapSize, StorageLevel};
use serde::{Deserialize, Serialize};

#[test]
fn actions_stay_right_while_their_datasets_change_under_them() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let builder = Context::builder().threads(3).progress(false).memory("150KiB");
    let context = builder.checkpoints(directory.path()).build()?;
    let base = context.range(0..6_000, 5)?.map(|n| (n % 50, n.to_string()));
    let lengths = base.map_values(String::len).filter(|(_, len)| *len > 1);
    let sums = lengths.reduce_by_key(|a, b| a + b)?;
    let joined =
        sums.join(&base.filter(|(key, _)| *key < 5))?.map_values(|(sum, text)| format!("{sum} {text}"));
    let expected = (base.collect()?, sums.collect()?, joined.collect()?);
    let stop = AtomicBool::new(false);
    let readers = |what: usize| -> Result<u32, Error> {
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            match what % 3 {
                0 => assert!(base.collect()? == expected.0),
                1 => assert!(sums.collect()? == expected.1),
                _ => assert!(joined.collect()? == expected.2),
            }
            rounds += 1;
        }
        Ok(rounds)
    };
    let changes = || -> Result<(), Error> {
        for round in 0..60_u32 {
            let level = StorageLevel::NAMED[1 + round as usize % 11].1;
            for dataset in [&base, &joined.map_values(|text| text.clone())] {
                dataset.persist(if level.uses_off_heap() { StorageLevel::MEMORY_ONLY } else { level })?;
            }
            sums.persist(StorageLevel::MEMORY_AND_DISK)?;
            sums.count()?;
            for partition in 0..5 {
                context.drop_block(base.id(), (partition + round) % 5);
                context.drop_block(sums.id(), partition);
            }
            match round {
                20 => drop(sums.checkpoint()?),
                40 => drop(base.checkpoint()?),
                _ => {}
            }
            base.unpersist();
            sums.unpersist();
        }
        Ok(())
    };
    let results = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|what| scope.spawn(move || readers(what))).collect();
        let changed = changes();
        stop.store(true, Ordering::Relaxed);
        let rounds = readers.into_iter().map(|reader| reader.join()).collect::<Vec<_>>();
        changed.map(|()| rounds)
    })?;
    for rounds in results {
        assert!(matches!(rounds, Ok(Ok(rounds)) if rounds > 0), "{rounds:?}");
    }
    drop((base, lengths, sums, joined));
    let memory = context.store().memory().snapshot();
    assert_eq!(memory.heap.storage_bytes, 0, "charged and not live");
    assert!(context.store().datasets().is_empty());
    Ok(())
}

/// Long enough for any of these tests; who takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `work` on a thread of its own and gives up on it when it hangs.
fn in_time(work: impl FnOnce() -> Result<(), BoxError> + Send + 'static) -> Result<(), BoxError> {
    let (done, result) = mpsc::channel();
    let thread = std::thread::spawn(move || drop(done.send(work())));
    let result = result.recv_timeout(PATIENCE).map_err(|e| format!("it hangs or panicked: {e}"))?;
    thread.join().map_err(|_| "it panicked")?;
    result
}

#[test]
fn a_closure_may_own_the_last_handle_of_a_dataset_and_be_dropped_while_others_plan() -> Result<(), BoxError> {
    in_time(|| {
        let directory = tempfile::tempdir()?;
        let builder = Context::builder().threads(2).progress(false);
        let context = builder.checkpoints(directory.path()).build()?;
        for _ in 0..40 {
            let owned = context.range(0..4, 1)?.map(|n| n + 1);
            let pairs = context.range(0..8, 200)?.map(|n| (n % 2, *n));
            let sums = pairs
                .reduce_by_key_with_partitions(2, move |a, b| a + b + i64::from(owned.partitions()) - 1)?;
            drop(pairs);
            sums.count()?;
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let read = || {
                    while !stop.load(Ordering::Relaxed) {
                        assert!(sums.first()?.is_some());
                    }
                    Ok::<(), Error>(())
                };
                let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
                let checkpoint = sums.checkpoint_as("sums");
                stop.store(true, Ordering::Relaxed);
                let read: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
                assert!(read.iter().all(|read| matches!(read, Ok(Ok(())))), "{read:?}");
                checkpoint
            })?;
        }
        Ok(())
    })
}

/// A record that owns a dataset's handle.
#[derive(Clone, Serialize, Deserialize)]
struct Owner {
    #[serde(skip)]
    _owned: Option<Dataset<i64>>,
}

impl HeapSize for Owner {
    fn heap_bytes(&self) -> usize {
        0
    }
}

#[test]
fn a_record_may_own_the_last_handle_of_a_dataset_and_be_dropped_while_others_plan_and_print()
-> Result<(), BoxError> {
    in_time(|| {
        let context = Context::builder().threads(2).progress(false).build()?;
        let maker = context.clone();
        let owners = context.range(0..4, 2)?;
        let owners =
            owners.try_map(move |n| maker.range(0..*n, 1).map(|owned| Owner { _owned: Some(owned) }));
        let child = owners.map(|_| 1);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let printing = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    child.to_debug_string()?;
                    child.to_dot()?;
                }
                Ok::<(), Error>(())
            });
            let planning = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(child.count()?, 4);
                }
                Ok::<(), Error>(())
            });
            let changed = (0..400).try_for_each(|_| {
                owners.cache()?.count()?;
                owners.unpersist();
                Ok::<(), Error>(())
            });
            stop.store(true, Ordering::Relaxed);
            for thread in [printing, planning] {
                assert!(matches!(thread.join(), Ok(Ok(()))));
            }
            changed
        })?;
        Ok(())
    })
}
