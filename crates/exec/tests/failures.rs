//! What fails: closures, panics, cancelled jobs. Errors name the place, and nothing half done stays.

use std::cell::Cell;
use std::cmp::Ordering;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering as AtomicOrdering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use larder_exec::{Cause, Context, Dataset, Error, StorageLevel};
use serde::{Deserialize, Serialize};

type Done = Result<(), Error>;

fn context(threads: usize) -> Result<Context, Error> {
    Context::builder().threads(threads).progress(false).memory("16MiB").build()
}

fn heap_bytes(context: &Context) -> u64 {
    context.store().memory().snapshot().heap.storage_bytes
}

#[test]
fn a_failing_closure_is_named_with_dataset_partition_and_attempt() -> Done {
    let context = Context::builder().threads(2).progress(false).task_attempts(3).build()?;
    let tries = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&tries);
    let checked = context.range(0..400, 4)?.try_map(move |n| {
        if *n == 250 {
            counter.fetch_add(1, AtomicOrdering::Relaxed);
            return Err("250 is not allowed");
        }
        Ok(*n)
    });
    let checked = checked.named("checked");
    let error = checked.map(|n| n + 1).filter(|n| *n > 0).collect().map(|_| ());
    assert_eq!(tries.load(AtomicOrdering::Relaxed), 3);
    let Err(Error::Task { dataset, partition, attempt, attempts, cause }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(
        (dataset.as_str(), *partition, *attempt, *attempts),
        (format!("`checked` ({})", checked.id()).as_str(), 2, 3, 3)
    );
    assert!(matches!(&**cause, Cause::User { source } if source.to_string() == "250 is not allowed"));
    let message = error.map_err(|e| e.to_string());
    let expected =
        format!("dataset `checked` ({}), partition 2, attempt 3 of 3: 250 is not allowed", checked.id());
    assert_eq!(message, Err(expected));
    Ok(())
}

/// What a closure may throw.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropped");
    }
}

#[test]
fn a_panic_with_something_that_panics_when_it_drops_is_an_error_like_any_other() -> Done {
    let context = context(2)?;
    let mined = context.range(0..10, 2)?.map(|n| if *n == 7 { std::panic::panic_any(Bomb) } else { *n });
    let message = mined.count().map_err(|e| e.to_string());
    assert!(
        message.as_ref().is_err_and(|m| m.contains("partition 1, attempt 4 of 4: panicked")),
        "{message:?}"
    );
    let merged = context.range(0..10, 2)?.aggregate(0, |sum, n| sum + n, |_, _| std::panic::panic_any(Bomb));
    assert!(matches!(merged, Err(Error::Merge { .. })), "{merged:?}");
    assert_eq!(context.range(0..10, 2)?.count()?, 10);
    Ok(())
}

#[test]
fn a_task_that_fails_once_is_tried_again() -> Done {
    for threads in [1, 2] {
        let context = context(threads)?;
        let failed = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&failed);
        let flaky = context.range(0..1_000, 4)?.map(move |n| {
            assert!(*n != 600 || flag.swap(true, AtomicOrdering::Relaxed), "the first time");
            *n
        });
        assert_eq!(flaky.cache()?.collect()?, (0..1_000).collect::<Vec<_>>());
        assert!(failed.load(AtomicOrdering::Relaxed));
    }
    Ok(())
}

#[test]
fn a_panic_becomes_an_error_and_leaves_no_block_half_written() -> Done {
    let context = context(2)?;
    let armed = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&armed);
    let mined = context.range(0..4_000, 4)?.map(move |n| {
        assert!(*n != 2_500 || !flag.load(AtomicOrdering::Relaxed), "stepped on {n}");
        *n
    });
    let mined = mined.named("mined").cache()?;
    let message = mined.count().map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| {
        m.contains("`mined`") && m.contains("partition 2") && m.contains("panicked: stepped on 2500")
    }));
    let cached = context.storage()[0].cached_partitions;
    assert!((1..4).contains(&cached), "what other partitions cached stays");
    armed.store(false, AtomicOrdering::Relaxed);
    assert_eq!(mined.count()?, 4_000);
    drop(mined);
    assert_eq!(heap_bytes(&context), 0);
    Ok(())
}

