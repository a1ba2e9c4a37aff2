//! What the parts of a checkpoint hold while they are written and read stands in the accounts, and leaves them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use larder_blockstore::MemoryManager;
use larder_checkpoint::{HookAction, Step};
use larder_exec::{CheckpointStore, Context, Dataset, Error, StorageLevel};

type Done = Result<(), Box<dyn std::error::Error>>;

const MIB: u64 = 1 << 20;
const CHUNK_BYTES: u64 = 4 * MIB;
const PARTS: u64 = 2;
const RECORD_BYTES: usize = 4 << 10;
/// Six MiB of them.
const RECORDS_A_PART: i64 = 1536;

/// What is seen in the accounts while one step runs.
struct Watch {
    step: Step,
    memory: OnceLock<MemoryManager>,
    charged_max: AtomicU64,
    counted_max: AtomicU64,
    fails: AtomicBool,
}

impl Watch {
    fn on(step: Step) -> Arc<Self> {
        let (memory, charged_max, counted_max) = (OnceLock::new(), AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { step, memory, charged_max, counted_max, fails: AtomicBool::new(false) })
    }

    fn context(
        self: &Arc<Self>,
        directory: &Path,
        budget: &str,
    ) -> Result<Context, Box<dyn std::error::Error>> {
        let watch = Arc::clone(self);
        let hook = move |step: Step, _: &str| {
            if let Some(memory) = watch.memory.get().filter(|_| step == watch.step) {
                let snapshot = memory.snapshot();
                watch.charged_max.fetch_max(snapshot.heap.in_flight_bytes, Ordering::Relaxed);
                watch.counted_max.fetch_max(snapshot.scratch_bytes, Ordering::Relaxed);
                if watch.fails.load(Ordering::Relaxed) {
                    return HookAction::FailBefore(std::io::ErrorKind::Other);
                }
            }
            HookAction::Continue
        };
        let store = CheckpointStore::builder(directory.display().to_string()).hook(hook).open()?;
        let builder = Context::builder().threads(2).progress(false).memory(budget);
        let context = builder.disk(directory.join("spilled")).checkpoint_store(store).build()?;
        let _ = self.memory.set(context.store().memory().clone());
        Ok(context)
    }

    /// The most that was charged and the most that was counted, since it was asked last.
    fn seen(&self) -> (u64, u64) {
        (self.charged_max.swap(0, Ordering::Relaxed), self.counted_max.swap(0, Ordering::Relaxed))
    }

    /// What stands in the accounts now, apart from blocks.
    fn left(&self) -> Option<(u64, u64)> {
        let snapshot = self.memory.get()?.snapshot();
        Some((snapshot.heap.in_flight_bytes, snapshot.scratch_bytes))
    }
}

fn records(context: &Context) -> Result<Dataset<String>, Error> {
    let numbers = context.range(0..RECORDS_A_PART * PARTS as i64, PARTS as u32)?;
    Ok(numbers.map(|n| format!("{n:0RECORD_BYTES$}")).named("records"))
}

/// A chunk fills, and one is held by the writer.
const WRITING: std::ops::RangeInclusive<u64> = 2 * CHUNK_BYTES..=PARTS * (2 * CHUNK_BYTES + MIB);

#[test]
fn a_part_is_charged_what_its_writer_holds_whoever_writes_it() -> Done {
    let directory = tempfile::tempdir()?;
    let watch = Watch::on(Step::ClosePart);
    let context = watch.context(directory.path(), "64MiB")?;

    records(&context)?.checkpoint()?;
    let (charged, counted) = watch.seen();
    assert!(WRITING.contains(&charged) && counted == 0, "now: {charged} and {counted}");
    assert_eq!(watch.left(), Some((0, 0)));

    let lazily = records(&context)?;
    let handle = lazily.checkpoint_lazily()?;
    lazily.count()?;
    handle.wait()?;
    let (charged, counted) = watch.seen();
    assert!(WRITING.contains(&charged) && counted == 0, "lazily: {charged} and {counted}");
    assert_eq!(watch.left(), Some((0, 0)));

    let values = records(&context)?;
    values.persist(StorageLevel::MEMORY_AND_DISK)?;
    values.checkpoint_async()?.wait()?;
    let (charged, _) = watch.seen();
    assert!(WRITING.contains(&charged), "in the background: {charged}");
    assert_eq!(watch.left(), Some((0, 0)));

    // Bytes of a block are the block's until they are there.
    let bytes = records(&context)?;
    bytes.persist(StorageLevel::MEMORY_ONLY_SER)?;
    bytes.count()?;
    let resident = context.store().memory().snapshot().heap.block_bytes;
    assert!(resident > PARTS * CHUNK_BYTES, "{resident}");
    watch.seen();
    bytes.checkpoint()?;
    assert_eq!(watch.seen(), (0, 0));
    Ok(())
}

