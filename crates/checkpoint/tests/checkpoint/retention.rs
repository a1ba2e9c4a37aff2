//! Which checkpoints stay.

use std::sync::Arc;
use std::time::Duration;

use larder_checkpoint::{CheckpointStore, Error, HookAction, RetentionOptions, Step};
use parking_lot::Mutex;

use crate::backends;
use crate::support::*;

const HOUR: Duration = Duration::from_secs(3600);

fn options() -> RetentionOptions {
    RetentionOptions::default()
}

fn with_generations(store: &CheckpointStore, count: u64) {
    (1..=count).for_each(|seed| drop(write(store, &numbers(seed)).unwrap()));
}

#[test]
fn what_a_rule_or_a_pin_keeps_stays_and_the_rest_goes() {
    for site in backends::each() {
        let store = site.store();
        assert!(store.retain(NAME, &options()).unwrap().removed.is_empty());
        with_generations(&store, 5);
        store.pin(NAME, 1, "baseline").unwrap();
        store.pin(NAME, 4, "best").unwrap();
        store.pin(NAME, 2, "best").unwrap();
        assert_eq!(store.pins(NAME).unwrap(), [("baseline".to_owned(), 1), ("best".to_owned(), 2)].into());
        assert!(matches!(store.pin(NAME, 9, "none"), Err(Error::NotFound { .. })), "{site:?}");
        assert!(matches!(store.pin(NAME, 1, "a/b"), Err(Error::Name { .. })));

        let said = store.retain(NAME, &options().keep_last(2).dry_run(true)).unwrap();
        assert_eq!((said.removed, said.kept, said.dry_run), (vec![3], vec![1, 2, 4, 5], true));
        assert_eq!(store.generations(NAME).unwrap().len(), 5);
        let young = store.retain(NAME, &options().younger_than(HOUR)).unwrap();
        assert!(young.removed.is_empty(), "{young:?}");
        let just_superseded = store.retain(NAME, &options().reader_grace(HOUR)).unwrap();
        assert!(just_superseded.removed.is_empty(), "{just_superseded:?}");

        let done = site.store().retain(NAME, &options().keep_last(2)).unwrap();
        assert_eq!((done.removed, done.kept), (vec![3], vec![1, 2, 4, 5]), "{site:?}");
        store.unpin(NAME, "best").unwrap();
        store.unpin(NAME, "best").unwrap();
        let old_enough = options().younger_than(Duration::ZERO).reader_grace(Duration::from_nanos(1));
        assert_eq!(store.retain(NAME, &old_enough).unwrap().removed, [2, 4]);
        assert_eq!(store.generations(NAME).unwrap(), [1, 5]);
        assert_eq!(read(&store.open_generation(NAME, 1).unwrap()).unwrap(), numbers(1));
        assert_eq!(store.keep_last(NAME, 1).unwrap(), Vec::<u64>::new(), "a pin counts here too");
    }
}

#[test]
fn a_checkpoint_committed_or_pinned_while_retention_begins_stays() {
    for site in backends::each() {
        let store = site.store();
        with_generations(&store, 3);
        let late = Arc::new(Mutex::new(Some(site.store())));
        let hook = move |step, _: &str| {
            let first = (step == Step::ReadManifest).then(|| late.lock().take()).flatten();
            if let Some(other) = first {
                write(&other, &numbers(4)).unwrap();
                other.pin(NAME, 2, "late").unwrap();
            }
            HookAction::Continue
        };
        let retaining = site.builder().hook(hook).open().unwrap();
        let done = retaining.retain(NAME, &options()).unwrap();
        assert_eq!((done.removed, done.kept), (vec![1], vec![2, 3, 4]), "{site:?}");
        assert_eq!(read(&store.latest(NAME).unwrap().unwrap()).unwrap(), numbers(4));
    }
}

#[test]
fn a_pin_that_cannot_be_read_stops_retention() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    with_generations(&store, 3);
    store.pin(NAME, 1, "kept").unwrap();
    std::fs::write(dir.path().join(NAME).join("pins/kept"), b"torn").unwrap();
    let error = store.retain(NAME, &options()).unwrap_err().to_string();
    assert!(error.contains("pins/kept does not say which generation it pins"), "{error}");
    assert_eq!(store.generations(NAME).unwrap(), [1, 2, 3]);
}