#[test]
fn failures_in_shuffles_actions_and_nested_jobs_are_named_too() -> Done {
    let context = Context::builder().threads(2).progress(false).task_attempts(1).build()?;
    let pairs = context.range(0..100, 2)?.map(|n| (n % 3, *n));
    let sums = pairs.reduce_by_key(|a, b| if *b > 50 { panic!("too much") } else { a + b })?.named("sums");
    let message = sums.collect().map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("`sums`") && m.contains("too much")));
    let named = pairs.named("pairs");
    let message = named.fold((0, 0), |_, _| panic!("in the fold")).map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("`pairs`") && m.contains("in the fold")));
    let inner = context.range(0..3, 1)?.map(|_| -> i64 { panic!("inside") }).named("inner");
    let message = context.range(0..2, 1)?.try_map(move |_| inner.count()).named("outer").collect();
    assert!(
        message.map_err(|e| e.to_string()).is_err_and(|m| m.contains("`outer`") && m.contains("`inner`"))
    );
    let upstream = context.range(0..10, 1)?.try_map(|n| if *n == 5 { Err("five") } else { Ok(*n) });
    let whole = upstream.map_partitions(|records| [records.count()]);
    assert!(
        whole
            .collect()
            .map_err(|e| e.to_string())
            .is_err_and(|m| m.contains("`try_map`") && m.contains("five"))
    );
    Ok(())
}

#[test]
fn a_block_that_is_computed_from_itself_is_an_error_and_not_a_wait_without_end() -> Done {
    let context = Context::builder().threads(2).progress(false).task_attempts(1).build()?;
    let itself = Arc::new(Mutex::new(None::<Dataset<i64>>));
    let asked = Arc::clone(&itself);
    let recursive = context.range(0..4, 2)?.try_map(move |n| {
        let itself = asked.lock().map(|it| it.clone()).unwrap_or_default();
        itself.map_or(Ok(0), |itself| itself.count()).map(|count| n + count as i64)
    });
    let recursive = recursive.named("recursive").persist(StorageLevel::MEMORY_ONLY_SER)?;
    *itself.lock().unwrap() = Some(recursive.clone());
    let message = recursive.count().map_err(|e| e.to_string());
    assert!(
        message.as_ref().is_err_and(|m| m.contains("of `recursive` was asked for by its own computation")),
        "{message:?}"
    );
    *itself.lock().unwrap() = None;
    assert_eq!(recursive.count()?, 4);
    Ok(())
}

#[test]
fn datasets_that_are_computed_from_each_other_are_an_error_and_not_a_wait_without_end() -> Done {
    let context = Context::builder().threads(2).progress(false).task_attempts(1).build()?;
    let others = [(); 2].map(|()| Arc::new(Mutex::new(None::<Dataset<u64>>)));
    let both_compute = Arc::new(Barrier::new(2));
    let mut datasets = Vec::new();
    for (name, other) in [("left", &others[1]), ("right", &others[0])] {
        let (asked, both_compute) = (Arc::clone(other), Arc::clone(&both_compute));
        let dataset = context.range(0..1, 1)?.try_map(move |_| {
            // A computation in the place of the one that failed finds nobody to ask.
            let other = asked.lock().map(|mut it| it.take()).unwrap_or_default();
            other.map_or(Ok(0), |other| {
                both_compute.wait();
                other.count()
            })
        });
        datasets.push(dataset.named(name).persist(StorageLevel::MEMORY_ONLY_SER)?);
    }
    for (place, dataset) in others.iter().zip(&datasets) {
        *place.lock().unwrap() = Some(dataset.clone());
    }
    let (sender, results) = mpsc::channel();
    for dataset in datasets {
        let sender = sender.clone();
        thread::spawn(move || sender.send(dataset.count().map_err(|e| e.to_string())));
    }
    let results = [(); 2].map(|()| results.recv_timeout(Duration::from_secs(60)).unwrap());
    let told: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(
        matches!(*told, [error] if error.contains("by that of a block for which it waits")),
        "{results:?}"
    );
    Ok(())
}

/// A number that cannot be compared with 13 on this thread, once [`CALLS`] says so.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Unlucky(i64);

thread_local! {
    static CALLS: Cell<bool> = const { Cell::new(false) };
}

