//! What the example prints and writes.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use bytesize::ByteSize;
use comfy_table::{CellAlignment, Table, presets};
use larder::prelude::*;
use larder::{CheckpointInfo, StorageStatus};
use serde::Serialize;

use crate::{Failure, Graph};

#[derive(Debug, Serialize)]
pub struct Report {
    pub packages: usize,
    pub edges: u64,
    pub iterations: u32,
    pub seconds: f64,
    pub top: Vec<Ranked>,
    pub storage: Vec<StorageRow>,
    pub checkpoints: Vec<Checkpoint>,
}

#[derive(Debug, Serialize)]
pub struct Ranked {
    pub package: String,
    pub rank: f64,
}

#[derive(Debug, Serialize)]
pub struct StorageRow {
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
pub struct Checkpoint {
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

impl Report {
    pub fn new(graph: &Graph) -> Self {
        Self {
            packages: graph.names.len(),
            edges: graph.edges,
            iterations: 0,
            seconds: 0.0,
            top: Vec::new(),
            storage: Vec::new(),
            checkpoints: Vec::new(),
        }
    }

    pub fn print(&self) {
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
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header([
            "dataset", "level", "cached", "memory", "off heap", "disk", "hits", "misses", "evictions", "recomputed",
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

    pub fn write_json(&self, path: &Path) -> Result<(), Failure> {
        let file = File::create(path).map_err(|e| format!("cannot create {}: {e}", path.display()))?;
        serde_json::to_writer_pretty(BufWriter::new(file), self)?;
        Ok(())
    }
}
