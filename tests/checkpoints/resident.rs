//! A process that writes and reads checkpoints of three times its budget takes no more than its budget for it.

use std::error::Error;
use std::fs;
use std::process::Command;

use larder::checkpoint::CheckpointStore;
use larder::{Context, Dataset};

use super::{Done, Way, fresh_name, server};

const BUDGET: &str = "96MiB";
const BUDGET_KIB: u64 = 96 << 10;
const RECORD_BYTES: usize = 4 << 10;
/// 288 MiB of them, in parts of a quarter of the budget.
const RECORDS: i64 = 72 << 10;
const PARTITIONS: u32 = 12;

/// Tells this binary, run as a process of its own, how to write.
const WAY: &str = "LARDER_TEST_RESIDENT_WAY";

fn texts(context: &Context, records: i64) -> Result<Dataset<String>, larder::Error> {
    Ok(context.range(0..records, PARTITIONS)?.map(|n| format!("{n:0RECORD_BYTES$}")))
}

/// Writes a checkpoint, reads it from another context, and removes it.
fn write_and_read(root: &str, way: Way, records: i64) -> Done {
    let scratch = tempfile::tempdir()?;
    let context = || Context::builder().threads(2).progress(false).memory(BUDGET).checkpoints(root);
    let writing = context().disk(scratch.path()).build()?;
    let name = format!("{way:?}-{records}").to_lowercase();
    let written = texts(&writing, records)?.named(&name);
    match way {
        Way::Now => drop(written.checkpoint()?),
        Way::Lazily => {
            let checkpoint = written.checkpoint_lazily()?;
            assert_eq!(written.count()?, records.unsigned_abs());
            checkpoint.wait()?;
        }
        Way::InBackground => drop(written.checkpoint_async()?.wait()?),
    }
    let bytes =
        context().build()?.open_checkpoint::<String>(&*name)?.map(|text| text.len()).reduce(|a, b| a + b)?;
    assert_eq!(bytes, Some(RECORD_BYTES * usize::try_from(records)?), "{name}");
    Ok(CheckpointStore::open(root)?.remove_generation(&name, 1)?)
}

/// A line of what Linux says of this process.
fn kib(of: &str) -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(of)).ok_or("not Linux")?;
    Ok(line.trim_start_matches(':').trim_end_matches("kB").trim().parse()?)
}

fn works_inside_its_budget(root: &str, way: Way) -> Done {
    // The program itself and its threads are there then.
    write_and_read(root, way, i64::from(PARTITIONS))?;
    let before_kib = kib("VmRSS")?;
    write_and_read(root, way, RECORDS)?;
    let taken_kib = kib("VmHWM")?.saturating_sub(before_kib);
    println!("{way:?}: {taken_kib} KiB");
    assert!(taken_kib <= BUDGET_KIB, "{way:?} takes {taken_kib} KiB");
    Ok(())
}

/// Runs a test once more for each way, in a process that does nothing else: what was freed may stay with the allocator.
fn alone(test: &str, root: &str, environment: &[(&str, &str)]) -> Done {
    for way in [Way::Now, Way::Lazily, Way::InBackground] {
        let name = format!("{way:?}");
        match std::env::var(WAY) {
            Ok(this) if this == name => return works_inside_its_budget(root, way),
            Ok(_) => continue,
            Err(_) => {}
        }
        let mut child = Command::new(std::env::current_exe()?);
        child.args(["--exact", &format!("resident::{test}"), "--nocapture"]).env(WAY, name);
        let output = child.envs(environment.iter().copied()).output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
        println!("{out}");
    }
    Ok(())
}

#[test]
fn on_a_local_disk() -> Done {
    let directory = tempfile::tempdir()?;
    alone("on_a_local_disk", &directory.path().display().to_string(), &[])
}

#[test]
fn on_hdfs() -> Done {
    let Some(name_node) = server("LARDER_TEST_HDFS", "hdfs://127.0.0.1:1/x") else { return Ok(()) };
    alone("on_hdfs", &format!("{name_node}/larder-test/{}", fresh_name()?), &[])
}

#[test]
fn on_s3() -> Done {
    let Some(endpoint) = server("LARDER_TEST_S3", "s3://larder-test/x") else { return Ok(()) };
    let environment = [
        ("AWS_ENDPOINT_URL", &*endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
    ];
    alone("on_s3", &format!("s3://larder-test/{}", fresh_name()?), &environment)
}
