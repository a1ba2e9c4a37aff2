//! Commits whose outcome is not plain, and attempts that are not committed.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use larder_blockstore::format::Chunk;
use larder_checkpoint::{
    Attempt, AttemptId, CheckpointStore, CleanupOptions, CommitStore, Error, FsCommitStore, PartError,
    PublishError, Step,
};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::support::*;

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Publishing works, but the answer is lost.
    DoneUnheard,
    /// Publishing does not work, and no answer comes.
    LostUnheard,
    /// Publishing works, and the answer is that something stands there: a retry below has met its own first try.
    DoneTwice,
    /// Something stands there, and is removed before it can be read.
    ExistsThenGone,
    /// Nothing was published, for sure.
    Failed,
    /// Reading does not work.
    ReadFails,
}

/// A commit store with bad luck.
#[derive(Debug)]
struct Unlucky {
    inner: FsCommitStore,
    fates: Mutex<VecDeque<Fate>>,
}

impl Unlucky {
    fn take(&self, fits: impl Fn(Fate) -> bool) -> Option<Fate> {
        self.fates.lock().pop_front_if(|fate| fits(*fate))
    }
}

fn unheard() -> PublishError {
    let source = io::Error::new(io::ErrorKind::TimedOut, "no answer in 10 s");
    PublishError::Unknown { step: Step::PublishManifest, source }
}

impl CommitStore for Unlucky {
    fn prepare(&self, dataset: &str) -> io::Result<()> {
        self.inner.prepare(dataset)
    }

    fn publish(
        &self,
        dataset: &str,
        generation: u64,
        attempt: AttemptId,
        manifest: &[u8],
    ) -> Result<(), PublishError> {
        let publish = || self.inner.publish(dataset, generation, attempt, manifest);
        match self.take(|fate| fate != Fate::ReadFails) {
            None => publish(),
            Some(Fate::DoneUnheard) => publish().and(Err(unheard())),
            Some(Fate::DoneTwice) => publish().and(Err(PublishError::Exists)),
            Some(Fate::ExistsThenGone) => Err(PublishError::Exists),
            Some(Fate::Failed) => {
                let source = io::ErrorKind::PermissionDenied.into();
                Err(PublishError::Failed { step: Step::WriteManifest, source })
            }
            Some(Fate::LostUnheard | Fate::ReadFails) => Err(unheard()),
        }
    }

    fn read(&self, dataset: &str, generation: u64) -> io::Result<Option<Vec<u8>>> {
        match self.take(|fate| fate == Fate::ReadFails) {
            Some(_) => Err(io::ErrorKind::TimedOut.into()),
            None => self.inner.read(dataset, generation),
        }
    }

    fn list(&self, dataset: &str) -> io::Result<Vec<u64>> {
        self.inner.list(dataset)
    }

    fn remove(&self, dataset: &str, generation: u64) -> io::Result<()> {
        self.inner.remove(dataset, generation)
    }
}

fn attempt_with(dir: &TempDir, fates: &[Fate]) -> Attempt {
    attempt_with_grace(dir, fates, larder_checkpoint::ORPHAN_GRACE_DEFAULT)
}

fn attempt_with_grace(dir: &TempDir, fates: &[Fate], grace: Duration) -> Attempt {
    let inner = FsCommitStore::new(&address(dir).parse().unwrap()).unwrap();
    let commits = Unlucky { inner, fates: Mutex::new(fates.iter().copied().collect()) };
    let store = CheckpointStore::builder(address(dir)).commit_store(Arc::new(commits));
    let store = store.orphan_grace(grace).open().unwrap();
    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    write_parts(&attempt, &numbers(1)).unwrap();
    attempt
}

#[test]
fn a_publish_whose_answer_is_lost_is_found_out_by_reading_back() {
    use Fate::*;
    for fates in [
        &[DoneUnheard][..],
        &[LostUnheard],
        &[LostUnheard, LostUnheard],
        &[DoneUnheard, DoneUnheard],
        &[DoneTwice],
        &[DoneUnheard, ReadFails],
        &[LostUnheard, Failed],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let attempt = attempt_with(&dir, fates);
        let checkpoint = attempt.commit().unwrap();
        assert_eq!(checkpoint.manifest().attempt, attempt.id(), "{fates:?}");
        drop(attempt);
        assert_eq!(read(&store_in(&dir).latest(NAME).unwrap().unwrap()).unwrap(), numbers(1), "{fates:?}");
    }
}

