use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc as StdArc;
use std::thread;

use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::id::{BlockId, DatasetId};
use crate::memory::MemoryMode;
use crate::random::Random;
use crate::region::extents::rounded;
use crate::region::segment_file::open_segment_file;
use crate::region::told_disks::{SharedDisks, Step, told_files};
use crate::region::unmapped::LoadError;

const MIB: u64 = 1 << 20;

fn options(directories: &[&Path]) -> DiskOptions {
    let directories = directories.iter().map(|path| path.to_path_buf()).collect();
    DiskOptions { directories, limit_bytes: None, segment_bytes: MIB, reads: DiskReads::Mapped, cipher: None }
}

fn open_store(options: DiskOptions) -> Result<DiskStore, RegionError> {
    DiskStore::open(options, memory(), StdArc::new(open_segment_file))
}

fn memory() -> MemoryManager {
    MemoryManager::builder().heap(10 * MIB).build().unwrap()
}

const CHUNK: ChunkId = ChunkId { block: BlockId { dataset: DatasetId(1), partition: 2 }, index: 3 };

/// Writes to a store that is mapped.
fn write(store: &DiskStore, stored: &[u8]) -> Result<Bytes, RegionError> {
    match store.write(stored, CHUNK)? {
        StoredBytes::Memory(bytes) => Ok(bytes),
        StoredBytes::Disk(extent) => panic!("{extent:?} is not mapped"),
    }
}

