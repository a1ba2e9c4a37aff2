//! What every [`CommitStore`] must pass.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Barrier};

use crate::{AttemptId, CommitStore, PublishError};

const RACERS: usize = 16;
const RACE_ROUNDS: u64 = 25;

/// Which promise a commit store broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the commit store breaks its contract: {broken}")]
pub struct Violation {
    broken: String,
}

/// Proves the promises of [`CommitStore`]. `open` gives a handle of its own to the same, empty store each time.
///
/// Takes datasets named `conformance-*`, 25 races of 16 threads, and leaves what it wrote.
///
/// # Errors
/// The first promise that is broken. That races had one winner here does not prove that they always will.
///
/// ```
/// use std::sync::Arc;
/// use larder_checkpoint::{Address, FsCommitStore, conformance};
///
/// let dir = tempfile::tempdir()?;
/// let address: Address = dir.path().to_str().unwrap_or_default().parse()?;
/// conformance::check(|| Arc::new(FsCommitStore::new(&address).expect("a local directory")))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn check(open: impl Fn() -> Arc<dyn CommitStore>) -> Result<(), Violation> {
    an_absent_dataset_is_empty(&*open())?;
    what_is_published_reads_back(&*open(), &*open())?;
    a_published_manifest_stays(&*open(), &*open())?;
    a_removed_manifest_is_gone(&*open(), &*open())?;
    for round in 1..=RACE_ROUNDS {
        of_all_racers_one_wins(&open, round)?;
    }
    listed(&*open(), "conformance-race", &(1..=RACE_ROUNDS).collect::<Vec<_>>())
}

fn ensure(held: bool, broken: impl FnOnce() -> String) -> Result<(), Violation> {
    if held { Ok(()) } else { Err(Violation { broken: broken() }) }
}

fn worked<T, E: std::fmt::Debug>(what: &str, result: Result<T, E>) -> Result<T, Violation> {
    result.map_err(|e| Violation { broken: format!("{what} failed: {e:?}") })
}

fn listed(store: &dyn CommitStore, dataset: &str, expected: &[u64]) -> Result<(), Violation> {
    let found = worked("list", store.list(dataset))?;
    ensure(found == expected, || format!("list gave {found:?}, not {expected:?}"))
}

fn stands(store: &dyn CommitStore, dataset: &str, generation: u64, bytes: &[u8]) -> Result<(), Violation> {
    let found = worked("read", store.read(dataset, generation))?;
    ensure(found.as_deref() == Some(bytes), || {
        format!("generation {generation} reads back as {found:?}, not as it was published")
    })
}

fn publish(
    store: &dyn CommitStore,
    dataset: &str,
    generation: u64,
    bytes: &[u8],
) -> Result<Result<(), PublishError>, Violation> {
    let attempt = AttemptId::new();
    worked("prepare", store.prepare(dataset))?;
    Ok(store.publish(dataset, generation, attempt, bytes))
}

fn an_absent_dataset_is_empty(store: &dyn CommitStore) -> Result<(), Violation> {
    listed(store, "conformance-absent", &[])?;
    let found = worked("read of an absent dataset", store.read("conformance-absent", 1))?;
    ensure(found.is_none(), || "an absent dataset has a manifest".to_owned())
}

fn what_is_published_reads_back(store: &dyn CommitStore, other: &dyn CommitStore) -> Result<(), Violation> {
    let dataset = "conformance-read";
    let large = vec![0xa5; 1 << 20];
    // Out of order, and with more digits than the others: lists are sorted by number.
    for (generation, bytes) in [(10, &b"ten"[..]), (2, b"two"), (u64::MAX, b"last"), (1, &large)] {
        worked("publish", publish(store, dataset, generation, bytes)?)?;
        stands(other, dataset, generation, bytes)?;
    }
    listed(other, dataset, &[1, 2, 10, u64::MAX])
}

fn a_published_manifest_stays(store: &dyn CommitStore, other: &dyn CommitStore) -> Result<(), Violation> {
    let dataset = "conformance-stays";
    worked("publish", publish(store, dataset, 1, b"the first")?)?;
    let second = publish(other, dataset, 1, b"the second")?;
    ensure(matches!(second, Err(PublishError::Exists)), || {
        format!("publishing over another manifest gave {second:?}, not Exists")
    })?;
    stands(store, dataset, 1, b"the first")?;
    worked("publishing the same bytes again", publish(store, dataset, 1, b"the first")?)?;
    stands(other, dataset, 1, b"the first")?;
    listed(store, dataset, &[1])
}

fn a_removed_manifest_is_gone(store: &dyn CommitStore, other: &dyn CommitStore) -> Result<(), Violation> {
    let dataset = "conformance-removed";
    for generation in 1..=2 {
        worked("publish", publish(store, dataset, generation, b"manifest")?)?;
    }
    worked("remove", store.remove(dataset, 1))?;
    listed(other, dataset, &[2])?;
    let found = worked("read after remove", other.read(dataset, 1))?;
    ensure(found.is_none(), || "a removed manifest is still read".to_owned())?;
    let again = other.remove(dataset, 1);
    ensure(matches!(&again, Err(e) if e.kind() == io::ErrorKind::NotFound), || {
        format!("removing an absent manifest gave {again:?}, not NotFound")
    })
}

fn of_all_racers_one_wins(open: &impl Fn() -> Arc<dyn CommitStore>, round: u64) -> Result<(), Violation> {
    let dataset = "conformance-race";
    let start = Arc::new(Barrier::new(RACERS));
    let racers: Vec<_> = (0..RACERS)
        .map(|racer| {
            let (store, start) = (open(), Arc::clone(&start));
            std::thread::spawn(move || {
                let bytes = format!("racer {racer} of round {round}").into_bytes();
                let attempt = AttemptId::new();
                let prepared = store.prepare(dataset);
                start.wait();
                worked("prepare", prepared)?;
                Ok((store.publish(dataset, round, attempt, &bytes), bytes))
            })
        })
        .collect();
    let mut winners = HashSet::new();
    for racer in racers {
        let outcome = racer.join().map_err(|_| Violation { broken: "a racer panicked".to_owned() })?;
        match outcome? {
            (Ok(()), bytes) => {
                winners.insert(bytes);
            }
            (Err(PublishError::Exists), _) => {}
            (Err(e), _) => return Err(Violation { broken: format!("a racer failed: {e:?}") }),
        }
    }
    ensure(winners.len() == 1, || format!("round {round} of {RACERS} racers had {} winners", winners.len()))?;
    winners.iter().try_for_each(|bytes| stands(&*open(), dataset, round, bytes))
}
