//! What was committed reads back.

use std::sync::Arc;

use larder_blockstore::codec::{Bincode, CodecId, Pod};
use larder_blockstore::format::{CHUNK_BYTES_MAX, Compression};
use larder_checkpoint::{Checkpoint, CheckpointStore, Error, Partitioner, Spec, Step};

use crate::children;
use crate::support::*;

#[test]
fn partitions_come_back_in_order_with_all_that_was_said_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let partitioner = Partitioner { kind: "hash".to_owned(), partitions: 3 };
    let attempt = store.begin(NAME, spec(&numbers(1)).partitioner(partitioner.clone())).unwrap();
    assert_eq!((attempt.generation(), attempt.parent()), (1, None));
    write_parts(&attempt, &numbers(1)).unwrap();
    let committed = attempt.commit().unwrap();

    let opened = store.latest(NAME).unwrap().unwrap();
    assert_eq!(opened.manifest(), committed.manifest());
    assert_eq!(read(&opened).unwrap(), numbers(1));
    assert_eq!((opened.generation(), opened.partitions(), opened.records()), (1, 3, 28));
    let on_disk: u64 = (0..3).map(|i| part_path(&opened, i).metadata().unwrap().len()).sum();
    assert_eq!(opened.bytes(), on_disk);
    let manifest = opened.manifest();
    assert_eq!((manifest.parent, manifest.attempt), (None, attempt.id()));
    assert_eq!((&*manifest.record_type, manifest.codec), ("u64", CodecId::BINCODE));
    assert_eq!(manifest.partitioner, Some(partitioner));
    let report = opened.verify();
    assert!(report.is_intact());
    assert_eq!((report.parts, report.records, report.bytes), (3, 28, on_disk));

    let next = write(&store, &numbers(2)).unwrap();
    assert_eq!((next.generation(), next.manifest().parent), (2, Some(1)));
    assert_eq!(store.generations(NAME).unwrap(), [1, 2]);
    assert_eq!(store.datasets().unwrap(), [NAME]);
    assert_eq!(read(&store.open_generation(NAME, 1).unwrap()).unwrap(), numbers(1));
}

#[test]
fn zero_partitions_and_only_empty_ones_are_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    for partitions in [vec![], vec![vec![], vec![]]] {
        write(&store, &partitions).unwrap();
        let opened = store_in(&dir).latest(NAME).unwrap().unwrap();
        assert_eq!(read(&opened).unwrap(), partitions);
        assert_eq!(opened.records(), 0);
        assert!(opened.verify().is_intact());
    }
}

#[test]
fn a_store_that_is_only_read_is_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/er");
    let store = CheckpointStore::open(root.to_str().unwrap()).unwrap();
    assert_eq!(store.datasets().unwrap(), Vec::<String>::new());
    assert_eq!(store.generations(NAME).unwrap(), Vec::<u64>::new());
    assert!(store.latest(NAME).unwrap().is_none());
    assert!(store.latest_readable(NAME).unwrap().is_none());
    assert!(store.cleanup(&Default::default()).unwrap().orphans.is_empty());
    assert!(matches!(store.open_generation(NAME, 1), Err(Error::NotFound { .. })));
    assert!(!dir.path().join("deep").exists());
    write(&store, &numbers(1)).unwrap();
    assert_eq!(read(&store.latest(NAME).unwrap().unwrap()).unwrap(), numbers(1));
}

#[test]
fn parts_are_written_by_many_threads() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let partitions: Vec<Vec<u64>> = (0..32).map(|p| (0..p * 10).collect()).collect();
    let attempt = store.begin(NAME, spec(&partitions)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (attempt, partitions) = (&attempt, &partitions);
            scope.spawn(move || {
                for partition in (thread..32).step_by(8) {
                    write_part(attempt, partition, &partitions[partition as usize]).unwrap();
                }
            });
        }
    });
    assert_eq!(read(&attempt.commit().unwrap()).unwrap(), partitions);
}

