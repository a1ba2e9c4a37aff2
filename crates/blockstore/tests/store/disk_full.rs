//! No room on disk: behaviour 19.

use std::process::Command;

use larder_blockstore::codec::{ChunkBuffer, ChunkReader, Codec, CodecError, CodecId};
use larder_blockstore::{
    BlockStore, BlockStoreBuilder, Computed, Error, Event, MemoryMode, RegionError, StorageLevel,
    StoredDataset,
};

use crate::support::{SPILLING_LEVELS, World, assert_empty, put, read, record, stored};

/// Tells the test's own child process in which directory it has too little room.
const CHILD: &str = "LARDER_TEST_SHORT_OF_DISK";

fn limited(limit_bytes: u64) -> impl FnOnce(BlockStoreBuilder) -> BlockStoreBuilder {
    move |builder| builder.disk_limit(limit_bytes)
}

/// Fills the disk of a store, then checks that what was stored is there and that the store goes on.
fn fill_and_check(store: &BlockStore, is_expected: impl Fn(&RegionError) -> bool) {
    let dataset = store.dataset::<Vec<u8>>("d").level(StorageLevel::DISK_ONLY).build().unwrap();
    let (full, error) = (0..)
        .find_map(|partition| {
            put(&dataset, partition, block(partition)).err().map(|error| (partition, error))
        })
        .unwrap();
    let Error::Disk { block: failed, source, .. } = &error else { panic!("{error}") };
    assert_eq!(failed.partition, full);
    assert!(is_expected(source), "{source}");
    assert!(full > 3, "there was room for {full} blocks");
    check(&dataset, full);
    assert!(put(&dataset, full, block(full)).is_err(), "still full");
    check(&dataset, full);

    assert!(dataset.remove(0));
    assert_eq!(read(&put(&dataset, full, block(full)).unwrap()), block(full), "there is room again");
    assert_eq!(dataset.status().counters.disk_errors, 2);
}

fn block(partition: u32) -> [Vec<u8>; 1] {
    [record(partition.into(), 100_000)]
}

fn check(dataset: &StoredDataset<Vec<u8>>, blocks: u32) {
    assert_eq!(dataset.status().blocks, u64::from(blocks));
    for partition in 0..blocks {
        assert_eq!(
            read(&dataset.get(partition).unwrap().unwrap()),
            block(partition),
            "partition {partition}"
        );
    }
}

#[test]
fn at_the_limit_a_put_fails_by_name_and_what_was_stored_stays() {
    let world = World::with(0, limited(1_000_000));
    fill_and_check(&world.store, |source| {
        let text = source.to_string();
        matches!(source, RegionError::DiskLimit { limit_bytes: 1_000_000, .. })
            && text.contains("100008 bytes")
    });
}

#[test]
fn a_spill_that_finds_no_room_leaves_its_block_in_memory_and_refuses_the_newcomer() {
    for level in SPILLING_LEVELS {
        let world = World::with(12_000, limited(1_000));
        let (a, b) = (world.dataset("a", level), world.dataset("b", StorageLevel::MEMORY_ONLY));
        let other = if level.uses_off_heap() { crate::support::off_heap_only() } else { b.level() };
        let b = world.dataset("b", other);
        assert!(stored(&a, 0, [record(1, 4_100)]) && stored(&a, 1, [record(2, 4_100)]), "{level}");
        assert!(!stored(&b, 0, [record(3, 4_100)]), "{level}");
        assert_eq!(a.status().blocks_in_memory, 2, "{level}");
        let tries = a.status().counters.disk_errors;
        assert!((2..=4).contains(&tries), "two requests try each of two blocks once: {tries} at {level}");
        let error = a.evict(0).unwrap_err();
        assert!(matches!(error, Error::Disk { .. }) && error.to_string().contains("`a`"), "{error}");
        assert_eq!(read(&a.get(0).unwrap().unwrap()), [record(1, 4_100)], "{level}");
        assert_eq!(read(&a.get(1).unwrap().unwrap()), [record(2, 4_100)], "{level}");
        assert_eq!(world.disk_bytes(), 0, "{level}");
        a.remove(0);
        assert!(stored(&b, 0, [record(3, 4_100)]), "the store goes on: {level}");
    }
}

