//! `larder checkpoint cleanup`.

use larder_checkpoint::{CheckpointStore, CleanupOptions, CleanupReport};
use serde_json::json;

use crate::cli::Cleanup;
use crate::failure::{Failure, code};
use crate::out::Out;
use crate::units::{bytes, unix_ms, utc};

pub(crate) fn run(options: &Cleanup, out: &mut Out) -> Result<(), Failure> {
    let store = CheckpointStore::open(&options.address)?;
    let cleanup = CleanupOptions::default().orphan_grace(options.grace).dry_run(options.dry_run);
    let report = store.cleanup(&cleanup)?;
    if options.json {
        let orphans = report.orphans.iter().map(|orphan| {
            let began = unix_ms(orphan.began);
            json!({"object": orphan.object, "bytes": orphan.bytes, "began_unix_ms": began, "removed": !report.dry_run})
        });
        out.pretty_json(&orphans.collect())?;
    } else {
        print(&report, out)?;
    }
    let Some((_, first)) = report.skipped.first() else { return Ok(()) };
    let skipped: Vec<_> = report.skipped.iter().map(|(dataset, e)| format!("\n  {dataset}: {e}")).collect();
    let summary = format!("datasets in which not all could be told or removed:{}", skipped.concat());
    Err(Failure::Reported { summary, code: code(first) })
}

fn print(report: &CleanupReport, out: &mut Out) -> Result<(), Failure> {
    if !report.orphans.is_empty() {
        let rows = report.orphans.iter().map(|orphan| {
            let known = orphan.bytes.map_or_else(|| "unfinished upload".to_owned(), bytes);
            vec![orphan.object.clone(), known, utc(unix_ms(orphan.began))]
        });
        out.table(&["left behind", "bytes", "begun (UTC)"], &[2], rows)?;
    }
    let what = match (report.dry_run, report.orphans.len()) {
        (_, 0) => "nothing to remove".to_owned(),
        (true, n) => format!("{n} to remove, {}; this was a dry run", bytes(report.bytes())),
        (false, n) => format!("{n} removed, {}", bytes(report.bytes())),
    };
    out.line(&what)
}
