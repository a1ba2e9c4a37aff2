//! `larder checkpoint show`.

use larder_checkpoint::{Checkpoint, Manifest};
use serde_json::{Value, json};

use crate::cli::Show;
use crate::failure::Failure;
use crate::out::Out;
use crate::units::{bytes, count, utc};

pub(crate) fn run(options: &Show, out: &mut Out) -> Result<(), Failure> {
    let checkpoint = options.selected.open()?;
    if options.json {
        return out.pretty_json(&json(&checkpoint));
    }
    let manifest = checkpoint.manifest();
    let facts = facts(&checkpoint);
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in facts {
        out.line(&format!("{name:width$}  {value}"))?;
    }
    let rows = manifest.parts.iter().enumerate().map(|(partition, part)| {
        let (records, bytes) = (count(part.records), bytes(part.bytes));
        vec![partition.to_string(), records, bytes, format!("{:016x}", part.checksum), part.path.clone()]
    });
    out.table(&["part", "records", "bytes", "xxh3-64", "path in the dataset"], &[3, 4], rows)
}

fn facts(checkpoint: &Checkpoint) -> Vec<(&'static str, String)> {
    let Manifest {
        dataset,
        generation,
        parent,
        attempt,
        record_type,
        schema,
        codec,
        compression,
        partitioner,
        ..
    } = checkpoint.manifest();
    let or_unknown = |text: &str| if text.is_empty() { "not said".to_owned() } else { text.to_owned() };
    let partitioner = partitioner
        .as_ref()
        .map_or("not said".to_owned(), |by| format!("{} into {} partitions", by.kind, by.partitions));
    vec![
        ("address", checkpoint.address()),
        ("dataset", dataset.clone()),
        ("generation", generation.to_string()),
        ("parent", parent.map_or("none".to_owned(), |parent| parent.to_string())),
        ("attempt", attempt.to_string()),
        ("committed", format!("{} UTC", utc(checkpoint.manifest().created_unix_ms))),
        ("record type", or_unknown(record_type)),
        ("schema", schema.as_ref().map_or("not said".to_owned(), |schema| schema.description.clone())),
        ("codec", codec.to_string()),
        ("compression", compression.to_string()),
        ("partitioner", partitioner),
        ("parts", count(u64::from(checkpoint.partitions()))),
        ("records", count(checkpoint.records())),
        ("bytes", format!("{} ({})", count(checkpoint.bytes()), bytes(checkpoint.bytes()))),
    ]
}

/// The manifest, as it stands in the store, and where that is.
fn json(checkpoint: &Checkpoint) -> Value {
    let mut value = json!(checkpoint.manifest());
    if let Value::Object(members) = &mut value {
        members.insert("address".to_owned(), checkpoint.address().into());
    }
    value
}
