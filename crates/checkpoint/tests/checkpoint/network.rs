//! Servers that refuse, hang, lose answers or are not there.

#[cfg(feature = "hdfs")]
mod hdfs;
#[cfg(feature = "s3")]
mod s3;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
