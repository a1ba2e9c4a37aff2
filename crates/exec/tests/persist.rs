//! Persisted datasets: kept at every level, recomputed when they must be, gone with their last handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_exec::{Context, Dataset, Error, StorageLevel, StorageStatus};

type Done = Result<(), Error>;

const RECORDS: i64 = 8_000;
const PARTITIONS: u32 = 4;

fn context(memory: &str) -> Result<Context, Error> {
    Context::builder().threads(2).progress(false).memory(memory).off_heap("4MiB").build()
}

/// Strings, and how many of them were computed.
fn counted(context: &Context) -> Result<(Dataset<String>, Arc<AtomicU64>), Error> {
    let computed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&computed);
    let dataset = context.range(0..RECORDS, PARTITIONS)?.map(move |n| {
        counter.fetch_add(1, Ordering::Relaxed);
        format!("record {n}")
    });
    Ok((dataset, computed))
}

fn expected() -> Vec<String> {
    (0..RECORDS).map(|n| format!("record {n}")).collect()
}

fn only(context: &Context) -> StorageStatus {
    let mut storage = context.storage();
    assert_eq!(storage.len(), 1, "{storage:?}");
    storage.remove(0)
}

#[test]
fn every_level_keeps_what_was_computed_once() -> Done {
    for (name, level) in StorageLevel::NAMED {
        if level == StorageLevel::NONE {
            continue;
        }
        let context = context("16MiB")?;
        let (dataset, computed) = counted(&context)?;
        let dataset = dataset.persist(level)?.named("strings");
        assert_eq!(computed.load(Ordering::Relaxed), 0, "nothing is computed before an action");
        for _ in 0..3 {
            assert_eq!(dataset.collect()?, expected(), "{name}");
            assert_eq!(
                dataset.map(|text| text.len()).fold(0, |a, b| a + b)?,
                expected().concat().len(),
                "{name}"
            );
        }
        assert_eq!(computed.load(Ordering::Relaxed), RECORDS as u64, "{name}");
        let status = only(&context);
        assert_eq!((status.name.as_str(), status.level), ("strings", level));
        assert_eq!((status.cached_partitions, status.records), (PARTITIONS, RECORDS as u64), "{name}");
        assert!(status.counters.hits() >= 5 * u64::from(PARTITIONS), "{name}: {status:?}");
        let tier = (status.heap_bytes > 0, status.off_heap_bytes > 0, status.disk_bytes > 0);
        let wanted =
            (level.uses_memory() && !level.uses_off_heap(), level.uses_off_heap(), !level.uses_memory());
        assert_eq!(tier, wanted, "{name}");
    }
    Ok(())
}

#[test]
fn where_nothing_fits_every_action_is_right_by_recomputing() -> Done {
    for level in [StorageLevel::MEMORY_ONLY, StorageLevel::MEMORY_ONLY_SER] {
        let context = context("1KiB")?;
        let (dataset, computed) = counted(&context)?;
        let dataset = dataset.persist(level)?;
        for round in 1..=3 {
            assert_eq!(dataset.collect()?, expected());
            assert_eq!(computed.load(Ordering::Relaxed), round * RECORDS as u64);
        }
        let groups = dataset.map(|text| (text.len(), 1_u64)).reduce_by_key(|a, b| a + b)?;
        assert_eq!(groups.values().fold(0, |a, b| a + b)?, RECORDS as u64);
        let status = only(&context);
        assert_eq!(status.cached_partitions, 0);
        assert!(status.counters.refused >= 3 * u64::from(PARTITIONS));
    }
    Ok(())
}

#[test]
fn where_some_partitions_fit_those_are_hits() -> Done {
    let context = Context::builder().threads(1).progress(false).memory("200KiB").build()?;
    let (dataset, computed) = counted(&context)?;
    let dataset = dataset.cache()?;
    assert_eq!(dataset.collect()?, expected());
    let cached = u64::from(only(&context).cached_partitions);
    assert!((1..4).contains(&cached), "{cached}");
    computed.store(0, Ordering::Relaxed);
    assert_eq!(dataset.collect()?, expected());
    assert_eq!(computed.load(Ordering::Relaxed), (4 - cached) * RECORDS as u64 / 4);
    assert_eq!(only(&context).counters.hits(), cached);
    Ok(())
}

#[test]
fn only_lost_partitions_are_recomputed_from_the_nearest_that_are_there() -> Done {
    let context = context("16MiB")?;
    let (dataset, computed) = counted(&context)?;
    let near = dataset.persist(StorageLevel::MEMORY_ONLY)?;
    let lengths = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&lengths);
    let far = near.map(move |text| {
        counter.fetch_add(1, Ordering::Relaxed);
        text.len()
    });
    let far = far.persist(StorageLevel::MEMORY_AND_DISK_SER)?;
    let expected = far.collect()?;
    assert!(context.drop_block(far.id(), 2));
    assert!(!context.drop_block(far.id(), 2), "it is gone");
    assert_eq!(far.collect()?, expected);
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS as u64, "the sources were not asked again");
    assert_eq!(lengths.load(Ordering::Relaxed), RECORDS as u64 + 2_000, "one partition of four");
    // Both are lost: from the sources, that partition alone.
    assert!(context.drop_block(far.id(), 1) && context.drop_block(near.id(), 1));
    assert_eq!(far.collect()?, expected);
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS as u64 + 2_000);
    let status = &context.storage()[1];
    assert_eq!((status.id, status.counters.recomputed), (far.id(), 2));
    Ok(())
}

