//! An engine that is not ours, on the block store alone: asynchronous, with Arrow record batches as its records.
//!
//! Its cache operator stores a stream of batches *while* its consumer reads them. Two consumers of one partition
//! share one scan; one that stops early leaves no half block; a full budget changes nothing for the consumer.
//!
//! `cargo run --release -p larder-blockstore --example foreign_engine`

mod arrow_ipc;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use larder_blockstore::{BlockStore, BlockWriter, Entry, IntoRecords, Pushed, StorageLevel, StoredDataset};

use arrow_ipc::ArrowIpc;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const BATCHES: i64 = 64;
const ROWS: i64 = 4_096;

/// The engine's own source: an asynchronous scan of one partition.
struct Scan {
    partition: u32,
    batch: i64,
}

static SCANS: AtomicUsize = AtomicUsize::new(0);

impl Scan {
    fn open(partition: u32) -> Self {
        SCANS.fetch_add(1, Ordering::Relaxed);
        Self { partition, batch: 0 }
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        tokio::task::yield_now().await;
        if self.batch == BATCHES {
            return Ok(None);
        }
        let first = (i64::from(self.partition) * BATCHES + self.batch) * ROWS;
        self.batch += 1;
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + ROWS));
        let halves = (first..first + ROWS).map(|id| id as f64 / 2.0);
        let values: ArrayRef = Arc::new(Float64Array::from_iter_values(halves));
        Ok(Some(RecordBatch::try_from_iter([("id", ids), ("value", values)])?))
    }
}

/// The engine's cache operator: the batches of one partition, from the store, or from a scan and into the store.
enum CachedScan {
    Stored(IntoRecords<RecordBatch>),
    Scanning { scan: Scan, writer: Option<BlockWriter<RecordBatch>> },
}

impl CachedScan {
    async fn open(cache: &StoredDataset<RecordBatch>, partition: u32) -> Result<Self> {
        loop {
            match cache.entry(partition)? {
                Entry::Resident(block) => return Ok(Self::Stored(block.into_records())),
                Entry::Vacant(writer) => {
                    return Ok(Self::Scanning { scan: Scan::open(partition), writer: Some(writer) });
                }
                Entry::InFlight(flight) => {
                    // Whoever scans it may give up. Then ask again, and perhaps be the next to scan.
                    if let Some(block) = flight.await {
                        return Ok(Self::Stored(block.into_records()));
                    }
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let (scan, writer) = match self {
            Self::Stored(batches) => return Ok(batches.next().transpose()?),
            Self::Scanning { scan, writer } => (scan, writer),
        };
        let batch = scan.next().await?;
        if let Some(mut open) = writer.take() {
            match &batch {
                // Cloning a batch clones a few reference counts. Once refused, the store wants no more of it.
                Some(batch) => {
                    if open.push(batch.clone())? == Pushed::Kept {
                        *writer = Some(open);
                    }
                }
                None => drop(open.finish()?),
            }
        }
        Ok(batch)
    }
}

async fn sum(cache: StoredDataset<RecordBatch>, partition: u32, at_most: usize) -> Result<f64> {
    let mut scan = CachedScan::open(&cache, partition).await?;
    let mut sum = 0.0;
    for _ in 0..at_most {
        let Some(batch) = scan.next().await? else { break };
        let values = batch.column_by_name("value").ok_or("no column `value`")?;
        sum += values.as_primitive::<Float64Type>().values().iter().sum::<f64>();
    }
    Ok(sum)
}

/// Runs the same queries on a cache of any level, and says what the cache did.
async fn run(store: &BlockStore, level: StorageLevel) -> Result<()> {
    let cache = store
        .dataset_with("scan", ArrowIpc, |batch: &RecordBatch| batch.get_array_memory_size())
        .level(level)
        .build()?;
    let expected: f64 = (0..BATCHES * ROWS).map(|id| id as f64 / 2.0).sum();
    let all = usize::MAX;
    let scans = || SCANS.swap(0, Ordering::Relaxed);
    scans();

    // A consumer that stops early leaves no half block.
    sum(cache.clone(), 0, 3).await?;
    assert!(!cache.contains(0));
    let early = scans();

    // Two consumers at once share one scan; a third reads what they kept.
    let (first, second) =
        tokio::join!(tokio::spawn(sum(cache.clone(), 0, all)), tokio::spawn(sum(cache.clone(), 0, all)));
    assert_eq!((first??, second??), (expected, expected));
    let together = scans();
    assert_eq!(sum(cache.clone(), 0, all).await?, expected);
    let again = scans();

    let status = cache.status();
    println!(
        "{level:<20} scans: {early} for an early stop, {together} for two consumers, {again} after them; kept: {} KiB \
         on the heap, {} KiB off it, {} KiB on disk",
        status.heap_bytes >> 10,
        status.off_heap_bytes >> 10,
        status.disk_bytes >> 10,
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let roomy = BlockStore::builder().memory(64 << 20).off_heap(64 << 20).disk(scratch.path()).build()?;
    for level in [
        StorageLevel::MEMORY_ONLY,
        StorageLevel::MEMORY_ONLY_SER,
        StorageLevel::MEMORY_AND_DISK,
        StorageLevel::OFF_HEAP,
        StorageLevel::DISK_ONLY,
    ] {
        run(&roomy, level).await?;
    }

    println!("\nand with a budget of 1 MiB, which a partition of 4 MiB does not fit:");
    let tight = BlockStore::builder().memory(1 << 20).off_heap(1 << 20).disk(scratch.path()).build()?;
    for level in [StorageLevel::MEMORY_ONLY, StorageLevel::MEMORY_ONLY_SER, StorageLevel::MEMORY_AND_DISK] {
        run(&tight, level).await?;
    }
    let memory = tight.memory().snapshot();
    println!("\nheap in use at the end: {} of {} bytes", memory.heap.storage_bytes, memory.heap.budget_bytes);
    Ok(())
}
