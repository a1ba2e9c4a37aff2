//! Operations by key: right, ordered, and shuffled only when they must be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_exec::{Context, Dataset, Error, Partitioner};

type Done = Result<(), Error>;
type Pairs<V> = Dataset<(String, V)>;

fn context(threads: usize) -> Result<Context, Error> {
    Context::builder().threads(threads).progress(false).build()
}

fn pairs<V: larder_exec::Data>(context: &Context, pairs: &[(&str, V)]) -> Result<Pairs<V>, Error> {
    context.parallelize(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(), 3)
}

fn sorted<T: Ord>(mut records: Vec<T>) -> Vec<T> {
    records.sort();
    records
}

fn owned<V: Clone>(pairs: &[(&str, V)]) -> Vec<(String, V)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

const LEFT: [(&str, i64); 7] = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5), ("a", 6), ("d", 7)];

#[test]
fn groups_keep_the_order_of_their_values() -> Done {
    let context = context(2)?;
    let groups = pairs(&context, &LEFT)?.group_by_key()?;
    assert_eq!(groups.partitioner(), Some(&Partitioner::Hash { partitions: 3 }));
    let expected = [("a", vec![1, 3, 6]), ("b", vec![2, 5]), ("c", vec![4]), ("d", vec![7])];
    assert_eq!(sorted(groups.collect()?), owned(&expected));
    assert_eq!(pairs(&context, &LEFT)?.group_by_key_with_partitions(8)?.partitions(), 8);
    assert!(pairs(&context, &LEFT)?.group_by_key_with_partitions(0).is_err());
    Ok(())
}

#[test]
fn values_are_combined_by_key_in_order() -> Done {
    let context = context(2)?;
    let left = pairs(&context, &LEFT)?.map_values(|n| n.to_string());
    let expected = owned(&[("a", "136"), ("b", "25"), ("c", "4"), ("d", "7")]);
    let expected: Vec<_> = expected.into_iter().map(|(key, text)| (key, text.to_owned())).collect();
    assert_eq!(sorted(left.reduce_by_key(|all, next| all + next)?.collect()?), expected);
    assert_eq!(sorted(left.fold_by_key(String::new(), |all, next| all + next)?.collect()?), expected);
    let sums = pairs(&context, &LEFT)?.aggregate_by_key(
        (0_u32, 0_i64),
        |(count, sum), n| (count + 1, sum + n),
        |(count, sum), (more, rest)| (count + more, sum + rest),
    )?;
    assert_eq!(
        sorted(sums.collect()?),
        owned(&[("a", (3, 10)), ("b", (2, 7)), ("c", (1, 4)), ("d", (1, 7))])
    );
    Ok(())
}

#[test]
fn cached_records_are_combined_as_computed_ones_are() -> Done {
    let context = context(2)?;
    let computed = context.range(0..5_000, 3)?.map(|n| (n * 7 % 400, n.to_string()));
    let cached = computed.cache()?;
    cached.count()?;
    let computed = context.range(0..5_000, 3)?.map(|n| (n * 7 % 400, n.to_string()));
    assert_eq!(cached.group_by_key()?.collect()?, computed.group_by_key()?.collect()?);
    let concat = |all: String, next: &String| all + next;
    assert_eq!(cached.reduce_by_key(concat)?.collect()?, computed.reduce_by_key(concat)?.collect()?);
    let first: Vec<i64> = computed.group_by_key_with_partitions(1)?.keys().take(5)?;
    assert_eq!(first, [0, 7, 14, 21, 28], "keys in the order in which they first come");
    Ok(())
}

#[test]
fn joins_pair_every_value_with_every_value_of_its_key() -> Done {
    let context = context(2)?;
    let left = pairs(&context, &LEFT)?;
    let right = pairs(&context, &[("b", 'x'), ("e", 'y'), ("a", 'z'), ("b", 'w')])?;
    let inner = owned(&[
        ("a", (1, 'z')),
        ("a", (3, 'z')),
        ("a", (6, 'z')),
        ("b", (2, 'w')),
        ("b", (2, 'x')),
        ("b", (5, 'w')),
        ("b", (5, 'x')),
    ]);
    assert_eq!(sorted(left.join(&right)?.collect()?), inner);
    let mut left_outer: Vec<_> = inner.iter().map(|(key, (n, c))| (key.clone(), (*n, Some(*c)))).collect();
    left_outer.extend(owned(&[("c", (4, None)), ("d", (7, None))]));
    assert_eq!(sorted(left.left_outer_join(&right)?.collect()?), sorted(left_outer.clone()));
    let mut full: Vec<_> = left_outer.into_iter().map(|(key, (n, c))| (key, (Some(n), c))).collect();
    full.extend(owned(&[("e", (None, Some('y')))]));
    assert_eq!(sorted(left.full_outer_join(&right)?.collect()?), sorted(full));
    let groups: BTreeMap<_, _> = left.co_group(&right)?.collect()?.into_iter().collect();
    assert_eq!(groups.get("b"), Some(&(vec![2, 5], vec!['x', 'w'])));
    assert_eq!(groups.get("e"), Some(&(vec![], vec!['y'])));
    assert_eq!(groups.len(), 5);
    Ok(())
}

