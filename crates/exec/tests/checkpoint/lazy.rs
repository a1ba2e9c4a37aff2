//! `checkpoint_lazily()`: written in the pass of the next action, every record computed once, whatever it needs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_exec::{Context, Dataset, Error, Pairs, StorageLevel};

use crate::support::{Done, PATIENCE, RECORDS, attempts, builder, context, counted, expected, first, is_cut};

type Action = fn(&Pairs<i64, String>) -> Result<(), Error>;

const ACTIONS: [(&str, Action); 12] = [
    ("count", |records| records.count().map(|count| assert_eq!(count, RECORDS))),
    ("collect", |records| records.collect().map(|all| assert_eq!(all, expected()))),
    ("fold", |records| {
        let longest = records.aggregate(0, |longest, (_, text)| text.len().max(longest), usize::max)?;
        assert_eq!(longest, "record 7999".len());
        Ok(())
    }),
    ("take a few", |records| records.take(5).map(|taken| assert_eq!(taken, first(5)))),
    ("take from two", |records| records.take(2_500).map(|taken| assert_eq!(taken, first(2_500)))),
    ("first", |records| records.first().map(|first| assert_eq!(first, Some((0, "record 0".to_owned()))))),
    ("top", |records| records.top(1).map(|top| assert_eq!(top, [(99, "record 999".to_owned())]))),
    ("a child", |records| records.filter(|(key, _)| *key == 3).count().map(|n| assert_eq!(n, 80))),
    ("a child that needs little", |records| {
        records.map(|(key, _)| *key).take(3).map(|t| assert_eq!(t, [0, 1, 2]))
    }),
    ("a shuffle", |records| {
        records.map_values(|_| 1_u64).reduce_by_key(|a, b| a + b)?.count().map(|keys| assert_eq!(keys, 100))
    }),
    ("twice in a task", |records| records.zip(records)?.count().map(|count| assert_eq!(count, RECORDS))),
    ("one after the other", |records| records.coalesce(1)?.take(3_000).map(|t| assert_eq!(t, first(3_000)))),
];

#[test]
fn any_action_writes_it_and_every_record_is_computed_once() -> Done {
    for persisted in [None, Some(StorageLevel::MEMORY_ONLY), Some(StorageLevel::DISK_ONLY)] {
        for (what, action) in ACTIONS {
            let directory = tempfile::tempdir()?;
            let context = context(directory.path())?;
            let (dataset, computed) = counted(&context)?;
            if let Some(level) = persisted {
                dataset.persist(level)?;
            }
            let checkpoint = dataset.checkpoint_lazily()?;
            assert_eq!(computed.load(Ordering::Relaxed), 0, "nothing is computed when it is asked for");
            assert!(checkpoint.result().is_none() && !is_cut(&dataset)?);
            action(&dataset)?;
            assert_eq!(computed.load(Ordering::Relaxed), RECORDS, "{what}, {persisted:?}");
            let info = checkpoint.result().ok_or("open")??;
            assert_eq!((info.records, info.partitions, info.generation), (RECORDS, 4, 1), "{what}");
            assert!(is_cut(&dataset)?, "{what}");
            action(&dataset)?;
            dataset.unpersist();
            assert_eq!(dataset.collect()?, expected(), "{what}, {persisted:?}");
            assert_eq!(computed.load(Ordering::Relaxed), RECORDS, "read, not computed");
            let elsewhere = Context::builder().threads(1).progress(false).build()?;
            assert_eq!(elsewhere.open_checkpoint_at::<(i64, String)>(info.address)?.collect()?, expected());
        }
    }
    Ok(())
}

