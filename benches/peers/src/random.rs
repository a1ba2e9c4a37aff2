//! Which block is next.

/// A number that looks random (the finalizer of SplitMix64).
pub fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `picks` of the numbers below `count`, the `n`-th most frequent of which comes in proportion to `1 / n`. Which
/// numbers are the frequent ones is random.
pub fn zipf(count: u32, picks: usize) -> Vec<u32> {
    let mut by_rank: Vec<u32> = (0..count).collect();
    by_rank.sort_unstable_by_key(|&number| mix(u64::from(number) ^ 0x5eed));
    let mut below = 0.0;
    let shares: Vec<f64> = (1..=count)
        .map(|rank| {
            below += 1.0 / f64::from(rank);
            below
        })
        .collect();
    let pick = |i: usize| {
        let at = (mix(i as u64) >> 11) as f64 / (1_u64 << 53) as f64 * below;
        let rank = shares.partition_point(|&share| share <= at);
        by_rank[rank.min(by_rank.len() - 1)]
    };
    (0..picks).map(pick).collect()
}

#[cfg(test)]
mod tests {
    use super::zipf;

    #[test]
    fn the_most_frequent_comes_twice_as_often_as_the_next() {
        let mut counts = [0.0; 100];
        zipf(100, 100_000).into_iter().for_each(|number| counts[number as usize] += 1.0);
        counts.sort_unstable_by(f64::total_cmp);
        let ratio: f64 = counts[99] / counts[98];
        assert!((ratio - 2.0).abs() < 0.1, "{ratio}");
    }
}
