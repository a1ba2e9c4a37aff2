//! What is asked for lazily and not yet written: asked for twice, awaited, withdrawn, left.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as Waiting, Poll, Wake, Waker};
use std::time::Duration;

use larder_exec::Error;

use crate::support::{Done, RECORDS, attempts, context, counted, expected, is_cut};

#[test]
fn asked_for_twice_it_is_one_and_once_it_is_there_the_next_is_another() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let (dataset, computed) = counted(&context)?;
    let (first, second) = (dataset.checkpoint_lazily()?, dataset.checkpoint_lazily()?);
    let refused = dataset.checkpoint_lazily_as("other").map_err(|e| e.to_string());
    assert!(refused.is_err_and(|m| m.contains("`records`") && m.contains("`other`")));
    assert!(matches!(dataset.checkpoint_async(), Err(Error::CheckpointInProgress { .. })));
    // By another name, it can be had at once; the next that is computed is the last.
    assert_eq!(dataset.checkpoint_as("other")?.records, RECORDS);
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS);
    assert_eq!(dataset.count()?, RECORDS);
    assert_eq!(first.wait()?, second.wait()?);
    assert_eq!(first.wait()?.generation, 1);

    let third = dataset.checkpoint_lazily()?;
    let eager = dataset.checkpoint()?;
    assert_eq!((eager.generation, third.wait()?), (2, eager), "what waited is written at once");
    assert_eq!(dataset.collect()?, expected());
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS);
    assert_eq!(context.checkpoints().ok_or("none")?.generations("records")?, [1, 2]);
    Ok(())
}

#[test]
fn datasets_without_partitions_or_records_are_written_too() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    for (name, dataset) in [
        ("no-partition", context.parallelize(Vec::<i64>::new(), 0)?),
        ("no-record", context.range(0..100, 3)?.filter(|_| false)),
        ("empty-partitions", context.range(0..100, 4)?.filter(|n| *n > 80)),
    ] {
        let checkpoint = dataset.checkpoint_lazily_as(name)?;
        let all = dataset.collect()?;
        assert_eq!(checkpoint.result().ok_or(name)??.records, all.len() as u64);
        let opened = context.open_checkpoint::<i64>(name)?;
        assert_eq!((opened.partitions(), opened.collect()?), (dataset.partitions(), all));
    }
    Ok(())
}

#[test]
fn a_request_ends_with_its_dataset_or_by_hand_and_leaves_nothing() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let (dataset, computed) = counted(&context)?;
    let child = dataset.map(|(key, _)| *key);
    let checkpoint = dataset.checkpoint_lazily()?;
    assert_eq!(attempts(directory.path(), "records"), 1);
    drop(dataset);
    assert!(checkpoint.result().is_none(), "a child keeps it");
    drop(child);
    let ended = checkpoint.result().ok_or("open")?;
    assert!(matches!(ended, Err(Error::CheckpointCancelled { .. })), "{ended:?}");
    assert_eq!(attempts(directory.path(), "records"), 0);

    let (dataset, _) = counted(&context)?;
    let child = dataset.map(|(key, _)| *key);
    let checkpoint = dataset.checkpoint_lazily()?;
    drop(dataset);
    assert_eq!(child.count()?, RECORDS);
    assert_eq!(checkpoint.wait()?.records, RECORDS, "its child's action wrote it");

    let (dataset, _) = counted(&context)?;
    let checkpoint = dataset.checkpoint_lazily_as("withdrawn")?;
    checkpoint.cancel();
    assert!(matches!(checkpoint.result(), Some(Err(Error::CheckpointCancelled { .. }))));
    assert_eq!(attempts(directory.path(), "withdrawn"), 0);
    assert_eq!(dataset.count()?, RECORDS);
    assert!(!is_cut(&dataset)? && context.latest_checkpoint("withdrawn")?.is_none());
    assert_eq!(dataset.checkpoint_as("withdrawn")?.generation, 1);
    // Dropping the handle is no cancelling.
    let (dataset, _) = counted(&context)?;
    drop(dataset.checkpoint_lazily_as("left-alone")?);
    dataset.count()?;
    assert_eq!(context.latest_checkpoint("left-alone")?.map(|info| info.records), Some(RECORDS));
    assert_eq!(computed.load(Ordering::Relaxed), 0);
    Ok(())
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Waiting::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn it_can_be_awaited() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let (dataset, _) = counted(&context)?;
    let checkpoint = dataset.checkpoint_lazily()?;
    assert!(checkpoint.wait_timeout(Duration::from_millis(30)).is_none());
    let waiting = checkpoint.clone();
    let awaited = std::thread::spawn(move || block_on(waiting));
    std::thread::sleep(Duration::from_millis(30));
    dataset.count()?;
    let awaited = awaited.join().map_err(|_| "panicked")??;
    assert_eq!(awaited, checkpoint.wait()?);
    assert_eq!(block_on(checkpoint)?, awaited, "once more, when it is there");
    Ok(())
}
