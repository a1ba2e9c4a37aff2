//! A lineage of a million steps, on a thread with a 256 KiB stack.

use std::path::Path;
use std::time::Instant;

use larder_exec::{Context, Dataset, Error};

const STEPS: i64 = 1_000_000;
const STACK_BYTES: usize = 256 << 10;

fn million(checkpoints: &Path) -> Result<(), Error> {
    let mut begun = Instant::now();
    let mut lap = |what: &str| {
        println!("{what}: {:.2} s", begun.elapsed().as_secs_f64());
        begun = Instant::now();
    };
    let context = Context::builder().threads(1).progress(false).checkpoints(checkpoints).build()?;
    let mut dataset = context.range(0..100, 1)?;
    for step in 0..STEPS {
        dataset = match step % 4 {
            0 => dataset.filter(|_| true),
            _ => dataset.map(|n| n + 1),
        };
    }
    lap("build");
    assert_eq!(dataset.count()?, 100);
    lap("count");
    let text = dataset.to_debug_string()?;
    assert_eq!(text.lines().count() as i64, STEPS + 1);
    lap("debug string");
    let info = dataset.checkpoint()?;
    assert_eq!((info.records, info.partitions), (100, 1));
    lap("checkpoint");
    assert_eq!(dataset.to_debug_string()?.lines().count(), 1, "the lineage is cut");
    assert_eq!(dataset.first()?, Some(STEPS * 3 / 4));
    drop(dataset);

    let mut dataset = context.range(0..10, 1)?;
    for _ in 0..STEPS {
        dataset = dataset.map(|n| n + 1);
    }
    lap("build again");
    drop(dataset);
    lap("drop");
    Ok(())
}

#[test]
fn a_million_steps_are_built_counted_printed_checkpointed_and_dropped()
-> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_owned();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || million(&path))?;
    assert!(matches!(thread.join(), Ok(Ok(()))));
    Ok(())
}

/// Datasets each of whose closures owns the handle of the one before.
fn nested(context: &Context, depth: usize) -> Result<Dataset<i64>, Error> {
    let mut dataset = context.range(0..1, 1)?;
    for _ in 0..depth {
        let owned = dataset;
        dataset = context.range(0..1, 1)?.map(move |n| n + i64::from(owned.partitions()));
    }
    Ok(dataset)
}

#[test]
fn datasets_that_own_each_other_through_closures_drop_on_a_small_stack()
-> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().to_owned();
    let dropped = move || -> Result<(), Error> {
        let context = Context::builder().threads(1).progress(false).checkpoints(path).build()?;
        let alone = nested(&context, 20_000)?;
        assert_eq!(alone.first()?, Some(1));
        drop(alone);

        let cut = nested(&context, 20_000)?;
        cut.checkpoint()?;
        assert_eq!(cut.first()?, Some(1));

        let persisted = nested(&context, 20_000)?.cache()?;
        persisted.count()?;
        let listing = context.storage();
        drop(persisted);
        assert_eq!(listing.len(), 1);
        assert!(context.storage().is_empty());
        Ok(())
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(dropped)?;
    assert!(matches!(thread.join(), Ok(Ok(()))));
    Ok(())
}
