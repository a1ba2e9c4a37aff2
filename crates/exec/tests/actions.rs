//! Actions give what their sequential counterparts give.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_exec::{BoxError, Context, Error};

type Done = Result<(), Error>;

fn context(threads: usize) -> Result<Context, Error> {
    Context::builder().threads(threads).progress(false).build()
}

#[test]
fn folds_and_reductions_go_in_order() -> Done {
    let context = context(2)?;
    let words = context.parallelize("a b c d e f g".split(' ').map(str::to_owned).collect(), 3)?;
    assert_eq!(words.fold(String::new(), |all, word| all + word)?, "abcdefg");
    let nested = words.reduce(|left, right| format!("({left}{right})"))?;
    assert_eq!(nested, Some("(((ab)(cd))((ef)g))".to_owned()));
    assert_eq!(words.reduce(|left, right| left + right)?, Some("abcdefg".to_owned()));
    assert_eq!(words.aggregate(0, |n, word| n + word.len(), |a, b| a + b)?, 7);
    assert_eq!(words.filter(|_| false).reduce(|left, _| left)?, None);
    assert_eq!(words.filter(|_| false).fold("zero".to_owned(), |left, _| left)?, "zero");
    assert_eq!(words.filter(|word| word == "g").reduce(|left, _| left)?, Some("g".to_owned()));
    Ok(())
}

#[test]
fn counts_and_collections() -> Done {
    let context = context(2)?;
    let numbers = context.range(0..10_000, 7)?;
    assert_eq!(numbers.count()?, 10_000);
    assert_eq!(numbers.collect()?, (0..10_000).collect::<Vec<_>>());
    let by_key =
        numbers.map(|n| (["x", "y", "z"][(n % 3) as usize], *n)).map(|(key, n)| (key.to_string(), *n));
    let expected = [("x", 3334), ("y", 3333), ("z", 3333)].map(|(key, n)| (key.to_owned(), n));
    assert_eq!(by_key.count_by_key()?, expected);
    Ok(())
}

#[test]
fn take_looks_no_further_than_it_must() -> Done {
    let context = context(2)?;
    let computed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&computed);
    let numbers = context.range(0..1_000_000, 100)?.map(move |n| {
        counter.fetch_add(1, Ordering::Relaxed);
        *n
    });
    assert_eq!(numbers.take(5)?, [0, 1, 2, 3, 4]);
    assert!(computed.load(Ordering::Relaxed) <= 1_024, "{computed:?}");
    assert!(numbers.take(0)?.is_empty());
    assert_eq!(numbers.first()?, Some(0));
    let late = numbers.filter(|n| *n >= 999_990);
    assert_eq!(late.take(4)?, [999_990, 999_991, 999_992, 999_993]);
    assert_eq!(late.take(100)?.len(), 10);
    assert_eq!(numbers.filter(|_| false).first()?, None);
    Ok(())
}

#[test]
fn top_is_sorted_and_stable() -> Done {
    let context = context(2)?;
    let numbers = context.range(0..50_000, 5)?.map(|n| (n * 7_919) % 50_000);
    assert_eq!(numbers.top(3)?, [49_999, 49_998, 49_997]);
    assert!(numbers.top(0)?.is_empty());
    assert_eq!(context.range(0..3, 2)?.top(10)?, [2, 1, 0]);
    let by_remainder = |a: &i64, b: &i64| (a % 10).cmp(&(b % 10));
    let top = context.range(0..50_000, 5)?.top_by(4, by_remainder)?;
    assert_eq!(top, [9, 19, 29, 39], "of equal records the first ones");
    Ok(())
}

#[test]
fn for_each_partition_sees_every_partition_once() -> Done {
    let context = context(2)?;
    let numbers = context.range(0..100, 4)?;
    let sum = AtomicU64::new(0);
    numbers.for_each_partition(|partition, records| {
        sum.fetch_add(
            records.map(|n| n as u64).sum::<u64>() + u64::from(partition) * 1_000_000,
            Ordering::Relaxed,
        );
        Ok::<(), BoxError>(())
    })?;
    assert_eq!(sum.into_inner(), 4_950 + 6_000_000);
    let failed = numbers.for_each_partition(|partition, _| match partition {
        2 => Err("the sink is full"),
        _ => Ok(()),
    });
    let message = failed.map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("partition 2") && m.contains("the sink is full")));
    Ok(())
}

#[test]
fn text_is_saved_whole_or_not_at_all() -> Result<(), Box<dyn std::error::Error>> {
    let context = context(2)?;
    let directory = tempfile::tempdir()?;
    let target = directory.path().join("deep/out");
    let numbers = context.range(0..10, 3)?;
    numbers.save_as_text(&target)?;
    assert_eq!(std::fs::read_to_string(target.join("part-00001"))?, "3\n4\n5\n");
    assert_eq!(std::fs::read_dir(&target)?.count(), 3);
    let again = numbers.save_as_text(&target).map_err(|e| e.to_string());
    assert!(again.is_err_and(|message| message.contains("deep/out exists already")));

    let broken = directory.path().join("broken");
    let failing = numbers.try_map(|n| if *n == 9 { Err("nine") } else { Ok(*n) });
    assert!(failing.save_as_text(&broken).is_err());
    assert!(!broken.try_exists()?);
    assert_eq!(std::fs::read_dir(directory.path())?.count(), 1, "nothing half done is left");

    assert_eq!(context.text_file(target.join("part-00002"), 2)?.collect()?, ["6", "7", "8", "9"]);
    Ok(())
}

#[test]
fn an_action_inside_a_task_runs_on_its_thread_even_with_one_thread() -> Done {
    for threads in [1, 2] {
        let context = context(threads)?;
        let inner = context.range(0..100, 4)?.map(|n| (n % 10, *n)).reduce_by_key(|a, b| a + b)?;
        let sums = context.range(0..6, 3)?.try_map(move |n| {
            let sum = inner.fold((0, 0), |(_, sum), (_, n)| (0, sum + n))?;
            Ok::<_, Error>(sum.1 + n)
        });
        assert_eq!(sums.collect()?, (4_950..4_956).collect::<Vec<_>>());
    }
    Ok(())
}

#[test]
fn jobs_of_several_threads_share_a_context() -> Done {
    let context = context(2)?;
    let numbers = context.range(0..10_000, 8)?.map(|n| (n % 100, 1)).reduce_by_key(|a, b| a + b)?;
    let results = std::thread::scope(|scope| {
        let jobs: Vec<_> = (0..8).map(|_| scope.spawn(|| numbers.collect())).collect();
        jobs.into_iter()
            .map(|job| job.join().map_err(|_| Error::Cancelled).and_then(|r| r))
            .collect::<Result<Vec<_>, _>>()
    })?;
    assert!(results.iter().all(|result| *result == results[0] && result.len() == 100));
    Ok(())
}
