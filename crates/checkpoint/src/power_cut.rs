//! What a power cut leaves. Every change that is made to the files of a store is recorded; at each moment, what was
//! not synced is dropped, kept or torn in many combinations, and a store is opened on what is left.

mod medium;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larder_blockstore::codec::{Bincode, CodecId};
use larder_blockstore::format::{ChunkEncoder, Compression};
use parking_lot::Mutex;

use self::medium::{Fate, Medium, Tree};
use crate::files::{Change, Files};
use crate::{Attempt, CheckpointStore, CleanupOptions, Error, Spec};

const NAME: &str = "numbers";

/// Below what is durable: neither directory is there at first.
const ROOT: &str = "deep/er";

/// The partitions of a generation: two chunks, and none.
fn numbers(generation: u64) -> [Vec<u64>; 2] {
    [(0..5).map(|n| generation * 10 + n).collect(), Vec::new()]
}

fn write_part(attempt: &Attempt, partition: u32, finish: bool) -> Result<(), Error> {
    let mut encoder = ChunkEncoder::<u64>::new(Arc::new(Bincode), Compression::None, 32);
    let mut part = attempt.part(partition)?;
    for record in &numbers(attempt.generation())[partition as usize] {
        if let Some(chunk) = encoder.push(record).unwrap() {
            part.write(&chunk)?;
        }
    }
    encoder.finish().map_or(Ok(()), |chunk| part.write(&chunk))?;
    if finish { part.finish() } else { Ok(()) }
}

fn begin(store: &CheckpointStore) -> Attempt {
    store.begin(NAME, Spec::new(2, CodecId::BINCODE)).unwrap()
}

fn write(attempt: &Attempt) {
    (0..2).for_each(|partition| write_part(attempt, partition, true).unwrap());
}

/// A moment at which the power may go.
#[derive(Clone)]
struct Moment {
    medium: Medium,
    /// The generations that must be there afterwards.
    present: Vec<u64>,
    /// Those that may be there.
    possible: Vec<u64>,
    /// The change before.
    after: String,
}

/// Writes, replaces and removes checkpoints on a medium that ignores some of the syncs; every moment of it.
fn record(ignored: impl Fn(Change<'_>) -> bool + Send + Sync + 'static) -> Vec<Moment> {
    let dir = tempfile::tempdir().unwrap();
    let moment = |medium| Moment { medium, present: vec![], possible: vec![], after: String::new() };
    let moments = Arc::new(Mutex::new(vec![moment(Medium::new(dir.path()))]));
    let watcher = {
        let moments = Arc::clone(&moments);
        move |change: Change<'_>| {
            let mut moments = moments.lock();
            let mut next = moments[moments.len() - 1].clone();
            if !ignored(change) {
                next.medium.change(change);
            }
            next.after = format!("{change:?}");
            moments.push(next);
        }
    };
    let expect = |present: &[u64], possible: &[u64]| {
        let mut moments = moments.lock();
        let last = moments[moments.len() - 1].clone();
        assert!(last.medium.seen() == on_disk(dir.path()), "a change was not told, before {possible:?}");
        moments.push(Moment { present: present.to_vec(), possible: possible.to_vec(), ..last });
    };
    let root = dir.path().join(ROOT);
    let store =
        CheckpointStore::builder(root.to_str().unwrap()).files(Files::watched(watcher)).open().unwrap();

    expect(&[], &[1]);
    let attempt = begin(&store);
    write(&attempt);
    attempt.commit().unwrap();
    expect(&[1], &[1, 2]);
    let attempt = begin(&store);
    write_part(&attempt, 0, false).unwrap();
    write(&attempt);
    attempt.commit().unwrap();
    expect(&[1, 2], &[1, 2]);
    let attempt = begin(&store);
    write(&attempt);
    drop(attempt);
    expect(&[2], &[1, 2]);
    assert_eq!(store.keep_last(NAME, 1).unwrap(), [1]);
    expect(&[2], &[2]);
    moments.lock().clone()
}

fn on_disk(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            let is_dir = root.join(&path).is_dir();
            tree.insert(path.clone(), (!is_dir).then(|| fs::read(root.join(&path)).unwrap()));
            dirs.extend(is_dir.then_some(path));
        }
    }
    tree
}

/// Calls `check` with what a cut at this moment may leave: all combinations of one change that fares otherwise than
/// the others, and some random ones.
fn cuts(moment: &Moment, mut check: impl FnMut(Tree) -> Result<(), String>) -> Result<(), String> {
    let Moment { medium, .. } = moment;
    let fates = [Fate::Lost, Fate::Kept, Fate::Torn, Fate::Zeros];
    for others in fates {
        check(medium.after_cut(|_| others))?;
        for one in 0..medium.pending() {
            for fate in fates.into_iter().filter(|&fate| fate != others) {
                check(medium.after_cut(|index| if index == one { fate } else { others }))?;
            }
        }
    }
    for seed in 0..16_u64 {
        // A hash of seed and index, so that no order of calls matters.
        let random = |index| twox_hash::XxHash3_64::oneshot_with_seed(seed, &[index as u8]) as usize;
        check(medium.after_cut(|index| fates[random(index) % fates.len()]))?;
    }
    Ok(())
}

