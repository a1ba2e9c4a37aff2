//! Parts that are damaged and closures that fail: what readers see, and what is left behind.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_checkpoint::{HookAction, Step};
use larder_exec::{CheckpointStore, Context};

use crate::support::{Done, RECORDS, attempts, context, counted, is_cut};

#[test]
fn a_part_damaged_before_the_commit_is_found_before_readers_see_it() -> Done {
    let directory = tempfile::tempdir()?;
    let armed = Arc::new(AtomicBool::new(false));
    let (flag, root) = (Arc::clone(&armed), directory.path().to_owned());
    // Once all parts are closed: whatever comes first of reading them back and committing them.
    let hook = move |step: Step, part: &str| {
        let closed = matches!(step, Step::OpenPart | Step::CheckPart) && part.ends_with("00002-of-00004.blk");
        if closed && flag.swap(false, Ordering::Relaxed) {
            let path = root.join(part);
            let damaged = fs::read(&path).and_then(|mut bytes| {
                bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
                fs::write(&path, bytes)
            });
            assert!(damaged.is_ok());
        }
        HookAction::Continue
    };
    let store = CheckpointStore::builder(directory.path().display().to_string()).hook(hook).open()?;
    let context = Context::builder().threads(1).progress(false).checkpoint_store(store).build()?;
    let (dataset, _) = counted(&context)?;
    dataset.checkpoint_as("sound")?;
    let (dataset, _) = counted(&context)?;
    armed.store(true, Ordering::Relaxed);
    let message = dataset.checkpoint_as("sound").map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("part-00002-of-00004.blk") && m.contains("partition 2")));
    assert!(!armed.load(Ordering::Relaxed));
    assert_eq!(context.latest_checkpoint("sound")?.map(|info| info.generation), Some(1));
    assert_eq!(context.open_checkpoint::<(i64, String)>("sound")?.count()?, RECORDS);
    assert!(!is_cut(&dataset)?, "the lineage is kept");
    assert_eq!(dataset.checkpoint_as("sound")?.generation, 2);
    Ok(())
}

#[test]
fn a_failing_closure_leaves_no_checkpoint_behind() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let armed = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&armed);
    let mined = context
        .range(0..4_000, 4)?
        .try_map(move |n| if *n == 3_500 && flag.load(Ordering::Relaxed) { Err("boom") } else { Ok(*n) });
    let mined = mined.named("mined");
    assert!(mined.checkpoint().is_err());
    assert_eq!(context.latest_checkpoint("mined")?, None);
    assert_eq!(attempts(directory.path(), "mined"), 0, "what was written is removed");
    armed.store(false, Ordering::Relaxed);
    assert_eq!(mined.checkpoint()?.generation, 1);
    assert_eq!(mined.collect()?, (0..4_000).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn a_part_that_was_damaged_behind_our_back_fails_the_read_with_its_name() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let (dataset, _) = counted(&context)?;
    dataset.checkpoint_as("victim")?;
    let attempt = fs::read_dir(directory.path().join("victim/data"))?.next().ok_or("no data")??.path();
    let part = attempt.join("part-00002-of-00004.blk");
    let mut bytes = fs::read(&part)?;
    bytes[100] ^= 1;
    fs::write(&part, &bytes)?;
    let message = dataset.count().map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("partition 2") && m.contains("part-00002-of-00004.blk")));
    assert_eq!(dataset.take(900)?.len(), 900, "the other parts are sound");
    Ok(())
}
