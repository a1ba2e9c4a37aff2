//! Transformations give what their sequential counterparts on vectors give, in partitions as promised.

use larder_exec::{Context, Dataset, Error};

type Done = Result<(), Error>;

fn context(threads: usize) -> Result<Context, Error> {
    Context::builder().threads(threads).progress(false).build()
}

/// The records of each partition.
fn parts<T: larder_exec::Data>(dataset: &Dataset<T>) -> Result<Vec<Vec<T>>, Error> {
    dataset.map_partitions(|records| [records.collect::<Vec<T>>()]).collect()
}

#[test]
fn a_collection_is_split_evenly_and_in_order() -> Done {
    let context = context(2)?;
    assert_eq!(
        parts(&context.parallelize((0..10).collect(), 3)?)?,
        [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7, 8, 9]]
    );
    assert_eq!(parts(&context.parallelize(vec![7], 3)?)?, [vec![], vec![], vec![7]]);
    assert!(context.parallelize(Vec::<i32>::new(), 0)?.collect()?.is_empty());
    let refused = context.parallelize(vec![1], 0).map(|_| ()).map_err(|e| e.to_string());
    assert!(refused.is_err_and(|message| message.contains("1 records need at least one partition")));
    Ok(())
}

#[test]
fn ranges_cover_every_integer_once_up_to_the_extremes() -> Done {
    let context = context(2)?;
    assert_eq!(parts(&context.range(-3..4, 2)?)?, [vec![-3, -2, -1], vec![0, 1, 2, 3]]);
    assert_eq!(context.range(i64::MAX - 2..i64::MAX, 5)?.collect()?, [i64::MAX - 2, i64::MAX - 1]);
    let ends = context.range(i64::MIN..i64::MAX, 1 << 20)?.map_partitions(|mut records| records.next());
    assert_eq!(ends.take(2)?, [i64::MIN, i64::MIN + (1 << 44) - 1]);
    let (start, end) = (5, 2);
    assert_eq!(context.range(start..end, 3)?.count()?, 0);
    Ok(())
}