/// Puts a tree on disk and opens a store on it.
fn reopen(tree: &Tree) -> (tempfile::TempDir, CheckpointStore) {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in tree {
        match content {
            None => fs::create_dir(dir.path().join(path)).unwrap(),
            Some(bytes) => fs::write(dir.path().join(path), bytes).unwrap(),
        }
    }
    let store = CheckpointStore::open(dir.path().join(ROOT).to_str().unwrap()).unwrap();
    (dir, store)
}

/// The generations that are there, after reading all of each.
fn read_all(store: &CheckpointStore) -> Result<Vec<u64>, String> {
    let generations = store.generations(NAME).map_err(|e| e.to_string())?;
    for &generation in &generations {
        let read = |partition| -> Result<Vec<u64>, Error> {
            let checkpoint = store.open_generation(NAME, generation)?;
            checkpoint.read_part(partition)?.records::<u64>(Arc::new(Bincode))?.collect()
        };
        let found = read(0).and_then(|first| Ok([first, read(1)?])).map_err(|e| e.to_string())?;
        if found != numbers(generation) {
            return Err(format!("generation {generation} holds {found:?}"));
        }
    }
    Ok(generations)
}

fn check(moment: &Moment, tree: &Tree) -> Result<(), String> {
    let (_dir, store) = reopen(tree);
    let found = read_all(&store)?;
    let Moment { present, possible, .. } = moment;
    let right =
        present.iter().all(|must| found.contains(must)) && found.iter().all(|it| possible.contains(it));
    if right { Ok(()) } else { Err(format!("{found:?}, where {present:?} must and {possible:?} may be")) }
}

/// What is left can be written to and cleaned.
fn check_recovery(tree: &Tree) {
    let (dir, store) = reopen(tree);
    let before = read_all(&store).unwrap();
    let attempt = begin(&store);
    write(&attempt);
    attempt.commit().unwrap();
    store.cleanup(&CleanupOptions::default().orphan_grace(Duration::ZERO)).unwrap();
    assert_eq!(read_all(&store).unwrap(), [&before[..], &[attempt.generation()]].concat());
    let attempts = fs::read_dir(dir.path().join(ROOT).join(NAME).join("data")).unwrap();
    assert_eq!(attempts.count(), before.len() + 1);
}

/// Cuts the power at every moment; the first that breaks a promise, and how many different outcomes there were.
fn cut_everywhere(moments: &[Moment]) -> Result<usize, String> {
    let mut checked = HashSet::new();
    for moment in moments {
        cuts(moment, |tree| {
            if checked.contains(&(tree.clone(), moment.present.clone(), moment.possible.clone())) {
                return Ok(());
            }
            check(moment, &tree).map_err(|broken| format!("after {}: {broken}", moment.after))?;
            checked.insert((tree, moment.present.clone(), moment.possible.clone()));
            Ok(())
        })?;
    }
    Ok(checked.len())
}

#[test]
fn a_power_cut_at_any_moment_leaves_every_generation_whole_or_invisible() {
    let moments = record(|_| false);
    assert!(moments.len() > 60, "{}", moments.len());
    let outcomes = cut_everywhere(&moments).unwrap();
    assert!(outcomes > 200, "{outcomes}");
    for moment in &moments {
        for fate in [Fate::Lost, Fate::Torn] {
            check_recovery(&moment.medium.after_cut(|_| fate));
        }
    }
}

#[test]
fn every_sync_is_needed() {
    let file = |ending: &'static str| move |change: Change<'_>| matches!(change, Change::SyncFile(path) if path.to_str().unwrap().ends_with(ending));
    let dir = |name: fn(&Path) -> bool| move |change: Change<'_>| matches!(change, Change::SyncDir(path) if name(path));
    type Ignored = Box<dyn Fn(Change<'_>) -> bool + Send + Sync>;
    let ignored: [(&str, Ignored); 9] = [
        ("parts", Box::new(file(".blk"))),
        ("manifests", Box::new(file(".tmp"))),
        ("attempts", Box::new(dir(|path| path.parent().unwrap().ends_with("data")))),
        ("data", Box::new(dir(|path| path.ends_with("data")))),
        ("commits", Box::new(dir(|path| path.ends_with("commits")))),
        ("the dataset", Box::new(dir(|path| path.ends_with(NAME)))),
        ("the root", Box::new(dir(|path| path.ends_with(ROOT)))),
        ("the root's parent", Box::new(dir(|path| path.ends_with("deep")))),
        ("the parent of that", Box::new(dir(|path| path.join("deep").is_dir()))),
    ];
    for (what, ignored) in ignored {
        let broken = cut_everywhere(&record(ignored));
        assert!(broken.is_err(), "nothing is lost where {what} are not synced");
    }
}
