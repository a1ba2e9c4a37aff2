//! What each storage level costs: 8 million records in 16 partitions, stored by a first action and read by three.
//!
//! `cargo run --release --example storage_levels -- --help`

mod peak;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use bytesize::ByteSize;
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use get_size2::GetSize;
use larder::prelude::*;
use serde::{Deserialize, Serialize};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Time and space of every storage level.
#[derive(Debug, Parser)]
struct Options {
    /// Records in all.
    #[arg(long, default_value_t = 8_000_000)]
    records: i64,
    #[arg(long, default_value_t = 16)]
    partitions: u32,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Heap budget for blocks.
    #[arg(long, default_value = "2GiB")]
    memory: String,
    /// Off-heap budget for blocks.
    #[arg(long, default_value = "1GiB")]
    off_heap: String,
    /// Levels to run, all of one copy when not given.
    #[arg(long, value_delimiter = ',')]
    levels: Vec<StorageLevel>,
    /// Also write the table to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run one level in this process and print it as JSON: what each level's own process is told.
    #[arg(long, hide = true)]
    only: Option<StorageLevel>,
}

#[derive(Clone, Debug, Serialize, Deserialize, GetSize)]
struct Reading {
    id: i64,
    key: i32,
    value: f64,
    name: String,
}

impl Reading {
    fn number(id: i64) -> Self {
        Self { id, key: (id % 1_000) as i32, value: id as f64 / 2.0, name: format!("name-{}", id % 100) }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    level: StorageLevel,
    first_seconds: f64,
    read_seconds: [f64; 3],
    sum: f64,
    heap_bytes: u64,
    off_heap_bytes: u64,
    disk_bytes: u64,
    /// The most resident memory of the level's process, where the system tells.
    peak_bytes: Option<u64>,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    if let Some(level) = options.only {
        println!("{}", serde_json::to_string(&run(level, &options)?)?);
        return Ok(());
    }
    let mut levels = options.levels.clone();
    if levels.is_empty() {
        levels.extend(
            StorageLevel::NAMED.map(|(_, level)| level).iter().filter(|level| level.replication() == 1),
        );
    }
    let rows = levels.into_iter().map(run_in_own_process).collect::<Result<Vec<_>, _>>()?;
    println!("{}", table(&rows));
    if let Some(path) = &options.json {
        serde_json::to_writer_pretty(File::create(path)?, &rows)?;
    }
    Ok(())
}

/// Each level has a process to itself, so that its peak memory is its own.
fn run_in_own_process(level: StorageLevel) -> Result<Row, Failure> {
    let arguments = std::env::args_os().skip(1);
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .args(["--only", &level.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{level}: {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn run(level: StorageLevel, options: &Options) -> Result<Row, Failure> {
    let context = Context::builder()
        .threads(options.threads)
        .memory(options.memory.as_str())
        .off_heap(options.off_heap.as_str())
        .build()?;
    let (records, partitions) = (options.records, i64::from(options.partitions));
    let readings = context.generate(options.partitions, move |partition| {
        let bound = |partition: i64| records * partition / partitions;
        (bound(partition.into())..bound(i64::from(partition) + 1)).map(Reading::number)
    })?;
    let readings = if level.is_stored() { readings.persist(level)? } else { readings };
    let sum = || -> Result<(f64, f64), Error> {
        let started = Instant::now();
        let sum = readings.aggregate(0.0, |sum, reading| sum + reading.value, |a, b| a + b)?;
        Ok((started.elapsed().as_secs_f64(), sum))
    };
    let (first_seconds, first_sum) = sum()?;
    let mut read_seconds = [0.0; 3];
    for seconds in &mut read_seconds {
        let (read, sum) = sum()?;
        assert_eq!(sum, first_sum, "{level}: what was stored is not what was computed");
        *seconds = read;
    }
    let stored = context.storage();
    let bytes = |of: fn(&larder::StorageStatus) -> u64| stored.iter().map(of).sum();
    Ok(Row {
        level,
        first_seconds,
        read_seconds,
        sum: first_sum,
        heap_bytes: bytes(|status| status.heap_bytes),
        off_heap_bytes: bytes(|status| status.off_heap_bytes),
        disk_bytes: bytes(|status| status.disk_bytes),
        peak_bytes: peak::bytes(),
    })
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "level",
        "first action s",
        "read 1 s",
        "read 2 s",
        "read 3 s",
        "heap",
        "off heap",
        "disk",
        "peak memory",
    ]);
    let bytes = |count: u64| ByteSize(count).display().iec().to_string();
    for row in rows {
        let seconds = std::iter::once(&row.first_seconds).chain(&row.read_seconds).map(|s| format!("{s:.3}"));
        let sizes = [row.heap_bytes, row.off_heap_bytes, row.disk_bytes].map(bytes);
        let peak = row.peak_bytes.map_or("unknown".to_owned(), bytes);
        table.add_row(std::iter::once(row.level.to_string()).chain(seconds).chain(sizes).chain([peak]));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