#[test]
fn a_full_disk_makes_no_request_try_every_block() {
    let world = World::with(100_000, limited(1_000));
    let (a, b) =
        (world.dataset("a", StorageLevel::MEMORY_AND_DISK), world.dataset("b", StorageLevel::MEMORY_ONLY));
    for partition in 0..60 {
        assert!(stored(&a, partition, [record(partition.into(), 1_500)]));
    }
    assert!(!stored(&b, 0, [record(3, 10_000)]));
    let tries = a.status().counters.disk_errors;
    assert!((1..=20).contains(&tries), "{tries} spills were tried");
    assert_eq!(a.status().blocks_in_memory, 60);
}

#[test]
fn blocks_that_cannot_be_written_do_not_keep_others_from_leaving() {
    let world = World::with(100_000, limited(64));
    let (cold, b) =
        (world.dataset("cold", StorageLevel::MEMORY_AND_DISK), world.dataset("b", StorageLevel::MEMORY_ONLY));
    for partition in 0..6 {
        assert!(stored(&cold, partition, [record(partition.into(), 1_000)]));
    }
    for partition in 0..75 {
        assert!(stored(&b, partition, [record(partition.into(), 1_000)]));
    }
    let c = world.dataset("c", StorageLevel::MEMORY_ONLY);
    assert!(stored(&c, 0, [record(3, 20_000)]), "b's blocks need no disk to leave");
    assert_eq!(cold.status().blocks_in_memory, 6);
    let failed = cold.status().counters.spills_failed;
    assert_eq!(failed, 6, "each was tried once");
    let task = world.store.memory().task();
    assert!(task.reserve(MemoryMode::Heap, 20_000).is_ok());
    assert_eq!(
        cold.status().counters.spills_failed,
        failed,
        "those that could not leave are not tried first"
    );
}

#[test]
fn values_that_cannot_be_encoded_stay_in_memory_and_are_counted() {
    let world = World::new(12_000);
    let broken = world.store.dataset_with("broken", Unencodable, |_: &u64| 0);
    let broken = broken.level(StorageLevel::MEMORY_AND_DISK).build().unwrap();
    drop(broken.get_or_compute(0, |out| (0..1_000).try_for_each(|n| out.push(n))).unwrap());
    assert!(!stored(&world.dataset("b", StorageLevel::MEMORY_ONLY), 0, [record(1, 11_000)]));
    assert_eq!(broken.status().counters.spills_failed, 1);
    assert_eq!(broken.get(0).unwrap().unwrap().len(), 1_000);
}

struct Unencodable;

impl Codec<u64> for Unencodable {
    fn id(&self) -> CodecId {
        CodecId { id: 300, version: 1 }
    }

    fn encode(&self, _record: &u64, _out: &mut ChunkBuffer) -> Result<(), CodecError> {
        Err(CodecError::Encode { codec: self.id(), source: "on purpose".into() })
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<u64, CodecError> {
        Err(CodecError::Truncated { offset: input.offset(), missing: 8 })
    }
}

#[test]
fn a_block_that_fits_neither_memory_nor_disk_is_an_error_and_leaves_nothing() {
    for level in SPILLING_LEVELS {
        let world = World::with(12_000, limited(20_000));
        let dataset = world.dataset("d", level);
        let error = put(&dataset, 0, (0..1_000).map(|i| record(i, 1_000))).unwrap_err();
        assert!(matches!(error, Error::Disk { source: RegionError::DiskLimit { .. }, .. }), "{error}");
        assert_eq!((world.charged(), world.disk_bytes()), (0, 0), "{level}");
        let iterated = dataset
            .get_or_compute_iter(0, || Ok::<_, Error>((0..1_000).map(|i| Ok::<_, Error>(record(i, 1_000)))));
        assert!(matches!(iterated.unwrap_err(), Error::Disk { .. }), "{level}");
        assert!(!dataset.contains(0), "{level}");
        assert!(stored(&dataset, 0, [record(0, 1_000)]), "{level}");
        let again = dataset.get_or_compute_iter(0, || Ok::<_, Error>(std::iter::empty())).unwrap();
        assert!(matches!(again, Computed::Stored(_)));
    }
}

#[test]
fn a_writer_whose_spill_fails_keeps_what_it_had() {
    for level in SPILLING_LEVELS {
        let world = World::with(12_000, limited(5_000));
        let dataset = world.dataset("d", level);
        let mut writer = crate::support::vacant(&dataset, 0);
        let mut kept = Vec::new();
        let error = (0..100).find_map(|i| match writer.push(record(i, 1_000)) {
            Ok(_) => {
                kept.push(record(i, 1_000));
                None
            }
            Err(error) => Some(error),
        });
        assert!(matches!(error, Some(Error::Disk { .. })), "{level}");
        let unrolled: Vec<_> = writer.into_unrolled().map(Result::unwrap).collect();
        assert_eq!(unrolled, kept, "{level}");
    }
}

#[test]
fn a_failed_write_is_told_with_its_directory_or_limit() {
    let world = World::with(0, limited(1_000));
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let telling = std::sync::Arc::clone(&told);
    let subscription = world.store.subscribe(move |event| telling.lock().unwrap().push(event.clone()));
    let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
    assert!(put(&dataset, 0, [record(0, 5_000)]).is_err());
    drop(subscription);
    let told = told.lock().unwrap();
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::DiskError { problem, .. } if problem.contains("1000")))
    );
}

