//! Small datasets, written and read back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larder_blockstore::codec::{Bincode, CodecId};
use larder_blockstore::format::{Chunk, ChunkEncoder, Compression};
use larder_checkpoint::{Attempt, Checkpoint, CheckpointStore, CleanupOptions, Error, Records, Spec};
use tempfile::TempDir;

pub(crate) const NAME: &str = "numbers";

/// Four records a chunk.
const CHUNK_BYTES: usize = 32;

/// Partitions of some, no, and many records. Different seeds give datasets of the same shape.
pub(crate) fn numbers(seed: u64) -> Vec<Vec<u64>> {
    [5, 0, 23].iter().map(|&len| (0..len).map(|n| seed * 1000 + n).collect()).collect()
}

pub(crate) fn spec(partitions: &[Vec<u64>]) -> Spec {
    Spec::new(u32::try_from(partitions.len()).unwrap(), CodecId::BINCODE).record_type("u64")
}

pub(crate) fn chunks(records: &[u64]) -> Vec<Chunk> {
    let mut encoder = ChunkEncoder::<u64>::new(Arc::new(Bincode), Compression::None, CHUNK_BYTES);
    let mut chunks: Vec<_> = records.iter().filter_map(|record| encoder.push(record).unwrap()).collect();
    chunks.extend(encoder.finish());
    chunks
}

pub(crate) fn write_part(attempt: &Attempt, partition: u32, records: &[u64]) -> Result<(), Error> {
    let mut part = attempt.part(partition)?;
    for chunk in chunks(records) {
        part.write(&chunk)?;
    }
    part.finish()
}

pub(crate) fn write_parts(attempt: &Attempt, partitions: &[Vec<u64>]) -> Result<(), Error> {
    (0..).zip(partitions).try_for_each(|(partition, records)| write_part(attempt, partition, records))
}

pub(crate) fn write(store: &CheckpointStore, partitions: &[Vec<u64>]) -> Result<Checkpoint, Error> {
    let attempt = store.begin(NAME, spec(partitions))?;
    write_parts(&attempt, partitions)?;
    attempt.commit()
}

pub(crate) fn read(checkpoint: &Checkpoint) -> Result<Vec<Vec<u64>>, Error> {
    (0..checkpoint.partitions())
        .map(|partition| checkpoint.read_part(partition)?.records(Arc::new(Bincode))?.collect())
        .collect()
}

/// What is seen of records by looking at them, three at a time, and the error that ended it.
pub(crate) fn visited(mut records: Records<u64>) -> (Vec<u64>, Option<Error>) {
    let mut seen = Vec::new();
    loop {
        let before = seen.len();
        match records.visit(3, |records| seen.extend_from_slice(records)) {
            Ok(0) => return (seen, None),
            Ok(count) => assert!(count <= 3 && seen.len() == before + count),
            Err(error) => {
                assert_eq!(records.visit(3, |_| ()).unwrap(), 0, "it is at its end");
                return (seen, Some(error));
            }
        }
    }
}

/// The same of their views.
pub(crate) fn viewed(mut records: Records<u64>) -> (Vec<u64>, Option<Error>) {
    let mut seen = Vec::new();
    loop {
        match records.visit_views(3, |record| seen.push(record)) {
            Ok(0) => return (seen, None),
            Ok(count) => assert!(count <= 3),
            Err(error) => {
                assert_eq!(records.visit_views(3, |_| ()).unwrap(), 0, "it is at its end");
                return (seen, Some(error));
            }
        }
    }
}

pub(crate) fn store_in(dir: &TempDir) -> CheckpointStore {
    CheckpointStore::open(address(dir)).unwrap()
}

pub(crate) fn address(dir: &TempDir) -> &str {
    dir.path().to_str().unwrap()
}

/// Where a part lies.
pub(crate) fn part_path(checkpoint: &Checkpoint, partition: usize) -> PathBuf {
    let manifest = Path::new(&checkpoint.address()).to_owned();
    manifest.ancestors().nth(2).unwrap().join(&checkpoint.manifest().parts[partition].path)
}

/// All files below a directory, sorted.
pub(crate) fn files(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}

/// The files that committed checkpoints consist of, and the hint.
pub(crate) fn committed_files(store: &CheckpointStore) -> Vec<String> {
    let mut files = Vec::new();
    for dataset in store.datasets().unwrap() {
        files.push(format!("{dataset}/LATEST"));
        for generation in store.generations(&dataset).unwrap() {
            let checkpoint = store.open_generation(&dataset, generation).unwrap();
            files.push(format!("{dataset}/commits/{generation:020}.json"));
            files.extend(checkpoint.manifest().parts.iter().map(|part| format!("{dataset}/{}", part.path)));
        }
    }
    files.sort();
    files
}

pub(crate) fn at_once() -> CleanupOptions {
    CleanupOptions::default().orphan_grace(Duration::ZERO)
}

/// A chunk of noise that no compression makes smaller.
pub(crate) fn noise(seed: u64, bytes: usize) -> Chunk {
    let mut noise = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut noise);
    Chunk::seal(noise, 1, Compression::None)
}

pub(crate) fn begin_noise(store: &CheckpointStore) -> Attempt {
    store.begin("noise", Spec::new(1, CodecId::POD)).unwrap()
}
