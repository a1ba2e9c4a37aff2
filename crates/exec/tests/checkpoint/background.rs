//! `checkpoint_async()`: written in the background, from a local copy.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_checkpoint::{HookAction, Step};
use larder_exec::{CheckpointStore, Context, Error, StorageLevel};
use parking_lot::{Condvar, Mutex};

use crate::support::{Done, PATIENCE, RECORDS, attempts, builder, counted, expected, is_cut, written};

/// Lets uploads write when it is open.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    fn store(&self, directory: &Path) -> Result<CheckpointStore, larder_checkpoint::Error> {
        let gate = Arc::clone(&self.0);
        let hook = move |step: Step, _: &str| {
            if matches!(step, Step::WriteChunk | Step::WriteHeader) {
                let mut is_open = gate.0.lock();
                while !*is_open {
                    gate.1.wait(&mut is_open);
                }
            }
            HookAction::Continue
        };
        CheckpointStore::builder(directory.display().to_string()).hook(hook).open()
    }
}

#[test]
fn the_job_goes_on_from_the_local_copy_until_the_checkpoint_is_there() -> Done {
    for level in [
        None,
        Some(StorageLevel::MEMORY_ONLY),
        Some(StorageLevel::MEMORY_AND_DISK),
        Some(StorageLevel::MEMORY_AND_DISK_SER),
        Some(StorageLevel::DISK_ONLY),
    ] {
        for action_before in [false, true] {
            let (directory, gate) = (tempfile::tempdir()?, Gate::default());
            let context = builder().checkpoint_store(gate.store(directory.path())?).build()?;
            let (dataset, computed) = counted(&context)?;
            if let Some(level) = level {
                dataset.persist(level)?;
            }
            if action_before {
                dataset.count()?;
            }
            let before = computed.load(Ordering::Relaxed);
            let checkpoint = dataset.checkpoint_async()?;
            let once = before + if level.is_some() && action_before { 0 } else { RECORDS };
            assert_eq!(computed.load(Ordering::Relaxed), once, "{level:?} {action_before}");
            let again = dataset.checkpoint_async()?;
            assert!(matches!(dataset.checkpoint_async_as("other"), Err(Error::CheckpointInProgress { .. })));

            let keys = dataset.map(|(key, _)| *key).reduce(|a, b| a.max(*b))?;
            assert_eq!((keys, dataset.collect()?), (Some(99), expected()));
            assert_eq!(dataset.storage_level(), level, "the copy is nobody's level");
            assert!(checkpoint.result().is_none() && !is_cut(&dataset)?, "nothing is durable yet");
            assert!(context.latest_checkpoint("records")?.is_none());
            gate.open();
            let info = written(&checkpoint)?;
            assert_eq!((info.records, info.partitions, info.generation), (RECORDS, 4, 1));
            assert_eq!(written(&again)?, info, "asked for twice, it is one");
            assert!(is_cut(&dataset)?);
            let datasets = context.store().datasets().len();
            assert_eq!(datasets, usize::from(level.is_some()), "the copy is gone");
            dataset.unpersist();
            assert_eq!(dataset.collect()?, expected());
            assert_eq!(computed.load(Ordering::Relaxed), once, "{level:?} {action_before}: computed once");
            let elsewhere = Context::builder().threads(1).progress(false).build()?;
            assert_eq!(elsewhere.open_checkpoint_at::<(i64, String)>(info.address)?.collect()?, expected());
        }
    }
    Ok(())
}

#[test]
fn what_the_copy_was_computed_from_is_not_needed_while_it_is_there() -> Done {
    let (directory, gate) = (tempfile::tempdir()?, Gate::default());
    let context = builder().checkpoint_store(gate.store(directory.path())?).build()?;
    let (parent, computed) = counted(&context)?;
    parent.cache()?;
    let child = parent.map(|(key, _)| *key);
    let checkpoint = child.checkpoint_async()?;
    assert!((0..4).all(|partition| context.drop_block(parent.id(), partition)));
    assert_eq!(child.count()?, RECORDS);
    child.cache()?;
    assert_eq!(child.fold(0, |sum, key| sum + key)?, 396_000);
    let cached = context.storage().into_iter().find(|storage| storage.id == child.id());
    assert_eq!(cached.map(|storage| storage.cached_partitions), Some(4), "what is read of the copy is kept");
    gate.open();
    assert_eq!(written(&checkpoint)?.records, RECORDS);
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS);
    Ok(())
}

