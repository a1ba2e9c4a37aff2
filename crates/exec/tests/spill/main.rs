//! Operators on ten times the data that memory holds: the same results in the same order, inside the budget, and
//! nothing left behind.

#[cfg(test)]
mod resident;

use std::collections::hash_map::DefaultHasher;
use std::error::Error as _;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_blockstore::BlockStore;
use larder_exec::{Cause, Context, Data, Dataset, Error};

type Done = Result<(), Error>;

/// Partition digests: they depend on every record and on the order of all.
type Digests = Vec<u64>;

type Operation = fn(&Context, i64) -> Result<Digests, Error>;

/// About 200 bytes each, 24 of them inline.
fn pairs(context: &Context, records: i64, keys: i64) -> Result<Dataset<(String, String)>, Error> {
    let pairs = context.range(0..records, 3)?;
    Ok(pairs.map(move |n| pair(*n, keys)))
}

fn pair(n: i64, keys: i64) -> (String, String) {
    (format!("key {:08}", scattered(n) % keys), format!("{n:0>120}"))
}

/// Another order of numbers.
fn scattered(n: i64) -> i64 {
    n.wrapping_mul(7_046_029_254_386_353_131) & 0x7FFF_FFFF_FFFF
}

fn digests<T: Data + Hash>(dataset: &Dataset<T>) -> Result<Digests, Error> {
    let digests = Arc::new((0..dataset.partitions()).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
    let of_partitions = Arc::clone(&digests);
    dataset.for_each_partition(move |partition, records| {
        let mut hasher = DefaultHasher::new();
        let mut count = 0_u64;
        for record in records {
            record.hash(&mut hasher);
            count += 1;
        }
        count.hash(&mut hasher);
        if let Some(digest) = of_partitions.get(partition as usize) {
            digest.store(hasher.finish(), Ordering::Relaxed);
        }
        Ok::<(), Error>(())
    })?;
    Ok(digests.iter().map(|digest| digest.load(Ordering::Relaxed)).collect())
}

fn sort_by(context: &Context, records: i64) -> Result<Digests, Error> {
    let pairs = pairs(context, records, records / 3)?;
    digests(&pairs.sort_by(|(key, _)| key.clone(), true)?)
}

fn sort_by_key(context: &Context, records: i64) -> Result<Digests, Error> {
    digests(&pairs(context, records, records / 3)?.sort_by_key_with_partitions(3, false)?)
}

fn group_by_key(context: &Context, records: i64) -> Result<Digests, Error> {
    digests(&pairs(context, records, records / 5)?.group_by_key()?)
}

fn reduce_by_key(context: &Context, records: i64) -> Result<Digests, Error> {
    let pairs = pairs(context, records, records / 2)?;
    digests(&pairs.reduce_by_key(|longest, next| if next > &longest { next.clone() } else { longest })?)
}

/// Sums of floats, which differ in their last bits when they are added in another order.
fn float_sums(context: &Context, records: i64) -> Result<Digests, Error> {
    let pairs = context.range(0..records * 4, 5)?;
    let pairs = pairs.map(move |n| (scattered(*n) % records, 1.0 / (1 + n) as f64));
    digests(&pairs.reduce_by_key(|sum, n| sum + n)?.map_values(|sum| sum.to_bits()))
}

fn aggregate_by_key(context: &Context, records: i64) -> Result<Digests, Error> {
    let pairs = pairs(context, records, records / 4)?;
    let texts = pairs.aggregate_by_key(
        Vec::new(),
        |mut texts, next| {
            texts.push(next.clone());
            texts
        },
        |mut left, mut right| {
            left.append(&mut right);
            left
        },
    )?;
    digests(&texts)
}

fn fold_by_key(context: &Context, records: i64) -> Result<Digests, Error> {
    let pairs = pairs(context, records, records / 4)?;
    digests(&pairs.fold_by_key(String::new(), |all, next| all + next)?)
}

fn join(context: &Context, records: i64) -> Result<Digests, Error> {
    let (left, right) =
        (pairs(context, records / 2, records / 4)?, pairs(context, records / 3, records / 5)?);
    digests(&left.join(&right)?)
}

fn left_outer_join(context: &Context, records: i64) -> Result<Digests, Error> {
    let (left, right) =
        (pairs(context, records / 2, records / 3)?, pairs(context, records / 3, records / 5)?);
    digests(&left.left_outer_join(&right)?)
}

fn full_outer_join(context: &Context, records: i64) -> Result<Digests, Error> {
    let (left, right) =
        (pairs(context, records / 3, records / 6)?, pairs(context, records / 2, records / 3)?);
    digests(&left.full_outer_join(&right)?)
}

/// One key has ten times what memory holds on the right, and a few records on the left.
fn join_of_one_key(context: &Context, records: i64) -> Result<Digests, Error> {
    let right = context.range(0..records, 5)?.map(|n| ("hot".to_owned(), format!("{n:0>120}")));
    let left = context.range(0..4, 2)?.map(|n| (if *n == 2 { "cold" } else { "hot" }.to_owned(), *n));
    digests(&left.full_outer_join(&right)?)
}

fn co_group(context: &Context, records: i64) -> Result<Digests, Error> {
    let (left, right) =
        (pairs(context, records / 2, records / 4)?, pairs(context, records / 3, records / 5)?);
    digests(&left.co_group(&right)?)
}

fn distinct(context: &Context, records: i64) -> Result<Digests, Error> {
    let doubled =
        context.range(0..records, 5)?.map(move |n| format!("{:0>120}", scattered(*n) % (records / 2)));
    digests(&doubled.distinct()?)
}

fn repartition(context: &Context, records: i64) -> Result<Digests, Error> {
    digests(&pairs(context, records, records)?.repartition(7)?)
}

fn count_by_key(context: &Context, records: i64) -> Result<Digests, Error> {
    let counts = pairs(context, records, 100)?.count_by_key()?;
    let mut hasher = DefaultHasher::new();
    counts.hash(&mut hasher);
    Ok(vec![hasher.finish()])
}

const OPERATIONS: [(&str, Operation); 15] = [
    ("sort_by", sort_by),
    ("sort_by_key", sort_by_key),
    ("group_by_key", group_by_key),
    ("reduce_by_key", reduce_by_key),
    ("float_sums", float_sums),
    ("aggregate_by_key", aggregate_by_key),
    ("fold_by_key", fold_by_key),
    ("join", join),
    ("left_outer_join", left_outer_join),
    ("full_outer_join", full_outer_join),
    ("join_of_one_key", join_of_one_key),
    ("co_group", co_group),
    ("distinct", distinct),
    ("repartition", repartition),
    ("count_by_key", count_by_key),
];

fn context(threads: usize, memory: &str, directory: &Path) -> Result<Context, Error> {
    let checkpoints = directory.join("checkpoints");
    let context = Context::builder().threads(threads).progress(false).memory(memory);
    context.disk(directory).checkpoints(checkpoints).build()
}

/// What is left when no dataset is.
fn assert_nothing_is_left(context: &Context, after: &str) {
    let snapshot = context.store().memory().snapshot();
    assert_eq!(snapshot.heap.charged_bytes(), 0, "{after}");
    assert_eq!((snapshot.tasks, snapshot.scratch_bytes), (0, 0), "{after}");
    assert!(snapshot.heap.charged_peak_bytes <= snapshot.heap.budget_bytes, "{after}");
    assert_eq!(context.store().disk().map(|disk| disk.used_bytes), Some(0), "{after}");
    assert!(context.store().datasets().is_empty(), "{after}");
}

#[test]
fn ten_times_the_memory_gives_the_same_records_in_the_same_order() -> Done {
    let directory = tempfile::tempdir().unwrap();
    const RECORDS: i64 = 12_000;
    for (name, operation) in OPERATIONS {
        let expected = operation(&context(2, "1GiB", directory.path())?, RECORDS)?;
        for (threads, memory) in [(1, "200kB"), (3, "60kB")] {
            let little = context(threads, memory, directory.path())?;
            assert!(operation(&little, RECORDS)? == expected, "{name}, {threads} threads, {memory}");
            assert_nothing_is_left(&little, name);
            let refused = little.store().memory().snapshot().heap.execution_refused;
            assert_eq!(refused == 0, name == "count_by_key", "{name} is short of memory");
        }
    }
    Ok(())
}

/// All messages of an error, to the innermost.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[test]
fn a_full_disk_is_an_error_that_says_so_and_the_context_goes_on() -> Done {
    let directory = tempfile::tempdir().unwrap();
    let store = BlockStore::builder().memory(1 << 20).disk(directory.path()).disk_limit(3 << 20).build()?;
    let context = Context::builder().threads(2).progress(false).store(store).build()?;
    for operation in [sort_by, group_by_key, reduce_by_key, join, distinct] {
        let error = operation(&context, 40_000).unwrap_err();
        assert!(told(&error).contains("on disk: "), "{}", told(&error));
        assert_nothing_is_left(&context, "the failure");
    }
    assert_eq!(context.range(0..1_000, 3)?.map(|n| (n % 7, *n)).group_by_key()?.count()?, 7);
    Ok(())
}

#[test]
fn without_a_disk_the_error_says_what_was_needed() -> Done {
    let context = Context::builder().threads(2).progress(false).memory("1MiB").no_disk().build()?;
    // All records are in one partition and each is its own map output, so that only the operators need memory.
    let pairs = context.range(0..30_000, 1)?.map(|n| (*n, format!("{n:0>100}")));
    let error = pairs.reduce_by_key(|_, b| b.clone())?.count().unwrap_err();
    let Error::Task { cause, .. } = &error else { panic!("{error}") };
    assert!(matches!(**cause, Cause::MemoryRefused { budget_bytes: 1_048_576, .. }), "{error}");
    assert!(error.to_string().contains("execution memory refused"), "{error}");
    assert!(error.to_string().contains(".disk(path)"), "{error}");
    let snapshot = context.store().memory().snapshot();
    assert_eq!((snapshot.heap.charged_bytes(), snapshot.tasks, snapshot.scratch_bytes), (0, 0, 0));
    assert_eq!(context.range(0..1_000, 3)?.map(|n| (n % 7, *n)).reduce_by_key(|a, b| a + b)?.count()?, 7);
    Ok(())
}

#[test]
fn a_group_larger_than_memory_is_an_error_that_names_its_place_and_size() -> Done {
    let directory = tempfile::tempdir().unwrap();
    let context =
        Context::builder().threads(2).progress(false).memory("1MiB").disk(directory.path()).task_attempts(1);
    let context = context.build()?;
    let pairs =
        context.range(0..40_000, 4)?.map(|n| (if n % 10 == 0 { *n } else { 7 }, format!("{n:0>100}")));
    let groups = pairs.group_by_key()?.named("by page");
    let error = groups.count().unwrap_err();
    let Error::Task { dataset, cause, .. } = &error else { panic!("{error}") };
    assert!(dataset.contains("`by page`"), "{error}");
    let Cause::GroupTooLarge { needed_bytes, budget_bytes, .. } = **cause else { panic!("{error}") };
    assert!(needed_bytes > 100_000 && budget_bytes == 1 << 20, "{error}");
    drop(groups);
    assert_nothing_is_left(&context, "the failure");
    // What is reduced needs no group.
    let longest = pairs.reduce_by_key(|longest, next| longest.max(next.clone()))?;
    assert_eq!(longest.count()?, 4_001);
    Ok(())
}

/// Waits until something was spilled.
fn spilled(context: &Context) {
    let begun = Instant::now();
    while !context
        .store()
        .datasets()
        .iter()
        .any(|status| status.name.contains("spill of") && status.disk_bytes > 0)
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is spilled");
        std::thread::yield_now();
    }
}

