//! Checkpoints: one pass, whole or not at all, the lineage cut only when they are durable.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use larder_blockstore::codec::{Bincode, CodecId};
use larder_checkpoint::{HookAction, Spec, Step};
use larder_exec::{
    CheckpointName, CheckpointStore, Context, Data, Dataset, Error, Pairs, Partitioner, PeriodicCheckpointer,
    StorageLevel,
};
use parking_lot::Mutex;

type Done = Result<(), Box<dyn std::error::Error>>;

fn context(checkpoints: &Path) -> Result<Context, Error> {
    let builder = Context::builder().threads(2).progress(false).memory("16MiB");
    builder.checkpoints(checkpoints).build()
}

/// A dataset, and how many of its records were computed.
type Counted = (Pairs<i64, String>, Arc<AtomicU64>);

fn counted(context: &Context) -> Result<Counted, Error> {
    let computed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&computed);
    let dataset = context.range(0..4_000, 4)?.map(move |n| {
        counter.fetch_add(1, Ordering::Relaxed);
        (n % 100, format!("record {n}"))
    });
    Ok((dataset, computed))
}

fn parts<T: Data>(dataset: &Dataset<T>) -> Result<Vec<Vec<T>>, Error> {
    dataset.map_partitions(|records| [records.collect::<Vec<T>>()]).collect()
}

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
            let once = if persisted.is_some() && action_before { 0 } else { 4_000 };
            assert_eq!(computed.load(Ordering::Relaxed) - before, once, "{persisted:?} {action_before}");
            assert_eq!((info.generation, info.records, info.partitions), (1, 4_000, 4));
            assert!(info.bytes > 40_000);
            if persisted.is_some() {
                assert_eq!(context.storage()[0].cached_partitions, 4, "kept on the way");
            }
            assert_eq!(dataset.to_debug_string()?.lines().count(), 1);
            let expected: Vec<_> = (0..4_000).map(|n| (n % 100, format!("record {n}"))).collect();
            assert_eq!(dataset.collect()?, expected);
            assert_eq!(computed.load(Ordering::Relaxed) - before, once, "read, not computed");
            dataset.unpersist();
            assert_eq!(dataset.collect()?, expected);
        }
    }
    Ok(())
}

