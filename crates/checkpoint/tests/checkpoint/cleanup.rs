//! What cleanup and retention remove, and what they leave.

use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder_checkpoint::{CheckpointStore, CleanupOptions, CleanupReport, Error, HookAction, Step};
use parking_lot::Mutex;

use crate::support::*;

const HOUR: Duration = Duration::from_secs(3600);

/// An attempt id of that age.
fn attempt_of_age(age: Duration) -> String {
    let millis = (SystemTime::now() - age).duration_since(UNIX_EPOCH).unwrap().as_millis();
    format!("{:08x}-{:04x}-7abc-8123-456789abcdef", millis >> 16, millis & 0xffff)
}

fn objects(report: &CleanupReport) -> Vec<&str> {
    report.orphans.iter().map(|orphan| &*orphan.object).collect()
}

#[test]
fn cleanup_removes_orphans_older_than_its_grace_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    for seed in 1..=2 {
        write(&store, &numbers(seed)).unwrap();
    }
    let root = dir.path().join(NAME);
    let old = attempt_of_age(25 * HOUR);
    let young = attempt_of_age(23 * HOUR);
    for attempt in [&old, &young] {
        fs::create_dir(root.join("data").join(attempt)).unwrap();
        fs::write(root.join("data").join(attempt).join("part-00000-of-00001.blk"), [0; 100]).unwrap();
        fs::write(root.join("commits").join(format!("{:020}.{attempt}.tmp", 3)), [0; 10]).unwrap();
    }
    // None of these is Larder's.
    let foreign = ["data/notes/a", "data/readme", "commits/notes.tmp", "commits/x.json", "other/data/y"];
    for file in foreign.map(|file| root.join(file)) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, b"foreign").unwrap();
    }
    let before = files(dir.path());

    let listed = store.cleanup(&CleanupOptions::default().dry_run(true)).unwrap();
    let expected = [format!("{NAME}/commits/{:020}.{old}.tmp", 3), format!("{NAME}/data/{old}")];
    assert_eq!(objects(&listed), expected);
    assert_eq!((listed.bytes(), listed.dry_run, listed.skipped.len()), (110, true, 0));
    assert_eq!(files(dir.path()), before, "a dry run only lists");

    let removed = store.cleanup(&CleanupOptions::default()).unwrap();
    assert_eq!((objects(&removed), removed.bytes()), (objects(&listed), 110));
    let left: Vec<_> = before.into_iter().filter(|file| !file.contains(&old)).collect();
    assert_eq!(files(dir.path()), left);
    assert!(!root.join("data").join(&old).exists());
    assert!(store.cleanup(&CleanupOptions::default()).unwrap().orphans.is_empty());
    for (generation, seed) in [(1, 1), (2, 2)] {
        assert_eq!(read(&store.open_generation(NAME, generation).unwrap()).unwrap(), numbers(seed));
    }
}

#[test]
fn a_checkpoint_committed_while_cleanup_runs_is_spared() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = store_in(&dir).begin(NAME, spec(&numbers(1))).unwrap();
    write_parts(&attempt, &numbers(1)).unwrap();
    let attempt = Arc::new(attempt);
    let candidates_are_known = {
        let attempt = Arc::clone(&attempt);
        move |step, _: &str| {
            if step == Step::ListCommits {
                attempt.commit().unwrap();
            }
            HookAction::Continue
        }
    };
    let cleaner = CheckpointStore::builder(address(&dir)).hook(candidates_are_known).open().unwrap();
    assert!(cleaner.cleanup(&at_once()).unwrap().orphans.is_empty());
    assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
}

#[test]
fn an_attempt_whose_data_was_cleaned_away_is_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    write_parts(&attempt, &numbers(1)).unwrap();
    assert_eq!(store.cleanup(&at_once()).unwrap().orphans.len(), 1);
    assert!(matches!(attempt.commit(), Err(Error::Part { .. })));
    assert!(store.latest(NAME).unwrap().is_none());
}

#[test]
fn where_a_manifest_cannot_be_read_nothing_is_removed_and_the_report_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let checkpoint = write(&store, &numbers(1)).unwrap();
    fs::write(checkpoint.address(), b"torn").unwrap();
    let orphan = dir.path().join("clean/data").join(attempt_of_age(HOUR));
    fs::create_dir_all(&orphan).unwrap();
    let report = store.cleanup(&at_once()).unwrap();
    assert_eq!(report.orphans.len(), 1, "other datasets are still cleaned");
    assert!(!orphan.exists());
    let [(dataset, error)] = &report.skipped[..] else { unreachable!("{report:?}") };
    assert!(dataset == NAME && error.to_string().contains(&checkpoint.address()), "{error}");
    assert!(part_path(&checkpoint, 0).exists());
}

#[test]
fn a_generation_is_removed_manifest_first() {
    let dir = tempfile::tempdir().unwrap();
    let trace = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let trace = Arc::clone(&trace);
        move |step, _: &str| {
            trace.lock().push(step);
            let fail = step == Step::RemoveData && trace.lock().len() < 4;
            if fail { HookAction::FailBefore(ErrorKind::Other) } else { HookAction::Continue }
        }
    };
    let plain = store_in(&dir);
    let first = write(&plain, &numbers(1)).unwrap();
    write(&plain, &numbers(2)).unwrap();
    let store = CheckpointStore::builder(address(&dir)).hook(hook).open().unwrap();
    let error = store.remove_generation(NAME, 1).unwrap_err();
    assert_eq!(error.place().unwrap().step, Step::RemoveData, "{error}");
    assert_eq!(*trace.lock(), [Step::ReadManifest, Step::RemoveManifest, Step::RemoveData]);
    assert_eq!(store.generations(NAME).unwrap(), [2]);
    assert!(matches!(store.remove_generation(NAME, 1), Err(Error::NotFound { .. })));
    assert_eq!(store.cleanup(&at_once()).unwrap().bytes(), first.bytes(), "its data was left an orphan");
    assert_eq!(files(dir.path()), committed_files(&plain));

    assert!(matches!(read(&first), Err(Error::Part { partition: 0, .. })), "an open reader is told");
    plain.remove_generation(NAME, 2).unwrap();
    assert!(plain.latest(NAME).unwrap().is_none() && plain.datasets().unwrap().is_empty());
}

#[test]
fn keep_last_removes_older_generations_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    assert_eq!(store.keep_last(NAME, 2).unwrap(), Vec::<u64>::new());
    for seed in 1..=5 {
        write(&store, &numbers(seed)).unwrap();
    }
    assert_eq!(store.keep_last(NAME, 9).unwrap(), Vec::<u64>::new());
    assert_eq!(store.keep_last(NAME, 2).unwrap(), [1, 2, 3]);
    assert_eq!(store.generations(NAME).unwrap(), [4, 5]);
    assert!(matches!(store.keep_last(NAME, 0), Err(Error::Invalid { .. })));
    assert_eq!(files(dir.path()), committed_files(&store));
    assert_eq!(read(&store.latest(NAME).unwrap().unwrap()).unwrap(), numbers(5));
}

#[test]
fn keep_last_removes_nothing_while_the_newest_cannot_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    for seed in 1..=3 {
        write(&store, &numbers(seed)).unwrap();
    }
    fs::write(store.latest(NAME).unwrap().unwrap().address(), b"torn").unwrap();
    assert!(matches!(store.keep_last(NAME, 1), Err(Error::Manifest { .. })));
    assert_eq!(store.generations(NAME).unwrap(), [1, 2, 3]);
    assert_eq!(read(&store.open_generation(NAME, 2).unwrap()).unwrap(), numbers(2));
}