#[test]
fn cancelling_a_task_that_spills_leaves_nothing() -> Done {
    let directory = tempfile::tempdir().unwrap();
    for threads in [1, 2] {
        let context = context(threads, "1MiB", directory.path())?;
        let pairs = context.generate(2, |_| 0_i64..)?.map(|n| (scattered(*n), format!("{n:0>100}")));
        let reduced = pairs.reduce_by_key(|_, b| b.clone())?;
        let result = std::thread::scope(|scope| {
            let job = scope.spawn(|| reduced.count());
            spilled(&context);
            context.cancel();
            job.join()
        });
        assert!(matches!(result, Ok(Err(Error::Cancelled))), "{result:?}");
        drop((reduced, pairs));
        assert_nothing_is_left(&context, "the cancelled job");
        assert_eq!(context.range(0..100, 4)?.count()?, 100);
    }
    Ok(())
}

#[test]
fn a_panic_in_a_task_that_spilled_leaves_nothing() -> Done {
    let directory = tempfile::tempdir().unwrap();
    let context =
        Context::builder().threads(2).progress(false).memory("1MiB").disk(directory.path()).task_attempts(2);
    let context = context.build()?;
    let armed = Arc::new(AtomicBool::new(true));
    let (flag, store) = (Arc::clone(&armed), context.store().clone());
    let pairs = context.range(0..60_000, 2)?.map(|n| (scattered(*n) % 20_000, format!("{n:0>100}")));
    let reduced = pairs.reduce_by_key(move |a, b| {
        let spills = || store.datasets().iter().any(|status| status.name.contains("spill of"));
        assert!(!(flag.load(Ordering::Relaxed) && a.ends_with("777") && spills()), "stepped on {a}");
        a.max(b.clone())
    })?;
    let error = reduced.count().unwrap_err();
    assert!(error.to_string().contains("panicked: stepped on"), "{error}");
    let snapshot = context.store().memory().snapshot();
    assert_eq!((snapshot.heap.execution_bytes, snapshot.tasks), (0, 0));
    assert!(context.store().datasets().iter().all(|status| !status.name.contains("spill of")));
    armed.store(false, Ordering::Relaxed);
    assert_eq!(reduced.count()?, 20_000);
    drop(reduced);
    drop(pairs);
    let snapshot = context.store().memory().snapshot();
    assert_eq!((snapshot.heap.charged_bytes(), snapshot.tasks, snapshot.scratch_bytes), (0, 0, 0));
    Ok(())
}

#[test]
fn jobs_inside_tasks_that_hold_memory_get_on() -> Done {
    let directory = tempfile::tempdir().unwrap();
    for threads in [1, 2] {
        let context = context(threads, "512KiB", directory.path())?;
        let inner =
            pairs(&context, 3_000, 500)?.group_by_key()?.map(|(key, values)| (key.clone(), values.len()));
        let expected = inner.collect()?.len();
        let outer = pairs(&context, 4_000, 40)?.group_by_key()?;
        let counts = outer.try_map(move |_| inner.distinct()?.collect().map(|rows| rows.len()));
        assert_eq!(counts.collect()?, vec![expected; 40]);
    }
    Ok(())
}
