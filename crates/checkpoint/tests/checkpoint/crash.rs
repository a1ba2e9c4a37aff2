//! A writer that dies at any step.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_checkpoint::{CheckpointStore, CleanupOptions, HookAction, Step};
use parking_lot::Mutex;

use crate::children;
use crate::support::*;

/// What becomes of the step at which the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// It is not begun.
    Before,
    /// Half of its bytes are written.
    Halfway,
}

/// Runs as a process of its own: writes generation 2 and dies at the given step.
#[test]
fn writer() {
    let Some(words) = children::told("LARDER_CRASH") else { return };
    let (cut, at) = (&*words[1], words[2].parse::<usize>().unwrap());
    let halfway = cut == "Halfway";
    let step = AtomicUsize::new(0);
    let store = CheckpointStore::builder(&words[0]).hook(move |_, _| {
        match step.fetch_add(1, Ordering::Relaxed) {
            step if step == at && halfway => HookAction::FailHalfway(std::io::ErrorKind::Other),
            // The first step after the half one is that of cleaning up behind it.
            step if step >= at => std::process::abort(),
            _ => HookAction::Continue,
        }
    });
    write(&store.open().unwrap(), &numbers(2)).unwrap();
}

#[test]
fn a_writer_killed_at_any_step_leaves_all_of_its_checkpoint_or_nothing() {
    for cut in [Cut::Before, Cut::Halfway] {
        let mut visible_from = None;
        for at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let store = store_in(&dir);
            write(&store, &numbers(1)).unwrap();
            let words = [address(&dir), &format!("{cut:?}"), &at.to_string()];
            let output = children::command("crash::writer", "LARDER_CRASH", &words).output().unwrap();
            let survived = output.status.success();

            assert_eq!(read(&store.open_generation(NAME, 1).unwrap()).unwrap(), numbers(1));
            let generations = store.generations(NAME).unwrap();
            let visible = generations == [1, 2];
            assert!(visible || generations == [1], "{generations:?} after {cut:?} {at}");
            let newest = store.latest(NAME).unwrap().unwrap();
            assert_eq!(read(&newest).unwrap(), numbers(if visible { 2 } else { 1 }), "{cut:?} {at}");
            assert!(newest.verify().is_intact());
            if visible {
                visible_from.get_or_insert(at);
            } else {
                assert_eq!(visible_from, None, "committed when it dies earlier, not at {at}");
            }

            store.cleanup(&CleanupOptions::default().orphan_grace(Duration::ZERO)).unwrap();
            assert_eq!(files(dir.path()), committed_files(&store), "{cut:?} {at}");
            let again = write(&store, &numbers(3)).unwrap();
            assert_eq!(again.manifest().parent, generations.last().copied());
            assert_eq!(read(&again).unwrap(), numbers(3));

            if survived {
                assert!(visible, "{}", String::from_utf8_lossy(&output.stderr));
                assert!(at > 20, "all steps were tried");
                break;
            }
        }
        assert!(visible_from.is_some());
    }
}

#[test]
fn the_steps_come_in_the_order_that_makes_them_safe() {
    let dir = tempfile::tempdir().unwrap();
    let trace = Arc::new(Mutex::new(Vec::new()));
    let store = CheckpointStore::builder(address(&dir)).hook({
        let trace = Arc::clone(&trace);
        move |step, _| {
            trace.lock().push(step);
            HookAction::Continue
        }
    });
    write(&store.open().unwrap(), &[vec![1, 2, 3, 4, 5], vec![]]).unwrap();
    let expected = [
        Step::ListCommits,
        Step::CreateDirectories,
        Step::CreatePart,
        Step::WriteChunk,
        Step::WriteChunk,
        Step::WriteHeader,
        Step::ClosePart,
        Step::CreatePart,
        Step::WriteHeader,
        Step::ClosePart,
        Step::CheckPart,
        Step::SyncDirectories,
        Step::ListCommits,
        Step::WriteManifest,
        Step::SyncManifest,
        Step::PublishManifest,
        Step::SyncCommits,
        Step::RemoveTemporary,
        Step::WriteLatest,
    ];
    assert_eq!(*trace.lock(), expected);
}