#[test]
fn a_take_fills_whole_partitions_and_no_more_of_them_than_it_looks_at() -> Done {
    let context = context("16MiB")?;
    let (dataset, computed) = counted(&context)?;
    let dataset = dataset.cache()?;
    assert_eq!(dataset.take(2)?, expected()[..2]);
    assert_eq!(computed.load(Ordering::Relaxed), 2_000);
    assert_eq!(only(&context).cached_partitions, 1);
    Ok(())
}

#[test]
fn a_level_is_set_once_until_it_is_unpersisted() -> Done {
    let context = context("16MiB")?;
    let (dataset, computed) = counted(&context)?;
    let dataset = dataset.named("texts").persist(StorageLevel::MEMORY_ONLY)?;
    dataset.count()?;
    assert_eq!(dataset.persist(StorageLevel::MEMORY_ONLY)?.storage_level(), Some(StorageLevel::MEMORY_ONLY));
    assert_eq!(dataset.cache()?.count()?, RECORDS as u64);
    let conflict = dataset.persist(StorageLevel::DISK_ONLY).map_err(|e| e.to_string());
    assert!(conflict.is_err_and(|message| {
        message.contains("`texts`") && message.contains("MEMORY_ONLY") && message.contains("DISK_ONLY")
    }));
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS as u64, "the blocks are untouched");
    dataset.unpersist();
    assert_eq!(context.store().memory().snapshot().heap.storage_bytes, 0);
    assert_eq!(dataset.storage_level(), None);
    dataset.persist(StorageLevel::DISK_ONLY)?;
    assert_eq!(dataset.collect()?, expected());
    assert_eq!(computed.load(Ordering::Relaxed), 2 * RECORDS as u64);
    dataset.unpersist();
    assert!(dataset.persist(StorageLevel::NONE).is_err());
    Ok(())
}

#[test]
fn blocks_go_with_the_last_handle_though_children_live_on() -> Done {
    let context = context("16MiB")?;
    let (dataset, computed) = counted(&context)?;
    let other = dataset.cache()?;
    let child = dataset.map(|text| text.len());
    child.count()?;
    drop(dataset);
    assert_eq!(only(&context).cached_partitions, PARTITIONS, "one handle is left");
    drop(other);
    assert!(context.storage().is_empty());
    assert_eq!(context.store().memory().snapshot().heap.storage_bytes, 0);
    assert_eq!(child.count()?, RECORDS as u64);
    assert_eq!(computed.load(Ordering::Relaxed), 2 * RECORDS as u64);
    Ok(())
}

#[test]
fn concurrent_jobs_compute_a_persisted_partition_once() -> Done {
    let context = Context::builder().threads(4).progress(false).memory("16MiB").build()?;
    let (dataset, computed) = counted(&context)?;
    let dataset = dataset.cache()?;
    std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..6).map(|_| scope.spawn(|| dataset.count())).collect();
        assert!(jobs.into_iter().all(|job| matches!(job.join(), Ok(Ok(count)) if count == RECORDS as u64)));
    });
    assert_eq!(computed.load(Ordering::Relaxed), RECORDS as u64);
    Ok(())
}

#[test]
fn the_debug_string_shows_level_cached_partitions_and_sizes() -> Done {
    let context = context("16MiB")?;
    let (dataset, _) = counted(&context)?;
    let dataset = dataset.named("texts").persist(StorageLevel::MEMORY_AND_DISK)?;
    let pairs = dataset.map(|text| (text.len(), 1_u64)).reduce_by_key(|a, b| a + b)?.named("lengths");
    dataset.take(1)?;
    let text = pairs.to_debug_string()?;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!(lines[0], "(4) lengths: reduce_by_key");
    assert!(lines[2].contains("texts: map [MEMORY_AND_DISK; CachedPartitions: 1; MemorySize: "), "{text}");
    let compute_time = only(&context).compute_time;
    assert!(compute_time > Duration::ZERO);
    assert!(lines[2].contains(&format!("; ComputeTime: {compute_time:.1?}]")), "{text}");
    assert!(lines[3].contains("range"), "{text}");
    assert!(pairs.to_dot()?.starts_with("digraph"));
    Ok(())
}

#[test]
fn an_eviction_storm_over_many_datasets_stays_right() -> Done {
    let context = Context::builder().threads(2).progress(false).memory("300KiB").build()?;
    let datasets: Vec<Dataset<String>> = (0..6)
        .map(|_| counted(&context).and_then(|(dataset, _)| dataset.persist(StorageLevel::MEMORY_ONLY)))
        .collect::<Result<_, _>>()?;
    for _ in 0..3 {
        for dataset in &datasets {
            assert_eq!(dataset.collect()?, expected());
        }
    }
    assert!(context.store().counters().evictions > 0);
    drop(datasets);
    assert_eq!(context.store().memory().snapshot().heap.storage_bytes, 0);
    Ok(())
}

#[test]
fn long_chains_of_persisted_datasets_that_find_no_room_stay_within_a_small_stack() -> Done {
    let deep = || -> Result<Vec<i64>, Error> {
        let context = Context::builder().threads(1).progress(false).memory("1KiB").build()?;
        let mut dataset = context.range(0..2_000, 2)?;
        let mut kept = Vec::new();
        for _ in 0..2_000 {
            dataset = dataset.map(|n| n + 1).cache()?;
            kept.push(dataset.clone());
        }
        dataset.collect()
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(deep);
    let records = thread.map(std::thread::JoinHandle::join);
    assert!(matches!(records, Ok(Ok(Ok(records))) if records == (2_000..4_000).collect::<Vec<_>>()));
    Ok(())
}