impl Ord for Unlucky {
    fn cmp(&self, other: &Self) -> Ordering {
        assert!(!CALLS.get() || self.0 != 13 && other.0 != 13, "13 is no number");
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Unlucky {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[test]
fn a_panic_while_results_are_merged_is_an_error_too() -> Done {
    let context = context(1)?;
    let numbers = context.range(0..20, 20)?.named("numbers");
    let panics = |result: Result<(), Error>| {
        let Err(Error::Merge { dataset, cause }) = &result else { panic!("{result:?}") };
        assert!(dataset.contains("`numbers`") || dataset.contains("`sort_by`"), "{dataset}");
        assert!(matches!(&**cause, Cause::Panic { message } if message == "13 is no number"), "{cause}");
    };
    // With one record a partition, only the results of partitions meet.
    let add = |sum: i64, n: &i64| if *n == 13 { panic!("13 is no number") } else { sum + n };
    panics(numbers.reduce(add).map(drop));
    let merge = |sum: i64, n: i64| add(sum, &n);
    panics(numbers.aggregate(0, |sum, n| sum + n, merge).map(drop));
    let folded = AtomicU32::new(0);
    let fold = |sum: i64, n: &i64| match folded.fetch_add(1, AtomicOrdering::Relaxed) {
        ..20 => sum + n,
        _ => panic!("13 is no number"),
    };
    panics(numbers.fold(0, fold).map(drop));

    CALLS.set(true);
    let unlucky = numbers.map(|n| Unlucky(*n)).named("numbers");
    panics(unlucky.top(3).map(drop));
    let sorted = unlucky.sort_by(|n| *n, true)?;
    panics(sorted.count().map(drop));
    CALLS.set(false);
    assert_eq!(sorted.map(|n| n.0).collect()?, (0..20).collect::<Vec<_>>(), "nothing is left behind");
    Ok(())
}

#[test]
fn the_first_failure_for_good_ends_the_other_tasks_soon() -> Done {
    let context = Context::builder().threads(2).progress(false).task_attempts(1).build()?;
    let seen = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&seen);
    let endless = context.generate(2, |_| 0_u64..)?.map(move |n| {
        counter.fetch_add(1, AtomicOrdering::Relaxed);
        *n
    });
    let failing = endless.map_partitions_with_index(|partition, records| {
        records.inspect(move |n| assert!(partition == 0 || *n < 100_000, "enough"))
    });
    let begun = Instant::now();
    assert!(failing.count().is_err());
    assert!(begun.elapsed() < Duration::from_secs(20));
    Ok(())
}

#[test]
fn a_cancelled_job_ends_promptly_and_leaks_nothing() -> Done {
    for threads in [1, 2] {
        let context = context(threads)?;
        let started = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&started);
        let endless = context.generate(4, |_| 0_u64..)?.map(move |n| {
            flag.store(true, AtomicOrdering::Relaxed);
            n % 1_000
        });
        let kept = endless.cache()?;
        let grouped = kept.map(|n| (*n, 1_u64)).reduce_by_key(|a, b| a + b)?;
        let (result, elapsed) = std::thread::scope(|scope| {
            let job = scope.spawn(|| grouped.count());
            while !started.load(AtomicOrdering::Relaxed) {
                std::thread::yield_now();
            }
            let begun = Instant::now();
            context.cancel();
            (job.join(), begun.elapsed())
        });
        assert!(matches!(result, Ok(Err(Error::Cancelled))), "{result:?}");
        assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
        assert_eq!(heap_bytes(&context), 0, "no block, no reservation");
        assert_eq!(context.range(0..100, 4)?.cache()?.count()?, 100, "the context can be used again");
    }
    Ok(())
}

#[test]
fn a_cancelled_job_leaves_off_in_the_middle_of_a_slice_that_is_read_where_it_lies() -> Done {
    let context = context(1)?;
    let numbers = context.parallelize((0..1_000_000_i64).collect(), 1)?;
    let seen = AtomicU64::new(0);
    let see = || {
        if seen.fetch_add(1, AtomicOrdering::Relaxed) == 0 {
            context.cancel();
        }
    };
    let actions: [(&str, &dyn Fn() -> Done); 3] = [
        ("fold", &|| numbers.aggregate((), |(), _| see(), |(), ()| ())),
        ("reduce", &|| numbers.reduce(|left, _| (see(), left).1).map(drop)),
        ("top", &|| numbers.top_by(1, |left, right| (see(), left.cmp(right)).1).map(drop)),
    ];
    for (what, action) in actions {
        seen.store(0, AtomicOrdering::Relaxed);
        let result = action();
        assert!(matches!(result, Err(Error::Cancelled)), "{what}: {result:?}");
        let seen = seen.load(AtomicOrdering::Relaxed);
        assert!(seen < 100_000, "{what}: {seen} records after it was cancelled");
    }
    Ok(())
}

#[test]
fn a_job_that_waits_for_anothers_block_can_be_cancelled() -> Done {
    let context = context(2)?;
    let started = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&started);
    let slow = context.generate(1, |_| 0_u64..)?.map(move |n| {
        flag.store(true, AtomicOrdering::Relaxed);
        *n
    });
    let slow = slow.cache()?;
    let results = std::thread::scope(|scope| {
        let computing = scope.spawn(|| slow.count());
        while !started.load(AtomicOrdering::Relaxed) {
            std::thread::yield_now();
        }
        let waiting = scope.spawn(|| slow.count());
        std::thread::sleep(Duration::from_millis(50));
        context.cancel();
        [computing.join(), waiting.join()]
    });
    assert!(results.iter().all(|result| matches!(result, Ok(Err(Error::Cancelled)))), "{results:?}");
    assert_eq!(heap_bytes(&context), 0);
    Ok(())
}