#[test]
fn a_small_memory_changes_nothing() -> Done {
    let directory = tempfile::tempdir()?;
    let builder = Context::builder().threads(2).progress(false).memory("2KiB");
    let context = builder.checkpoints(directory.path()).build()?;
    let (dataset, computed) = counted(&context)?;
    let dataset = dataset.persist(StorageLevel::MEMORY_ONLY)?;
    assert_eq!(dataset.checkpoint()?.records, 4_000);
    assert_eq!(computed.load(Ordering::Relaxed), 4_000, "refused by the cache, and still computed once");
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

/// Partition count, data and order within partitions stay as they were.
fn stays<T: larder_exec::Portable + PartialEq + std::fmt::Debug>(
    what: &str,
    dataset: &Dataset<T>,
) -> Result<(), Error> {
    let before = parts(dataset)?;
    let partitioner = dataset.partitioner().cloned();
    let info = dataset.checkpoint_as(what.replace(' ', "-"))?;
    assert_eq!(dataset.to_debug_string()?.lines().count(), 1, "{what}");
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
fn a_checkpoint_is_opened_by_name_with_its_partitioner_and_type() -> Done {
    let directory = tempfile::tempdir()?;
    let writer = context(directory.path())?;
    let sums = writer.range(0..100, 4)?.map(|n| (n % 10, *n)).reduce_by_key(|a, b| a + b)?.named("sums");
    sums.checkpoint()?;
    let reader = context(directory.path())?;
    let opened = reader.open_checkpoint::<(i64, i64)>("sums")?;
    assert_eq!(
        (opened.name(), opened.partitioner()),
        ("sums".to_owned(), Some(&Partitioner::Hash { partitions: 4 }))
    );
    // A join with it shuffles the other side only.
    let joined = opened.join(&reader.range(0..5, 2)?.map(|n| (*n, n * n)))?;
    assert_eq!(joined.to_debug_string()?.matches("+-").count(), 1);
    assert_eq!(joined.count()?, 5);
    let wrong = reader.open_checkpoint::<(i64, String)>("sums").map_err(|e| e.to_string());
    assert!(wrong.is_err_and(|m| m.contains("(i64, i64)") && m.contains("String")));
    let missing = reader.open_checkpoint::<i64>("elsewhere").map_err(|e| e.to_string());
    assert!(missing.is_err_and(|m| m.contains("`elsewhere`")));
    assert_eq!(reader.latest_checkpoint("elsewhere")?, None);
    assert!(reader.open_latest_checkpoint::<i64>("elsewhere")?.is_none());
    sums.checkpoint()?;
    assert_eq!(reader.latest_checkpoint("sums")?.map(|info| info.generation), Some(2));
    Ok(())
}

/// The same records, as two programs may call them.
mod yesterday {
    #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    pub(crate) struct Rank(pub(crate) f64);
}
mod today {
    #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    pub(crate) struct Rank(pub(crate) f64);
}

/// The same shape by another name, and the bytes of the same by names that were swapped.
mod elsewhere {
    #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    pub(crate) struct Weight(pub(crate) f64);

    #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    pub(crate) struct Point {
        pub(crate) x: f64,
        pub(crate) y: f64,
    }

    pub(crate) mod swapped {
        #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
        pub(crate) struct Point {
            pub(crate) y: f64,
            pub(crate) x: f64,
        }
    }
}

#[test]
fn a_checkpoint_is_opened_as_what_its_records_are_made_of() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let numbers = context.range(0..10, 2)?;
    let expected: Vec<_> = (0..10).map(|n| today::Rank(f64::from(n))).collect();
    numbers.map(|n| yesterday::Rank(*n as f64)).checkpoint_as("ranks")?;
    // It moved to another module.
    assert_eq!(context.open_checkpoint::<today::Rank>("ranks")?.collect()?, expected);
    let refused = context.open_checkpoint::<elsewhere::Weight>("ranks").map(drop);
    assert!(matches!(refused, Err(Error::WrongRecordType { .. })), "{refused:?}");
    let message = refused.map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("`Rank(f64)`") && m.contains("`Weight(f64)`")));
    // Who knows better may say so; but the bytes must be right.
    let named = CheckpointName::new("ranks").records(std::any::type_name::<yesterday::Rank>());
    assert_eq!(context.open_checkpoint::<elsewhere::Weight>(named.clone())?.count()?, 10);
    for asked in [CheckpointName::new("ranks"), named] {
        let refused = context.open_checkpoint::<(f64, u64)>(asked).map(drop);
        assert!(matches!(refused, Err(Error::WrongRecordShape { .. })), "{refused:?}");
        let message = refused.map_err(|e| e.to_string());
        assert!(message.is_err_and(|m| m.contains("`Rank(f64)`") && m.contains("`(f64, u64)`")));
    }
    numbers.map(|n| elsewhere::Point { x: *n as f64, y: 0.0 }).checkpoint_as("points")?;
    let swapped = context.open_checkpoint::<elsewhere::swapped::Point>("points").map_err(|e| e.to_string());
    assert!(swapped.is_err_and(|m| m.contains("Point { y: f64, x: f64 }")), "x would become y");
    Ok(())
}

/// A text of digits, which no other text is.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
struct Digits(String);

impl<'de> serde::Deserialize<'de> for Digits {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_digits { Ok(Self(text)) } else { Err(serde::de::Error::custom("no digits")) }
    }
}

#[test]
fn records_whose_shape_is_unknown_are_opened_by_what_they_are_called() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let info = context.range(0..10, 2)?.map(|n| Digits(n.to_string())).checkpoint_as("digits")?;
    assert!(!fs::read_to_string(info.address)?.contains("schema"));
    assert_eq!(context.open_checkpoint::<Digits>("digits")?.count()?, 10);
    let refused = context.open_checkpoint::<String>("digits").map(drop);
    assert!(matches!(refused, Err(Error::WrongRecordType { .. })), "{refused:?}");
    Ok(())
}

