//! The same input gives the same records in the same order, whatever the threads, the memory and the level.

use larder_exec::{Context, Error, StorageLevel};

/// A job of many shuffles, floats among them.
fn run(threads: usize, memory: &str, level: Option<StorageLevel>) -> Result<Vec<(String, f64)>, Error> {
    let context =
        Context::builder().threads(threads).progress(false).memory(memory).off_heap("8MiB").build()?;
    let keep = |dataset: larder_exec::Dataset<(String, f64)>| match level {
        Some(level) => dataset.persist(level),
        None => Ok(dataset),
    };
    let words =
        context.range(0..20_000, 7)?.map(|n| (format!("w{}", (n * 7_919) % 997), 1.0 / (1 + n) as f64));
    let sums = keep(words.reduce_by_key(|a, b| a + b)?)?;
    let grouped = words.group_by_key_with_partitions(5)?.map_values(|values| values.iter().sum::<f64>());
    let joined = sums.join(&grouped)?.map_values(|(a, b)| a - b * 0.1);
    let joined = keep(joined)?;
    let numbered =
        joined.repartition(4)?.zip_with_index().map(|((word, n), at)| (word.clone(), n * *at as f64));
    let both = numbered.union(&joined.sample(0.5, 3)?)?.distinct_by_bits()?;
    let sorted = both.sort_by(|(word, _)| word.len(), true)?;
    let other = sorted.co_group(&sums)?.flat_map(|(word, (left, right))| {
        let (word, pairs): (String, Vec<_>) = (word.clone(), left.iter().chain(right).copied().collect());
        pairs.into_iter().map(move |n| (word.clone(), n))
    });
    other.collect()
}

trait DistinctByBits: Sized {
    fn distinct_by_bits(&self) -> Result<Self, Error>;
}

impl DistinctByBits for larder_exec::Dataset<(String, f64)> {
    fn distinct_by_bits(&self) -> Result<Self, Error> {
        let bits = self.map(|(word, n)| (word.clone(), n.to_bits())).distinct()?;
        Ok(bits.map(|(word, bits)| (word.clone(), f64::from_bits(*bits))))
    }
}

#[test]
fn threads_memory_and_level_change_nothing() -> Result<(), Error> {
    let expected = run(1, "64MiB", None)?;
    assert!(expected.len() > 2_000);
    for threads in [1, 2, 5] {
        assert!(run(threads, "64MiB", None)? == expected, "{threads} threads");
    }
    for (name, level) in StorageLevel::NAMED.into_iter().skip(1) {
        assert!(run(3, "64MiB", Some(level))? == expected, "{name}");
        assert!(run(3, "64KiB", Some(level))? == expected, "{name}, little memory");
    }
    Ok(())
}
