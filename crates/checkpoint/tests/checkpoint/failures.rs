//! Steps that fail without the writer dying.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_checkpoint::{Checkpoint, CheckpointStore, CleanupOptions, Error, HookAction, Step};
use parking_lot::Mutex;

use crate::support::*;

/// A store whose step number `at` has the outcome `action`; tells which step that was.
fn failing_at(address: &str, at: usize, action: HookAction) -> (CheckpointStore, Arc<Mutex<Option<Step>>>) {
    let (count, failed) = (AtomicUsize::new(0), Arc::new(Mutex::new(None)));
    let hook = {
        let failed = Arc::clone(&failed);
        move |step, _: &str| {
            if count.fetch_add(1, Ordering::Relaxed) != at {
                return HookAction::Continue;
            }
            *failed.lock() = Some(step);
            action
        }
    };
    (CheckpointStore::builder(address).hook(hook).open().unwrap(), failed)
}

fn failing_in(address: &str, step: Step, action: HookAction) -> CheckpointStore {
    let hook = move |at, _: &str| if at == step { action } else { HookAction::Continue };
    CheckpointStore::builder(address).hook(hook).open().unwrap()
}

#[test]
fn after_a_failure_at_any_step_nothing_is_visible_and_the_write_can_be_repeated() {
    for action in [HookAction::FailBefore, HookAction::FailHalfway, HookAction::FailAfter] {
        for at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let plain = store_in(&dir);
            write(&plain, &numbers(1)).unwrap();
            let (store, failed) = failing_at(address(&dir), at, action(ErrorKind::Other));
            let written = write(&store, &numbers(2));
            let Some(step) = *failed.lock() else {
                assert!(written.is_ok() && at > 20, "no step {at} is left to fail");
                break;
            };

            let what = format!("{:?} at {step:?}", action(ErrorKind::Other));
            let generations = plain.generations(NAME).unwrap();
            match &written {
                // Steps whose failure changes nothing, or is found out not to have mattered.
                Ok(checkpoint) => {
                    assert_eq!(generations, [1, 2], "{what}");
                    assert_eq!(read(checkpoint).unwrap(), numbers(2), "{what}");
                }
                Err(error) => {
                    assert_eq!(generations, [1], "{what}: {error}");
                    assert_eq!(error.place().unwrap().step, step, "{what}: {error}");
                    assert_eq!(files(dir.path()), committed_files(&plain), "{what}: nothing is left");
                }
            }
            assert_eq!(read(&plain.open_generation(NAME, 1).unwrap()).unwrap(), numbers(1), "{what}");
            let again = write(&plain, &numbers(3)).unwrap();
            assert_eq!(read(&again).unwrap(), numbers(3), "{what}");
            plain.cleanup(&CleanupOptions::default().orphan_grace(Duration::ZERO)).unwrap();
            assert_eq!(files(dir.path()), committed_files(&plain), "{what}");
        }
    }
}

#[test]
fn a_commit_that_failed_before_publishing_can_be_repeated_on_the_same_attempt() {
    for step in [Step::CheckPart, Step::SyncDirectories, Step::WriteManifest, Step::SyncManifest] {
        let dir = tempfile::tempdir().unwrap();
        let failed = Arc::new(AtomicUsize::new(0));
        let hook = move |at, _: &str| match at == step && failed.fetch_add(1, Ordering::Relaxed) == 0 {
            true => HookAction::FailHalfway(ErrorKind::TimedOut),
            false => HookAction::Continue,
        };
        let store = CheckpointStore::builder(address(&dir)).hook(hook).open().unwrap();
        let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
        write_parts(&attempt, &numbers(1)).unwrap();
        let error = attempt.commit().unwrap_err();
        assert!(error.is_retryable() && error.place().unwrap().step == step, "{error}");
        assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
        assert_eq!(attempt.commit().unwrap().generation(), 1, "and again gives the same");
    }
}

#[test]
fn a_part_that_failed_can_be_written_again_in_the_same_attempt() {
    for step in [Step::WriteChunk, Step::WriteHeader, Step::ClosePart] {
        let dir = tempfile::tempdir().unwrap();
        let failed = Arc::new(AtomicUsize::new(0));
        let hook = move |at, _: &str| match at == step && failed.fetch_add(1, Ordering::Relaxed) == 0 {
            true => HookAction::FailHalfway(ErrorKind::Other),
            false => HookAction::Continue,
        };
        let store = CheckpointStore::builder(address(&dir)).hook(hook).open().unwrap();
        let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
        let error = write_part(&attempt, 0, &numbers(1)[0]).unwrap_err();
        assert!(error.to_string().contains("part-00000-of-00003.blk"), "{error}");
        assert!(matches!(
            attempt.commit(),
            Err(Error::Incomplete { missing: 3, first: 0, partitions: 3, .. })
        ));
        write_parts(&attempt, &numbers(1)).unwrap();
        assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
    }
}

#[test]
fn remains_of_a_failed_part_that_could_not_be_removed_do_not_get_into_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let refuse = Arc::new(AtomicUsize::new(0));
    let hook = {
        let refuse = Arc::clone(&refuse);
        move |at, _: &str| match at == Step::DiscardPart && refuse.load(Ordering::Relaxed) == 1 {
            true => HookAction::FailBefore(ErrorKind::PermissionDenied),
            false => HookAction::Continue,
        }
    };
    let store = CheckpointStore::builder(address(&dir)).hook(hook).open().unwrap();
    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    refuse.store(1, Ordering::Relaxed);
    let mut long = attempt.part(0).unwrap();
    for chunk in chunks(&(0..100).collect::<Vec<_>>()) {
        long.write(&chunk).unwrap();
    }
    drop(long);
    let remains = files(dir.path());
    assert_eq!(remains.len(), 1);
    let error = attempt.part(0).unwrap_err();
    assert_eq!(error.place().unwrap().step, Step::DiscardPart, "{error}");
    refuse.store(0, Ordering::Relaxed);
    write_parts(&attempt, &numbers(1)).unwrap();
    assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
}