fn told_store(options: DiskOptions) -> (DiskStore, SharedDisks) {
    let disks = SharedDisks::default();
    (DiskStore::open(options, memory(), told_files(&disks)).unwrap(), disks)
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn disk_bytes(store: &DiskStore) -> u64 {
    let segments = store.directories.iter().flat_map(|directory| directory.segments());
    segments.map(|segment| segment.disk_bytes()).sum()
}

#[test]
fn what_was_written_is_read_in_place_aligned_and_freed_with_its_last_clone() {
    let home = home();
    let store = open_store(options(&[home.path()])).unwrap();
    let mut random = Random::new(3);
    let contents: Vec<_> = (0..200)
        .map(|_| {
            let len = random.index(100_000);
            random.bytes(len)
        })
        .collect();
    let stored: Vec<_> = contents.iter().map(|content| write(&store, content).unwrap()).collect();
    assert!(store.status().directories[0].segments > 5, "{:?}", store.status());
    for (content, bytes) in contents.iter().zip(&stored) {
        store.prefetch(bytes).unwrap();
        assert!(content == bytes && (bytes.is_empty() || bytes.as_ptr().addr() % 64 == 0));
        store.release(bytes);
        assert_eq!(content, bytes);
    }
    assert!(fs::read_dir(home.path()).unwrap().next().is_none());
    let tail = stored[7].slice(1..);
    drop(stored);
    assert_eq!(tail, contents[7][1..]);
    assert_eq!(store.status().used_bytes, rounded(contents[7].len() as u64).unwrap());
    drop(tail);
    let status = store.status();
    assert_eq!((status.used_bytes, status.taken_bytes, status.directories[0].segments), (0, 0, 0));
    assert!(write(&store, &[]).unwrap().is_empty());
}

#[test]
fn an_extent_larger_than_a_segment_gets_a_segment_of_its_size() {
    let home = home();
    let store = open_store(options(&[home.path()])).unwrap();
    let content = Random::new(9).bytes(5 * MIB as usize + 17);
    let bytes = write(&store, &content).unwrap();
    assert_eq!(bytes, content);
    let small = write(&store, &[1]).unwrap();
    drop(bytes);
    assert_eq!((store.status().used_bytes, &small[..]), (64, &[1][..]));
}

#[test]
fn a_full_directory_is_passed_over_and_two_are_an_error_that_loses_nothing() {
    let (one, two) = (home(), home());
    let (store, disks) = told_store(options(&[one.path(), two.path()]));
    disks.lock().unwrap().capacity_bytes.insert(one.path().to_owned(), 110 << 10);
    disks.lock().unwrap().capacity_bytes.insert(two.path().to_owned(), 430 << 10);
    let mut stored = Vec::new();
    let error = loop {
        match write(&store, &[stored.len() as u8; 40 << 10]) {
            Ok(bytes) => stored.push(bytes),
            Err(error) => break error,
        }
    };
    assert_eq!(stored.len(), 2 + 10);
    let RegionError::DiskFull { directory, needed_bytes } = &error else { panic!("{error:?}") };
    assert!([one.path(), two.path()].contains(&directory.as_path()));
    assert_eq!(*needed_bytes, 40 << 10);
    assert!(error.to_string().contains(&directory.display().to_string()), "{error}");
    assert!(error.to_string().contains("40960 bytes"), "{error}");
    assert!(store.take_failures().is_empty());
    stored.iter().enumerate().for_each(|(i, bytes)| assert_eq!(bytes, &[i as u8; 40 << 10][..]));

    stored.remove(0);
    stored.push(write(&store, &[9; 40 << 10]).unwrap());
    drop(stored);
    assert_eq!(store.status().used_bytes, 0);
}

#[test]
fn a_failing_directory_is_put_aside_and_reported_once_while_the_other_goes_on() {
    let (one, two) = (home(), home());
    let (store, disks) = told_store(options(&[one.path(), two.path()]));
    let before: Vec<_> = (0..4_u8).map(|i| write(&store, &[i; 1000]).unwrap()).collect();
    let used = |at: usize| store.status().directories[at].used_bytes;
    assert_eq!((used(0), used(1)), (2048, 2048));

    disks.lock().unwrap().broken.insert(one.path().to_owned(), (Step::Write, Errno::IO));
    let after: Vec<_> = (0..4_u8).map(|i| write(&store, &[i; 1000]).unwrap()).collect();
    assert_eq!((used(0), used(1)), (2048, 6144));
    let [failure] = &store.take_failures()[..] else { panic!("one failure") };
    assert_eq!(failure.directory, one.path());
    assert!(store.take_failures().is_empty());
    assert_eq!(store.status().directories[0].failed.as_ref(), Some(&failure.reason));
    assert!(store.status().directories[1].failed.is_none());
    for (i, bytes) in before.iter().chain(&after).enumerate() {
        assert_eq!(bytes, &[i as u8 % 4; 1000][..]);
    }

    disks.lock().unwrap().broken.insert(two.path().to_owned(), (Step::Write, Errno::ROFS));
    for _ in 0..2 {
        let error = write(&store, &[0; 1000]).unwrap_err();
        let RegionError::NoDirectory { needed_bytes: 1000, directory, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(directory, two.path());
    }
    drop((before, after));
    assert_eq!(store.status().used_bytes, 0);
}

#[test]
fn a_write_that_fails_at_any_step_leaves_everything_else_as_it_was() {
    for errno in [Errno::NOSPC, Errno::IO, Errno::MFILE] {
        for step in 1.. {
            let home = home();
            let (store, disks) = told_store(options(&[home.path()]));
            let kept = write(&store, &[7; 5000]).unwrap();
            // Too large for what is left of the first segment, so that opening the second can fail too.
            let first = disks.lock().unwrap().steps;
            disks.lock().unwrap().fail_at = Some((first + step, errno));
            let content = Random::new(step).bytes(MIB as usize);
            let Err(error) = write(&store, &content) else {
                assert_eq!(step, 4, "opening, preallocating and writing are the steps");
                break;
            };
            match (errno, &error) {
                (Errno::NOSPC, RegionError::DiskFull { directory, needed_bytes: MIB })
                | (Errno::IO, RegionError::NoDirectory { directory, needed_bytes: MIB, .. })
                | (Errno::MFILE, RegionError::Write { directory, needed_bytes: MIB, .. }) => {
                    assert_eq!(directory, home.path());
                }
                _ => panic!("{errno}: {error:?}"),
            }
            assert_eq!((store.status().used_bytes, &kept[..]), (5056, &[7; 5000][..]));
            disks.lock().unwrap().fail_at = None;
            assert_eq!(write(&store, &content).is_ok(), errno != Errno::IO);
            drop(kept);
            assert_eq!((disk_bytes(&store), store.status().taken_bytes), (0, 0));
        }
    }
}

#[test]
fn a_hole_that_cannot_be_punched_is_counted_and_used_again() {
    let home = home();
    let (store, disks) = told_store(options(&[home.path()]));
    disks.lock().unwrap().broken.insert(home.path().to_owned(), (Step::Punch, Errno::OPNOTSUPP));
    let first = write(&store, &[1; 4096]).unwrap();
    let content = vec![2; MIB as usize / 2];
    drop(write(&store, &content).unwrap());
    let unreclaimed = store.status().directories[0].unreclaimed_bytes;
    assert!(unreclaimed >= MIB / 2, "{unreclaimed}");
    let punches = || disks.lock().unwrap().counts[&Step::Punch];
    let tried = punches();
    for _ in 0..10 {
        assert_eq!(write(&store, &content).unwrap(), content);
    }
    assert_eq!(punches(), tried, "what was refused once is not asked for each time");
    assert!(store.take_failures().is_empty());
    drop(first);
    assert_eq!((store.status().taken_bytes, disk_bytes(&store)), (0, 0));
}

#[test]
fn the_limit_of_disk_space_is_an_error_that_says_what_is_taken() {
    let home = home();
    let limited = DiskOptions { limit_bytes: Some(10_000), ..options(&[home.path()]) };
    let store = open_store(limited).unwrap();
    let first = write(&store, &[1; 6000]).unwrap();
    let error = write(&store, &[2; 6000]).unwrap_err();
    assert!(
        matches!(error, RegionError::DiskLimit { limit_bytes: 10_000, used_bytes: 8192, needed_bytes: 6000 }),
        "{error:?}"
    );
    assert!(disk_bytes(&store) <= 10_000 && store.status().taken_bytes <= 10_000);
    drop(first);
    write(&store, &[2; 6000]).unwrap();
    assert_eq!(store.status().taken_bytes, 0);
}

#[test]
fn slack_never_refuses_a_write_that_the_limit_or_the_disk_has_room_for() {
    let (one, two) = (home(), home());
    let limited = DiskOptions { limit_bytes: Some(MIB), ..options(&[one.path(), two.path()]) };
    let (store, _) = told_store(limited);
    let mut stored: Vec<_> = (0..200_u8).map(|i| write(&store, &[i; 4096]).unwrap()).collect();
    // Every second one goes, in both directories: free bytes that are taken still, and no run long enough.
    let mut keep = (0..).map(|at| at / 2 % 2 == 0);
    stored.retain(|_| keep.next().unwrap());
    let large = write(&store, &[7; 600 << 10]).unwrap();
    assert!(store.status().taken_bytes <= MIB && disk_bytes(&store) <= MIB);
    assert!(matches!(write(&store, &[7; 100 << 10]), Err(RegionError::DiskLimit { .. })));
    assert!(stored.iter().all(|bytes| bytes.iter().all(|byte| *byte == bytes[0])));
    assert_eq!(large, vec![7; 600 << 10]);
}

#[test]
fn disk_space_is_what_is_live_and_a_stated_slack() {
    let home = home();
    let segment_bytes = 1024 * MIB;
    let (store, disks) = told_store(DiskOptions { segment_bytes, ..options(&[home.path()]) });
    let mut random = Random::new(5);
    let mut live: Vec<Bytes> = Vec::new();
    let check = |live: &[Bytes]| {
        let occupied: u64 = live.iter().map(|bytes| rounded(bytes.len() as u64).unwrap() + 4096).sum();
        let status = store.status();
        let slack = status.directories[0].segments as u64 * segment_bytes / 16;
        assert!(status.taken_bytes <= occupied + slack, "{} of {occupied}", status.taken_bytes);
        // The file system adds a few blocks of its own, to find the others.
        assert!(disk_bytes(&store) <= status.taken_bytes + 64 * 1024, "{} of {status:?}", disk_bytes(&store));
    };
    for round in 0..30 {
        for _ in 0..100 {
            let long = random.below(10) == 0;
            let len = 1 + random.index(if long { MIB as usize } else { 8_000 });
            live.push(write(&store, &vec![round; len]).unwrap());
        }
        check(&live);
        while live.len() > 40 {
            live.swap_remove(random.index(live.len()));
        }
        check(&live);
    }
    let counts = disks.lock().unwrap().counts.clone();
    let system_calls = counts[&Step::Preallocate] + counts[&Step::Punch] + counts[&Step::Open];
    assert!(counts[&Step::Punch] > 0 && system_calls < counts[&Step::Write] / 2, "{counts:?}");
    live.clear();
    assert_eq!((store.status().taken_bytes, disk_bytes(&store)), (0, 0));
}

#[test]
fn small_extents_share_pages_and_system_calls() {
    let home = home();
    let (store, disks) = told_store(DiskOptions { segment_bytes: 256 * MIB, ..options(&[home.path()]) });
    let stored: Vec<_> = (0..20_000_u32).map(|i| write(&store, &[i as u8; 1000]).unwrap()).collect();
    let status = store.status();
    assert_eq!((status.used_bytes, status.directories[0].segments), (20_000 * 1024, 1));
    assert!(disk_bytes(&store) <= 20_000 * 1024 + MIB, "{} bytes on disk", disk_bytes(&store));
    assert!(stored.iter().enumerate().all(|(i, bytes)| bytes == &[i as u8; 1000][..]));
    drop(stored);
    let counts = disks.lock().unwrap().counts.clone();
    assert!(counts[&Step::Preallocate] < 60, "{counts:?}");
    assert!(counts.get(&Step::Punch).copied().unwrap_or(0) < 60, "{counts:?}");
    assert_eq!((store.status().taken_bytes, disk_bytes(&store)), (0, 0));
}

#[test]
fn bytes_that_cannot_be_read_are_an_error_and_no_signal() {
    let home = home();
    let (store, disks) = told_store(options(&[home.path()]));
    let bytes = write(&store, &[5; 100_000]).unwrap();
    store.prefetch(&bytes).unwrap();
    // What a bad sector does to a page, a missing page does too.
    disks.lock().unwrap().files[0].set_len(4096).unwrap();
    let error = store.prefetch(&bytes).unwrap_err();
    assert!(
        matches!(&error, RegionError::Read { bytes: 100_000, directory, .. } if directory == home.path())
    );
    assert_eq!(store.take_failures().len(), 1);
    store.prefetch(&vec![0; 10_000]).unwrap();
}

#[test]
fn a_store_needs_a_directory_it_can_write_to() {
    assert!(matches!(open_store(options(&[])), Err(RegionError::NoDirectoryGiven)));
    let home = home();
    let (file, absent) = (home.path().join("file"), home.path().join("a/b"));
    fs::write(&file, "in the way").unwrap();
    let error = open_store(options(&[&absent, &file])).unwrap_err();
    assert!(
        matches!(&error, RegionError::OpenDirectory { directory, .. } if *directory == file),
        "{error:?}"
    );
    assert!(error.to_string().contains(&file.display().to_string()));
    write(&open_store(options(&[&absent])).unwrap(), &[1]).unwrap();
}

#[test]
fn two_stores_in_one_directory_do_not_see_or_harm_each_other() {
    let home = home();
    fs::write(home.path().join("mine"), "not a segment").unwrap();
    let one = open_store(options(&[home.path()])).unwrap();
    let two = open_store(options(&[home.path()])).unwrap();
    let (a, b) = (write(&one, &[1; 10_000]).unwrap(), write(&two, &[2; 20_000]).unwrap());
    assert_eq!((one.status().used_bytes, two.status().used_bytes), (10_048, 20_032));
    drop((one, a));
    assert_eq!(b, &[2; 20_000][..]);
    drop(two);
    assert_eq!(b, &[2; 20_000][..]);
    assert_eq!(fs::read_to_string(home.path().join("mine")).unwrap(), "not a segment");
}

#[test]
fn four_threads_write_read_and_drop_and_the_disk_is_empty_after() {
    let (one, two) = (home(), home());
    let store = open_store(options(&[one.path(), two.path()])).unwrap();
    thread::scope(|scope| {
        for seed in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                let mut live: Vec<(Bytes, Vec<u8>)> = Vec::new();
                for _ in 0..400 {
                    if live.len() < 30 && random.below(3) > 0 {
                        let long = random.below(20) == 0;
                        let len = random.index(if long { 2 * MIB as usize } else { 20_000 });
                        let content = random.bytes(len);
                        live.push((write(store, &content).unwrap(), content));
                    } else if !live.is_empty() {
                        let (bytes, content) = live.swap_remove(random.index(live.len()));
                        store.prefetch(&bytes).unwrap();
                        assert_eq!(bytes, content);
                    }
                }
                assert!(live.iter().all(|(bytes, content)| bytes == content));
            });
        }
    });
    let status = store.status();
    assert_eq!((status.used_bytes, status.taken_bytes, disk_bytes(&store)), (0, 0, 0));
}

