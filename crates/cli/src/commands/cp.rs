//! `larder checkpoint cp`.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_checkpoint::{Attempt, Checkpoint, CheckpointStore, Error};
use serde_json::json;

use crate::cli::{Cp, Selected};
use crate::failure::Failure;
use crate::out::Out;
use crate::parallel::{for_each_partition, progress};
use crate::units::{bytes, count};

pub(crate) fn run(options: &Cp, out: &mut Out) -> Result<(), Failure> {
    let Cp { from, name, generation, .. } = options;
    let from = Selected { address: from.clone(), name: name.clone(), generation: *generation }.open()?;
    let store = CheckpointStore::open(&options.to)?;
    let name = options.new_name.as_deref().unwrap_or(&from.manifest().dataset);
    let attempt = store.begin(name, from.spec())?;
    copy_parts(&from, &attempt, options.threads)?;
    let to = attempt.commit()?;
    if options.json {
        return out.pretty_json(&json!({
            "from": from.address(),
            "to": to.address(),
            "dataset": to.manifest().dataset,
            "generation": to.generation(),
            "parts": to.partitions(),
            "records": to.records(),
            "bytes": to.bytes(),
        }));
    }
    let (parts, records) = (count(u64::from(to.partitions())), count(to.records()));
    out.line(&format!("copied {parts} parts, {records} records, {}, to {}", bytes(to.bytes()), to.address()))
}

/// Copies each part and reads it back.
fn copy_parts(from: &Checkpoint, to: &Attempt, threads: Option<NonZeroUsize>) -> Result<(), Error> {
    let bar = progress(from.bytes());
    let has_failed = AtomicBool::new(false);
    let copy = |partition| {
        // The others end too, for nothing would come of them.
        if has_failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let copied = to.copy_part(from, partition).and_then(|bytes| {
            bar.inc(bytes);
            to.verify_part(partition)
        });
        has_failed.fetch_or(copied.is_err(), Ordering::Relaxed);
        copied
    };
    let results = for_each_partition(from.partitions(), threads, copy);
    bar.finish_and_clear();
    results.into_iter().collect()
}
