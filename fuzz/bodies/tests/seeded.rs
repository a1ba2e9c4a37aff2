//! Each fuzz body over seeded random inputs, as a plain test.

/// Runs a body over so many inputs, from empty ones to some of `len_max` bytes; half of them are mostly small
/// numbers, as lengths and choices are.
fn run(name: &str, body: fn(&[u8]), inputs: u64, len_max: u64) {
    for seed in 0..inputs {
        let mut random = fastrand::Rng::with_seed(seed);
        let len = random.u64(..=len_max * (seed + 1) / inputs);
        let mut input: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(len as usize).collect();
        if seed % 2 == 1 {
            input.iter_mut().filter(|byte| **byte % 4 != 0).for_each(|byte| *byte %= 5);
        }
        let panicked = std::panic::catch_unwind(|| body(&input)).is_err();
        assert!(!panicked, "{name} fails for seed {seed}, {} bytes", input.len());
    }
}

#[test]
fn store_ops() {
    run("store_ops", larder_fuzz_bodies::store_ops, 120, 2_500);
}

#[test]
fn block_format() {
    run("block_format", larder_fuzz_bodies::block_format, 600, 2_000);
}

#[test]
fn pod_and_bincode() {
    run("pod_and_bincode", larder_fuzz_bodies::pod_and_bincode, 300, 500);
}

#[test]
fn policies() {
    run("policies", larder_fuzz_bodies::policies, 300, 2_000);
}

#[test]
fn lineage_ops() {
    run("lineage_ops", larder_fuzz_bodies::lineage_ops, 150, 1_500);
}
