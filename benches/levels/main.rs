//! Each operation of the block store beside the bare operation that it performs.
//!
//! A case is a group of two, `NAME/ours` and `NAME/bare`, on the same data in the same process. `cargo xtask bench`
//! runs them and prints the ratios of their medians. What is bare is said at each case; it is what a programmer
//! would write who needs no budget, no eviction, no checksums and no other threads.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "the macro of criterion makes public functions without docs")]
#![allow(clippy::allow_attributes, reason = "whether it does is up to criterion's version")]

mod blocks;
mod disk;
mod hits;
mod pod;
mod records;
mod stores;
#[path = "../turns.rs"]
mod turns;
mod values;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn configured() -> Criterion {
    Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = levels;
    config = configured();
    targets = hits::bench, values::bench, pod::bench, blocks::bench, disk::bench
}
criterion_main!(levels);
