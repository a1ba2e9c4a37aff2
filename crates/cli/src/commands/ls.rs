//! `larder checkpoint ls`.

use larder_checkpoint::{Checkpoint, CheckpointStore, Error};
use serde_json::{Value, json};

use crate::cli::Ls;
use crate::failure::{Failure, code};
use crate::out::Out;
use crate::selection::no_checkpoint;
use crate::units::{bytes, count, utc};

pub(crate) fn run(options: &Ls, out: &mut Out) -> Result<(), Failure> {
    let store = CheckpointStore::open(&options.address)?;
    let rows = match &options.name {
        Some(name) => generations(&store, name)?,
        None => datasets(&store)?,
    };
    if options.json {
        out.pretty_json(&rows.iter().map(Row::json).collect())?;
    } else if rows.is_empty() {
        out.line(&format!("no checkpoints in {}", store.address()))?;
    } else if options.name.is_some() {
        let header = ["generation", "parts", "records", "bytes", "committed (UTC)", "attempt"];
        out.table(&header, &[4, 5], rows.iter().map(Row::generation_cells))?;
    } else {
        let header = ["dataset", "newest", "checkpoints", "records", "bytes", "committed (UTC)"];
        out.table(&header, &[5], rows.iter().map(Row::dataset_cells))?;
    }
    let failed: Vec<_> = rows.iter().filter_map(|row| row.opened.as_ref().err()).collect();
    let Some(first) = failed.first() else { return Ok(()) };
    let summary = format!("{} of {} cannot be read: {first}", failed.len(), rows.len());
    Err(Failure::Reported { summary, code: code(first) })
}

/// A checkpoint, the newest of its dataset or one of it.
struct Row {
    dataset: String,
    generation: u64,
    /// How many the dataset has.
    checkpoints: usize,
    opened: Result<Checkpoint, Error>,
}

fn datasets(store: &CheckpointStore) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for dataset in store.datasets()? {
        let generations = store.generations(&dataset)?;
        // None when all were removed since the datasets were listed.
        let (Some(opened), Some(&newest)) = (store.latest(&dataset).transpose(), generations.last()) else {
            continue;
        };
        let generation = opened.as_ref().map_or(newest, Checkpoint::generation);
        rows.push(Row { dataset, generation, checkpoints: generations.len(), opened });
    }
    Ok(rows)
}

fn generations(store: &CheckpointStore, dataset: &str) -> Result<Vec<Row>, Failure> {
    let generations = store.generations(dataset)?;
    if generations.is_empty() {
        return Err(no_checkpoint(store, Some(dataset)));
    }
    let checkpoints = generations.len();
    let open = |&generation: &u64| {
        let opened = store.open_generation(dataset, generation);
        // Removed since they were listed.
        let is_gone = matches!(opened, Err(Error::NotFound { .. }));
        (!is_gone).then(|| Row { dataset: dataset.to_owned(), generation, checkpoints, opened })
    };
    Ok(generations.iter().filter_map(open).collect())
}

impl Row {
    fn dataset_cells(&self) -> Vec<String> {
        let mut cells = vec![self.dataset.clone(), self.generation.to_string(), self.checkpoints.to_string()];
        cells.extend(match &self.opened {
            Ok(checkpoint) => {
                let created = utc(checkpoint.manifest().created_unix_ms);
                [count(checkpoint.records()), bytes(checkpoint.bytes()), created]
            }
            Err(error) => unreadable(error),
        });
        cells
    }

    fn generation_cells(&self) -> Vec<String> {
        let generation = self.generation.to_string();
        let parts =
            self.opened.as_ref().map_or("-".to_owned(), |checkpoint| checkpoint.partitions().to_string());
        let attempt =
            self.opened.as_ref().map_or("-".to_owned(), |opened| opened.manifest().attempt.to_string());
        let cells = self.dataset_cells();
        [generation, parts].into_iter().chain(cells.into_iter().skip(3)).chain([attempt]).collect()
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "dataset": self.dataset, "generation": self.generation, "checkpoints": self.checkpoints,
        });
        let details = match &self.opened {
            Ok(checkpoint) => json!({
                "parts": checkpoint.partitions(),
                "records": checkpoint.records(),
                "bytes": checkpoint.bytes(),
                "created_unix_ms": checkpoint.manifest().created_unix_ms,
                "attempt": checkpoint.manifest().attempt,
                "address": checkpoint.address(),
            }),
            Err(error) => json!({"error": error.to_string()}),
        };
        if let (Value::Object(row), Value::Object(details)) = (&mut row, details) {
            row.extend(details);
        }
        row
    }
}

fn unreadable(error: &Error) -> [String; 3] {
    let word = if matches!(error, Error::Manifest { .. }) { "damaged" } else { "unreadable" };
    ["-".to_owned(), "-".to_owned(), word.to_owned()]
}
