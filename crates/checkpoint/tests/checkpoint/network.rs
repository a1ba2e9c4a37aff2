//! Servers that refuse, hang, lose answers or are not there.

#[cfg(feature = "hdfs")]
mod hdfs;
#[cfg(feature = "s3")]
mod s3;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use larder_checkpoint::{Builder, Error, HookAction, Step};

use crate::backends::Kind;
use crate::features::SECRET;
use crate::support::*;

/// The error of beginning an attempt, and how long it took to come.
fn begin_fails(builder: Builder) -> (Error, Duration) {
    let started = Instant::now();
    let error = builder.open().unwrap().begin(NAME, spec(&numbers(1))).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(SECRET));
    (error, started.elapsed())
}

#[test]
fn what_a_hanging_server_interrupts_can_be_written_again() {
    for site in [Kind::S3, Kind::Hdfs].into_iter().filter_map(Kind::fresh) {
        let hung = Arc::new(AtomicBool::new(false));
        let hook = move |step, _: &str| match step == Step::ClosePart && !hung.swap(true, Ordering::Relaxed) {
            true => HookAction::Hang(Duration::from_secs(3600)),
            false => HookAction::Continue,
        };
        let store = site.builder().operation_timeout(Duration::from_secs(3)).hook(hook).open().unwrap();
        let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
        let error = write_part(&attempt, 0, &numbers(1)[0]).unwrap_err();
        assert!(error.is_retryable() && error.place().unwrap().step == Step::ClosePart, "{error}");
        write_parts(&attempt, &numbers(1)).unwrap();
        assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
    }
}

/// Only HDFS closes parts while others are written.
#[test]
fn a_part_that_cannot_be_closed_is_not_finished_and_can_be_written_again() {
    let Some(site) = Kind::Hdfs.fresh() else { return };
    let records = numbers(1);
    for before_the_commit in [false, true] {
        let failures = Arc::new(AtomicBool::new(true));
        let hook = {
            let failures = Arc::clone(&failures);
            move |step, object: &str| match step == Step::AwaitPart && object.contains("part-00001") {
                true if failures.swap(false, Ordering::Relaxed) => HookAction::FailBefore(ErrorKind::Other),
                _ => HookAction::Continue,
            }
        };
        let store = site.builder().hook(hook).open().unwrap();
        let attempt = store.begin(NAME, spec(&records)).unwrap();
        write_parts(&attempt, &records).unwrap();
        assert!((0..).zip(&records).all(|(part, _)| attempt.is_finished(part)));
        let error = if before_the_commit {
            attempt.verify_part(1).unwrap_err()
        } else {
            attempt.commit().unwrap_err()
        };
        let place = error.place().unwrap();
        assert!(place.step == Step::AwaitPart && error.to_string().contains("part-00001"), "{error}");
        assert!(!attempt.is_finished(1) && attempt.is_finished(0) && attempt.is_finished(2));
        let error = attempt.verify_part(1).unwrap_err().to_string();
        assert!(error.contains("write it again"), "{error}");
        assert!(matches!(attempt.commit().unwrap_err(), Error::Incomplete { missing: 1, first: 1, .. }));

        write_part(&attempt, 1, &records[1]).unwrap();
        attempt.verify_part(1).unwrap();
        assert_eq!(read(&attempt.commit().unwrap()).unwrap(), records);
    }
}

/// What another thread finds out while a commit waits is what the commit says.
#[test]
fn a_commit_that_waits_says_which_part_another_thread_found_unfinished() {
    let Some(site) = Kind::Hdfs.fresh() else { return };
    let records = numbers(1);
    let (reached, is_reached) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let (stops, failures) = (Mutex::new(Some((reached, may_go))), AtomicBool::new(true));
    let hook = move |step, object: &str| match step == Step::AwaitPart {
        true if object.contains("part-00000") => {
            if let Some((reached, may_go)) = stops.lock().unwrap().take() {
                reached.send(()).unwrap();
                may_go.recv().unwrap();
            }
            HookAction::Continue
        }
        true if object.contains("part-00001") && failures.swap(false, Ordering::Relaxed) => {
            HookAction::FailBefore(ErrorKind::Other)
        }
        _ => HookAction::Continue,
    };
    let store = site.builder().hook(hook).open().unwrap();
    let attempt = store.begin(NAME, spec(&records)).unwrap();
    write_parts(&attempt, &records).unwrap();
    thread::scope(|scope| {
        let commit = scope.spawn(|| attempt.commit());
        is_reached.recv().unwrap();
        assert_eq!(attempt.verify_part(1).unwrap_err().place().unwrap().step, Step::AwaitPart);
        go.send(()).unwrap();
        let error = commit.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Incomplete { missing: 1, first: 1, .. }), "{error}");
    });
    write_part(&attempt, 1, &records[1]).unwrap();
    assert_eq!(read(&attempt.commit().unwrap()).unwrap(), records);
}
