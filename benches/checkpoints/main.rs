//! Checkpoints beside the bare operations, on each backend.
//!
//! As in `levels`, a case is a group of two, `NAME/ours` and `NAME/bare`. Checkpoints are of 1 GiB. The test servers are
//! measured only where the variables name them that `cargo xtask servers start` prints.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "the macro of criterion makes public functions without docs")]
#![allow(clippy::allow_attributes, reason = "whether it does is up to criterion's version")]

mod bare;
mod ours;
mod parts;
mod tee;
#[path = "../turns.rs"]
mod turns;

use std::env;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use larder_checkpoint::CheckpointStore;

use crate::bare::{Bare, Files, Remote};
use crate::parts::Parts;
use crate::turns::{compare, prepared, timed};

fn bench(c: &mut Criterion) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let (checkpoints, files) = (scratch.path().join("checkpoints"), scratch.path().join("files"));
    let store = CheckpointStore::open(checkpoints.to_str().expect("UTF-8")).expect("a store");
    let parts = Parts::of_bytes(1 << 30);
    pair(c, "fs", &parts, &store, &Files::new(files));
    if let Ok(endpoint) = env::var("LARDER_TEST_S3") {
        let store = CheckpointStore::builder("s3://larder-test/bench-ours")
            .s3_endpoint(&endpoint)
            .s3_region("us-east-1")
            .s3_credentials("bench", "bench", None)
            .open()
            .expect("a store");
        pair(c, "s3", &parts, &store, &Remote::s3(&endpoint));
    }
    if let Ok(name_node) = env::var("LARDER_TEST_HDFS") {
        let store = CheckpointStore::open(format!("{name_node}/bench-ours")).expect("a store");
        pair(c, "hdfs", &parts, &store, &Remote::hdfs(&name_node));
    }
}

/// Write: ours is durable and committed when it is done, bare is durable. Read: both sum over all records; ours opens
/// the checkpoint and compares all checksums, bare hashes what it reads.
fn pair(c: &mut Criterion, backend: &str, parts: &Parts, store: &CheckpointStore, bare: &impl Bare) {
    let write_ours = prepared(|| ours::clear(store), |()| ours::write(store, parts));
    let write_bare = prepared(|| bare.clear(), |()| bare.write(parts));
    compare(c, &format!("checkpoint_{backend}_write"), write_ours, write_bare);

    ours::clear(store);
    ours::write(store, parts);
    bare.clear();
    bare.write(parts);
    assert_eq!(ours::read(store), parts.sum());
    assert_eq!(bare.read(), parts.sum());
    let (read_ours, read_bare) = (timed(|| ours::read(store)), timed(|| bare.read()));
    compare(c, &format!("checkpoint_{backend}_read"), read_ours, read_bare);
    ours::clear(store);
    bare.clear();
}

fn configured() -> Criterion {
    Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = checkpoints;
    config = configured();
    targets = bench, tee::bench
}
criterion_main!(checkpoints);