#[test]
fn what_does_not_fit_is_counted_and_the_checkpoint_is_written_all_the_same() -> Done {
    let directory = tempfile::tempdir()?;
    let watch = Watch::on(Step::ClosePart);
    let context = watch.context(directory.path(), "1MiB")?;
    let dataset = records(&context)?;
    let info = dataset.checkpoint()?;
    assert_eq!(info.records, RECORDS_A_PART as u64 * PARTS);
    let (charged, counted) = watch.seen();
    assert!(charged <= MIB && WRITING.contains(&(charged + counted)), "{charged} and {counted}");
    assert_eq!(watch.left(), Some((0, 0)));
    assert_eq!(dataset.map(|record| record.len()).collect()?, [RECORD_BYTES; 3072]);
    assert_eq!(watch.left(), Some((0, 0)));
    Ok(())
}

#[test]
fn readers_of_parts_are_charged_their_buffers() -> Done {
    let directory = tempfile::tempdir()?;
    let watch = Watch::on(Step::ReadPart);
    let context = watch.context(directory.path(), "64MiB")?;
    let dataset = records(&context)?;
    dataset.checkpoint()?;
    let (charged, _) = watch.seen();
    assert!((CHUNK_BYTES..=PARTS * CHUNK_BYTES).contains(&charged), "read back: {charged}");
    dataset.count()?;
    let (charged, _) = watch.seen();
    let reading = 2 * CHUNK_BYTES..=PARTS * 2 * CHUNK_BYTES;
    assert!(reading.contains(&charged), "read, with a chunk decoded: {charged}");
    assert_eq!(watch.left(), Some((0, 0)));
    Ok(())
}

#[test]
fn nothing_stays_charged_after_an_error_a_panic_a_cancel_or_a_reader_that_had_enough() -> Done {
    let directory = tempfile::tempdir()?;
    let watch = Watch::on(Step::ClosePart);
    let context = watch.context(directory.path(), "64MiB")?;

    watch.fails.store(true, Ordering::Relaxed);
    assert!(records(&context)?.checkpoint().is_err());
    assert!(watch.seen().0 >= 2 * CHUNK_BYTES);
    assert_eq!(watch.left(), Some((0, 0)), "an error");
    watch.fails.store(false, Ordering::Relaxed);

    let seen = Arc::new(AtomicU64::new(0));
    let (memory, most) = (context.store().memory().clone(), Arc::clone(&seen));
    let panicking = records(&context)?.map(move |record| {
        if record.ends_with("1500") {
            most.fetch_max(memory.snapshot().heap.in_flight_bytes, Ordering::Relaxed);
            panic!("a bad record");
        }
        record.clone()
    });
    assert!(panicking.checkpoint().is_err());
    assert!(seen.load(Ordering::Relaxed) >= CHUNK_BYTES, "it panicked in the middle of a part");
    assert_eq!(watch.left(), Some((0, 0)), "a panic");

    let (memory, reached) = (context.store().memory().clone(), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&reached);
    let slow = records(&context)?.flat_map(move |record| {
        if flag.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let is_reached = memory.snapshot().heap.in_flight_bytes >= 2 * CHUNK_BYTES;
        flag.fetch_or(is_reached, Ordering::Relaxed);
        vec![record.clone(); 4]
    });
    let job = std::thread::spawn(move || slow.checkpoint().map(drop));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reached.load(Ordering::Relaxed) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    context.cancel();
    assert!(matches!(job.join(), Ok(Err(Error::Cancelled))));
    assert!(reached.load(Ordering::Relaxed), "it was cancelled in the middle of a part");
    assert_eq!(watch.left(), Some((0, 0)), "a cancel");

    let lazily = records(&context)?;
    let handle = lazily.checkpoint_lazily()?;
    assert_eq!(lazily.take(1)?.len(), 1);
    handle.wait()?;
    assert_eq!(watch.left(), Some((0, 0)), "a reader that had enough");
    Ok(())
}
