//! Every point of the protocol, on every backend, with everything that can happen there.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_checkpoint::{CleanupOptions, HookAction, Step};
use parking_lot::Mutex;

use crate::backends::{self, Kind, Site};
use crate::children;
use crate::support::*;

/// What happens at a point, in the order of the letters of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Before,
    Short,
    After,
    Hang,
}

const FAULTS: [Fault; 5] = [Fault::Kill, Fault::Before, Fault::Short, Fault::After, Fault::Hang];

/// Long enough for any request of these tests; what hangs takes as long.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Points that are tried at the same time.
const AT_ONCE: usize = 12;

/// Where the table stands in the documentation.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/testing.md");
const BEGIN: &str = "<!-- points x backends: begin -->\n";
const END: &str = "<!-- points x backends: end -->";
/// Set to 1, the table in the documentation is written anew.
const UPDATE: &str = "LARDER_TEST_UPDATE_DOCS";

impl Fault {
    fn action(self) -> HookAction {
        match self {
            Self::Kill => std::process::abort(),
            Self::Before => HookAction::FailBefore(ErrorKind::Other),
            Self::Short => HookAction::FailHalfway(ErrorKind::Other),
            Self::After => HookAction::FailAfter(ErrorKind::Other),
            Self::Hang => HookAction::Hang(TIMEOUT),
        }
    }
}

/// Has the fault happen at the point of that number.
fn faulty(site: &Site, fault: Fault, at: usize) -> larder_checkpoint::CheckpointStore {
    let count = AtomicUsize::new(0);
    let hook = move |_, _: &str| match count.fetch_add(1, Ordering::Relaxed) == at {
        true => fault.action(),
        false => HookAction::Continue,
    };
    let timeout = if fault == Fault::Hang { TIMEOUT } else { Duration::from_secs(60) };
    site.builder().operation_timeout(timeout).hook(hook).open().unwrap()
}

/// The points that one write passes on this backend.
fn points(kind: Kind) -> Vec<Step> {
    let trace = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let trace = Arc::clone(&trace);
        move |step, _: &str| {
            trace.lock().push(step);
            HookAction::Continue
        }
    };
    let site = kind.fresh().unwrap();
    write(&site.store(), &numbers(1)).unwrap();
    write(&site.builder().hook(hook).open().unwrap(), &numbers(2)).unwrap();
    trace.lock().clone()
}

/// Runs as a process of its own: writes generation 2 and dies at the given point.
#[test]
fn writer() {
    let Some(words) = children::told("LARDER_FAULT") else { return };
    let at: usize = words[1].parse().unwrap();
    let count = AtomicUsize::new(0);
    let store =
        backends::builder(&words[0]).hook(move |_, _| match count.fetch_add(1, Ordering::Relaxed) == at {
            true => Fault::Kill.action(),
            false => HookAction::Continue,
        });
    write(&store.open().unwrap(), &numbers(2)).unwrap();
}

/// Whether generation 2 is there after the fault; everything that must hold whether it is or not.
fn survives(kind: Kind, fault: Fault, at: usize) -> bool {
    let site = kind.fresh().unwrap();
    let store = site.store();
    write(&store, &numbers(1)).unwrap();
    if fault == Fault::Kill {
        let words = [&*site.address, &at.to_string()];
        let output = children::command("faults::writer", "LARDER_FAULT", &words).output().unwrap();
        assert!(!output.status.success(), "it dies");
    } else {
        let written = write(&faulty(&site, fault, at), &numbers(2));
        assert_eq!(store.generations(NAME).unwrap().len() == 2, written.is_ok(), "{written:?}");
        if let Err(error) = written {
            assert!(error.to_string().contains(&site.address), "{error}");
        }
    }

    let recovered = site.store();
    assert_eq!(read(&recovered.open_generation(NAME, 1).unwrap()).unwrap(), numbers(1));
    let generations = recovered.generations(NAME).unwrap();
    let visible = generations == [1, 2];
    assert!(visible || generations == [1], "{generations:?}");
    let newest = recovered.latest(NAME).unwrap().unwrap();
    assert_eq!(read(&newest).unwrap(), numbers(if visible { 2 } else { 1 }));
    assert!(newest.verify().is_intact());

    let again = write(&recovered, &numbers(3)).unwrap();
    assert_eq!(again.manifest().parent, generations.last().copied());
    assert_eq!(read(&again).unwrap(), numbers(3));
    let at_once = CleanupOptions::default().orphan_grace(Duration::ZERO);
    let cleaned = recovered.cleanup(&at_once).unwrap();
    assert!(cleaned.skipped.is_empty(), "{cleaned:?}");
    assert!(recovered.cleanup(&at_once).unwrap().orphans.is_empty());
    if let Some(objects) = site.objects() {
        assert_eq!(objects, committed_files(&recovered));
    }
    assert_eq!(read(&recovered.latest(NAME).unwrap().unwrap()).unwrap(), numbers(3));
    visible
}

