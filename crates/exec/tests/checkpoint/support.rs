//! What the tests share.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_exec::{CheckpointHandle, CheckpointInfo, Context, ContextBuilder, Data, Dataset, Error, Pairs};

pub(crate) type Done = Result<(), Box<dyn std::error::Error>>;

/// Long enough for any of these tests; what takes longer hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const RECORDS: u64 = 8_000;

pub(crate) fn builder() -> ContextBuilder {
    Context::builder().threads(2).progress(false).memory("16MiB")
}

pub(crate) fn context(checkpoints: &Path) -> Result<Context, Error> {
    builder().checkpoints(checkpoints).build()
}

/// A dataset, and how many of its records were computed.
pub(crate) type Counted = (Pairs<i64, String>, Arc<AtomicU64>);

/// Four partitions, of more than one batch each.
pub(crate) fn counted(context: &Context) -> Result<Counted, Error> {
    let computed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&computed);
    let dataset = context.range(0..RECORDS as i64, 4)?.map(move |n| {
        counter.fetch_add(1, Ordering::Relaxed);
        (n % 100, format!("record {n}"))
    });
    Ok((dataset.named("records"), computed))
}

pub(crate) fn expected() -> Vec<(i64, String)> {
    (0..RECORDS as i64).map(|n| (n % 100, format!("record {n}"))).collect()
}

pub(crate) fn first(records: usize) -> Vec<(i64, String)> {
    expected().into_iter().take(records).collect()
}

pub(crate) fn is_cut<T: Data>(dataset: &Dataset<T>) -> Result<bool, Error> {
    Ok(dataset.to_debug_string()?.lines().count() == 1)
}

pub(crate) fn written(checkpoint: &CheckpointHandle) -> Result<CheckpointInfo, Box<dyn std::error::Error>> {
    Ok(checkpoint.wait_timeout(PATIENCE).ok_or("it hangs")??)
}

/// How many files and directories stand in the data directory of a checkpoint.
pub(crate) fn attempts(directory: &Path, name: &str) -> usize {
    fs::read_dir(directory.join(name).join("data")).map(|entries| entries.count()).unwrap_or_default()
}