#[test]
fn a_checkpoint_is_opened_by_what_its_records_were_called() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let ranks = || context.range(0..10, 2).map(|numbers| numbers.map(|n| yesterday::Rank(*n as f64)));
    let expected: Vec<_> = (0..10).map(|n| today::Rank(f64::from(n))).collect();
    let (plain, found) = (CheckpointName::new("ranks"), "rank, 1");
    let named = plain.clone().records(found);
    let info = ranks()?.checkpoint_as(named.clone())?;
    assert_eq!(info.record_type, found);
    assert_eq!(context.latest_checkpoint("ranks")?, Some(info.clone()));
    assert!(fs::read_to_string(&info.address)?.contains("\"record_type\": \"rank, 1\""));

    for refused in [
        context.open_checkpoint::<today::Rank>("ranks").map(drop),
        context.open_latest_checkpoint::<today::Rank>(plain.records("rank, 2")).map(drop),
        context.open_checkpoint_at::<yesterday::Rank>(&info.address).map(drop),
    ] {
        let message = refused.map_err(|e| e.to_string());
        assert!(message.is_err_and(|m| m.contains("`CheckpointName::new(..).records(\"rank, 1\")`")));
    }
    assert_eq!(context.open_checkpoint::<today::Rank>(named.clone())?.collect()?, expected);
    let latest = context.open_latest_checkpoint::<today::Rank>(named.clone())?.ok_or("none")?;
    assert_eq!(latest.collect()?, expected);
    let at = CheckpointName::new(info.address).records(found);
    assert_eq!(context.open_checkpoint_at::<today::Rank>(at)?.collect()?, expected);

    let numbers = CheckpointName::new("numbers").records("number, 1");
    let mut checkpointer = PeriodicCheckpointer::new(&context, 1, numbers.clone())?;
    let info = checkpointer.update(&context.range(0..10, 1)?)?.ok_or("its turn")?;
    assert_eq!((&*info.name, &*info.record_type), ("numbers", "number, 1"));
    assert_eq!(context.open_checkpoint::<i64>(numbers)?.count()?, 10);
    Ok(())
}

#[test]
fn an_older_generation_is_opened_by_its_number() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    for generation in 1..=3 {
        context.range(0..generation, 1)?.checkpoint_as("numbers")?;
    }
    for generation in 1..=3 {
        let opened = context.open_checkpoint_generation::<i64>("numbers", generation)?;
        assert_eq!(opened.count()?, generation);
    }
    assert!(context.open_checkpoint_generation::<u64>("numbers", 1).is_err());
    let missing = context.open_checkpoint_generation::<i64>("numbers", 4).map_err(|e| e.to_string());
    assert!(missing.is_err_and(|m| m.contains("00000000000000000004.json")));
    Ok(())
}

#[test]
fn a_partitioner_that_contradicts_the_parts_is_refused() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let partitioner = larder_checkpoint::Partitioner { kind: "larder-hash-1".to_owned(), partitions: 3 };
    let spec = Spec::new(2, CodecId::BINCODE).record_type("pair").partitioner(partitioner);
    let attempt = context.checkpoints().ok_or("none")?.begin("pairs", spec)?;
    for partition in 0..2 {
        attempt.part(partition)?.records::<(i64, i64)>(Arc::new(Bincode))?.finish()?;
    }
    attempt.commit()?;
    let pairs = CheckpointName::new("pairs").records("pair");
    let message = context.open_checkpoint::<(i64, i64)>(pairs).map_err(|e| e.to_string());
    assert!(
        message.is_err_and(|m| m.contains("`larder-hash-1`") && m.contains("over 3") && m.contains("has 2"))
    );
    Ok(())
}