#[test]
fn joins_of_many_matches_lose_none() -> Done {
    let context = context(2)?;
    let left = context.range(0..600, 2)?.map(|n| (n % 2, *n));
    let right = context.range(0..50, 3)?.map(|n| (n % 3, *n));
    let joined = left.join(&right)?;
    assert_eq!(joined.count()?, 300 * 17 + 300 * 17);
    assert_eq!(left.full_outer_join(&right)?.count()?, 300 * 17 + 300 * 17 + 16);
    Ok(())
}

#[test]
fn what_is_partitioned_alike_is_not_shuffled_again() -> Done {
    let context = context(2)?;
    let counts = pairs(&context, &LEFT)?.reduce_by_key_with_partitions(4, |a, b| a + b)?;
    let shuffles = |dataset: &str| dataset.matches("+-").count();
    // map_values and filter keep the keys where they are; map might not.
    let scaled = counts.map_values(|n| n * 10).filter(|(_, n)| *n > 40);
    let joined = scaled.join(&counts)?;
    assert_eq!(joined.partitions(), 4);
    assert_eq!(shuffles(&joined.to_debug_string()?), 1);
    assert_eq!(sorted(joined.collect()?), owned(&[("a", (100, 10)), ("b", (70, 7)), ("d", (70, 7))]));
    assert_eq!(sorted(joined.map_values(|(n, _)| *n).reduce_by_key(|a, b| a + b)?.collect()?).len(), 3);
    assert_eq!(shuffles(&scaled.group_by_key()?.to_debug_string()?), 1);
    let moved = counts.map(|(key, n)| (format!("{key}!"), *n));
    assert_eq!(moved.partitioner(), None);
    assert_eq!(shuffles(&moved.join(&counts)?.to_debug_string()?), 2);
    // Another number of partitions is another partitioner.
    assert_eq!(shuffles(&counts.group_by_key_with_partitions(5)?.to_debug_string()?), 2);
    Ok(())
}

#[test]
fn a_second_action_reuses_the_shuffle_and_dropping_the_dataset_frees_it() -> Done {
    let context = context(2)?;
    let computed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&computed);
    let source = context.range(0..1_000, 4)?.map(move |n| {
        counter.fetch_add(1, Ordering::Relaxed);
        (n % 10, *n)
    });
    let groups = source.group_by_key()?;
    assert_eq!(groups.count()?, 10);
    assert_eq!(groups.map(|(_, values)| values.len()).fold(0, |a, b| a + b)?, 1_000);
    assert_eq!(computed.load(Ordering::Relaxed), 1_000);
    assert_eq!(context.store().datasets().len(), 1);
    drop(groups);
    assert_eq!(context.store().datasets().len(), 0);
    assert_eq!(context.store().memory().snapshot().heap.storage_bytes, 0);
    Ok(())
}

#[test]
fn shuffles_without_a_disk_say_what_they_lack() -> Done {
    let context = Context::builder().threads(2).progress(false).memory("64KiB").no_disk().build()?;
    let big = context.range(0..100_000, 2)?.map(|n| (*n, "x".repeat(20))).group_by_key()?;
    let message = big.count().map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("group_by_key") && m.contains(".disk(path)")));
    assert_eq!(context.store().memory().snapshot().heap.storage_bytes, 0, "what was written is gone");
    let small = context.range(0..100, 2)?.map(|n| (n % 5, *n)).group_by_key()?;
    assert_eq!(small.count()?, 5);
    Ok(())
}

#[test]
fn shuffles_larger_than_memory_go_to_disk() -> Done {
    let context = Context::builder().threads(2).progress(false).memory("256KiB").build()?;
    let pairs = context.range(0..200_000, 4)?.map(|n| (n % 1_000, *n));
    let groups = pairs.group_by_key()?;
    assert_eq!(groups.map(|(_, values)| values.iter().sum::<i64>()).fold(0, |a, b| a + b)?, 19_999_900_000);
    assert!(context.store().counters().spills > 0);
    Ok(())
}

#[test]
fn datasets_without_partitions_or_records_pass_through_everything() -> Done {
    let context = context(2)?;
    let none = context.parallelize(Vec::<(i64, i64)>::new(), 0)?;
    let empty = context.parallelize(Vec::<(i64, i64)>::new(), 3)?;
    for dataset in [none, empty] {
        assert_eq!(dataset.group_by_key()?.count()?, 0);
        assert!(dataset.reduce_by_key(|a, _| a)?.collect()?.is_empty());
        assert!(dataset.sort_by_key(true)?.collect()?.is_empty());
        assert_eq!(dataset.zip_with_index().count()?, 0);
        let some = context.parallelize(vec![(1_i64, 2_i64)], 2)?;
        assert_eq!(dataset.join(&some)?.count()?, 0);
        assert_eq!(some.left_outer_join(&dataset)?.collect()?, [(1, (2, None))]);
        // Spread by hash over no partition, where there is none.
        let spread = dataset.reduce_by_key(|a, _| a)?;
        assert_eq!(spread.join(&some)?.count()?, 0);
        assert_eq!(some.full_outer_join(&spread)?.collect()?, [(1, (Some(2), None))]);
        assert_eq!(some.reduce_by_key(|a, _| a)?.co_group(&spread)?.collect()?, [(1, (vec![2], vec![]))]);
        assert_eq!(spread.join(&spread)?.count()?, 0);
    }
    Ok(())
}