#[test]
fn an_outcome_that_stays_unknown_deletes_nothing_and_can_be_asked_again() {
    use Fate::*;
    for fates in [&[LostUnheard, LostUnheard, LostUnheard][..], &[DoneUnheard, ReadFails, ReadFails]] {
        for ask_again in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let attempt = attempt_with(&dir, fates);
            let error = attempt.commit().unwrap_err();
            assert!(matches!(error, Error::CommitUnknown { .. }) && error.is_retryable(), "{error}");
            assert!(error.to_string().contains("no answer in 10 s") || fates.contains(&ReadFails), "{error}");
            assert!(matches!(attempt.part(0), Err(Error::Invalid { .. })));
            if ask_again {
                assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1), "{fates:?}");
            }
            drop(attempt);
            let parts = files(dir.path()).into_iter().filter(|file| file.ends_with(".blk")).count();
            assert_eq!(parts, 3, "{fates:?}");
            let committed = store_in(&dir).latest(NAME).unwrap();
            assert_eq!(committed.is_some(), ask_again || fates[0] == DoneUnheard, "{fates:?}");
            if let Some(checkpoint) = committed {
                assert!(checkpoint.verify().is_intact());
            }
        }
    }
}

/// An attempt of which nobody knows whether it was committed; nothing was.
fn unknown_attempt(dir: &TempDir, grace: Duration) -> Attempt {
    let attempt = attempt_with_grace(dir, &[Fate::LostUnheard; 3], grace);
    assert!(matches!(attempt.commit(), Err(Error::CommitUnknown { .. })));
    assert_eq!(store_in(dir).generations(NAME).unwrap(), Vec::<u64>::new());
    attempt
}

#[test]
fn an_unknown_outcome_asked_again_too_late_is_not_committed_without_its_data() {
    let grace = Duration::from_secs(3);
    let (cleaned, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let attempts = [&cleaned, &kept].map(|dir| unknown_attempt(dir, grace));
    std::thread::sleep(grace);
    let removed = store_in(&cleaned).cleanup(&CleanupOptions::default().orphan_grace(grace)).unwrap();
    assert_eq!(removed.orphans.len(), 1);
    let errors = attempts.map(|attempt| attempt.commit().unwrap_err());
    assert!(matches!(errors[0], Error::Part { partition: 0, .. }), "{}", errors[0]);
    assert!(matches!(errors[1], Error::Expired { .. }), "{}", errors[1]);
    for dir in [&cleaned, &kept] {
        assert!(store_in(dir).latest(NAME).unwrap().is_none());
    }
}

#[test]
fn an_unknown_outcome_asked_again_is_not_committed_behind_the_newest() {
    for winner_is_removed in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let attempt = unknown_attempt(&dir, larder_checkpoint::ORPHAN_GRACE_DEFAULT);
        let store = store_in(&dir);
        for seed in 1..=3 {
            write(&store, &numbers(seed)).unwrap();
        }
        if winner_is_removed {
            assert_eq!(store.keep_last(NAME, 1).unwrap(), [1, 2]);
        }
        let error = attempt.commit().unwrap_err();
        let Error::Conflict { winner, .. } = &error else { unreachable!("{error}") };
        assert_eq!(winner.is_none(), winner_is_removed, "{error}");
        assert_eq!(store.generations(NAME).unwrap().last(), Some(&3));
        assert_eq!(store.generations(NAME).unwrap().len(), if winner_is_removed { 1 } else { 3 });
        let data = dir.path().join(NAME).join("data").join(attempt.id().to_string());
        drop(attempt);
        assert!(data.is_dir(), "a publish that takes effect after all would need it");
    }
}