#[test]
fn a_tiny_memory_changes_nothing() -> Done {
    let directory = tempfile::tempdir()?;
    let builder = builder().memory("2KiB");
    let context = builder.checkpoints(directory.path()).build()?;
    let (dataset, computed) = counted(&context)?;
    let checkpoint = dataset.persist(StorageLevel::MEMORY_ONLY)?.checkpoint_lazily()?;
    assert_eq!(dataset.take(1)?.len(), 1);
    assert_eq!(checkpoint.wait()?.records, RECORDS);
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS, "refused by the cache, and still computed once");
    Ok(())
}

#[test]
fn a_task_that_is_tried_again_writes_its_part_anew() -> Done {
    for action in [
        |dataset: &Dataset<i64>| dataset.count(),
        |dataset: &Dataset<i64>| Ok(dataset.take(4_000)?.len() as u64),
    ] {
        let directory = tempfile::tempdir()?;
        let context = context(directory.path())?;
        let failed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&failed);
        let flaky = context.range(0..8_000, 4)?.map(move |n| {
            assert!(*n != 1_900 || flag.swap(true, Ordering::Relaxed), "the first time");
            *n
        });
        let checkpoint = flaky.checkpoint_lazily_as("flaky")?;
        action(&flaky)?;
        assert!(failed.load(Ordering::Relaxed));
        assert_eq!(checkpoint.wait()?.records, 8_000);
        assert_eq!(context.open_checkpoint::<i64>("flaky")?.collect()?, (0..8_000).collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn what_fails_beyond_what_the_action_needs_is_told_by_the_handle_and_not_by_the_action() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    for mine in [1_900, 7_900] {
        let armed = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&armed);
        let mined = context.range(0..8_000, 4)?.map(move |n| {
            assert!(*n != mine || !flag.load(Ordering::Relaxed), "stepped on {n}");
            *n
        });
        let mined = mined.named("mined");
        let checkpoint = mined.checkpoint_lazily()?;
        assert_eq!(mined.take(3)?, [0, 1, 2]);
        let message = checkpoint.wait().map(drop).map_err(|e| e.to_string());
        assert!(message.is_err_and(|m| m.contains("`mined`") && m.contains(&format!("stepped on {mine}"))));
        assert_eq!(attempts(directory.path(), "mined"), 0, "what was written is removed");
        assert!(!is_cut(&mined)? && context.latest_checkpoint("mined")?.is_none());
        armed.store(false, Ordering::Relaxed);
        let again = mined.checkpoint_lazily()?;
        assert_eq!(mined.count()?, 8_000);
        context.checkpoints().ok_or("none")?.remove_generation("mined", again.wait()?.generation)?;
    }
    Ok(())
}

#[test]
fn an_action_that_fails_or_is_cancelled_leaves_the_rest_to_the_next() -> Done {
    for cancel in [false, true] {
        let directory = tempfile::tempdir()?;
        let context = context(directory.path())?;
        let armed = Arc::new(AtomicBool::new(true));
        let (flag, cancelled) = (Arc::clone(&armed), context.clone());
        let dataset = context.range(0..8_000, 4)?.map(move |n| {
            if *n == 7_000 && flag.load(Ordering::Relaxed) {
                if cancel { cancelled.cancel() } else { panic!("not yet") }
            }
            *n
        });
        let checkpoint = dataset.checkpoint_lazily_as("numbers")?;
        let first = dataset.count().map(drop);
        assert_eq!(matches!(first, Err(Error::Cancelled)), cancel, "{first:?}");
        assert!(first.is_err() && checkpoint.result().is_none() && !is_cut(&dataset)?);
        assert!(context.latest_checkpoint("numbers")?.is_none());
        armed.store(false, Ordering::Relaxed);
        assert_eq!(dataset.count()?, 8_000);
        assert_eq!(checkpoint.wait()?.records, 8_000);
        assert_eq!(dataset.collect()?, (0..8_000).collect::<Vec<_>>());
        assert_eq!(attempts(directory.path(), "numbers"), 1);
        // The dataset's closure owns the context.
        dataset.unpersist();
    }
    Ok(())
}

