//! `cp`.

use std::fs;

use larder_checkpoint::Checkpoint;
use serde_json::Value;

use crate::support::{Store, flip_a_bit, larder, part_path};

/// All that a copy has in common with what it is a copy of.
fn essence(checkpoint: &Checkpoint) -> Value {
    let mut manifest = serde_json::to_value(checkpoint.manifest()).unwrap();
    for own in ["dataset", "generation", "parent", "attempt", "created_unix_ms"] {
        manifest.as_object_mut().unwrap().remove(own).unwrap();
    }
    for part in manifest["parts"].as_array_mut().unwrap() {
        part.as_object_mut().unwrap().remove("path").unwrap();
    }
    manifest
}

fn part_bytes(checkpoint: &Checkpoint) -> Vec<Vec<u8>> {
    (0..checkpoint.manifest().parts.len())
        .map(|part| fs::read(part_path(checkpoint, part)).unwrap())
        .collect()
}

#[test]
fn a_copy_has_the_same_bytes_and_is_the_next_generation_there() {
    let (from, to) = (Store::filled(), Store::new());
    let second = from.open().open_generation("words", 2).unwrap();
    let newest = from.open().open_generation("words", 3).unwrap();
    let printed = larder(&["cp", from.address(), to.address(), "words", "--generation", "2"]).done();
    assert!(printed.starts_with("copied 3 parts, 7 records"), "{printed}");
    let ran = larder(&["cp", &newest.address(), to.address(), "--threads", "1", "--json"]);
    let json = ran.json();
    assert_eq!((&json["generation"], &json["from"]), (&2.into(), &newest.address().into()));

    for (original, generation) in [(&second, 1), (&newest, 2)] {
        let copy = to.open().open_generation("words", generation).unwrap();
        assert_eq!(essence(&copy), essence(original));
        assert_eq!(part_bytes(&copy), part_bytes(original));
        assert_ne!(copy.manifest().attempt, original.manifest().attempt);
    }
    assert_ne!(part_bytes(&second), part_bytes(&newest));
    larder(&["verify", to.address()]).done();
}

#[test]
fn a_copy_may_have_another_name_in_the_same_store() {
    let store = Store::filled();
    larder(&["cp", store.address(), store.address(), "numbers", "--as", "kept"]).done();
    let open = |name| store.open().latest(name).unwrap().unwrap();
    assert_eq!(essence(&open("numbers")), essence(&open("kept")));
    larder(&["cp", store.address(), store.address(), "numbers", "--as", "no/name"]).failed(2);
}

#[test]
fn what_is_damaged_is_not_copied_and_nothing_is_left_behind() {
    let (from, to) = (Store::new(), Store::new());
    flip_a_bit(&part_path(&from.words(1), 2));
    let error = larder(&["cp", from.address(), to.address(), "words"]).failed(1);
    assert!(error.contains("part 2"), "{error}");
    assert!(larder(&["ls", to.address()]).done().contains("no checkpoints"));
    let orphans = larder(&["cleanup", to.address(), "--grace", "0s", "--dry-run", "--json"]).json();
    assert_eq!(orphans, Value::Array(Vec::new()));
}