#[test]
fn a_checkpoint_that_fails_at_any_step_leaves_the_dataset_as_it_was_and_can_be_repeated() -> Done {
    for action in [HookAction::FailBefore, HookAction::FailHalfway, HookAction::FailAfter] {
        let steps = (0..200).take_while(|step| fails_at(*step, action).is_ok_and(|failed| failed)).count();
        assert!((10..200).contains(&steps), "{steps}");
        assert!(!fails_at(steps as u64, action)?, "the last one was beyond all steps");
    }
    Ok(())
}

/// Checkpoints while one step fails, the `failing`-th of all; whether there was such a step.
fn fails_at(failing: u64, action: fn(ErrorKind) -> HookAction) -> Result<bool, Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let at = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&at);
    let hook = move |_: Step, _: &str| match counter.fetch_add(1, Ordering::Relaxed) == failing {
        true => action(ErrorKind::Other),
        false => HookAction::Continue,
    };
    let address = directory.path().display().to_string();
    let store = CheckpointStore::builder(&address).hook(hook).open()?;
    let context =
        Context::builder().threads(1).progress(false).task_attempts(1).checkpoint_store(store).build()?;
    let (dataset, _) = counted(&context)?;
    let dataset = dataset.named("fragile");
    let first = dataset.checkpoint();
    if at.load(Ordering::Relaxed) <= failing {
        first?;
        return Ok(false);
    }
    match self::context(directory.path())?.open_checkpoint::<(i64, String)>("fragile") {
        Ok(visible) => assert_eq!(visible.count()?, 4_000, "whole, step {failing}"),
        Err(error) => assert!(matches!(error, Error::NoSuchCheckpoint { .. }), "{error}"),
    }
    if first.is_err() {
        assert!(dataset.to_debug_string()?.lines().count() > 1, "the lineage is kept, step {failing}");
        assert_eq!(dataset.count()?, 4_000);
        assert_eq!(dataset.checkpoint()?.records, 4_000, "step {failing}");
    }
    assert_eq!(dataset.to_debug_string()?.lines().count(), 1);
    assert_eq!(self::context(directory.path())?.open_checkpoint::<(i64, String)>("fragile")?.count()?, 4_000);
    Ok(true)
}

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
    assert_eq!(context.open_checkpoint::<(i64, String)>("sound")?.count()?, 4_000);
    assert!(dataset.to_debug_string()?.lines().count() > 1, "the lineage is kept");
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
    let files = |at: &Path| fs::read_dir(at).map(|entries| entries.count()).unwrap_or_default();
    assert_eq!(files(&directory.path().join("mined/data")), 0, "what was written is removed");
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

#[test]
fn a_local_checkpoint_cuts_the_lineage_and_says_what_a_lost_block_means() -> Done {
    let context = Context::builder().threads(2).progress(false).memory("16MiB").build()?;
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
        let again = if level.is_some() { 0 } else { 4_000 };
        assert_eq!(computed.load(Ordering::Relaxed) - before, again, "{level:?}: stored blocks are moved");
        let wanted = level.unwrap_or(StorageLevel::MEMORY_AND_DISK).with_disk();
        assert_eq!(dataset.storage_level(), Some(wanted));
        assert_eq!(dataset.to_debug_string()?.lines().count(), 1);
        assert_eq!(dataset.collect()?, expected);

        // The blocks are the dataset's own: a child reads them after the last handle went.
        let (id, child) = (dataset.id(), dataset.map(|(_, text)| text.len()));
        drop(dataset);
        assert_eq!(child.count()?, 4_000);
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
            assert_eq!(numbers.to_debug_string()?.lines().count(), 1);
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
    assert!(numbers.to_debug_string()?.lines().count() > 1);
    assert_eq!(numbers.storage_level(), None);
    itself.lock().take();
    assert_eq!(numbers.collect()?, (0..400).collect::<Vec<_>>());
    numbers.local_checkpoint()?;
    assert_eq!(numbers.collect()?, (0..400).collect::<Vec<_>>());
    Ok(())
}

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
        let generation = |info: Option<larder_exec::CheckpointInfo>| info.map(|info| info.generation);
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
