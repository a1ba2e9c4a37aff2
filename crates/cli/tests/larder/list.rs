//! `ls` and `show`, and what is common to all commands.

use std::fs;

use serde_json::json;

use crate::support::{Store, flip_a_bit, larder};

#[test]
fn ls_lists_datasets_with_their_newest_checkpoint() {
    let store = Store::filled();
    let table = larder(&["ls", store.address()]).done();
    let row = table.lines().find(|line| line.contains("words")).unwrap();
    let cells: Vec<_> = row.split(['│', '┆']).map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells[..4], ["words", "3", "3", "7"], "name, newest, checkpoints, records");

    let rows = larder(&["ls", store.address(), "--json"]).json();
    let names: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["dataset"].clone()).collect();
    assert_eq!(names, ["numbers", "pairs", "words"]);
    let newest = store.open().latest("words").unwrap().unwrap();
    assert_eq!(rows[2]["generation"], 3);
    assert_eq!(rows[2]["checkpoints"], 3);
    assert_eq!(rows[2]["bytes"], newest.bytes());
    assert_eq!(rows[2]["address"], newest.address());
    assert_eq!(rows[2]["created_unix_ms"], newest.manifest().created_unix_ms);
}

#[test]
fn ls_of_a_dataset_lists_its_checkpoints() {
    let store = Store::filled();
    let rows = larder(&["ls", store.address(), "words", "--json"]).json();
    let generations: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["generation"].clone()).collect();
    assert_eq!(generations, [1, 2, 3]);
    let table = larder(&["ls", store.address(), "words"]).done();
    assert_eq!(table.matches("0 B").count(), 0);
    assert!(
        rows.as_array().unwrap().iter().all(|row| table.contains(row["attempt"].as_str().unwrap())),
        "{table}"
    );
}

#[test]
fn ls_shows_a_damaged_manifest_among_the_sound_ones_and_tells() {
    let store = Store::filled();
    flip_a_bit(store.open().latest("words").unwrap().unwrap().address().as_ref());
    let ran = larder(&["ls", store.address()]);
    assert!(ran.out.contains("damaged") && ran.out.contains("numbers"), "{ran:?}");
    assert!(ran.failed(1).contains("1 of 3 cannot be read"));
    let rows = larder(&["ls", store.address(), "words", "--json"]).json();
    assert_eq!(rows[1]["records"], 7);
    assert!(rows[2]["error"].as_str().unwrap().contains("damaged"), "{rows}");
}

#[test]
fn an_empty_store_is_no_failure_to_list_and_one_to_look_into() {
    let store = Store::new();
    assert!(larder(&["ls", store.address()]).done().contains("no checkpoints in"));
    assert_eq!(larder(&["ls", store.address(), "--json"]).json(), json!([]));
    for args in [&["ls"][..], &["show"], &["verify"], &["cat"]] {
        let error = larder(&[args, &[store.address(), "words"]].concat()).failed(4);
        assert!(error.contains("there is no checkpoint of words in"), "{error}");
    }
    assert!(larder(&["verify", store.address()]).failed(4).contains("there is no checkpoint in"));
}

#[test]
fn show_prints_the_manifest_of_the_newest_or_of_one_asked_for() {
    let store = Store::filled();
    let newest = store.open().latest("words").unwrap().unwrap();
    let address = newest.address();
    let shown = larder(&["show", store.address(), "words"]).done();
    for fact in [
        &*address,
        "alloc::string::String",
        "bincode version 1",
        "hash into 3 partitions",
        "parent       2",
        &newest.manifest().attempt.to_string(),
        &newest.manifest().parts[2].path,
        &format!("{:016x}", newest.manifest().parts[2].checksum),
    ] {
        assert!(shown.contains(fact), "{fact} in {shown}");
    }
    assert_eq!(larder(&["show", &address]).done(), shown, "by its own address");

    let manifest = larder(&["show", store.address(), "words", "--generation", "2", "--json"]).json();
    assert_eq!(manifest["generation"], 2);
    assert_eq!(manifest["parts"].as_array().unwrap().len(), 3);
    assert_eq!(manifest["partitioner"], json!({"kind": "hash", "partitions": 3}));
    // Names come from whoever wrote the checkpoint.
    assert!(larder(&["show", store.address(), "numbers"]).done().contains(r"u32 \u{1b}[31m"));
}

#[test]
fn arguments_that_make_no_sense_are_told_from_what_is_not_there() {
    let store = Store::filled();
    let at = store.address();
    let of_checkpoint = store.open().latest("words").unwrap().unwrap().address();
    for args in [
        &["ls"][..],
        &["ls", "gopher://host/x"],
        &["show", at],
        &["show", at, "no/name"],
        &["show", &of_checkpoint, "words"],
        &["cp", at, at],
        &["rm", at, "words"],
        &["rm", at, "words", "--generation", "1", "--keep-last", "1"],
        &["rm", at, "words", "--keep-last", "0"],
        &["cleanup", at, "--grace", "soon"],
        &["verify", at, "--threads", "0"],
    ] {
        let ran = larder(args);
        assert_eq!((ran.code, &*ran.out), (2, ""), "{args:?}: {ran:?}");
    }
    assert!(larder(&["show", at, "words", "--generation", "9"]).failed(4).contains("there is no checkpoint"));
    assert!(larder(&["cat", at, "words", "--part", "3"]).failed(4).contains("has 3 parts"));
}

#[test]
fn what_cannot_be_read_is_told_from_what_is_damaged() {
    let store = Store::filled();
    let words = store.dir.path().join("words/commits");
    fs::remove_dir_all(&words).unwrap();
    fs::write(&words, "a file").unwrap();
    for args in [&["ls"][..], &["verify"]] {
        larder(&[args, &[store.address()]].concat()).failed(3);
    }
    let missing = store.dir.path().join("not/there");
    assert!(larder(&["ls", missing.to_str().unwrap()]).done().contains("no checkpoints"));
}