#[test]
fn it_is_written_though_the_dataset_is_unpersisted_and_dropped_meanwhile() -> Done {
    for level in [StorageLevel::NONE, StorageLevel::MEMORY_ONLY, StorageLevel::MEMORY_AND_DISK] {
        for memory in ["2KiB", "16MiB"] {
            let (directory, gate) = (tempfile::tempdir()?, Gate::default());
            let context = builder().memory(memory).checkpoint_store(gate.store(directory.path())?).build()?;
            let (dataset, computed) = counted(&context)?;
            if level.is_stored() {
                dataset.persist(level)?;
            }
            let checkpoint = dataset.checkpoint_async()?;
            dataset.unpersist();
            assert_eq!(dataset.count()?, RECORDS);
            drop(dataset);
            gate.open();
            assert_eq!(written(&checkpoint)?.records, RECORDS);
            assert_eq!(computed.load(Ordering::Relaxed), RECORDS, "{level} {memory}: computed once");
            assert_eq!(context.open_checkpoint::<(i64, String)>("records")?.collect()?, expected());
            assert!(context.store().datasets().is_empty());
            assert_eq!(context.store().memory().snapshot().heap.storage_bytes, 0);
        }
    }
    Ok(())
}

#[test]
fn blocks_that_are_lost_from_the_copy_are_computed_again() -> Done {
    let (directory, gate) = (tempfile::tempdir()?, Gate::default());
    let context = builder().checkpoint_store(gate.store(directory.path())?).build()?;
    let (dataset, computed) = counted(&context)?;
    let checkpoint = dataset.checkpoint_async()?;
    assert!(context.drop_block(dataset.id(), 3));
    gate.open();
    assert_eq!(written(&checkpoint)?.records, RECORDS);
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS + RECORDS / 4);
    assert_eq!(dataset.collect()?, expected());
    Ok(())
}

/// Waits until an upload has removed what it wrote.
fn is_cleared(directory: &Path) -> bool {
    let started = Instant::now();
    while attempts(directory, "records") > 0 && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    attempts(directory, "records") == 0
}

#[test]
fn a_cancelled_one_ends_soon_and_leaves_nothing() -> Done {
    let directory = tempfile::tempdir()?;
    // Each part would take days.
    let context = builder().checkpoints(directory.path()).checkpoint_bandwidth(1).build()?;
    let (dataset, _) = counted(&context)?;
    let checkpoint = dataset.checkpoint_async()?;
    while attempts(directory.path(), "records") == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(checkpoint.wait_timeout(Duration::from_millis(50)).is_none());
    context.cancel();
    assert!(checkpoint.wait_timeout(Duration::from_millis(50)).is_none(), "it is none of the jobs");
    checkpoint.cancel();
    let ended = checkpoint.wait_timeout(PATIENCE).ok_or("it hangs")?;
    assert!(matches!(ended, Err(Error::CheckpointCancelled { why: "it was cancelled", .. })), "{ended:?}");
    assert!(is_cleared(directory.path()));
    assert!(context.store().datasets().is_empty(), "the copy is gone");
    assert!(!is_cut(&dataset)? && context.latest_checkpoint("records")?.is_none());
    assert_eq!(dataset.collect()?, expected());
    Ok(())
}

#[test]
fn a_context_that_is_dropped_waits_for_no_upload_and_leaves_none_behind() -> Done {
    for keep_dataset in [true, false] {
        let directory = tempfile::tempdir()?;
        let context = builder().checkpoints(directory.path()).checkpoint_bandwidth(1).build()?;
        let store = context.store().clone();
        let (dataset, _) = counted(&context)?;
        let checkpoint = dataset.checkpoint_async()?;
        // And one that is waiting for nothing but the first.
        let (other, _) = counted(&context)?;
        let waiting = other.checkpoint_async()?;
        let dropped = Instant::now();
        drop((context, other));
        if keep_dataset {
            assert!(
                checkpoint.wait_timeout(Duration::from_millis(50)).is_none(),
                "a dataset keeps its context"
            );
        }
        drop(dataset);
        assert!(dropped.elapsed() < PATIENCE / 4);
        for handle in [checkpoint, waiting] {
            let ended = handle.wait_timeout(PATIENCE).ok_or("it hangs")?;
            let why = "its context was dropped";
            assert!(
                matches!(&ended, Err(Error::CheckpointCancelled { why: w, .. }) if *w == why),
                "{ended:?}"
            );
        }
        assert!(is_cleared(directory.path()));
        assert!(store.datasets().is_empty());
        assert_eq!(store.memory().snapshot().heap.storage_bytes, 0);
    }
    Ok(())
}

