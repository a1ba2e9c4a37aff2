//! Every step of a checkpoint fails in turn, in every way, however it was asked for.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_checkpoint::{HookAction, Step};
use larder_exec::{CheckpointStore, Context, Error};
use tempfile::TempDir;

use crate::support::{Done, PATIENCE, RECORDS, builder, context, counted, expected, first, is_cut, written};

/// A place for checkpoints where one step fails, the `failing`-th of all.
struct Fragile {
    directory: TempDir,
    store: CheckpointStore,
    failing: u64,
    steps: Arc<AtomicU64>,
}

impl Fragile {
    fn new(failing: u64, action: fn(ErrorKind) -> HookAction) -> Result<Self, Box<dyn std::error::Error>> {
        let (directory, steps) = (tempfile::tempdir()?, Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&steps);
        let hook = move |_: Step, _: &str| match counter.fetch_add(1, Ordering::Relaxed) == failing {
            true => action(ErrorKind::Other),
            false => HookAction::Continue,
        };
        let store = CheckpointStore::builder(directory.path().display().to_string()).hook(hook).open()?;
        Ok(Self { directory, store, failing, steps })
    }

    /// With one thread, so that the steps come in one order.
    fn context(&self) -> Result<Context, Error> {
        let builder = Context::builder().threads(1).progress(false).task_attempts(1);
        builder.checkpoint_store(self.store.clone()).build()
    }

    fn has_failed(&self) -> bool {
        self.steps.load(Ordering::Relaxed) > self.failing
    }
}

/// Whether there was no checkpoint although a step failed; `None` if there is no such step.
type Tried = Result<Option<bool>, Box<dyn std::error::Error>>;

/// Tries with every step that there is.
fn at_every_step(try_with: fn(&Fragile) -> Tried) -> Done {
    for action in [HookAction::FailBefore, HookAction::FailHalfway, HookAction::FailAfter] {
        let (mut steps, mut failures) = (0, 0);
        while let Some(has_failed) = try_with(&Fragile::new(steps, action)?)? {
            failures += u32::from(has_failed);
            steps += 1;
            assert!(steps < 200, "it never ends");
        }
        assert!(steps >= 10 && failures > 3, "{steps} steps, {failures} failures");
    }
    Ok(())
}

/// Another context finds a whole checkpoint or none.
fn is_whole_or_invisible(directory: &Path, failing: u64) -> Done {
    match context(directory)?.open_checkpoint::<(i64, String)>("records") {
        Ok(visible) => assert_eq!(visible.collect()?, expected(), "whole, step {failing}"),
        Err(error) => assert!(matches!(error, Error::NoSuchCheckpoint { .. }), "{error}"),
    }
    Ok(())
}

#[test]
fn a_checkpoint_that_fails_at_any_step_leaves_the_dataset_as_it_was_and_can_be_repeated() -> Done {
    at_every_step(|fragile| {
        let (failing, directory) = (fragile.failing, fragile.directory.path());
        let context = fragile.context()?;
        let (dataset, _) = counted(&context)?;
        let result = dataset.checkpoint();
        if !fragile.has_failed() {
            result?;
            return Ok(None);
        }
        is_whole_or_invisible(directory, failing)?;
        if result.is_err() {
            assert!(!is_cut(&dataset)?, "the lineage is kept, step {failing}");
            assert_eq!(dataset.count()?, RECORDS);
            assert_eq!(dataset.checkpoint()?.records, RECORDS, "step {failing}");
        }
        assert!(is_cut(&dataset)?);
        let opened = self::context(directory)?.open_checkpoint::<(i64, String)>("records")?;
        assert_eq!(opened.count()?, RECORDS);
        Ok(Some(result.is_err()))
    })
}

#[test]
fn whatever_step_fails_the_action_succeeds_and_the_checkpoint_can_be_asked_for_again() -> Done {
    at_every_step(|fragile| {
        let failing = fragile.failing;
        let context = fragile.context()?;
        let (dataset, _) = counted(&context)?;
        let Ok(checkpoint) = dataset.checkpoint_lazily() else { return Ok(Some(true)) };
        assert_eq!(dataset.take(900)?, first(900), "step {failing}");
        let result = checkpoint.result().ok_or("the action has tried")?;
        let has_failed = fragile.has_failed();
        is_whole_or_invisible(fragile.directory.path(), failing)?;
        assert_eq!(is_cut(&dataset)?, result.is_ok(), "step {failing}");
        if !has_failed {
            result?;
            return Ok(None);
        }
        assert_eq!(dataset.collect()?, expected());
        let again = dataset.checkpoint_lazily()?;
        dataset.count()?;
        assert_eq!(again.wait()?.records, RECORDS, "step {failing}");
        Ok(Some(result.is_err()))
    })
}

#[test]
fn whatever_step_fails_the_dataset_works_and_the_error_can_be_asked_for() -> Done {
    at_every_step(|fragile| {
        let failing = fragile.failing;
        let context = builder().task_attempts(1).checkpoint_store(fragile.store.clone()).build()?;
        let (dataset, computed) = counted(&context)?;
        let checkpoint = dataset.checkpoint_async()?;
        let result = checkpoint.wait_timeout(PATIENCE).ok_or("it hangs")?;
        let has_failed = fragile.has_failed();
        if let Err(error) = &result {
            assert!(matches!(error, Error::CheckpointFailed { .. }), "{error}");
            assert!(error.to_string().contains("`records`"), "{error}");
        }
        assert_eq!(is_cut(&dataset)?, result.is_ok(), "step {failing}");
        assert!(context.store().datasets().is_empty(), "the copy is gone");
        assert_eq!(computed.load(Ordering::Relaxed), RECORDS);
        if !has_failed {
            result?;
            return Ok(None);
        }
        assert_eq!(dataset.collect()?, expected(), "step {failing}");
        let again = dataset.checkpoint_async()?;
        assert_eq!(written(&again)?.records, RECORDS, "step {failing}");
        assert_eq!(dataset.collect()?, expected(), "step {failing}");
        Ok(Some(result.is_err()))
    })
}
