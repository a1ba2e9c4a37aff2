//! Sorting: ordered over all partitions, stable, evenly spread, the same every run.

use larder_exec::{Context, Error};

type Done = Result<(), Error>;

fn context(threads: usize) -> Result<Context, Error> {
    Context::builder().threads(threads).progress(false).build()
}

fn shuffled(n: i64) -> i64 {
    (n * 7_919 + 13) % 100_003
}

#[test]
fn records_are_in_order_over_all_partitions_and_spread_evenly() -> Done {
    let context = context(2)?;
    let numbers = context.range(0..20_000, 6)?.map(|n| shuffled(*n));
    let mut expected = numbers.collect()?;
    expected.sort_unstable();
    let up = numbers.sort_by(|n| *n, true)?;
    assert_eq!(up.collect()?, expected);
    let sizes = up.map_partitions(|records| [records.count()]).collect()?;
    assert_eq!(sizes.len(), 6);
    assert!(sizes.iter().all(|size| (1_500..6_000).contains(size)), "{sizes:?}");
    expected.reverse();
    assert_eq!(numbers.sort_by_with_partitions(3, |n| *n, false)?.collect()?, expected);
    Ok(())
}

#[test]
fn equal_keys_stay_in_their_order() -> Done {
    let context = context(2)?;
    let pairs = context.range(0..5_000, 5)?.map(|n| (shuffled(*n) % 7, *n));
    for ascending in [true, false] {
        let mut expected = pairs.collect()?;
        expected.sort_by_key(|(key, _)| if ascending { *key } else { -*key });
        assert_eq!(pairs.sort_by_key(ascending)?.collect()?, expected);
    }
    Ok(())
}

#[test]
fn one_value_only_and_more_partitions_than_values_are_no_trouble() -> Done {
    let context = context(2)?;
    let same = context.range(0..1_000, 4)?.map(|_| 7);
    assert_eq!(same.sort_by(|n| *n, true)?.count()?, 1_000);
    let few = context.parallelize(vec![3, 1, 2], 2)?;
    assert_eq!(few.sort_by_with_partitions(10, |n| *n, true)?.collect()?, [1, 2, 3]);
    assert_eq!(few.filter(|_| false).sort_by(|n| *n, true)?.count()?, 0);
    assert!(few.sort_by_with_partitions(0, |n| *n, true).is_err());
    Ok(())
}

#[test]
fn a_sort_of_a_sort_of_numbered_records_prepares_each_in_turn() -> Done {
    let context = context(2)?;
    let numbers = context.range(0..3_000, 3)?.map(|n| shuffled(*n));
    let ranked = numbers.sort_by(|n| *n, true)?.zip_with_index();
    let back = ranked.sort_by(|(n, _)| -n, true)?.zip_with_index().map(|((_, up), down)| up + down);
    assert!(back.collect()?.iter().all(|sum| *sum == 2_999));
    Ok(())
}
