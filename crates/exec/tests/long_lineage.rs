//! A lineage of a million steps, on a thread with a 256 KiB stack.

use std::time::Instant;

use larder_exec::{Context, Error};

const STEPS: i64 = 1_000_000;
const STACK_BYTES: usize = 256 << 10;

fn million(checkpoints: &str) -> Result<(), Error> {
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
    let path = directory.path().display().to_string();
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || million(&path))?;
    assert!(matches!(thread.join(), Ok(Ok(()))));
    Ok(())
}
