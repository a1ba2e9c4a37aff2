//! `verify`.

use std::fs;

use crate::support::{Store, flip_a_bit, larder, part_path};

#[test]
fn all_of_a_store_is_verified_unless_less_is_asked_for() {
    let store = Store::filled();
    let at = store.address();
    let lines = larder(&["verify", at]).done();
    assert_eq!(lines.lines().count(), 5);
    assert!(lines.contains("words generation 2: 3 parts, 7 records"), "{lines}");
    assert!(lines.lines().all(|line| line.ends_with(": intact")), "{lines}");
    for (args, checkpoints) in [
        (&["verify", at, "--newest"][..], 3),
        (&["verify", at, "words"], 3),
        (&["verify", at, "words", "--newest"], 1),
        (&["verify", at, "words", "--generation", "2"], 1),
        (&["verify", at, "--threads", "1"], 5),
    ] {
        assert_eq!(larder(args).done().lines().count(), checkpoints, "{args:?}");
    }
}

#[test]
fn every_kind_of_damage_is_found_and_named() {
    let store = Store::filled();
    let at = store.address();
    let checkpoints: Vec<_> = (1..=3).map(|n| store.open().open_generation("words", n).unwrap()).collect();
    flip_a_bit(&part_path(&checkpoints[0], 2));
    fs::remove_file(part_path(&checkpoints[1], 0)).unwrap();
    let cut = part_path(&checkpoints[1], 2);
    fs::write(&cut, &fs::read(&cut).unwrap()[1..]).unwrap();

    let ran = larder(&["verify", at]);
    assert!(ran.out.contains("words generation 1: 3 parts, 7 records"), "{ran:?}");
    assert_eq!(ran.out.matches("DAMAGED").count(), 2, "{ran:?}");
    assert_eq!(ran.out.matches("intact").count(), 3, "{ran:?}");
    for problem in ["part 2, ", "part 0, ", "it is missing", "where", "bytes"] {
        assert!(ran.out.contains(problem), "{problem} in {ran:?}");
    }
    assert!(ran.failed(1).contains("2 of 5 checkpoints"));

    let json = larder(&["verify", at, "words", "--generation", "2", "--json"]).json();
    assert_eq!(json[0]["is_intact"], false);
    let bad: Vec<_> =
        json[0]["bad_parts"].as_array().unwrap().iter().map(|bad| bad["partition"].clone()).collect();
    assert_eq!(bad, [0, 2]);
    assert_eq!(json[0]["bad_parts"][0]["is_damage"], true);
    larder(&["verify", at, "words", "--newest"]).done();
}

#[test]
fn a_damaged_manifest_is_found_and_the_others_are_still_verified() {
    let store = Store::filled();
    let damaged = store.open().open_generation("words", 2).unwrap();
    flip_a_bit(damaged.address().as_ref());
    let ran = larder(&["verify", store.address()]);
    assert!(ran.out.contains("words generation 2: DAMAGED"), "{ran:?}");
    assert_eq!(ran.out.matches("intact").count(), 4);
    ran.failed(1);
    larder(&["verify", &damaged.address()]).failed(1);
}

#[test]
fn a_part_that_cannot_be_read_is_not_called_damaged() {
    let store = Store::new();
    let part = part_path(&store.words(1), 0);
    fs::remove_file(&part).unwrap();
    // Nobody can open it, root neither.
    std::os::unix::fs::symlink(&part, &part).unwrap();
    let ran = larder(&["verify", store.address()]);
    assert!(ran.out.contains("CANNOT BE READ") && !ran.out.contains("DAMAGED"), "{ran:?}");
    ran.failed(3);
    flip_a_bit(&part_path(&store.words(2), 2));
    larder(&["verify", store.address()]).failed(1);
}
