//! `local_checkpoint()`: the lineage cut in favour of blocks of this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_exec::{Context, Dataset, Error, StorageLevel};
use parking_lot::Mutex;

use crate::support::{Done, RECORDS, builder, counted, is_cut};

#[test]
fn a_local_checkpoint_cuts_the_lineage_and_says_what_a_lost_block_means() -> Done {
    let context = builder().build()?;
    for level in [None, Some(StorageLevel::MEMORY_ONLY), Some(StorageLevel::MEMORY_AND_DISK_SER)] {
        let (dataset, computed) = counted(&context)?;
        let dataset = dataset.named("local");
        if let Some(level) = level {
            dataset.persist(level)?;
            dataset.count()?;
        }
        let expected = dataset.collect()?;
        let before = computed.load(Ordering::Relaxed);
        dataset.local_checkpoint()?;
        let again = if level.is_some() { 0 } else { RECORDS };
        assert_eq!(computed.load(Ordering::Relaxed) - before, again, "{level:?}: stored blocks are moved");
        let wanted = level.unwrap_or(StorageLevel::MEMORY_AND_DISK).with_disk();
        assert_eq!(dataset.storage_level(), Some(wanted));
        assert!(is_cut(&dataset)?);
        assert_eq!(dataset.collect()?, expected);

        // The blocks are the dataset's own: a child reads them after the last handle went.
        let (id, child) = (dataset.id(), dataset.map(|(_, text)| text.len()));
        drop(dataset);
        assert_eq!(child.count()?, RECORDS);
        assert!(context.drop_block(id, 3));
        let message = child.count().map_err(|e| e.to_string());
        assert!(message.is_err_and(|m| {
            m.contains("`local`") && m.contains("partition 3") && m.contains("`checkpoint()`")
        }));
        drop(child);
        assert!(context.storage().is_empty());
        assert_eq!(context.store().memory().snapshot().heap.storage_bytes, 0);
    }
    Ok(())
}

#[test]
fn a_local_checkpoint_that_fails_leaves_the_dataset_as_it_was() -> Done {
    let context = Context::builder().threads(2).progress(false).build()?;
    let armed = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&armed);
    let mined = context
        .range(0..400, 4)?
        .try_map(move |n| if *n == 350 && flag.load(Ordering::Relaxed) { Err("boom") } else { Ok(*n) });
    assert!(mined.local_checkpoint().is_err());
    assert_eq!(mined.storage_level(), None);
    armed.store(false, Ordering::Relaxed);
    assert_eq!(mined.count()?, 400);
    mined.local_checkpoint()?;
    armed.store(true, Ordering::Relaxed);
    assert_eq!(mined.count()?, 400);
    let diskless = Context::builder().threads(1).progress(false).no_disk().build()?;
    let message = diskless.range(0..10, 1)?.local_checkpoint().map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("disk")));
    Ok(())
}

/// Four partitions of numbers, and where to put the dataset itself: then `meanwhile` is run with it in the middle of
/// each partition that is computed.
type Interfered = (Dataset<i64>, Arc<Mutex<Option<Dataset<i64>>>>);

fn interfered(
    context: &Context,
    meanwhile: impl Fn(&Dataset<i64>, i64) + Send + Sync + 'static,
) -> Result<Interfered, Error> {
    let itself = Arc::new(Mutex::new(None));
    let handle = Arc::clone(&itself);
    let numbers = context.range(0..400, 4)?.map(move |n| {
        let dataset = if n % 100 == 50 { handle.lock().clone() } else { None };
        dataset.iter().for_each(|dataset| meanwhile(dataset, n / 100));
        *n
    });
    Ok((numbers, itself))
}

#[test]
fn a_local_checkpoint_has_every_block_before_it_cuts_the_lineage() -> Done {
    let drop_first = |dataset: &Dataset<i64>| assert!(dataset.context().drop_block(dataset.id(), 0));
    let unpersist = |dataset: &Dataset<i64>| dataset.unpersist();
    for (what, meanwhile) in [("drop", drop_first as fn(&Dataset<i64>)), ("unpersist", unpersist)] {
        for level in [None, Some(StorageLevel::MEMORY_ONLY), Some(StorageLevel::MEMORY_AND_DISK)] {
            let context = Context::builder().threads(1).progress(false).build()?;
            let armed = Arc::new(AtomicBool::new(true));
            let flag = Arc::clone(&armed);
            let (numbers, itself) = interfered(&context, move |dataset, partition| {
                if partition == 2 && flag.swap(false, Ordering::Relaxed) {
                    meanwhile(dataset);
                }
            })?;
            if let Some(level) = level {
                numbers.persist(level)?;
            }
            *itself.lock() = Some(numbers.clone());
            numbers.local_checkpoint()?;
            assert!(!armed.load(Ordering::Relaxed));
            assert!(is_cut(&numbers)?);
            assert_eq!(context.storage()[0].cached_partitions, 4, "{what}, {level:?}");
            assert_eq!(numbers.collect()?, (0..400).collect::<Vec<_>>(), "{what}, {level:?}");
            itself.lock().take();
        }
    }
    Ok(())
}

#[test]
fn a_local_checkpoint_whose_blocks_do_not_stay_is_refused_and_keeps_the_lineage() -> Done {
    let context = Context::builder().threads(1).progress(false).build()?;
    // Whenever the first is computed the last is lost, and the other way round.
    let (numbers, itself) = interfered(&context, |dataset, partition| {
        if matches!(partition, 0 | 3) {
            dataset.context().drop_block(dataset.id(), (3 - partition) as u32);
        }
    })?;
    let numbers = numbers.named("fleeting");
    *itself.lock() = Some(numbers.clone());
    let message = numbers.local_checkpoint().map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("1 of 4 blocks of dataset `fleeting`")));
    assert!(!is_cut(&numbers)?);
    assert_eq!(numbers.storage_level(), None);
    itself.lock().take();
    assert_eq!(numbers.collect()?, (0..400).collect::<Vec<_>>());
    numbers.local_checkpoint()?;
    assert_eq!(numbers.collect()?, (0..400).collect::<Vec<_>>());
    Ok(())
}