/// The test below runs this test binary again with this variable set, to be killed.
const CHILD: &str = "LARDER_TEST_CHILD_DIRECTORY";

/// A child process that gets SIGKILL when this drops, also from a failing test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn after_kill_9_no_disk_space_stays_in_use_and_a_new_store_starts_clean() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let store = open_store(options(&[Path::new(&directory)])).unwrap();
        let _stored: Vec<_> = (0..8).map(|i| write(&store, &vec![i; MIB as usize]).unwrap()).collect();
        println!("stored");
        io::stdout().flush().unwrap();
        loop {
            thread::park();
        }
    }
    let home = home();
    let name = "region::disk::tests::after_kill_9_no_disk_space_stays_in_use_and_a_new_store_starts_clean";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, home.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("stored")), "the child died before it stored anything");

    let home_device = fs::metadata(home.path()).unwrap().dev();
    let open_files = fs::read_dir(format!("/proc/{}/fd", child.0.id())).unwrap();
    let facts = open_files.filter_map(|fd| fs::metadata(fd.unwrap().path()).ok());
    let segments: Vec<_> =
        facts.filter(|file| file.is_file() && file.dev() == home_device && file.nlink() == 0).collect();
    let in_use: u64 = segments.iter().map(|file| file.blocks() * 512).sum();
    assert!(in_use >= 8 * MIB, "{in_use} bytes in nameless files");

    drop(child);
    // The files had no name and the process no longer exists, so the kernel has freed them.
    assert!(fs::read_dir(home.path()).unwrap().next().is_none());
    let store = open_store(options(&[home.path()])).unwrap();
    assert_eq!(store.status().used_bytes, 0);
    assert_eq!(write(&store, b"clean").unwrap(), &b"clean"[..]);
}