#[test]
fn compressed_and_large_chunks_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let record = |n: u64| (n, "x".repeat(200 + usize::try_from(n % 7).unwrap()));
    for compression in [Compression::None, Compression::Lz4] {
        let spec = Spec::new(1, CodecId::BINCODE).compression(compression);
        let attempt = store.begin("strings", spec).unwrap();
        let mut part = attempt.part(0).unwrap().records(Arc::new(Bincode)).unwrap();
        for n in 0..60_000 {
            part.push(&record(n)).unwrap();
        }
        part.finish().unwrap();
        let checkpoint = attempt.commit().unwrap();

        let part = checkpoint.read_part(0).unwrap();
        let header = part.header().clone();
        assert!(header.chunks.len() > 2 && header.compression == compression);
        let plain = header.chunks.iter().any(|chunk| chunk.stored_len as usize > CHUNK_BYTES_MAX / 2);
        assert_eq!(plain, compression == Compression::None, "both ways to read a chunk are taken");
        assert_eq!(part.size_hint(), (1, Some(header.chunks.len())));
        assert_eq!(part.map(Result::unwrap).map(|chunk| chunk.info()).collect::<Vec<_>>(), header.chunks);
        let records = checkpoint.read_part(0).unwrap().records::<(u64, String)>(Arc::new(Bincode)).unwrap();
        assert!(records.map(Result::unwrap).eq((0..60_000).map(record)));
        assert!(checkpoint.verify().is_intact());
    }
}

#[test]
fn a_header_longer_than_the_first_guess_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let partitions = [(0..4 * 1000).collect()];
    let checkpoint = write(&store_in(&dir), &partitions).unwrap();
    assert_eq!(checkpoint.read_part(0).unwrap().header().chunks.len(), 1000, "24 KB of header");
    assert_eq!(read(&checkpoint).unwrap(), partitions);
}

#[test]
fn the_wrong_codec_is_refused_when_writing_and_when_reading() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let checkpoint = write(&store, &numbers(1)).unwrap();
    let error = checkpoint.read_part(0).unwrap().records::<u64>(Arc::new(Pod)).unwrap_err();
    let Error::WrongCodec { at, expected, given } = &error else { unreachable!("{error}") };
    assert_eq!((*expected, *given), (CodecId::BINCODE, CodecId::POD));
    assert_eq!(at.step, Step::ReadPart);
    assert!(error.to_string().contains(part_path(&checkpoint, 0).to_str().unwrap()), "{error}");

    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    let error = attempt.part(0).unwrap().records::<u64>(Arc::new(Pod)).unwrap_err();
    assert!(matches!(error, Error::WrongCodec { .. }), "{error}");
    write_parts(&attempt, &numbers(2)).unwrap();
    assert_eq!(
        read(&attempt.commit().unwrap()).unwrap(),
        numbers(2),
        "the refused writer gave its part back"
    );
}

#[test]
fn records_of_another_type_are_an_error_that_names_the_part() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = write(&store_in(&dir), &numbers(1)).unwrap();
    let mut records = checkpoint.read_part(0).unwrap().records::<u32>(Arc::new(Bincode)).unwrap();
    let error = records.next().unwrap().unwrap_err();
    assert!(matches!(error, Error::Codec { .. }), "{error}");
    assert!(error.to_string().contains("part-00000-of-00003.blk"), "{error}");
    assert!(records.next().is_none());
}

#[test]
fn a_checkpoint_can_be_written_and_read_inside_an_async_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let checkpoint = write(&store, &numbers(1)).unwrap();
        assert_eq!(read(&checkpoint).unwrap(), numbers(1));
    });
}

#[test]
fn another_process_opens_it_by_its_address_alone() {
    let dir = tempfile::tempdir().unwrap();
    let partitioner = Partitioner { kind: "range".to_owned(), partitions: 3 };
    let attempt = store_in(&dir).begin(NAME, spec(&numbers(7)).partitioner(partitioner)).unwrap();
    write_parts(&attempt, &numbers(7)).unwrap();
    let address = attempt.commit().unwrap().address();
    for address in [address.clone(), format!("file://{address}")] {
        let output = children::command("round_trip::opener", "LARDER_OPEN", &[&address]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let other = children::command("round_trip::opener", "LARDER_OPEN", &["/nowhere/else"]).output().unwrap();
    assert!(!other.status.success(), "the child does look");
}

/// Runs as a process of its own.
#[test]
fn opener() {
    let Some(words) = children::told("LARDER_OPEN") else { return };
    let checkpoint = Checkpoint::open(&words[0]).unwrap();
    assert_eq!(read(&checkpoint).unwrap(), numbers(7));
    let partitioner = checkpoint.manifest().partitioner.as_ref().unwrap();
    assert_eq!((&*partitioner.kind, partitioner.partitions), ("range", 3));
}
