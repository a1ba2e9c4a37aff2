//! Servers that stop, or are killed, while a part is being written. Each test runs a server of its own.

use std::time::{Duration, Instant};

use larder_blockstore::format::Chunk;
use larder_checkpoint::{Attempt, Builder, CheckpointStore, Error, PartWriter, Step};

use crate::backends::{Kind, Site};
use crate::own_server::OwnServer;
use crate::support::*;

const OPERATION_TIMEOUT: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(5);

/// What threads wait for the processor, on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// Of a part: more than S3 has on its way at once.
const CHUNKS: u64 = 6;
const CHUNK_BYTES: usize = 4 << 20;
/// After so many of them S3 has pieces of the part.
const CHUNKS_BEFORE: usize = 3;

pub(crate) fn impatient(site: &Site) -> Builder {
    let builder = site.builder().operation_timeout(OPERATION_TIMEOUT).deadline(DEADLINE).tries(3);
    builder.retry_pause(Duration::from_millis(50)).chunk_bytes(5 << 20).concurrency(2)
}

pub(crate) fn chunks_of_noise() -> Vec<Chunk> {
    (0..CHUNKS).map(|seed| noise(seed, CHUNK_BYTES)).collect()
}

/// The first generation there is.
pub(crate) fn commit_first(store: &CheckpointStore) {
    let attempt = begin_noise(store);
    let mut part = attempt.part(0).unwrap();
    part.write(&noise(99, 1000)).unwrap();
    part.finish().unwrap();
    attempt.commit().unwrap();
}

/// An attempt whose only part is written to the middle.
pub(crate) fn in_the_middle(store: &CheckpointStore, chunks: &[Chunk]) -> (Attempt, PartWriter) {
    let attempt = begin_noise(store);
    let mut part = attempt.part(0).unwrap();
    chunks[..CHUNKS_BEFORE].iter().for_each(|chunk| part.write(chunk).unwrap());
    (attempt, part)
}

/// Writes the rest of a part to a server that was just taken away: the error of the first call that fails, and how
/// long that took, with letting go of the part.
pub(crate) fn interrupted(mut part: PartWriter, chunks: &[Chunk]) -> (Error, Duration) {
    let mut started = Instant::now();
    for chunk in &chunks[CHUNKS_BEFORE..] {
        if let Err(error) = part.write(chunk) {
            drop(part);
            return (error, started.elapsed());
        }
        started = Instant::now();
    }
    let error = part.finish().unwrap_err();
    (error, started.elapsed())
}

/// What holds when the server is back: what was committed can be read, nothing else is to be seen, the part can be
/// written again by the same attempt, and a cleanup leaves what is committed.
pub(crate) fn recovers(site: &Site, store: &CheckpointStore, attempt: &Attempt, chunks: &[Chunk]) {
    let others = site.store();
    assert_eq!(others.generations("noise").unwrap(), [1]);
    assert!(others.latest("noise").unwrap().unwrap().verify().is_intact());

    let mut part = attempt.part(0).unwrap();
    chunks.iter().for_each(|chunk| part.write(chunk).unwrap());
    part.finish().unwrap();
    assert_eq!(attempt.commit().unwrap().generation(), 2);
    let newest = others.latest("noise").unwrap().unwrap();
    let read: Vec<_> = newest.read_part(0).unwrap().map(|chunk| chunk.unwrap().stored().unwrap()).collect();
    assert!(read.iter().eq(chunks.iter().map(|chunk| chunk.stored().unwrap()).collect::<Vec<_>>().iter()));
    assert!(others.open_generation("noise", 1).unwrap().verify().is_intact());
    let report = store.cleanup(&at_once()).unwrap();
    assert!(report.skipped.is_empty(), "{report:?}");
    assert_eq!(site.objects().unwrap(), committed_files(store));
    assert_eq!(site.open_uploads(), 0, "none is left to be paid for: {report:?}");
}

#[test]
fn an_s3_server_that_is_stopped_in_the_middle_of_a_part_is_given_up_in_time() {
    let Some(server) = OwnServer::start(Kind::S3) else { return };
    let (site, chunks) = (server.site(), chunks_of_noise());
    commit_first(&site.store());
    let store = impatient(&site).open().unwrap();
    let (attempt, part) = in_the_middle(&store, &chunks);
    let (given_up, its_part) = in_the_middle(&store, &chunks);
    assert_eq!(site.open_uploads(), 2, "they are in the middle");

    server.stop();
    for part in [part, its_part] {
        let (error, took) = interrupted(part, &chunks);
        let Error::Io { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::TimedOut, "{error}");
        assert!(error.to_string().contains("no answer in") && error.is_retryable(), "{error}");
        assert!(matches!(error.place().unwrap().step, Step::WriteChunk | Step::ClosePart), "{error}");
        // One step; what it has left is removed within one time-out more.
        assert!(took < DEADLINE + OPERATION_TIMEOUT + SLACK, "{took:?}");
    }
    let started = Instant::now();
    drop(given_up);
    assert!(started.elapsed() < OPERATION_TIMEOUT + SLACK, "{:?}", started.elapsed());

    server.go_on();
    recovers(&site, &store, &attempt, &chunks);
}

#[test]
fn a_killed_hdfs_server_that_comes_back_has_what_was_committed() {
    let Some(mut server) = OwnServer::start(Kind::Hdfs) else { return };
    let (site, chunks) = (server.site(), chunks_of_noise());
    commit_first(&site.store());
    let store = impatient(&site).open().unwrap();
    let (attempt, part) = in_the_middle(&store, &chunks);
    let (given_up, its_part) = in_the_middle(&store, &chunks);

    server.kill();
    for part in [part, its_part] {
        let (error, took) = interrupted(part, &chunks);
        assert!(matches!(&error, Error::Io { .. }) && error.is_retryable(), "{error}");
        assert!(matches!(error.place().unwrap().step, Step::WriteChunk | Step::ClosePart), "{error}");
        assert!(took < DEADLINE + OPERATION_TIMEOUT + SLACK, "{took:?}");
    }
    drop(given_up);

    server.start_again();
    recovers(&site, &store, &attempt, &chunks);
}