#[test]
fn cancelling_when_nothing_runs_does_nothing() -> Done {
    let context = context(1)?;
    context.cancel();
    assert_eq!(context.range(0..10, 2)?.count()?, 10);
    Ok(())
}

#[test]
fn a_job_that_waits_for_what_another_finds_out_can_be_cancelled() -> Done {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let cancelled = || -> Done {
            for threads in [1, 3] {
                let context = context(threads)?;
                let started = Arc::new(AtomicBool::new(false));
                let flag = Arc::clone(&started);
                let endless = context.generate(2, |_| 0_u64..)?.map(move |n| {
                    flag.store(true, AtomicOrdering::Relaxed);
                    *n
                });
                let sorted = endless.sort_by(|n| n % 10, true)?;
                let numbered = endless.zip_with_index();
                let results = std::thread::scope(|scope| {
                    let mut jobs: Vec<_> = (0..2).map(|_| scope.spawn(|| sorted.count())).collect();
                    jobs.extend((0..2).map(|_| scope.spawn(|| numbered.count())));
                    while !started.load(AtomicOrdering::Relaxed) {
                        std::thread::yield_now();
                    }
                    std::thread::sleep(Duration::from_millis(50));
                    context.cancel();
                    jobs.into_iter().map(|job| job.join()).collect::<Vec<_>>()
                });
                assert!(
                    results.iter().all(|result| matches!(result, Ok(Err(Error::Cancelled)))),
                    "{results:?}"
                );
                assert_eq!(context.range(0..100, 4)?.sort_by(|n| -n, true)?.first()?, Some(99));
            }
            Ok(())
        };
        drop(done.send(cancelled()));
    });
    ended.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("they go on"))
}

#[test]
fn a_failure_names_the_partition_of_the_dataset_it_names() -> Done {
    let context = Context::builder().threads(2).progress(false).task_attempts(1).build()?;
    let numbers = context.range(0..80, 8)?;
    let mined = numbers.map(|n| if *n == 77 { panic!("77") } else { *n }).named("mined");
    let at = |result: Result<u64, Error>| match result {
        Err(Error::Task { dataset, partition, .. }) => {
            (dataset.split(' ').next().map(str::to_owned), partition)
        }
        other => panic!("{other:?}"),
    };
    let mined_at_7 = (Some("`mined`".to_owned()), 7);
    assert_eq!(at(mined.coalesce(2)?.count()), mined_at_7);
    assert_eq!(at(mined.coalesce(4)?.coalesce(2)?.coalesce(1)?.map(|n| *n).count()), mined_at_7);
    assert_eq!(at(numbers.union(&mined)?.map(|n| n + 1).count()), mined_at_7, "15 of the union");
    assert_eq!(at(mined.coalesce(2)?.map(|n| (*n, 1)).reduce_by_key(|a, b| a + b)?.count()), mined_at_7);
    assert_eq!(at(numbers.coalesce(2)?.cartesian(&mined)?.count()), mined_at_7, "7 or 15 of the product");
    assert_eq!(at(mined.coalesce(3)?.cache()?.map(|n| *n).zip_with_index().count()), mined_at_7);
    assert_eq!(at(mined.zip(&mined)?.coalesce(2)?.count()), mined_at_7, "gathered, for two readers");
    let behind = numbers.coalesce(2)?.map(|n| if *n == 77 { panic!("77") } else { *n }).named("behind");
    assert_eq!(
        at(behind.count()),
        (Some("`behind`".to_owned()), 1),
        "its own, not the one that was read last"
    );
    Ok(())
}

#[test]
fn a_failure_on_the_map_side_of_a_shuffle_says_whose_partition_it_names() -> Done {
    let context = Context::builder().threads(2).progress(false).task_attempts(1).build()?;
    let pairs = context.range(0..80, 8)?.map(|n| (n % 2, *n)).named("pairs");
    let sums = pairs.reduce_by_key_with_partitions(2, |a, b| if *b == 77 { panic!("77") } else { a + b })?;
    let sums = sums.named("sums");
    let Err(Error::Task { dataset, partition, .. }) = sums.count() else { panic!("it succeeded") };
    assert_eq!(dataset, format!("`sums` ({}), map side", sums.id()));
    assert_eq!(partition, 7);
    Ok(())
}
