//! The pagerank example gives the right ranks at every level and budget, when it loses blocks, and after a kill.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

const ITERATIONS: usize = 6;

fn edges_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/debian-depends.tsv.lz4")
}

/// `cargo test` builds examples too, into a folder beside the tests'.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(Path::parent).unwrap().join("examples");
    let program = folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(program.is_file(), "{} is missing: `cargo build --examples` builds it", program.display());
    Command::new(program)
}

fn ranks(arguments: &[&str]) -> (BTreeMap<String, f64>, Value) {
    let scratch = tempfile::tempdir().unwrap();
    let json = scratch.path().join("ranks.json");
    let output = example("pagerank")
        .args(["--iterations", &ITERATIONS.to_string(), "--top", "100000", "--json"])
        .arg(&json)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let top = report["top"].as_array().unwrap();
    let ranks =
        top.iter().map(|row| (row["package"].as_str().unwrap().to_owned(), row["rank"].as_f64().unwrap()));
    (ranks.collect(), report)
}

/// The same by plain loops over plain collections.
fn expected() -> &'static BTreeMap<String, f64> {
    static EXPECTED: OnceLock<BTreeMap<String, f64>> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let mut text = String::new();
        let file = std::fs::File::open(edges_path()).unwrap();
        lz4_flex::frame::FrameDecoder::new(file).read_to_string(&mut text).unwrap();
        let edges: BTreeSet<(&str, &str)> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once('\t'))
            .collect();
        let names: BTreeSet<&str> = edges.iter().flat_map(|(from, to)| [*from, *to]).collect();
        let ids: BTreeMap<&str, usize> = names.iter().copied().zip(0..).collect();
        let mut links = vec![Vec::new(); names.len()];
        for (from, to) in &edges {
            links[ids[from]].push(ids[to]);
        }
        let n = names.len() as f64;
        let mut ranks = vec![1.0 / n; names.len()];
        for _ in 0..ITERATIONS {
            let dangling: f64 =
                links.iter().zip(&ranks).filter(|(to, _)| to.is_empty()).map(|(_, rank)| rank).sum();
            let mut next = vec![0.15 / n + 0.85 * dangling / n; names.len()];
            for (to, rank) in links.iter().zip(&ranks) {
                for target in to {
                    next[*target] += 0.85 * rank / to.len() as f64;
                }
            }
            ranks = next;
        }
        names.iter().map(|name| (*name).to_owned()).zip(ranks).collect()
    })
}

fn assert_right(ranks: &BTreeMap<String, f64>, how: &str) {
    assert_eq!(ranks.len(), expected().len(), "{how}");
    for (package, rank) in ranks {
        assert!((rank - expected()[package]).abs() < 1e-12, "{how}: {package}");
    }
}

#[test]
fn the_ranks_are_right_at_every_level() {
    for level in [
        "NONE",
        "DISK_ONLY",
        "MEMORY_ONLY",
        "MEMORY_ONLY_SER",
        "MEMORY_AND_DISK",
        "MEMORY_AND_DISK_SER",
        "OFF_HEAP",
    ] {
        let (ranks, report) = ranks(&["--level", level]);
        assert_right(&ranks, level);
        assert_eq!((&report["packages"], &report["edges"]), (&57_819.into(), &244_451.into()));
        let cached: u64 = report["storage"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|row| row["cached_partitions"].as_u64())
            .sum();
        assert_eq!(cached > 0, level != "NONE", "{level}");
    }
}

#[test]
fn the_ranks_are_right_when_blocks_are_lost_and_memory_is_short() {
    for arguments in [
        ["--level", "MEMORY_ONLY", "--memory", "1MiB", "--lose", "0"],
        ["--level", "MEMORY_AND_DISK", "--memory", "1MiB", "--lose", "3"],
        ["--level", "MEMORY_ONLY_SER", "--memory", "64MiB", "--lose", "5"],
    ] {
        let (ranks, report) = ranks(&arguments);
        assert_right(&ranks, &format!("{arguments:?}"));
        let recomputed: u64 =
            report["storage"].as_array().unwrap().iter().filter_map(|row| row["recomputed"].as_u64()).sum();
        assert!(recomputed > 0, "{arguments:?}");
    }
}

#[test]
fn the_ranks_do_not_depend_on_threads_or_partitions() {
    for arguments in [["--threads", "1", "--partitions", "4"], ["--threads", "2", "--partitions", "7"]] {
        assert_right(&ranks(&arguments).0, &format!("{arguments:?}"));
    }
}

#[test]
fn a_killed_run_resumes_from_its_checkpoint() {
    let scratch = tempfile::tempdir().unwrap();
    let checkpoints = scratch.path().to_str().unwrap();
    let with_checkpoints = ["--checkpoint", checkpoints, "--checkpoint-every", "2"];
    let mut killed = example("pagerank")
        .args(["--iterations", "1000000"])
        .args(with_checkpoints)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let commits = scratch.path().join("ranks/commits");
    while !std::fs::read_dir(&commits).is_ok_and(|mut commits| commits.next().is_some()) {
        assert!(killed.try_wait().unwrap().is_none(), "it ended before its first checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();

    // It may have got past the iterations that are wanted, if the machine was slow to kill it.
    let store = larder::checkpoint::CheckpointStore::open(checkpoints).unwrap();
    for generation in store.generations("ranks").unwrap().into_iter().filter(|generation| *generation > 2) {
        store.remove_generation("ranks", generation).unwrap();
    }
    let (ranks, report) = ranks(&[&with_checkpoints[..], &["--resume"]].concat());
    assert_right(&ranks, "resumed");
    assert!(!report["checkpoints"].as_array().unwrap().is_empty());
}

#[test]
fn checkpoints_go_to_any_address_as_it_is_written() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("check points");
    let address = format!("file://{}", directory.display()).replace(' ', "%20");
    let (_, report) = ranks(&["--checkpoint", &address, "--checkpoint-every", "3"]);
    assert_eq!(report["checkpoints"].as_array().unwrap().len(), ITERATIONS / 3);
    let generations = std::fs::read_dir(directory.join("ranks/commits")).unwrap().count();
    assert_eq!(generations, 2);
    let (resumed, _) = ranks(&["--checkpoint", &address, "--checkpoint-every", "3", "--resume"]);
    assert_right(&resumed, "resumed");

    let unknown = "carrier-pigeon://coop/checkpoints";
    let output = example("pagerank").args(["--checkpoint", unknown]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("carrier-pigeon"), "{message}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_report_that_could_not_be_written_whole_is_a_failure() {
    let run = example("pagerank").args(["--iterations", "1", "--top", "1", "--json", "/dev/full"]).output();
    let output = run.unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("/dev/full"), "{message}");
}
