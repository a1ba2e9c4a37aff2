//! Measuring two things in turn.

/// What ours and theirs gave in each round, a round of the one followed by a round of the other.
pub fn in_turn<O, T, E>(
    rounds: usize,
    mut larder: impl FnMut() -> Result<O, E>,
    mut peer: impl FnMut() -> Result<T, E>,
) -> Result<(Vec<O>, Vec<T>), E> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(larder()?);
        theirs.push(peer()?);
    }
    Ok((ours, theirs))
}

/// The median; the mean of the middle two of an even number. Zero of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = |index: usize| values.get(index).copied().unwrap_or_default();
    let half = values.len() / 2;
    if values.len() % 2 == 1 { middle(half) } else { (middle(half) + middle(half.wrapping_sub(1))) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn a_median_is_the_middle_or_the_mean_of_the_middle_two() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }
}
