//! Copies of checkpoints, part by part.

use std::fs;

use larder_blockstore::codec::CodecId;
use larder_blockstore::format::Compression;
use larder_checkpoint::{Error, Partitioner, Spec};

use crate::support::{NAME, numbers, part_path, read, spec, store_in, write, write_part};

#[test]
fn a_copy_is_the_same_byte_for_byte_and_says_the_same_of_itself() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let partitioner = Partitioner { kind: "hash".to_owned(), partitions: 3 };
    let spec = spec(&numbers(1)).compression(Compression::Lz4).partitioner(partitioner);
    let attempt = store_in(&here).begin(NAME, spec.clone()).unwrap();
    for (partition, records) in (0..).zip(&numbers(1)) {
        write_part(&attempt, partition, records).unwrap();
    }
    let original = attempt.commit().unwrap();
    assert_eq!(original.spec(), spec);

    let attempt = store_in(&there).begin("other", original.spec()).unwrap();
    for (partition, part) in (0..).zip(&original.manifest().parts) {
        assert_eq!(attempt.copy_part(&original, partition).unwrap(), part.bytes);
        attempt.verify_part(partition).unwrap();
    }
    let copy = attempt.commit().unwrap();
    assert_eq!(read(&copy).unwrap(), numbers(1));
    assert_eq!(copy.spec(), spec);
    for part in 0..3 {
        let bytes = |checkpoint| fs::read(part_path(checkpoint, part)).unwrap();
        assert_eq!(bytes(&copy), bytes(&original));
    }
}

#[test]
fn a_part_whose_copy_failed_is_copied_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let original = write(&store, &numbers(1)).unwrap();
    let attempt = store.begin("copy", original.spec()).unwrap();
    let path = part_path(&original, 2);
    let sound = fs::read(&path).unwrap();
    let mut damaged = sound.clone();
    damaged[3] ^= 1;
    fs::write(&path, damaged).unwrap();
    assert!(matches!(attempt.copy_part(&original, 2), Err(Error::Part { partition: 2, .. })));
    fs::write(&path, sound).unwrap();
    for partition in [2, 0, 1] {
        attempt.copy_part(&original, partition).unwrap();
    }
    assert!(matches!(attempt.copy_part(&original, 1), Err(Error::Invalid { .. })), "it is written");
    assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
}

#[test]
fn an_attempt_for_something_else_takes_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let original = write(&store, &numbers(1)).unwrap();
    for spec in [
        Spec::new(3, CodecId::BINCODE),
        original.spec().compression(Compression::Lz4),
        Spec::new(4, CodecId::POD),
    ] {
        let attempt = store.begin("copy", spec).unwrap();
        assert!(matches!(attempt.copy_part(&original, 0), Err(Error::Invalid { .. })));
    }
    let attempt = store.begin("copy", original.spec()).unwrap();
    assert!(matches!(attempt.copy_part(&original, 3), Err(Error::Invalid { .. })), "no such part");
}