#[test]
fn a_full_disk_is_an_error_that_names_the_part_and_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let full = HookAction::FailHalfway(ErrorKind::StorageFull);
    for step in [Step::WriteChunk, Step::WriteManifest] {
        let store = failing_in(address(&dir), step, full);
        let error = write(&store, &numbers(1)).unwrap_err();
        assert!(matches!(error, Error::StorageFull { .. }) && !error.is_retryable(), "{error}");
        assert!(error.to_string().contains("no space left"), "{error}");
        assert!(error.to_string().contains(address(&dir)), "{error}");
        assert_eq!(files(dir.path()), Vec::<String>::new(), "{step:?} leaves nothing");
    }
    let store = failing_in(address(&dir), Step::ClosePart, full);
    let error = write(&store, &numbers(1)).unwrap_err().to_string();
    let bytes = 5 * 8 + 2 * 24 + 64;
    assert!(error.contains(&format!("part-00000-of-00003.blk after {bytes} bytes")), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_disk_s_own_word_that_it_is_full_comes_through() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    let part = format!("{}/{NAME}/data/{}/part-00002-of-00003.blk", address(&dir), attempt.id());
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let error = write_parts(&attempt, &numbers(1)).unwrap_err();
    assert!(matches!(error, Error::StorageFull { .. }), "{error:?}");
    assert!(error.to_string().contains(&part), "{error}");
}

/// Linux refuses to sync what has nothing to sync, so that refusal shows that it was asked.
#[cfg(target_os = "linux")]
#[test]
fn a_part_is_finished_only_when_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = store_in(&dir).begin(NAME, spec(&numbers(1))).unwrap();
    let part = format!("{}/{NAME}/data/{}/part-00000-of-00003.blk", address(&dir), attempt.id());
    std::os::unix::fs::symlink("/dev/null", &part).unwrap();
    let error = write_part(&attempt, 0, &numbers(1)[0]).unwrap_err();
    assert_eq!(error.place().unwrap().step, Step::ClosePart, "{error}");
    assert!(error.to_string().contains("Invalid argument"), "{error}");
    write_parts(&attempt, &numbers(1)).unwrap();
    assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
}

#[test]
fn a_place_that_cannot_be_written_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"no directory").unwrap();
    let error = CheckpointStore::open(file.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("it is a file") && error.contains(file.to_str().unwrap()), "{error}");

    let below = file.join("checkpoints");
    let error = write(&CheckpointStore::open(below.to_str().unwrap()).unwrap(), &numbers(1)).unwrap_err();
    assert!(error.to_string().contains(below.to_str().unwrap()), "{error}");
    assert!(!error.is_retryable(), "{error}");

    for address in [unwritable(&dir), "/sys/larder".to_owned()] {
        let store = CheckpointStore::open(&address).unwrap();
        let error = write(&store, &numbers(1)).unwrap_err();
        assert_eq!(error.place().unwrap().step, Step::CreateDirectories, "{error}");
        let words = ["Permission denied", "Read-only file system", "not permitted", "No such file"];
        assert!(words.iter().any(|word| error.to_string().contains(word)), "{error}");
        assert!(error.to_string().contains(&address) && !error.is_retryable(), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_error_has_the_system_s_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    write(&store, &numbers(1)).unwrap();
    let commits = dir.path().join(NAME).join("commits");
    std::fs::rename(&commits, dir.path().join("away")).unwrap();
    std::os::unix::fs::symlink(&commits, &commits).unwrap();
    let error = store.generations(NAME).unwrap_err();
    assert!(error.to_string().ends_with("Too many levels of symbolic links (os error 40)"), "{error}");
}

/// A directory that even root cannot write to, where there is one; else one without the permission.
fn unwritable(dir: &tempfile::TempDir) -> String {
    let path = dir.path().join("unwritable");
    std::fs::create_dir(&path).unwrap();
    let mut permissions = path.metadata().unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    let permissions_bind_us = std::fs::File::create(path.join("probe")).is_err();
    if permissions_bind_us { path.to_str().unwrap().to_owned() } else { "/proc/larder".to_owned() }
}

#[test]
fn names_and_sizes_that_cannot_be_are_refused_at_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    for name in ["", "..", "a/b", "a b"] {
        assert!(matches!(store.begin(name, spec(&[])), Err(Error::Name { .. })), "{name}");
        assert!(matches!(store.latest(name), Err(Error::Name { .. })), "{name}");
        assert!(matches!(store.remove_generation(name, 1), Err(Error::Name { .. })), "{name}");
    }
    let large = larder_checkpoint::Spec::new(u32::MAX, larder_blockstore::codec::CodecId::BINCODE);
    assert!(matches!(store.begin(NAME, large), Err(Error::Invalid { .. })));
    assert!(matches!(Checkpoint::open("/somewhere/numbers"), Err(Error::Address { .. })));
    assert_eq!(files(dir.path()), Vec::<String>::new());
}