#[test]
fn a_failure_to_look_does_not_make_an_unknown_outcome_known() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = attempt_with(&dir, &[Fate::DoneUnheard, Fate::ReadFails, Fate::ReadFails]);
    assert!(matches!(attempt.commit(), Err(Error::CommitUnknown { .. })));
    let commits = dir.path().join(NAME).join("commits");
    let away = dir.path().join("away");
    std::fs::rename(&commits, &away).unwrap();
    std::fs::write(&commits, b"in the way").unwrap();
    let error = attempt.commit().unwrap_err();
    assert!(matches!(error, Error::CommitUnknown { .. }), "{error}");
    std::fs::remove_file(&commits).unwrap();
    std::fs::rename(away, commits).unwrap();
    assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
}

#[test]
fn a_sure_failure_is_reported_and_the_attempt_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = attempt_with(&dir, &[Fate::Failed]);
    let error = attempt.commit().unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && !error.is_retryable(), "{error}");
    assert!(
        error.to_string().contains("00000000000000000001.json: permission denied; trying again"),
        "{error}"
    );
    assert_eq!(store_in(&dir).generations(NAME).unwrap(), Vec::<u64>::new());
    assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
}

#[test]
fn a_winner_that_was_removed_again_is_a_conflict_too() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = attempt_with(&dir, &[Fate::ExistsThenGone]);
    assert!(matches!(attempt.commit(), Err(Error::Conflict { winner: None, .. })));
    assert!(matches!(attempt.commit(), Err(Error::Invalid { .. })), "the attempt is over");
    drop(attempt);
    assert_eq!(files(dir.path()), Vec::<String>::new());
}

#[test]
fn a_generation_that_was_overtaken_and_removed_is_not_committed_behind_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let slow = store.begin(NAME, spec(&numbers(9))).unwrap();
    write_parts(&slow, &numbers(9)).unwrap();
    for seed in 1..=2 {
        write(&store, &numbers(seed)).unwrap();
    }
    assert_eq!(store.keep_last(NAME, 1).unwrap(), [1]);
    let error = slow.commit().unwrap_err();
    assert!(matches!(error, Error::Conflict { winner: None, .. }), "{error}");
    assert!(error.to_string().contains("removed again"), "{error}");
    drop(slow);
    assert_eq!(store.generations(NAME).unwrap(), [2]);
    assert_eq!(files(dir.path()), committed_files(&store));
}

#[test]
fn a_damaged_manifest_in_its_place_stops_a_commit_and_deletes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = attempt_with(&dir, &[]);
    let manifest = dir.path().join(NAME).join("commits/00000000000000000001.json");
    std::fs::write(&manifest, b"torn").unwrap();
    let error = attempt.commit().unwrap_err();
    assert!(matches!(error, Error::Manifest { .. }), "{error}");
    drop(attempt);
    assert_eq!(files(dir.path()).len(), 4);
    assert_eq!(std::fs::read(manifest).unwrap(), b"torn");
}

#[test]
fn an_attempt_that_grew_old_is_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let store = CheckpointStore::builder(address(&dir)).orphan_grace(Duration::from_millis(100));
    let store = store.open().unwrap();
    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    write_parts(&attempt, &numbers(1)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let error = attempt.commit().unwrap_err();
    let Error::Expired { age, limit, .. } = &error else { unreachable!("{error}") };
    assert!(*limit == Duration::from_millis(50) && age >= limit);
    drop(attempt);
    assert_eq!(files(dir.path()), Vec::<String>::new());
}

#[test]
fn a_part_lost_before_the_commit_stops_it() {
    for (cut, what) in [(None, "it is missing"), (Some(10), "it has 10 bytes where")] {
        let dir = tempfile::tempdir().unwrap();
        let attempt = attempt_with(&dir, &[]);
        let part = format!("{}/{NAME}/data/{}/part-00002-of-00003.blk", address(&dir), attempt.id());
        match cut {
            None => std::fs::remove_file(&part).unwrap(),
            Some(len) => std::fs::File::options().write(true).open(&part).unwrap().set_len(len).unwrap(),
        }
        let error = attempt.commit().unwrap_err();
        assert!(matches!(error, Error::Part { partition: 2, .. }), "{error}");
        assert!(error.to_string().contains(&part) && error.to_string().contains(what), "{error}");
        assert_eq!(store_in(&dir).generations(NAME).unwrap(), Vec::<u64>::new());
    }
}