/// Runs this test binary's `test` in a shell that prepares its world, and tells what it wrote.
fn run_child(test: &str, directory: &std::path::Path, prepare: &str) -> (bool, String) {
    let script = format!("{prepare} && exec \"$0\" \"$@\"");
    let exe = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", &script, exe.to_str().unwrap(), test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, directory)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_file_system_that_is_full_is_an_error_that_names_the_directory_and_the_bytes() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let path = std::path::PathBuf::from(&directory);
        let store = BlockStore::builder().memory(0).disk(&path).build().unwrap();
        fill_and_check(&store, |source| {
            let named = matches!(source, RegionError::DiskFull { directory, .. } if *directory == path);
            named && source.to_string().contains("100008 bytes")
        });
        assert_empty(&store);
        println!("child is done");
        return;
    }
    let mount = tempfile::tempdir().unwrap();
    // A file system of one's own needs privileges, or user namespaces, which some machines forbid. What the store
    // makes of ENOSPC is proved without them too, by the unit tests of the disk store.
    let prepare = "mount -t tmpfs -o size=1m larder-test \"$LARDER_TEST_SHORT_OF_DISK\"";
    let namespace = Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).status();
    if !namespace.is_ok_and(|status| status.success()) {
        println!("not run: this machine grants no mount namespace");
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let test = "disk_full::a_file_system_that_is_full_is_an_error_that_names_the_directory_and_the_bytes";
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &format!("{prepare} && exec \"$0\" \"$@\""),
        ])
        .args([exe.to_str().unwrap(), test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, mount.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("child is done"), "{said}");
}

#[test]
fn a_file_size_limit_of_the_process_is_an_error_and_no_signal() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let store = BlockStore::builder().memory(12_000).disk(&directory).build().unwrap();
        let dataset = store.dataset::<Vec<u8>>("d").level(StorageLevel::MEMORY_AND_DISK).build().unwrap();
        assert!(stored(&dataset, 0, [record(0, 4_100)]));
        let error = put(&dataset, 1, [record(1, 20_000)]).unwrap_err();
        let Error::Disk { source, .. } = &error else { panic!("{error}") };
        assert!(matches!(source, RegionError::Write { .. }), "{source:?}");
        let named = source.to_string().contains(directory.to_str().unwrap());
        assert!(named && source.to_string().contains("20008 bytes"), "{source}");
        assert!(dataset.evict(0).is_err());
        assert_eq!(read(&dataset.get(0).unwrap().unwrap()), [record(0, 4_100)]);
        drop(dataset);
        assert_empty(&store);
        println!("child is done");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (done, said) = run_child(
        "disk_full::a_file_size_limit_of_the_process_is_an_error_and_no_signal",
        home.path(),
        "trap '' XFSZ && ulimit -f 100",
    );
    assert!(done && said.contains("child is done"), "{said}");
}
