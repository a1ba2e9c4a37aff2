//! `cat`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{NASTY, Store, command, flip_a_bit, larder, part_path};

#[test]
fn text_is_printed_a_line_a_record_and_steers_no_terminal() {
    let store = Store::new();
    store.words(1);
    let at = store.address();
    let nasty = r"red \u{1b}[31m and \u{9b}2J\nnext";
    let words = ["word 1", "word 2", "word 3", "word 4", "word 1", "word 2", nasty];
    assert_eq!(larder(&["cat", at, "words"]).done().lines().collect::<Vec<_>>(), words);
    assert_eq!(larder(&["cat", at, "words", "--part", "2"]).done().lines().collect::<Vec<_>>(), words[4..]);
    assert_eq!(larder(&["cat", at, "words", "--part", "1"]).done(), "");
    for (limit, lines) in [("0", 0), ("3", 3), ("5", 5), ("99", 7)] {
        let printed = larder(&["cat", at, "words", "--limit", limit]).done();
        assert_eq!(printed.lines().collect::<Vec<_>>(), words[..lines]);
    }
    let printed = larder(&["cat", at, "words", "--json"]).done();
    let rows: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows[1], json!({"partition": 0, "record": 1, "text": "word 2"}));
    assert_eq!(rows[6], json!({"partition": 2, "record": 2, "text": NASTY}), "the text itself");
}

#[test]
fn records_of_a_known_length_are_shown_in_hexadecimal() {
    let store = Store::filled();
    let at = store.address();
    let printed = larder(&["cat", at, "numbers", "--limit", "3"]).done();
    let lines = [
        "partition 0 record 0, 4 bytes: 01 02 03 04",
        "partition 0 record 1, 4 bytes: 07 00 00 00",
        "partition 1 record 0, 4 bytes: 00 00 00 00",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), lines);
    let last = larder(&["cat", at, "numbers", "--part", "1", "--json"]).done();
    let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    let expected = json!({"partition": 1, "record": 999, "records": 1, "bytes": 4, "hex": "e7 03 00 00"});
    assert_eq!(last, expected);
}

#[test]
fn of_other_records_each_chunk_is_summed_up() {
    let store = Store::filled();
    let printed = larder(&["cat", store.address(), "pairs"]).done();
    let begin = "01 00 00 00 00 00 00 00 01 02 00 00 00 00 00 00 00 00 03 00 00 00 00 00 00 00 01";
    assert_eq!(printed, format!("partition 0 records 0 to 2, 27 bytes: {begin}\n"));
}

#[test]
fn damage_ends_it_with_an_error_after_what_is_sound() {
    let store = Store::new();
    flip_a_bit(&part_path(&store.words(1), 2));
    let ran = larder(&["cat", store.address(), "words"]);
    assert_eq!(ran.out.lines().count(), 4, "{ran:?}");
    assert!(ran.failed(1).contains("part 2"));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let store = Store::new();
    store.numbers(200_000);
    let args = ["cat", store.address(), "numbers"];
    let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    // Dropped with the pipe that it reads.
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "partition 0 record 0, 4 bytes: 01 02 03 04\n");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}

#[test]
fn damage_is_told_to_scripts_though_nobody_reads() {
    let store = Store::new();
    flip_a_bit(&part_path(&store.words(1), 2));
    let mut child =
        command(&["verify", store.address()]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}