#[test]
fn a_finished_part_is_verified_before_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = attempt_with(&dir, &[]);
    for partition in 0..3 {
        attempt.verify_part(partition).unwrap();
        let name = format!("part-{partition:05}-of-00003.blk");
        let path = dir.path().join(NAME).join("data").join(attempt.id().to_string()).join(&name);
        let written = std::fs::read(&path).unwrap();
        for byte in [0, written.len() / 2, written.len() - 1] {
            let mut damaged = written.clone();
            damaged[byte] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            let error = attempt.verify_part(partition).unwrap_err();
            assert!(matches!(&error, Error::Part { partition: named, .. } if *named == partition), "{error}");
            assert!(error.to_string().contains(&name), "{error}");
        }
        std::fs::write(&path, written).unwrap();
    }
    assert!(attempt.verify_part(3).unwrap_err().to_string().contains("not finished"));
    let checkpoint = attempt.commit().unwrap();
    attempt.verify_part(2).unwrap();
    assert_eq!(read(&checkpoint).unwrap(), numbers(1));
}

#[test]
fn each_part_is_written_once_and_all_are_needed() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    write_part(&attempt, 0, &numbers(1)[0]).unwrap();
    let open = attempt.part(2).unwrap();
    for (partition, words) in [(0, "is finished"), (2, "is being written"), (3, "there are 3")] {
        let error = attempt.part(partition).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let error = attempt.commit().unwrap_err();
    assert!(matches!(error, Error::Incomplete { missing: 2, first: 1, .. }), "{error}");
    drop(open);
    write_part(&attempt, 2, &numbers(1)[2]).unwrap();
    write_part(&attempt, 1, &[]).unwrap();
    assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
    assert!(attempt.part(0).unwrap_err().to_string().contains("is committed"));
}

#[test]
fn an_attempt_that_is_dropped_or_aborted_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    write_parts(&attempt, &numbers(1)).unwrap();
    drop(attempt);
    assert_eq!(files(dir.path()), Vec::<String>::new());

    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    write_part(&attempt, 0, &numbers(1)[0]).unwrap();
    attempt.abort().unwrap();
    assert_eq!(files(dir.path()), Vec::<String>::new());

    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    write_part(&attempt, 0, &numbers(1)[0]).unwrap();
    let mut part = attempt.part(2).unwrap();
    let chunks = chunks(&numbers(1)[2]);
    part.write(&chunks[0]).unwrap();
    part.write(&chunks[1]).unwrap();
    drop(attempt);
    let error = part.write(&chunks[2]).unwrap_err().to_string();
    assert!(error.contains("was aborted"), "{error}");
    drop(part);
    assert_eq!(files(dir.path()), Vec::<String>::new(), "the last writer takes the rest along");

    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    write_parts(&attempt, &numbers(1)).unwrap();
    attempt.commit().unwrap();
    assert!(attempt.abort().unwrap_err().to_string().contains("is committed"));
    assert_eq!(read(&store.latest(NAME).unwrap().unwrap()).unwrap(), numbers(1));
}

#[test]
fn a_chunk_damaged_in_memory_is_not_made_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
    let sealed = &chunks(&numbers(1)[2])[0];
    let mut bytes = sealed.stored().unwrap().to_vec();
    bytes[3] ^= 1;
    let mut part = attempt.part(2).unwrap();
    let error = part.write(&Chunk::found(bytes.into(), sealed.info())).unwrap_err();
    assert!(matches!(&error, Error::Part { source: PartError::Chunk { chunk: 0, .. }, .. }), "{error}");
    assert!(part.write(sealed).unwrap_err().to_string().contains("start it again"));
    drop(part);
    write_parts(&attempt, &numbers(1)).unwrap();
    assert!(attempt.commit().unwrap().verify().is_intact());
}