#[test]
fn a_dropped_handle_is_no_cancelling() -> Done {
    let (directory, gate) = (tempfile::tempdir()?, Gate::default());
    let context = builder().checkpoint_store(gate.store(directory.path())?).build()?;
    let (dataset, _) = counted(&context)?;
    drop(dataset.checkpoint_async()?);
    gate.open();
    let started = Instant::now();
    while !is_cut(&dataset)? {
        assert!(started.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(context.open_checkpoint::<(i64, String)>("records")?.collect()?, expected());
    Ok(())
}

#[test]
fn the_bandwidth_is_kept_by_all_uploads_together() -> Done {
    let directory = tempfile::tempdir()?;
    let bandwidth = 800_000;
    let context = builder().checkpoints(directory.path()).checkpoint_bandwidth(bandwidth).build()?;
    let datasets = [counted(&context)?.0, counted(&context)?.0];
    let started = Instant::now();
    let checkpoints =
        datasets.iter().zip(["a", "b"]).map(|(dataset, name)| dataset.checkpoint_async_as(name));
    let mut bytes = 0;
    for checkpoint in checkpoints.collect::<Result<Vec<_>, _>>()? {
        bytes += written(&checkpoint)?.bytes;
    }
    // Written and read back, but for what may go through at once: the last part that is read back.
    let least = Duration::from_secs_f64((2 * bytes - bytes / 8) as f64 / bandwidth as f64);
    let took = started.elapsed();
    assert!(took >= least.mul_f64(0.95) && bytes > 400_000, "{took:?} for {bytes} bytes, {least:?} at least");
    Ok(())
}

#[test]
fn eager_ones_wait_for_one_that_is_under_way_and_are_cancelled_with_the_context() -> Done {
    let (directory, gate) = (tempfile::tempdir()?, Gate::default());
    let context = builder().checkpoint_store(gate.store(directory.path())?).build()?;
    let (dataset, computed) = counted(&context)?;
    let checkpoint = dataset.checkpoint_async()?;
    std::thread::scope(|scope| -> Done {
        let eager = scope.spawn(|| dataset.checkpoint());
        std::thread::sleep(Duration::from_millis(50));
        context.cancel();
        let cancelled = eager.join().map_err(|_| "panicked")?;
        assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
        let eager = scope.spawn(|| dataset.checkpoint());
        let lazy = dataset.checkpoint_lazily()?;
        std::thread::sleep(Duration::from_millis(50));
        gate.open();
        assert_eq!(eager.join().map_err(|_| "panicked")??, written(&checkpoint)?);
        assert_eq!(written(&lazy)?, written(&checkpoint)?);
        Ok(())
    })?;
    assert_eq!(context.checkpoints().ok_or("none")?.generations("records")?, [1]);
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS);
    Ok(())
}

#[test]
fn what_cannot_be_had_is_told_at_the_call() -> Done {
    let directory = tempfile::tempdir()?;
    let nowhere = builder().build()?.range(0..10, 2)?;
    assert!(matches!(nowhere.checkpoint_async(), Err(Error::NoCheckpoints { .. })));
    let diskless = builder().no_disk().checkpoints(directory.path()).build()?.range(0..10, 2)?;
    let message = diskless.checkpoint_async().map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("disk")));
    let context = builder().checkpoints(directory.path()).task_attempts(1).build()?;
    let armed = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&armed);
    let mined = context.range(0..400, 4)?.map(move |n| {
        assert!(*n != 350 || !flag.load(Ordering::Relaxed), "stepped on {n}");
        *n
    });
    let mined = mined.named("records");
    let message = mined.checkpoint_async().map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("`records`") && m.contains("stepped on 350")));
    assert!(context.store().datasets().is_empty(), "no copy stays");
    armed.store(false, Ordering::Relaxed);
    for partitions in [0, 4] {
        let dataset =
            if partitions == 0 { context.parallelize(Vec::<i64>::new(), 0)? } else { mined.clone() };
        let info = written(&dataset.checkpoint_async_as("numbers")?)?;
        assert_eq!(info.partitions, partitions);
        assert!(is_cut(&dataset)?);
    }
    assert_eq!(context.open_checkpoint::<i64>("numbers")?.collect()?, (0..400).collect::<Vec<_>>());
    Ok(())
}
