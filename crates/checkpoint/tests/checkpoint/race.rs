//! Writers that commit the same generation.

use std::path::Path;
use std::process::Child;
use std::sync::Barrier;
use std::time::Duration;

use larder_checkpoint::{CheckpointStore, CleanupOptions, Error};

use crate::backends::{self, Kind};
use crate::children;
use crate::support::*;

const RACERS: u64 = 16;
const THREAD_ROUNDS: u64 = 20;

/// How many rounds 16 processes race: a file of HDFS takes half a second to close, so there are fewer by default.
fn process_rounds(kind: Kind) -> u64 {
    let rounds = std::env::var("LARDER_TEST_RACE_ROUNDS").ok().map(|rounds| rounds.parse().unwrap());
    rounds.unwrap_or(match kind {
        Kind::Fs | Kind::Memory => 100,
        Kind::S3 => 20,
        Kind::Hdfs => 5,
    })
}

/// The dataset of one racer of one round.
fn entry(round: u64, racer: u64) -> Vec<Vec<u64>> {
    numbers(round * 100 + racer)
}

/// Writes everything but the commit, waits for the start, commits. Whether it won.
fn race(store: &CheckpointStore, round: u64, racer: u64, wait: impl FnOnce()) -> Result<bool, Error> {
    let attempt = store.begin(NAME, spec(&entry(round, racer)))?;
    assert_eq!(attempt.generation(), round);
    write_parts(&attempt, &entry(round, racer))?;
    wait();
    match attempt.commit() {
        Ok(checkpoint) => Ok(checkpoint.manifest().attempt == attempt.id()),
        Err(Error::Conflict { winner, attempt: loser, .. }) => {
            assert!(winner.is_some() && winner != Some(loser) && loser == attempt.id());
            Ok(false)
        }
        Err(e) => Err(e),
    }
}

fn check_round(store: &CheckpointStore, round: u64, winners: &[u64]) {
    let address = store.address();
    assert_eq!(winners.len(), 1, "round {round} at {address} was won by {winners:?}");
    let checkpoint = store.latest(NAME).unwrap().unwrap();
    assert_eq!(checkpoint.generation(), round);
    assert_eq!(read(&checkpoint).unwrap(), entry(round, winners[0]), "what is read is the winner's");
}

#[test]
fn of_16_threads_that_commit_one_generation_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_in(&dir);
    for round in 1..=THREAD_ROUNDS {
        let start = Barrier::new(usize::try_from(RACERS).unwrap());
        let won: Vec<bool> = std::thread::scope(|scope| {
            let race = |racer| {
                let (store, start) = (&store, &start);
                let wait = move || {
                    start.wait();
                };
                scope.spawn(move || race(store, round, racer, wait).unwrap())
            };
            let racers: Vec<_> = (0..RACERS).map(race).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winners: Vec<u64> = (0..).zip(&won).filter(|&(_, &won)| won).map(|(racer, _)| racer).collect();
        check_round(&store, round, &winners);
    }
    assert_eq!(files(dir.path()), committed_files(&store), "losers leave nothing");
}

#[test]
fn of_16_processes_that_commit_one_generation_one_wins() {
    for kind in [Kind::Fs, Kind::S3, Kind::Hdfs] {
        race_processes(kind);
    }
}

fn race_processes(kind: Kind) {
    let Some(site) = kind.fresh() else { return };
    let (signals, rounds) = (tempfile::tempdir().unwrap(), process_rounds(kind));
    let mut racers: Vec<Child> = (0..RACERS)
        .map(|racer| {
            let words = [&site.address, address(&signals), &racer.to_string(), &rounds.to_string()];
            children::command("race::racer", "LARDER_RACE", &words).spawn().unwrap()
        })
        .collect();
    let store = site.store();
    let file = |name: String| signals.path().join(name);
    for round in 1..=rounds {
        for racer in 0..RACERS {
            wait_for(&file(format!("ready-{round}-{racer}")), || {
                assert!(racers.iter_mut().all(|racer| racer.try_wait().unwrap().is_none()), "a racer died");
            });
        }
        std::fs::write(file(format!("go-{round}")), b"").unwrap();
        let outcome = |racer| {
            let path = file(format!("won-{round}-{racer}"));
            wait_for(&path, || ());
            std::fs::read(path).unwrap() == b"true"
        };
        check_round(&store, round, &(0..RACERS).filter(|&racer| outcome(racer)).collect::<Vec<_>>());
    }
    for racer in racers {
        let output = racer.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let rest = store.cleanup(&CleanupOptions::default().orphan_grace(Duration::ZERO)).unwrap();
    assert!(rest.orphans.is_empty(), "{site:?}: losers leave nothing: {rest:?}");
}

/// Runs as a process of its own.
#[test]
fn racer() {
    let Some(words) = children::told("LARDER_RACE") else { return };
    let (store, signals) = (backends::builder(&words[0]).open().unwrap(), Path::new(&words[1]));
    let [racer, rounds] = [&words[2], &words[3]].map(|number| number.parse::<u64>().unwrap());
    for round in 1..=rounds {
        let won = race(&store, round, racer, || {
            std::fs::write(signals.join(format!("ready-{round}-{racer}")), b"").unwrap();
            wait_for(&signals.join(format!("go-{round}")), || ());
        });
        // Renamed into place, so that nobody reads it empty.
        let unfinished = signals.join(format!("unfinished-{racer}"));
        std::fs::write(&unfinished, won.unwrap().to_string()).unwrap();
        std::fs::rename(unfinished, signals.join(format!("won-{round}-{racer}"))).unwrap();
    }
}

fn wait_for(path: &Path, mut meanwhile: impl FnMut()) {
    while !path.exists() {
        meanwhile();
        std::thread::sleep(Duration::from_millis(1));
    }
}
