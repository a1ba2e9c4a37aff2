//! `rm` and `cleanup`.

use std::fs;

use crate::support::{Store, flip_a_bit, larder, larder_told};

#[test]
fn rm_asks_and_takes_only_yes_for_yes() {
    let store = Store::filled();
    let at = store.address();
    let args = ["rm", at, "words", "--generation", "2"];
    for answer in ["", "n\n", "nay\n", "\n"] {
        let ran = larder_told(&args, answer);
        assert!(ran.err.contains("words generation 2: 7 records") && ran.err.contains("[y/N]"), "{ran:?}");
        assert_eq!((ran.code, &*ran.out), (5, ""), "{ran:?}");
    }
    assert_eq!(store.open().generations("words").unwrap(), [1, 2, 3]);
    let ran = larder_told(&args, "y\n");
    assert_eq!((ran.code, &*ran.out), (0, "removed words generation 2\n"));
    assert_eq!(store.open().generations("words").unwrap(), [1, 3]);
    larder_told(&args, "y\n").failed(4);
}

#[test]
fn rm_keeps_the_newest() {
    let store = Store::filled();
    let at = store.address();
    let keep = |n| larder(&["rm", at, "words", "--keep-last", n, "--yes"]).done();
    assert_eq!(keep("3"), "nothing to remove\n");
    assert_eq!(keep("1"), "removed words generation 1\nremoved words generation 2\n");
    assert_eq!(store.open().generations("words").unwrap(), [3]);
    larder(&["rm", at, "other", "--keep-last", "1", "--yes"]).failed(4);
    larder(&["verify", at, "words"]).done();
}

#[test]
fn rm_keeps_the_older_ones_where_the_newest_is_damaged_and_removes_a_damaged_one() {
    let store = Store::filled();
    let at = store.address();
    let newest = store.open().latest("words").unwrap().unwrap();
    flip_a_bit(newest.address().as_ref());
    larder(&["rm", at, "words", "--keep-last", "1", "--yes"]).failed(1);
    assert_eq!(store.open().generations("words").unwrap(), [1, 2, 3]);
    larder(&["rm", at, "words", "--generation", "3", "--yes"]).done();
    assert_eq!(store.open().generations("words").unwrap(), [1, 2]);
}

#[test]
fn cleanup_removes_what_is_old_enough_and_was_never_committed() {
    let store = Store::filled();
    let at = store.address();
    let committed = store.open().latest("words").unwrap().unwrap();
    let orphan = store.dir.path().join("words/data/01890000-0000-7000-8000-000000000000");
    fs::create_dir(&orphan).unwrap();
    fs::write(orphan.join("part-00000-of-00001.blk"), "left behind").unwrap();

    assert_eq!(larder(&["cleanup", at, "--grace", "30000d"]).done(), "nothing to remove\n");
    let printed = larder(&["cleanup", at, "--dry-run"]).done();
    assert!(
        printed.contains("01890000-0000-7000-8000-000000000000") && printed.contains("2023-"),
        "{printed}"
    );
    assert!(printed.ends_with("1 to remove, 11 B; this was a dry run\n"), "{printed}");
    let listed = larder(&["cleanup", at, "--dry-run", "--json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!((&listed[0]["bytes"], &listed[0]["removed"]), (&11.into(), &false.into()));
    assert!(orphan.exists());

    assert!(larder(&["cleanup", at]).done().ends_with("1 removed, 11 B\n"));
    assert!(!orphan.exists());
    assert!(committed.verify().is_intact());
}

#[test]
fn cleanup_spares_a_dataset_it_cannot_judge_and_says_so() {
    let store = Store::filled();
    flip_a_bit(store.open().latest("words").unwrap().unwrap().address().as_ref());
    let error = larder(&["cleanup", store.address(), "--grace", "0s"]).failed(1);
    assert!(error.contains("words"), "{error}");
}
