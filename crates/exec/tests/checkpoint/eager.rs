//! `checkpoint()`: one pass, and the lineage cut once it is durable.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use larder_exec::{Context, Data, Dataset, Error, PeriodicCheckpointer, Portable, StorageLevel};

use crate::support::{Done, RECORDS, builder, context, counted, expected, is_cut};

#[test]
fn without_a_directory_the_call_says_so() -> Done {
    let context = Context::builder().threads(1).progress(false).build()?;
    let dataset = context.range(0..10, 2)?.named("numbers");
    let message = dataset.checkpoint().map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("`numbers`") && m.contains(".checkpoints(path)")));
    assert!(matches!(context.open_checkpoint::<i64>("numbers"), Err(Error::NoCheckpoints { .. })));
    assert!(PeriodicCheckpointer::<i64>::new(&context, 1, "numbers").is_err());
    let mut never = PeriodicCheckpointer::new(&context, 0, "numbers")?;
    assert_eq!(never.update(&dataset)?, None);
    Ok(())
}

#[test]
fn a_dataset_is_computed_once_and_its_parents_are_cut() -> Done {
    for persisted in [None, Some(StorageLevel::MEMORY_ONLY), Some(StorageLevel::DISK_ONLY)] {
        for action_before in [false, true] {
            let directory = tempfile::tempdir()?;
            let context = context(directory.path())?;
            let (dataset, computed) = counted(&context)?;
            if let Some(level) = persisted {
                dataset.persist(level)?;
            }
            if action_before {
                dataset.count()?;
            }
            let before = computed.load(Ordering::Relaxed);
            let info = dataset.checkpoint()?;
            let once = if persisted.is_some() && action_before { 0 } else { RECORDS };
            assert_eq!(computed.load(Ordering::Relaxed) - before, once, "{persisted:?} {action_before}");
            assert_eq!((info.generation, info.records, info.partitions), (1, RECORDS, 4));
            assert!(info.bytes > 80_000);
            if persisted.is_some() {
                assert_eq!(context.storage()[0].cached_partitions, 4, "kept on the way");
            }
            assert!(is_cut(&dataset)?);
            assert_eq!(dataset.collect()?, expected());
            assert_eq!(computed.load(Ordering::Relaxed) - before, once, "read, not computed");
            dataset.unpersist();
            assert_eq!(dataset.collect()?, expected());
        }
    }
    Ok(())
}

#[test]
fn a_small_memory_changes_nothing() -> Done {
    let directory = tempfile::tempdir()?;
    let builder = builder().memory("2KiB");
    let context = builder.checkpoints(directory.path()).build()?;
    let (dataset, computed) = counted(&context)?;
    let dataset = dataset.persist(StorageLevel::MEMORY_ONLY)?;
    assert_eq!(dataset.checkpoint()?.records, RECORDS);
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS, "refused by the cache, and still computed once");
    Ok(())
}

#[test]
fn parents_are_freed_with_what_they_hold_unless_others_use_them() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let witness = Arc::new(());
    let (alone, shared) = (Arc::clone(&witness), Arc::clone(&witness));
    let holding = |held: Arc<()>| move |n: &i64| n + i64::from(Arc::strong_count(&held) == 0);
    let root = context.range(0..100, 2)?.map(holding(shared));
    let groups = root.map(holding(alone)).map(|n| (n % 7, *n)).group_by_key()?;
    groups.count()?;
    assert_eq!(Arc::strong_count(&witness), 3);
    assert_eq!(context.store().datasets().len(), 1, "the shuffle");
    groups.checkpoint()?;
    assert_eq!(Arc::strong_count(&witness), 2, "`root` has a handle");
    assert_eq!(context.store().datasets().len(), 0, "the shuffle is gone");
    drop(root);
    assert_eq!(Arc::strong_count(&witness), 1);
    assert_eq!(groups.count()?, 7);
    Ok(())
}

fn parts<T: Data>(dataset: &Dataset<T>) -> Result<Vec<Vec<T>>, Error> {
    dataset.map_partitions(|records| [records.collect::<Vec<T>>()]).collect()
}

/// Partition count, data and order within partitions stay as they were.
fn stays<T: Portable + PartialEq + Debug>(what: &str, dataset: &Dataset<T>) -> Result<(), Error> {
    let before = parts(dataset)?;
    let partitioner = dataset.partitioner().cloned();
    let info = dataset.checkpoint_as(what.replace(' ', "-"))?;
    assert!(is_cut(dataset)?, "{what}");
    assert_eq!(parts(dataset)?, before, "{what}");
    let elsewhere = Context::builder().threads(1).progress(false).build()?;
    let opened = elsewhere.open_checkpoint_at::<T>(&info.address)?;
    assert_eq!(parts(&opened)?, before, "{what}, opened by its address");
    assert_eq!(opened.partitioner().cloned(), partitioner, "{what}");
    Ok(())
}

#[test]
fn every_transformation_checkpoints_and_comes_back_as_it_was() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let numbers = context.range(0..300, 4)?;
    let pairs = numbers.map(|n| (n % 10, *n));
    let others = context.range(0..40, 3)?.map(|n| (n % 12, n.to_string()));
    stays("map", &numbers.map(|n| n * 2))?;
    stays("flat_map", &numbers.flat_map(|n| vec![*n; (*n % 4) as usize]))?;
    stays("filter", &numbers.filter(|n| n % 3 == 0))?;
    stays("sample", &numbers.sample(0.3, 9)?)?;
    stays("map_partitions", &numbers.map_partitions(|records| [records.sum::<i64>()]))?;
    stays("union", &numbers.union(&numbers.map(|n| -n))?)?;
    stays("cartesian", &numbers.filter(|n| *n < 100).cartesian(&others)?)?;
    stays("coalesce", &numbers.coalesce(3)?)?;
    stays("repartition", &numbers.repartition(7)?)?;
    stays("zip", &numbers.zip(&numbers.map(|n| n + 1))?)?;
    stays("zip_with_index", &numbers.zip_with_index())?;
    stays("co_group", &pairs.co_group(&others)?)?;
    stays("join", &pairs.join(&others)?)?;
    stays("full_outer_join", &pairs.full_outer_join(&others)?)?;
    stays("sort", &numbers.sort_by(|n| (n * 7) % 13, false)?)?;
    stays("distinct", &numbers.map(|n| n % 20).distinct()?)?;
    stays("reduce_by_key", &pairs.reduce_by_key(|a, b| a + b)?)?;
    stays("empty partitions", &numbers.filter(|n| *n > 280))?;
    stays("no record", &numbers.filter(|_| false))?;
    stays("no partition", &context.parallelize(Vec::<i64>::new(), 0)?)?;
    Ok(())
}

#[test]
fn threads_that_checkpoint_a_dataset_at_the_same_time_all_have_it() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    for _ in 0..10 {
        let (dataset, _) = counted(&context)?;
        let infos = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| dataset.checkpoint())).collect();
            let infos = threads
                .into_iter()
                .map(|thread| thread.join().map_err(|_| "panicked".to_owned())?.map_err(|e| e.to_string()));
            infos.collect::<Result<Vec<_>, String>>()
        })?;
        assert!(infos.iter().all(|info| info.records == RECORDS));
        assert_eq!(dataset.collect()?, expected());
    }
    Ok(())
}