#[test]
fn record_wise_transformations_match_iterators_over_many_batches() -> Done {
    let context = context(2)?;
    let numbers: Vec<i64> = (0..10_000).collect();
    let dataset = context.parallelize(numbers.clone(), 3)?;
    assert_eq!(dataset.map(|n| n * 3).collect()?, numbers.iter().map(|n| n * 3).collect::<Vec<_>>());
    assert_eq!(
        dataset.filter(|n| n % 7 == 0).collect()?,
        numbers.iter().copied().filter(|n| n % 7 == 0).collect::<Vec<_>>()
    );
    let spread = |n: &i64| (0..n % 5).collect::<Vec<_>>();
    assert_eq!(dataset.flat_map(spread).collect()?, numbers.iter().flat_map(spread).collect::<Vec<_>>());
    let chained =
        dataset.flat_map(spread).filter(|n| *n > 0).flat_map(|n| vec![*n; 3]).map(|n| n.to_string());
    let expected = numbers.iter().flat_map(spread).filter(|n| *n > 0).flat_map(|n| vec![n; 3]);
    assert_eq!(chained.collect()?, expected.map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(dataset.key_by(|n| n % 2).map_values(|n| n + 1).take(3)?, [(0, 1), (1, 2), (0, 3)]);
    assert_eq!(dataset.key_by(|n| n % 2).keys().take(3)?, [0, 1, 0]);
    assert_eq!(dataset.key_by(|n| n % 2).values().take(3)?, [0, 1, 2]);
    Ok(())
}

#[test]
fn partition_wise_closures_see_whole_partitions_and_their_numbers() -> Done {
    let context = context(2)?;
    let dataset = context.range(0..5_000, 4)?;
    let sums = dataset.map_partitions_with_index(|index, records| [(index, records.sum::<i64>())]);
    let expected: Vec<(u32, i64)> =
        (0..4).map(|p| (p, (i64::from(p) * 1250..(i64::from(p) + 1) * 1250).sum())).collect();
    assert_eq!(sums.collect()?, expected);
    // A closure that stops early leaves the rest alone.
    assert_eq!(
        dataset.map_partitions(|records| records.take(2)).collect()?,
        [0, 1, 1250, 1251, 2500, 2501, 3750, 3751]
    );
    Ok(())
}

#[test]
fn union_keeps_partitions_side_by_side() -> Done {
    let context = context(2)?;
    let left = context.range(0..4, 2)?;
    let right = context.range(10..13, 1)?.map(|n| n + 1);
    assert_eq!(parts(&left.union(&right)?)?, [vec![0, 1], vec![2, 3], vec![11, 12, 13]]);
    assert_eq!(left.union(&left)?.collect()?, [0, 1, 2, 3, 0, 1, 2, 3]);
    let refused = context.union::<i64>([]).map_err(|e| e.to_string());
    assert!(refused.is_err_and(|message| message.contains("at least one dataset")));
    let elsewhere = Context::builder().name("elsewhere").progress(false).build()?.range(0..1, 1)?;
    let refused = left.union(&elsewhere).map_err(|e| e.to_string());
    assert!(refused.is_err_and(|message| message.contains("`elsewhere`")));
    Ok(())
}

#[test]
fn coalesce_joins_neighbours_and_never_adds_partitions() -> Done {
    let context = context(2)?;
    let dataset = context.range(0..10, 5)?;
    assert_eq!(parts(&dataset.coalesce(2)?)?, [vec![0, 1, 2, 3], vec![4, 5, 6, 7, 8, 9]]);
    assert_eq!(dataset.coalesce(9)?.partitions(), 5);
    assert!(dataset.coalesce(0).is_err());
    assert_eq!(
        dataset.coalesce(3)?.coalesce(2)?.coalesce(1)?.map(|n| n + 1).collect()?,
        (1..11).collect::<Vec<_>>()
    );
    Ok(())
}

#[test]
fn repartition_evens_out_and_keeps_every_record() -> Done {
    let context = context(2)?;
    let lopsided = context.range(0..1_000, 4)?.filter(|n| *n < 260);
    let even = lopsided.repartition(5)?;
    assert!(parts(&even)?.iter().all(|part| part.len().abs_diff(52) <= 2));
    let mut records = even.collect()?;
    records.sort_unstable();
    assert_eq!(records, (0..260).collect::<Vec<_>>());
    let small = context.range(0..64, 64)?.repartition(4)?;
    assert!(parts(&small)?.iter().all(|part| part.len() > 4), "each map task starts with another partition");
    assert!(lopsided.repartition(0).is_err());
    Ok(())
}

#[test]
fn zip_pairs_records_and_tells_of_unequal_sides() -> Done {
    let context = context(2)?;
    let left = context.range(0..3_000, 3)?;
    let zipped = left.zip(&left.map(|n| n * n))?;
    assert_eq!(zipped.collect()?, (0..3_000).map(|n| (n, n * n)).collect::<Vec<_>>());
    let shorter = left.zip(&left.filter(|n| *n != 2_999))?.collect().map_err(|e| e.to_string());
    assert!(shorter.is_err_and(|message| {
        message.contains("`zip`") && message.contains("partition 2") && message.contains("left one has more")
    }));
    let refused = left.zip(&context.range(0..1, 1)?).map(|_| ()).map_err(|e| e.to_string());
    assert!(refused.is_err_and(|message| message.contains("3 and 1")));
    Ok(())
}

#[test]
fn zip_with_index_counts_over_all_partitions() -> Done {
    let context = context(2)?;
    let dataset = context.range(0..5_000, 4)?.filter(|n| n % 3 == 0);
    let numbered = dataset.zip_with_index();
    let expected: Vec<(i64, u64)> = (0..5_000).step_by(3).zip(0..).collect();
    assert_eq!(numbered.collect()?, expected);
    // Two of them in one lineage, the second behind the first.
    let again = numbered.filter(|(_, at)| at % 2 == 0).zip_with_index();
    let expected: Vec<((i64, u64), u64)> = expected.into_iter().step_by(2).zip(0..).collect();
    assert_eq!(again.collect()?, expected);
    Ok(())
}

#[test]
fn cartesian_pairs_every_record_with_every_other() -> Done {
    let context = context(2)?;
    let left = context.range(0..70, 2)?;
    let right = context.range(100..150, 3)?.flat_map(|n| vec![*n; 2]);
    let product = left.cartesian(&right)?;
    assert_eq!(product.partitions(), 6);
    assert_eq!(product.count()?, 70 * 100);
    let mut expected = Vec::new();
    for (lefts, rights) in (0..2).flat_map(|l| (0..3).map(move |r| (l, r))) {
        let right_bounds = [100, 116, 133, 150];
        for l in lefts * 35..(lefts + 1) * 35 {
            for r in right_bounds[rights]..right_bounds[rights + 1] {
                expected.extend([(l, r), (l, r)]);
            }
        }
    }
    assert_eq!(product.collect()?, expected);
    assert_eq!(left.cartesian(&right.filter(|_| false))?.count()?, 0);
    assert_eq!(left.filter(|_| false).cartesian(&right)?.count()?, 0);
    Ok(())
}

#[test]
fn samples_are_the_same_every_time_and_of_the_right_size() -> Done {
    let context = context(2)?;
    let dataset = context.range(0..20_000, 4)?;
    let sample = dataset.sample(0.1, 42)?.collect()?;
    assert!((1_700..2_300).contains(&sample.len()), "{}", sample.len());
    assert_eq!(sample, dataset.sample(0.1, 42)?.collect()?);
    assert_ne!(sample, dataset.sample(0.1, 43)?.collect()?);
    assert_eq!(dataset.sample(0.0, 1)?.count()?, 0);
    assert_eq!(dataset.sample(1.0, 1)?.count()?, 20_000);
    assert!(dataset.sample(1.5, 1).is_err() && dataset.sample(f64::NAN, 1).is_err());
    Ok(())
}

#[test]
fn distinct_keeps_one_of_each() -> Done {
    let context = context(2)?;
    let dataset = context.range(0..10_000, 4)?.map(|n| (n % 100).to_string());
    let mut records = dataset.distinct()?.collect()?;
    assert_eq!(records.len(), 100);
    records.sort_unstable();
    records.dedup();
    assert_eq!(records.len(), 100);
    assert_eq!(dataset.distinct_with_partitions(7)?.partitions(), 7);
    assert!(dataset.distinct_with_partitions(0).is_err());
    assert_eq!(context.parallelize(Vec::<i32>::new(), 0)?.distinct()?.count()?, 0);
    Ok(())
}

#[test]
fn a_partition_that_is_read_twice_in_a_task_is_computed_once() -> Done {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    let context = context(2)?;
    let computed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&computed);
    let mut dataset = context.range(0..8, 2)?.map(move |n| {
        counter.fetch_add(1, Ordering::Relaxed);
        *n
    });
    // Zipped with itself 40 times: 2^40 paths through the lineage.
    for _ in 0..40 {
        dataset = dataset.zip(&dataset)?.map(|(left, _)| *left);
    }
    assert_eq!(dataset.collect()?, (0..8).collect::<Vec<_>>());
    assert_eq!(computed.load(Ordering::Relaxed), 8);
    Ok(())
}

#[test]
fn deep_nests_of_operations_on_whole_partitions_stay_within_a_small_stack() -> Done {
    let deep = || -> Result<Vec<i64>, Error> {
        let context = context(1)?;
        let mut dataset = context.range(0..10, 4)?;
        for step in 0..3_000 {
            dataset = match step % 3 {
                0 => dataset.map_partitions(|records| records.map(|n| n + 1)),
                1 => dataset.coalesce(3)?,
                _ => dataset.zip(&dataset)?.map(|(left, _)| *left),
            };
        }
        dataset.collect()
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(deep);
    let records = thread.map(std::thread::JoinHandle::join);
    assert!(matches!(records, Ok(Ok(Ok(records))) if records == (1_000..1_010).collect::<Vec<_>>()));
    Ok(())
}
