//! `PeriodicCheckpointer`: every so many iterations, the older ones deleted once a newer is durable.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_checkpoint::{HookAction, Step};
use larder_exec::{CheckpointInfo, CheckpointStore, Context, Error, PeriodicCheckpointer, StorageLevel};

use crate::support::{Done, context};

#[test]
fn a_periodic_checkpointer_keeps_two_checkpoints_and_two_persisted_iterations() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let mut checkpointer = PeriodicCheckpointer::new(&context, 3, "ranks")?.level(StorageLevel::MEMORY_ONLY);
    let mut ranks = context.range(0..1_000, 4)?.map(|n| (n % 50, *n)).reduce_by_key(|a, b| a + b)?;
    let mut expected: Vec<(i64, i64)> = ranks.collect()?;
    for iteration in 1..=14 {
        ranks = ranks.map_values(|n| n + 1).filter(|_| true);
        let info = checkpointer.update(&ranks)?;
        assert_eq!(info.is_some(), iteration % 3 == 0);
        expected.iter_mut().for_each(|(_, n)| *n += 1);
        assert_eq!(ranks.collect()?, expected, "iteration {iteration}");
        assert!(context.storage().len() <= 2);
        let generations = context.checkpoints().ok_or("none")?.generations("ranks")?;
        let newest = iteration / 3;
        let kept: Vec<u64> = (newest.max(2) - 1..=newest).collect();
        assert_eq!(generations, kept, "iteration {iteration}");
        let lines = ranks.to_debug_string()?.lines().count() as u64;
        assert!(iteration < 3 || lines <= 2 * 3 + 1, "the lineage stays short: {lines}");
    }
    checkpointer.unpersist_all();
    assert!(context.storage().is_empty());
    Ok(())
}

/// A context at whose checkpoints `step` fails while the flag is up.
fn failing_at(step: Step, directory: &Path) -> Result<(Context, Arc<AtomicBool>), Error> {
    let broken = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&broken);
    let hook = move |at: Step, _: &str| match at == step && flag.load(Ordering::Relaxed) {
        true => HookAction::FailBefore(ErrorKind::PermissionDenied),
        false => HookAction::Continue,
    };
    let store = CheckpointStore::builder(directory.display().to_string()).hook(hook).open()?;
    Ok((Context::builder().threads(1).progress(false).checkpoint_store(store).build()?, broken))
}

#[test]
fn a_periodic_checkpoint_that_failed_can_be_repeated_or_left_to_the_next() -> Done {
    for repeat in [true, false] {
        let directory = tempfile::tempdir()?;
        let (context, broken) = failing_at(Step::WriteManifest, directory.path())?;
        let mut checkpointer = PeriodicCheckpointer::new(&context, 2, "steps")?;
        let steps: Vec<_> = (0..6)
            .map(|step| Ok(context.range(0..10, 1)?.map(move |n| n + step)))
            .collect::<Result<_, Error>>()?;
        let generation = |info: Option<CheckpointInfo>| info.map(|info| info.generation);
        assert_eq!(generation(checkpointer.update(&steps[0])?), None);
        broken.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            assert!(checkpointer.update(&steps[1]).is_err());
        }
        broken.store(false, Ordering::Relaxed);
        assert!(steps[0].storage_level().is_some(), "the last two stay persisted, whatever fails");
        let (next, rest) = if repeat { (&steps[1], &steps[2..]) } else { (&steps[2], &steps[3..]) };
        assert_eq!(generation(checkpointer.update(next)?), Some(1), "it is still its turn");
        assert_eq!(context.open_checkpoint::<i64>("steps")?.collect()?, next.collect()?);
        assert_eq!(context.storage().len(), 2);
        assert_eq!(generation(checkpointer.update(&rest[0])?), None);
        assert_eq!(generation(checkpointer.update(&rest[1])?), Some(2));
    }
    Ok(())
}

#[test]
fn a_periodic_checkpoint_counts_although_an_older_one_cannot_be_deleted() -> Done {
    let directory = tempfile::tempdir()?;
    let (context, broken) = failing_at(Step::RemoveManifest, directory.path())?;
    let mut checkpointer = PeriodicCheckpointer::new(&context, 1, "steps")?;
    let numbers = context.range(0..10, 1)?;
    broken.store(true, Ordering::Relaxed);
    for step in 1..=4 {
        let info = checkpointer.update(&numbers.map(move |n| n + step))?;
        assert_eq!(info.map(|info| info.generation), Some(step as u64));
        let error = checkpointer.retention_error().map(ToString::to_string);
        assert_eq!(error.is_some(), step > 2, "there is nothing to delete before");
        assert!(error.is_none_or(|error| error.contains("steps/commits/00000000000000000001.json")));
    }
    broken.store(false, Ordering::Relaxed);
    checkpointer.update(&numbers)?;
    assert!(checkpointer.retention_error().is_none());
    assert_eq!(context.checkpoints().ok_or("none")?.generations("steps")?, [4, 5]);
    Ok(())
}

#[test]
fn an_older_checkpoint_stays_until_a_newer_is_durable() -> Done {
    let directory = tempfile::tempdir()?;
    let (context, broken) = failing_at(Step::PublishManifest, directory.path())?;
    let mut checkpointer = PeriodicCheckpointer::new(&context, 1, "steps")?;
    let numbers = context.range(0..10, 1)?;
    for step in 0..3 {
        checkpointer.update(&numbers.map(move |n| n + step))?;
    }
    broken.store(true, Ordering::Relaxed);
    assert!(checkpointer.update(&numbers.map(|n| n + 3)).is_err());
    let checkpoints = context.checkpoints().ok_or("none")?;
    assert_eq!(checkpoints.generations("steps")?, [2, 3], "nothing was deleted");
    broken.store(false, Ordering::Relaxed);
    checkpointer.update(&numbers.map(|n| n + 4))?;
    assert_eq!(checkpoints.generations("steps")?, [3, 4]);
    assert_eq!(context.open_checkpoint::<i64>("steps")?.first()?, Some(4));
    Ok(())
}