#[test]
fn several_actions_at_once_write_one_checkpoint() -> Done {
    for round in 0..10 {
        let directory = tempfile::tempdir()?;
        let context = context(directory.path())?;
        let (dataset, computed) = counted(&context)?;
        if round % 2 == 0 {
            dataset.persist(StorageLevel::MEMORY_AND_DISK)?;
        }
        let checkpoint = dataset.checkpoint_lazily()?;
        std::thread::scope(|scope| {
            let actions: Vec<_> = ACTIONS
                .iter()
                .cycle()
                .skip(round)
                .step_by(3)
                .take(4)
                .map(|(_, action)| scope.spawn(|| action(&dataset)))
                .collect();
            actions
                .into_iter()
                .try_for_each(|action| action.join().map_err(|_| "panicked")?.map_err(|e| e.to_string()))
        })?;
        assert_eq!(checkpoint.wait_timeout(PATIENCE).ok_or("nobody completed it")??.records, RECORDS);
        if round % 2 == 0 {
            assert_eq!(computed.load(Ordering::Relaxed), RECORDS);
        }
        assert!(is_cut(&dataset)?);
        assert_eq!(dataset.collect()?, expected());
        assert_eq!(context.checkpoints().ok_or("none")?.generations("records")?, [1]);
        assert_eq!(attempts(directory.path(), "records"), 1);
    }
    Ok(())
}

#[test]
fn a_chain_of_datasets_that_all_wait_is_computed_once_and_written_whole() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    // More of them than pipelines may stand in each other.
    for steps in [3, 20] {
        let (records, computed) = counted(&context)?;
        let mut chain = vec![records.map(|(key, _)| *key)];
        for step in 1..steps {
            let counter = Arc::clone(&computed);
            let last = chain.last().ok_or("none")?;
            chain.push(
                last.map(move |n| {
                    counter.fetch_add(1, Ordering::Relaxed);
                    n + 1
                })
                .named(&format!("step-{step}")),
            );
        }
        let checkpoints = chain.iter().map(Dataset::checkpoint_lazily).collect::<Result<Vec<_>, _>>()?;
        let last = chain.last().ok_or("none")?;
        assert_eq!(last.take(2)?, [steps - 1, steps]);
        assert_eq!(computed.load(Ordering::Relaxed), RECORDS * steps as u64);
        for (checkpoint, dataset) in checkpoints.iter().zip(&chain) {
            assert_eq!(checkpoint.result().ok_or("open")??.records, RECORDS);
            assert!(is_cut(dataset)?);
        }
        let expected: Vec<i64> = (0..RECORDS as i64).map(|n| n % 100 + steps - 1).collect();
        assert_eq!(last.collect()?, expected);
        assert_eq!(computed.load(Ordering::Relaxed), RECORDS * steps as u64);
    }
    Ok(())
}

#[test]
fn a_closure_may_run_actions_and_checkpoint_what_waits() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let (inner, computed) = counted(&context)?;
    inner.cache()?;
    let checkpoint = inner.checkpoint_lazily()?;
    let asked = inner.clone();
    let outer = inner.try_map(move |(key, _)| match *key {
        50 => asked.count().map(|count| count as i64),
        _ => Ok(*key),
    });
    assert_eq!(outer.count()?, RECORDS);
    assert_eq!(checkpoint.result().ok_or("open")??.records, RECORDS);
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS);
    let (inner, _) = counted(&context)?;
    let waiting = inner.checkpoint_lazily()?;
    let asked = inner.clone();
    let first = AtomicBool::new(true);
    let outer = inner.try_map(move |_| match first.swap(false, Ordering::Relaxed) {
        true => asked.checkpoint_as("from-inside").map(|info| info.records),
        false => Ok(0),
    });
    assert_eq!(outer.fold(0, |sum, n| sum + n)?, RECORDS);
    assert_eq!(waiting.wait()?.records, RECORDS);
    Ok(())
}
