//! Parts and manifests that changed behind the store's back.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use larder_blockstore::codec::Bincode;
use larder_checkpoint::{Checkpoint, CheckpointStore, Error, PartError};
use tempfile::TempDir;

use crate::support::*;

/// Two generations of the same shape; damage is done to the second.
fn two_generations() -> (TempDir, CheckpointStore, Checkpoint, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let (older, newest) = (write(&store, &numbers(1)).unwrap(), write(&store, &numbers(2)).unwrap());
    (dir, store, older, newest)
}

/// Reading one part fails with an error that names it, and gave nothing wrong before.
fn assert_fails(checkpoint: &Checkpoint, partition: usize, what: &str) -> PartError {
    let expected = &numbers(2)[partition];
    let path = part_path(checkpoint, partition);
    let mut good = Vec::new();
    let partition = u32::try_from(partition).unwrap();
    let opened = checkpoint.read_part(partition).and_then(|part| part.records::<u64>(Arc::new(Bincode)));
    let error = match opened {
        Err(error) => error,
        Ok(mut records) => loop {
            match records.next() {
                Some(Ok(record)) => good.push(record),
                Some(Err(error)) => {
                    assert!(records.next().is_none());
                    break error;
                }
                None => unreachable!("{what}: read {} of {} records", good.len(), expected.len()),
            }
        },
    };
    assert!(expected.starts_with(&good), "{what}");
    for look in [visited, viewed] {
        let part = checkpoint.read_part(partition);
        if let Ok(records) = part.and_then(|part| part.records(Arc::new(Bincode))) {
            let (seen, error) = look(records);
            assert!(expected.starts_with(&seen) && error.is_some(), "{what}");
        }
    }
    assert!(error.to_string().contains(path.to_str().unwrap()), "{what}: {error}");
    assert!(!error.is_retryable(), "{what}: {error}");
    match error {
        Error::Part { partition: named, source, .. } if named == partition => source,
        other => unreachable!("{what}: {other}"),
    }
}

/// Damages each part in turn, reads, and puts it right again.
fn for_each_part(damage: impl Fn(&Path, &Checkpoint, usize), check: impl Fn(PartError)) {
    let (_dir, store, older, newest) = two_generations();
    for partition in 0..3 {
        let path = part_path(&newest, partition);
        let original = fs::read(&path).unwrap();
        damage(&path, &older, partition);
        check(assert_fails(&newest, partition, &format!("part {partition}")));
        let report = newest.verify();
        assert_eq!(report.damaged.len(), 1);
        assert_eq!((report.damaged[0].0 as usize, report.parts), (partition, 2));
        let named = report.into_result().unwrap_err().to_string();
        assert!(named.contains(path.to_str().unwrap()), "{named}");
        // The manifest is sound, so nothing older is given in its place unless it is asked for.
        assert_eq!(store.latest(NAME).unwrap().unwrap().generation(), 2);
        fs::write(&path, original).unwrap();
        assert_eq!(read(&newest).unwrap(), numbers(2));
    }
}

#[test]
fn a_part_that_was_removed_is_named() {
    for_each_part(
        |path, _, _| fs::remove_file(path).unwrap(),
        |error| assert!(matches!(error, PartError::Missing), "{error}"),
    );
}

#[test]
fn a_part_that_was_cut_or_grew_is_named() {
    for new_len in [|_| 0, |len| len - 1, |len| len / 2, |len| len + 1] {
        for_each_part(
            |path, _, _| {
                let file = fs::File::options().write(true).open(path).unwrap();
                file.set_len(new_len(file.metadata().unwrap().len())).unwrap();
            },
            |error| assert!(matches!(error, PartError::Length { .. }), "{error}"),
        );
    }
}

#[test]
fn a_part_replaced_by_an_older_one_of_the_same_shape_is_named() {
    // The empty part holds the same bytes in both generations.
    let (_dir, _store, older, newest) = two_generations();
    for partition in [0, 2] {
        let (old, new) = (part_path(&older, partition), part_path(&newest, partition));
        assert_eq!(old.metadata().unwrap().len(), new.metadata().unwrap().len());
        fs::copy(old, new).unwrap();
        let error = assert_fails(&newest, partition, "replaced");
        assert!(matches!(error, PartError::Checksum { what: "its header", .. }), "{error}");
    }
}

