//! What a process has in memory while operators work on ten times the data that its budget holds.

use std::path::Path;
use std::process::Command;

use larder_exec::{Context, Dataset, Error};

use super::{
    Digests, Done, OPERATIONS, Operation, assert_nothing_is_left, context, digests, group_by_key, join, pair,
    sort_by,
};

/// What a process may take beyond a budget of 8 MiB and the pages of the program itself; docs/memory.md says what it is
/// made of.
const OVERHEAD_BYTES: u64 = 12 << 20;
/// With a budget of 1 MiB, all that depends on it is smaller.
const OVERHEAD_OF_LITTLE_MEMORY_BYTES: u64 = 5 << 20;

/// Resident pages of the program and its libraries. They only become more.
fn program_kib() -> std::io::Result<u64> {
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    let program = std::env::current_exe()?;
    let (mut is_program, mut kib) = (false, 0_u64);
    for line in smaps.lines() {
        if let Some(resident) = line.strip_prefix("Rss:") {
            let resident: u64 =
                resident.trim_end_matches("kB").trim().parse().map_err(std::io::Error::other)?;
            kib += if is_program { resident } else { 0 };
        } else if line.split(' ').next().is_some_and(|first| !first.ends_with(':')) {
            let path = line.find('/').and_then(|at| line.get(at..)).unwrap_or_default();
            is_program = program == Path::new(path) || path.contains(".so");
        }
    }
    Ok(kib)
}

/// Data that would not fit into the budget and the overhead together, were any of it kept elsewhere: 85 MB.
const LARGER_THAN_THE_BOUND: [(&str, Operation, &str, i64); 7] = [
    ("sort_by, large", sort_by, "8MiB", 480_000),
    ("group_by_key, large", group_by_key, "8MiB", 480_000),
    ("join, large", join, "8MiB", 480_000),
    ("checkpoint, large", checkpoint, "8MiB", 480_000),
    ("checkpoint_lazily, large", checkpoint_lazily, "8MiB", 480_000),
    ("checkpoint_async, large", checkpoint_async, "8MiB", 480_000),
    ("checkpoint_async with readers, large", checkpoint_async_with_readers, "8MiB", 480_000),
];

/// Each partition is larger than the memory.
fn to_checkpoint(context: &Context, records: i64) -> Result<Dataset<(String, String)>, Error> {
    Ok(context.range(0..records, 6)?.map(move |n| pair(*n, records)).named("pairs"))
}

fn checkpoint(context: &Context, records: i64) -> Result<Digests, Error> {
    let pairs = to_checkpoint(context, records)?;
    pairs.checkpoint()?;
    digests(&pairs)
}

/// Written while it is read, and then read from there.
fn checkpoint_lazily(context: &Context, records: i64) -> Result<Digests, Error> {
    let pairs = to_checkpoint(context, records)?;
    let checkpoint = pairs.checkpoint_lazily()?;
    let computed = digests(&pairs)?;
    checkpoint.wait()?;
    assert!(digests(&pairs)? == computed, "what was read back");
    Ok(computed)
}

/// Written from a copy on disk, and then read from there.
fn checkpoint_async(context: &Context, records: i64) -> Result<Digests, Error> {
    let pairs = to_checkpoint(context, records)?;
    pairs.checkpoint_async()?.wait()?;
    digests(&pairs)
}

/// Written from a copy on disk that others read at the same time.
fn checkpoint_async_with_readers(context: &Context, records: i64) -> Result<Digests, Error> {
    let pairs = to_checkpoint(context, records)?;
    let checkpoint = pairs.checkpoint_async()?;
    let mut read = digests(&pairs)?;
    while !checkpoint.is_finished() {
        assert!(std::mem::replace(&mut read, digests(&pairs)?) == read, "what was read meanwhile");
    }
    checkpoint.wait()?;
    Ok(read)
}

const CHILD: &str = "LARDER_SPILL_CHILD";
const WITH_LITTLE_MEMORY: &str = "all, with little memory";

/// The peak of a process never falls: each of the large operations has one of its own.
#[test]
fn a_process_stays_inside_its_budget_and_the_stated_overhead() -> Done {
    if let Ok(operations) = std::env::var(CHILD) {
        return work_and_tell_the_peak(&operations);
    }
    let peak_bytes = peak_bytes_of(WITH_LITTLE_MEMORY);
    assert!(peak_bytes <= (1 << 20) + OVERHEAD_OF_LITTLE_MEMORY_BYTES, "{peak_bytes}");
    for (name, ..) in LARGER_THAN_THE_BOUND {
        let peak_bytes = peak_bytes_of(name);
        assert!(peak_bytes <= (8 << 20) + OVERHEAD_BYTES, "{name}: {peak_bytes}");
    }
    Ok(())
}

/// What a process had resident at most, but for its program.
fn peak_bytes_of(operations: &str) -> u64 {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "resident::a_process_stays_inside_its_budget_and_the_stated_overhead",
            "--exact",
            "--nocapture",
        ])
        .env(CHILD, operations)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}{}", String::from_utf8_lossy(&child.stderr));
    let peak_kib = output.lines().find_map(|line| line.strip_prefix("peak KiB ")?.parse::<u64>().ok());
    peak_kib.unwrap_or_else(|| panic!("{output}")) * 1024
}

fn work_and_tell_the_peak(operations: &str) -> Done {
    let directory = tempfile::tempdir().unwrap();
    let little = OPERATIONS.map(|(name, operation)| (name, operation, "1MiB", 60_000));
    let little = little.into_iter().filter(|_| operations == WITH_LITTLE_MEMORY);
    let large = LARGER_THAN_THE_BOUND.into_iter().filter(|(name, ..)| *name == operations);
    let chosen: Vec<_> = little.chain(large).collect();
    assert!(!chosen.is_empty(), "{operations}");
    for (name, operation, memory, records) in chosen {
        let context = context(2, memory, directory.path())?;
        operation(&context, records)?;
        assert_nothing_is_left(&context, name);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim_end_matches("kB").trim().parse().unwrap();
    // What the test harness prints does not end its line.
    println!("\npeak KiB {}", peak_kib - program_kib().unwrap());
    Ok(())
}