/// What is there after a fault at one point: `o` for the old generation alone, `n` for the new one too.
fn letter(kind: Kind, occurrences: &[usize], fault: Fault) -> char {
    if fault == Fault::Kill && kind == Kind::Memory {
        return '.';
    }
    let outcomes = occurrences.iter().map(|&at| {
        let outcome = std::panic::catch_unwind(|| survives(kind, fault, at));
        outcome
            .unwrap_or_else(|_| panic!("{} broke a promise at point {at}, {fault:?}: see above", kind.name()))
    });
    let outcomes: Vec<bool> = outcomes.collect();
    assert!(outcomes.iter().all(|&visible| visible == outcomes[0]), "{outcomes:?}");
    if outcomes[0] { 'n' } else { 'o' }
}

type Table = BTreeMap<(usize, String), BTreeMap<&'static str, String>>;

/// The rows of the table in the order of a write.
const ROWS: [Step; 18] = [
    Step::ListCommits,
    Step::CreateDirectories,
    Step::Probe,
    Step::CreatePart,
    Step::WriteChunk,
    Step::WriteHeader,
    Step::ClosePart,
    Step::AwaitPart,
    Step::CheckPart,
    Step::SyncDirectories,
    Step::WriteManifest,
    Step::SyncManifest,
    Step::PublishManifest,
    Step::SyncCommits,
    Step::RemoveTemporary,
    Step::ReadManifest,
    Step::WriteLatest,
    Step::DiscardPart,
];

/// Fills the columns of these backends. Most of the time goes by waiting, so several points are tried at once.
fn try_backends(kinds: &[Kind], table: &mut Table) {
    let mut cases = Vec::new();
    for &kind in kinds {
        let points = points(kind);
        assert!(points.iter().all(|step| ROWS.contains(step)), "{points:?}");
        for (row, step) in ROWS.into_iter().enumerate() {
            // The first and the last of many.
            let first = points.iter().position(|&point| point == step);
            let last = points.iter().rposition(|&point| point == step);
            let occurrences: Vec<usize> = first.into_iter().chain(last.filter(|_| last != first)).collect();
            cases.extend(FAULTS.map(|fault| (kind, (row, format!("{step:?}")), occurrences.clone(), fault)));
        }
    }
    let (next, letters) = (AtomicUsize::new(0), Mutex::new(vec!["-".to_owned(); cases.len()]));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let case = next.fetch_add(1, Ordering::Relaxed);
                    let Some((kind, _, occurrences, fault)) = cases.get(case) else { break };
                    if !occurrences.is_empty() {
                        let letter = letter(*kind, occurrences, *fault);
                        letters.lock()[case] = letter.to_string();
                    }
                }
            });
        }
    });
    for (cases, letters) in cases.chunks(FAULTS.len()).zip(letters.into_inner().chunks(FAULTS.len())) {
        let cell = if letters[0] == "-" { "-".to_owned() } else { letters.join(" ") };
        table.entry(cases[0].1.clone()).or_default().insert(cases[0].0.name(), cell);
    }
}

fn print(table: &Table) -> String {
    let names = Kind::ALL.map(Kind::name);
    let mut text = format!("| point | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for ((_, step), cells) in table.iter().filter(|(_, cells)| cells.values().any(|cell| cell != "-")) {
        let cells: Vec<_> = names.iter().map(|name| format!("`{}`", cells[name])).collect();
        text += &format!("| `{step}` | {} |\n", cells.join(" | "));
    }
    text
}

/// What the documentation says of a backend that cannot be tried here.
fn documented(document: &str, step: &str, kind: Kind) -> String {
    let row = document.lines().find(|line| line.starts_with(&format!("| `{step}` |")));
    let column = Kind::ALL.iter().position(|&other| other == kind).unwrap() + 2;
    let cell =
        row.and_then(|row| row.split(" | ").nth(column - 1)).map(|cell| cell.trim_matches(['`', ' ', '|']));
    cell.unwrap_or("-").to_owned()
}

#[test]
fn at_every_point_of_every_backend_a_generation_is_whole_or_invisible() {
    let document = std::fs::read_to_string(DOCUMENT).unwrap();
    let (head, rest) = document.split_once(BEGIN).unwrap();
    let (written, tail) = rest.split_once(END).unwrap();
    let mut table = Table::new();
    let (here, missing): (Vec<_>, Vec<_>) = Kind::ALL.into_iter().partition(|kind| kind.fresh().is_some());
    try_backends(&here, &mut table);
    for kind in missing {
        for (row, step) in ROWS.into_iter().enumerate() {
            let (step, cell) = (format!("{step:?}"), documented(written, &format!("{step:?}"), kind));
            table.entry((row, step)).or_default().insert(kind.name(), cell);
        }
    }
    let found = print(&table);
    if std::env::var(UPDATE).is_ok() {
        std::fs::write(DOCUMENT, format!("{head}{BEGIN}{found}{END}{tail}")).unwrap();
    } else {
        assert_eq!(found, written, "docs/testing.md says otherwise; {UPDATE}=1 writes it anew");
    }
}
