//! Checkpoints in each way they are written, on every backend, opened by another context.

#[cfg(test)]
mod resident;

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder::blockstore::MemoryManager;
use larder::checkpoint::{CheckpointStore, Error as CheckpointError, HookAction, Step};
use larder::{CheckpointInfo, Context, ContextBuilder, Dataset, Pairs, PeriodicCheckpointer};

type Done = Result<(), Box<dyn std::error::Error>>;

const RECORDS: i64 = 20_000;
const PARTITIONS: u32 = 4;

/// Long enough for any upload; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells this binary, run as a process of its own, where to write.
const ROOT: &str = "LARDER_TEST_CHECKPOINTS_ROOT";

#[derive(Clone, Copy, Debug)]
enum Way {
    Now,
    Lazily,
    InBackground,
}

fn builder() -> ContextBuilder {
    Context::builder().threads(2).progress(false).memory("32MiB")
}

fn record(n: i64) -> (i64, String) {
    (n % 1000, format!("record {n} of {RECORDS}"))
}

fn expected() -> Vec<(i64, String)> {
    (0..RECORDS).map(record).collect()
}

/// A dataset, and how many of its records were computed.
type Counted = (Pairs<i64, String>, Arc<AtomicU64>);

fn counted(context: &Context, name: &str) -> Result<Counted, larder::Error> {
    let computed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&computed);
    let records = context.range(0..RECORDS, PARTITIONS)?.map(move |n| {
        counter.fetch_add(1, Ordering::Relaxed);
        record(*n)
    });
    Ok((records.named(name), computed))
}

fn write(dataset: &Dataset<(i64, String)>, way: Way) -> Result<CheckpointInfo, Box<dyn std::error::Error>> {
    let handle = match way {
        Way::Now => return Ok(dataset.checkpoint()?),
        Way::Lazily => {
            let handle = dataset.checkpoint_lazily()?;
            // An action that needs one partition of them.
            assert_eq!(dataset.first()?, Some(record(0)));
            handle
        }
        Way::InBackground => dataset.checkpoint_async()?,
    };
    Ok(handle.wait_timeout(PATIENCE).ok_or("it hangs")??)
}

/// What another context finds.
fn is_found(root: &str, info: &CheckpointInfo) -> Done {
    let reading = builder().checkpoints(root).build()?;
    assert_eq!(reading.latest_checkpoint(&info.name)?.as_ref(), Some(info));
    let by_name = reading.open_checkpoint::<(i64, String)>(&*info.name)?;
    assert_eq!((by_name.partitions(), by_name.collect()?), (PARTITIONS, expected()));
    let other_type = reading.open_checkpoint::<(i64, i64)>(&*info.name);
    assert!(other_type.is_err(), "{} is of pairs of a number and a text", info.name);

    // With no store of its own: the address says everything.
    let by_address = builder().build()?.open_checkpoint_at::<(i64, String)>(&*info.address)?;
    assert_eq!((by_address.partitions(), by_address.collect()?), (PARTITIONS, expected()));
    Ok(())
}

fn each_way_of_writing(root: &str) -> Done {
    let context = builder().checkpoints(root).build()?;
    for (way, name) in [(Way::Now, "now"), (Way::Lazily, "lazily"), (Way::InBackground, "in-background")] {
        let (dataset, computed) = counted(&context, name)?;
        let info = write(&dataset, way)?;
        assert_eq!((&*info.name, info.generation, info.records), (name, 1, RECORDS.unsigned_abs()));
        assert!(info.address.starts_with(root), "{}", info.address);
        assert_eq!(computed.load(Ordering::Relaxed), RECORDS.unsigned_abs(), "{way:?}: in one pass");
        assert_eq!(dataset.collect()?, expected(), "{way:?}");
        assert_eq!(computed.load(Ordering::Relaxed), RECORDS.unsigned_abs(), "{way:?}: the lineage is cut");
        is_found(root, &info)?;
    }
    Ok(())
}