fn unmapped(directories: &[&Path]) -> (DiskStore, SharedDisks, MemoryManager) {
    let (disks, memory) = (SharedDisks::default(), memory());
    let options = DiskOptions { reads: DiskReads::Buffered, ..options(directories) };
    (DiskStore::open(options, memory.clone(), told_files(&disks)).unwrap(), disks, memory)
}

#[test]
fn without_a_mapping_bytes_are_read_into_memory_that_is_charged_while_they_are_held() {
    let home = home();
    let (store, _, memory) = unmapped(&[home.path()]);
    let content = Random::new(4).bytes(100_000);
    let StoredBytes::Disk(extent) = store.write(&content, CHUNK).unwrap() else { panic!("it is mapped") };
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains(home.path().to_str().unwrap()), "{maps}");
    let charged = || (memory.snapshot().heap.storage_bytes, memory.snapshot().scratch_bytes);
    assert_eq!(charged(), (0, 0));
    let bytes = extent.load().unwrap();
    assert_eq!((&bytes[..], charged()), (&content[..], (100_000, 0)));
    let all = memory.try_reserve_storage(MemoryMode::Heap, 10 * MIB - 100_000).unwrap();
    let again = extent.load().unwrap();
    assert_eq!((&again, charged()), (&bytes, (10 * MIB, 100_000)), "no memory is free: scratch");
    drop((bytes, again, all));
    assert_eq!(charged(), (0, 0));
    drop(extent);
    assert_eq!((store.status().used_bytes, store.status().taken_bytes), (0, 0));
}

#[test]
fn without_a_mapping_a_disk_that_cannot_be_read_is_an_error_and_put_aside() {
    let home = home();
    for truncated in [true, false] {
        let (store, disks, memory) = unmapped(&[home.path()]);
        let StoredBytes::Disk(extent) = store.write(&[5; 100_000], CHUNK).unwrap() else {
            panic!("it is mapped")
        };
        if truncated {
            disks.lock().unwrap().files[0].set_len(4096).unwrap();
        } else {
            disks.lock().unwrap().broken.insert(home.path().to_owned(), (Step::Read, Errno::IO));
        }
        let error = extent.load().unwrap_err();
        assert!(
            matches!(&error, LoadError::Unreadable(RegionError::Read { bytes: 100_000, directory, .. })
                if directory == home.path()),
            "{error:?}"
        );
        assert_eq!(store.take_failures().len(), 1);
        assert!(matches!(store.write(&[1], CHUNK), Err(RegionError::NoDirectory { .. })));
        assert_eq!(memory.snapshot().heap.storage_bytes, 0);
    }
}
