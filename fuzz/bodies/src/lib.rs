//! The bodies of the fuzz targets: each reads bytes as a sequence of operations and checks them against a
//! sequential model, or as input that must be refused without harm.
//!
//! `fuzz/fuzz_targets` hands them to libFuzzer; `tests/seeded.rs` runs each over a few hundred seeded inputs, so
//! that every plain test run exercises them. A body panics when what it checks does not hold.

#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a finding is a panic; what is indexed is the body's own"
)]

mod block_format;
mod lineage_ops;
mod pod_and_bincode;
mod policies;
mod store_ops;

pub use block_format::block_format;
pub use lineage_ops::lineage_ops;
pub use pod_and_bincode::pod_and_bincode;
pub use policies::policies;
pub use store_ops::store_ops;
