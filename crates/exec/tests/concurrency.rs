//! Jobs beside each other, while datasets are persisted, lost, checkpointed and dropped under them.

use std::sync::atomic::{AtomicBool, Ordering};

use larder_exec::{Context, Error, StorageLevel};

#[test]
fn actions_stay_right_while_their_datasets_change_under_them() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let builder = Context::builder().threads(3).progress(false).memory("150KiB");
    let context = builder.checkpoints(directory.path().display()).build()?;
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
