//! What the example prints and writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};
use larder::prelude::*;
use larder::{CheckpointInfo, NodeId, StorageStatus};
use serde::Serialize;

use crate::{Failure, Graph};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub packages: usize,
    pub edges: u64,
    pub iterations: u32,
    pub seconds: f64,
    pub top: Vec<Ranked>,
    pub storage: Vec<StorageRow>,
    pub checkpoints: Vec<Checkpoint>,
    /// The datasets behind the rows, as last seen: every iteration's ranks are a dataset of their own.
    #[serde(skip)]
    seen: BTreeMap<NodeId, StorageStatus>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Ranked {
    pub package: String,
    pub rank: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct StorageRow {
    dataset: String,
    level: StorageLevel,
    partitions: u32,
    cached_partitions: u32,
    memory_bytes: u64,
    off_heap_bytes: u64,
    disk_bytes: u64,
    hits: u64,
    misses: u64,
    evictions: u64,
    recomputed: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Checkpoint {
    generation: u64,
    records: u64,
    bytes: u64,
}

impl From<CheckpointInfo> for Checkpoint {
    fn from(info: CheckpointInfo) -> Self {
        Self { generation: info.generation, records: info.records, bytes: info.bytes }
    }
}

impl From<&StorageStatus> for StorageRow {
    fn from(status: &StorageStatus) -> Self {
        Self {
            dataset: status.name.clone(),
            level: status.level,
            partitions: status.partitions,
            cached_partitions: status.cached_partitions,
            memory_bytes: status.heap_bytes,
            off_heap_bytes: status.off_heap_bytes,
            disk_bytes: status.disk_bytes,
            hits: status.counters.hits(),
            misses: status.counters.misses,
            evictions: status.counters.evictions,
            recomputed: status.counters.recomputed,
        }
    }
}

impl StorageRow {
    fn add(&mut self, other: &Self) {
        self.cached_partitions = self.cached_partitions.max(other.cached_partitions);
        self.memory_bytes += other.memory_bytes;
        self.off_heap_bytes += other.off_heap_bytes;
        self.disk_bytes += other.disk_bytes;
        self.hits += other.hits;
        self.misses += other.misses;
        self.evictions += other.evictions;
        self.recomputed += other.recomputed;
    }
}

impl Report {
    pub(crate) fn new(graph: &Graph) -> Self {
        Self {
            packages: graph.names.len(),
            edges: graph.edges,
            iterations: 0,
            seconds: 0.0,
            top: Vec::new(),
            storage: Vec::new(),
            checkpoints: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Takes in how datasets are stored now: a row a name, with the bytes of those that are still there and what
    /// happened to all of them.
    pub(crate) fn observe(&mut self, storage: &[StorageStatus]) {
        for status in self.seen.values_mut() {
            (status.cached_partitions, status.heap_bytes, status.off_heap_bytes, status.disk_bytes) =
                (0, 0, 0, 0);
        }
        self.seen.extend(storage.iter().map(|status| (status.id, status.clone())));
        let mut rows: BTreeMap<&str, StorageRow> = BTreeMap::new();
        for status in self.seen.values() {
            let row = StorageRow::from(status);
            match rows.get_mut(status.name.as_str()) {
                Some(sum) => sum.add(&row),
                None => drop(rows.insert(&status.name, row)),
            }
        }
        self.storage = rows.into_values().collect();
    }

    pub(crate) fn print(&self) {
        println!(
            "{} packages, {} dependencies, {} iterations in {:.2} s\n",
            self.packages, self.edges, self.iterations, self.seconds
        );
        for Ranked { package, rank } in &self.top {
            println!("{rank:.9}  {package}");
        }
        println!("\n{}", self.storage_table());
        for Checkpoint { generation, records, bytes } in &self.checkpoints {
            println!("checkpoint {generation}: {records} records, {}", ByteSize(*bytes).display().iec());
        }
    }

    fn storage_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "dataset",
            "level",
            "cached",
            "memory",
            "off heap",
            "disk",
            "hits",
            "misses",
            "evictions",
            "recomputed",
        ]);
        let bytes = |count: u64| ByteSize(count).display().iec().to_string();
        for row in &self.storage {
            table.add_row([
                row.dataset.clone(),
                row.level.to_string(),
                format!("{} of {}", row.cached_partitions, row.partitions),
                bytes(row.memory_bytes),
                bytes(row.off_heap_bytes),
                bytes(row.disk_bytes),
                row.hits.to_string(),
                row.misses.to_string(),
                row.evictions.to_string(),
                row.recomputed.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<(), Failure> {
        let json = serde_json::to_vec_pretty(self)?;
        fs::write(path, json).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        Ok(())
    }
}