fn an_iteration(root: &str) -> Done {
    let context = builder().checkpoints(root).build()?;
    let mut checkpointer = PeriodicCheckpointer::new(&context, 2, "iteration")?;
    let mut numbers = context.range(0..RECORDS, PARTITIONS)?;
    let mut written = Vec::new();
    for _ in 0..7 {
        numbers = numbers.map(|n| n + 1);
        written.extend(checkpointer.update(&numbers)?);
    }
    assert_eq!(written.iter().map(|info| info.generation).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(checkpointer.retention_error().is_none(), "{:?}", checkpointer.retention_error());
    assert_eq!(numbers.collect()?, (7..RECORDS + 7).collect::<Vec<_>>());

    let reading = builder().checkpoints(root).build()?;
    assert_eq!(reading.latest_checkpoint("iteration")?, written.pop());
    let newest = reading.open_checkpoint::<i64>("iteration")?;
    assert_eq!(newest.collect()?, (6..RECORDS + 6).collect::<Vec<_>>());
    let before = reading.open_checkpoint_generation::<i64>("iteration", 2)?;
    assert_eq!(before.collect()?, (4..RECORDS + 4).collect::<Vec<_>>());
    assert!(reading.open_checkpoint_generation::<i64>("iteration", 1).is_err(), "the last two stay");
    Ok(())
}

fn works_at(root: &str) -> Done {
    each_way_of_writing(root)?;
    an_iteration(root)
}

/// What a variable says of a server that this build can use, or a loud word why there is none.
fn server(variable: &str, address: &str) -> Option<String> {
    let why = match (std::env::var(variable), CheckpointStore::open(address)) {
        (Ok(_), Err(error @ CheckpointError::Feature { .. })) => error.to_string(),
        (Ok(server), _) => return Some(server),
        (Err(_), _) => format!("{variable} is not set"),
    };
    let required = std::env::var("LARDER_TEST_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
    assert!(!required, "LARDER_TEST_REQUIRE_SERVERS is set, but {why}");
    // Past the test harness, which keeps what passing tests print.
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED: end-to-end test of checkpoints: {why}");
    None
}

/// A name that no other run has used.
fn fresh_name() -> Result<String, std::time::SystemTimeError> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    Ok(format!("end-to-end-{}-{nanos}", std::process::id()))
}

#[test]
fn every_way_to_checkpoint_works_on_a_local_disk() -> Done {
    let directory = tempfile::tempdir()?;
    works_at(&directory.path().display().to_string())
}

#[test]
fn every_way_to_checkpoint_works_in_memory() -> Done {
    works_at(&format!("memory://{}", fresh_name()?))
}

#[test]
fn every_way_to_checkpoint_works_on_hdfs() -> Done {
    let Some(name_node) = server("LARDER_TEST_HDFS", "hdfs://127.0.0.1:1/x") else { return Ok(()) };
    works_at(&format!("{name_node}/larder-test/{}", fresh_name()?))
}

/// Where the server is comes from the environment, as for any program, so this one runs once more, in that.
#[test]
fn every_way_to_checkpoint_works_on_s3() -> Done {
    if let Ok(root) = std::env::var(ROOT) {
        return works_at(&root);
    }
    let Some(endpoint) = server("LARDER_TEST_S3", "s3://larder-test/x") else { return Ok(()) };
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["--exact", "every_way_to_checkpoint_works_on_s3", "--nocapture"]);
    child.env(ROOT, format!("s3://larder-test/{}", fresh_name()?)).env("AWS_ENDPOINT_URL", endpoint);
    child
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "us-east-1");
    let output = child.output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
    Ok(())
}

#[test]
fn an_upload_to_s3_holds_its_share_of_the_memory_and_no_more() -> Done {
    const PIECE_BYTES: usize = 5 << 20;
    // A chunk that fills, half a quarter of the budget, beside what is on its way: one piece, one that waits, one that
    // is being filled.
    const PART_BYTES_LEAST: u64 = (2 << 20) + 3 * PIECE_BYTES as u64;
    let Some(endpoint) = server("LARDER_TEST_S3", "s3://larder-test/x") else { return Ok(()) };
    let name = fresh_name()?;
    for (budget, expected) in [
        ("16MiB", PART_BYTES_LEAST..=PART_BYTES_LEAST + (1 << 20)),
        // All that a part has.
        ("512MiB", 27 << 20..=29 << 20),
    ] {
        let memory: Arc<OnceLock<MemoryManager>> = Arc::default();
        let (watched, held_most) = (Arc::clone(&memory), Arc::new(AtomicU64::new(0)));
        let most = Arc::clone(&held_most);
        let hook = move |step: Step, _: &str| {
            if let (Step::ClosePart, Some(memory)) = (step, watched.get()) {
                let snapshot = memory.snapshot();
                most.fetch_max(snapshot.heap.in_flight_bytes + snapshot.scratch_bytes, Ordering::Relaxed);
            }
            HookAction::Continue
        };
        let store = CheckpointStore::builder(format!("s3://larder-test/{name}")).hook(hook);
        let store = store.s3_endpoint(&endpoint).s3_credentials("test", "test", None);
        let store = store.chunk_bytes(PIECE_BYTES).open()?;
        let context = Context::builder().threads(1).progress(false).memory(budget);
        let context = context.checkpoint_store(store).build()?;
        memory.set(context.store().memory().clone()).map_err(|_| "it is set")?;

        let records = context.range(0..6_144, 1)?.map(|n| format!("{n:04096}"));
        assert_eq!(records.named("padded").checkpoint()?.records, 6_144);
        let held = held_most.load(Ordering::Relaxed);
        assert!(expected.contains(&held), "{budget}: {held}");
        let left = context.store().memory().snapshot();
        assert_eq!((left.heap.in_flight_bytes, left.scratch_bytes), (0, 0), "{budget}");
    }
    Ok(())
}
