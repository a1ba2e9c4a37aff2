//! What holds on every backend.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_checkpoint::{CleanupOptions, Error, conformance};

use crate::backends::{self, Kind};
use crate::support::*;

#[test]
fn every_backend_s_commit_store_conforms() {
    for site in backends::each() {
        conformance::check(|| site.store().commit_store()).unwrap_or_else(|e| panic!("{site:?}: {e}"));
    }
}

#[test]
fn checkpoints_come_back_and_go_again() {
    for site in backends::each() {
        let store = site.store();
        assert!(store.latest(NAME).unwrap().is_none(), "{site:?}");
        assert!(store.datasets().unwrap().is_empty() && store.generations(NAME).unwrap().is_empty());
        for seed in 1..=3 {
            let written = write(&store, &numbers(seed)).unwrap();
            assert_eq!(written.address(), format!("{}/{NAME}/commits/{seed:020}.json", site.address));
            assert_eq!(read(&written).unwrap(), numbers(seed));
        }
        let other = site.store();
        assert_eq!(other.datasets().unwrap(), [NAME]);
        assert_eq!(other.generations(NAME).unwrap(), [1, 2, 3]);
        let newest = other.latest(NAME).unwrap().unwrap();
        assert_eq!(read(&newest).unwrap(), numbers(3));
        assert!(newest.verify().is_intact());
        assert_eq!(other.latest_readable(NAME).unwrap().unwrap().generation(), 3);
        assert!(matches!(other.open_generation(NAME, 4), Err(Error::NotFound { .. })));
        assert_eq!(other.keep_last(NAME, 1).unwrap(), [1, 2]);
        assert!(
            matches!(read(&store.open_generation(NAME, 3).unwrap()), Ok(records) if records == numbers(3))
        );
        let orphans = other.cleanup(&CleanupOptions::default().orphan_grace(Duration::ZERO)).unwrap();
        assert!(orphans.orphans.is_empty() && orphans.skipped.is_empty(), "{site:?}: {orphans:?}");
        if let Some(objects) = site.objects() {
            assert_eq!(objects, committed_files(&other), "{site:?}");
        }
    }
}

#[test]
fn an_attempt_that_is_dropped_leaves_nothing_on_any_backend() {
    for site in backends::each() {
        let store = site.store();
        let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
        write_part(&attempt, 0, &numbers(1)[0]).unwrap();
        let mut open = attempt.part(2).unwrap();
        open.write(&chunks(&numbers(1)[2])[0]).unwrap();
        drop(attempt);
        drop(open);
        assert!(site.objects().unwrap_or_default().is_empty(), "{site:?}: {:?}", site.objects());
        let orphans = store.cleanup(&CleanupOptions::default().orphan_grace(Duration::ZERO)).unwrap();
        assert!(orphans.orphans.is_empty(), "{site:?}: {orphans:?}");
    }
}