#[test]
fn every_flipped_bit_of_a_part_is_found() {
    let (_dir, store, _, newest) = two_generations();
    for partition in 0..3 {
        let path = part_path(&newest, partition);
        let original = fs::read(&path).unwrap();
        for byte in 0..original.len() {
            let mut damaged = original.clone();
            damaged[byte] ^= 1 << (byte % 8);
            fs::write(&path, damaged).unwrap();
            assert_fails(&newest, partition, &format!("part {partition}, byte {byte}"));
        }
        assert_eq!(store.latest_readable(NAME).unwrap().unwrap().generation(), 1, "its header is damaged");
        fs::write(&path, original).unwrap();
        assert_eq!(store.latest_readable(NAME).unwrap().unwrap().generation(), 2);
    }
}

#[test]
fn a_part_that_is_cut_while_it_is_read_does_not_end_early() {
    let dir = tempfile::tempdir().unwrap();
    let records: Vec<u64> = (0..600_000).collect();
    let attempt = store_in(&dir).begin(NAME, spec(&[vec![]])).unwrap();
    let mut part = attempt.part(0).unwrap();
    for chunk in records.chunks(10_000) {
        let mut encoder = larder_blockstore::format::ChunkEncoder::<u64>::new(
            Arc::new(Bincode),
            larder_blockstore::format::Compression::None,
            1 << 20,
        );
        chunk.iter().for_each(|record| assert!(encoder.push(record).unwrap().is_none()));
        part.write(&encoder.finish().unwrap()).unwrap();
    }
    part.finish().unwrap();
    let checkpoint = attempt.commit().unwrap();

    let mut read = checkpoint.read_part(0).unwrap().records::<u64>(Arc::new(Bincode)).unwrap();
    assert_eq!(read.next().unwrap().unwrap(), 0);
    fs::File::options().write(true).open(part_path(&checkpoint, 0)).unwrap().set_len(3 << 20).unwrap();
    let outcome: Result<Vec<u64>, Error> = read.collect();
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Part { source: PartError::Shrunk { .. }, .. }), "{error}");
}

#[test]
fn a_damaged_manifest_is_named_and_nothing_older_takes_its_place() {
    let (_dir, store, older, newest) = two_generations();
    let path = newest.address();
    let original = fs::read(&path).unwrap();
    let mut flipped = original.clone();
    flipped[original.len() / 2] ^= 4;
    let of_another_generation = fs::read(older.address()).unwrap();
    for damaged in [&original[..original.len() - 1], &original[..40], &[], &flipped, &of_another_generation] {
        fs::write(&path, damaged).unwrap();
        for error in [
            store.latest(NAME).unwrap_err(),
            store.open_generation(NAME, 2).unwrap_err(),
            Checkpoint::open(&path).unwrap_err(),
            store.keep_last(NAME, 1).unwrap_err(),
        ] {
            assert!(matches!(error, Error::Manifest { .. }), "{error}");
            assert!(error.to_string().contains(&path), "{error}");
        }
        let readable = store.latest_readable(NAME).unwrap().unwrap();
        assert_eq!(read(&readable).unwrap(), numbers(1));
    }
    store.remove_generation(NAME, 2).unwrap();
    assert_eq!(store.latest(NAME).unwrap().unwrap().generation(), 1);
}

#[test]
fn a_checkpoint_that_was_moved_whole_is_still_one() {
    let (dir, _, _, newest) = two_generations();
    let other = tempfile::tempdir().unwrap();
    fs::rename(dir.path().join(NAME), other.path().join(NAME)).unwrap();
    assert_eq!(read(&store_in(&other).latest(NAME).unwrap().unwrap()).unwrap(), numbers(2));
    assert!(matches!(Checkpoint::open(&newest.address()), Err(Error::NotFound { .. })));
    fs::rename(other.path().join(NAME), other.path().join("renamed")).unwrap();
    let error = store_in(&other).latest("renamed").unwrap_err().to_string();
    assert!(error.contains("its dataset is numbers, where renamed belongs"), "{error}");
}
