//! A checkpoint written while an action computes.

use criterion::Criterion;
use larder::prelude::*;

use crate::turns::{compare, prepared};

const PARTITIONS: u32 = 16;
const RECORDS: i64 = 8_000_000;

type Record = (i64, f64);

fn context(scratch: &std::path::Path) -> Context {
    let context = Context::builder().threads(2).memory("256MiB").disk(scratch).progress(false);
    context.checkpoints(scratch.join("checkpoints")).build().expect("a context")
}

/// Computed, and kept nowhere.
fn records(context: &Context) -> Dataset<Record> {
    let bound = |partition: u32| RECORDS * i64::from(partition) / i64::from(PARTITIONS);
    let generated = context.generate(PARTITIONS, move |partition| {
        (bound(partition)..bound(partition + 1)).map(|id| (id, ((id as f64).sqrt() * 1e3).sin()))
    });
    generated.expect("a dataset")
}

fn sum(records: &Dataset<Record>) -> f64 {
    records.aggregate(0.0, |sum, record| sum + record.1, |a, b| a + b).expect("a sum")
}

fn written(records: &Dataset<Record>) {
    records.checkpoint().expect("space on disk");
}

/// Ours: the first action of a dataset that is not persisted, and its checkpoint in the same pass. Bare: the action
/// alone or the checkpoint alone, whichever takes longer here.
pub(crate) fn bench(c: &mut Criterion) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let context = context(scratch.path());
    let new = || records(&context);
    let both = |records: Dataset<Record>| {
        let checkpoint = records.checkpoint_lazily().expect("a place to write");
        let sum = sum(&records);
        checkpoint.wait().expect("space on disk");
        (records, sum)
    };
    let alone = |run: fn(&Dataset<Record>)| {
        prepared(new, move |records| {
            run(&records);
            records
        })
    };
    let action: fn(&Dataset<Record>) = |records| {
        sum(records);
    };
    let longer = if alone(action)() > alone(written)() { action } else { written };
    compare(c, "checkpoint_tee", prepared(new, both), alone(longer));
}
