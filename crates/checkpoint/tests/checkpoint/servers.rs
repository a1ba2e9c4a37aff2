//! What holds on every backend.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use larder_blockstore::codec::{Bincode, CodecId};
use larder_checkpoint::{CleanupOptions, Error, HookAction, PartError, Records, Spec, Step, conformance};
use parking_lot::Mutex;

use crate::backends::{self, Kind, Site};
use crate::children;
use crate::support::*;

/// Backends whose objects can be seen and changed from outside.
fn each_visible() -> Vec<Site> {
    backends::each().into_iter().filter(|site| site.outside().is_some()).collect()
}

#[test]
fn every_backend_s_commit_store_conforms() {
    for site in backends::each() {
        conformance::check(|| site.store().commit_store()).unwrap_or_else(|e| panic!("{site:?}: {e}"));
    }
}

#[test]
fn checkpoints_come_back_and_go_again() {
    for site in backends::each() {
        let store = site.store();
        assert!(store.latest(NAME).unwrap().is_none(), "{site:?}");
        assert!(store.datasets().unwrap().is_empty() && store.generations(NAME).unwrap().is_empty());
        for seed in 1..=3 {
            let written = write(&store, &numbers(seed)).unwrap();
            assert_eq!(written.address(), format!("{}/{NAME}/commits/{seed:020}.json", site.address));
            assert_eq!(read(&written).unwrap(), numbers(seed));
        }
        let other = site.store();
        assert_eq!(other.datasets().unwrap(), [NAME]);
        assert_eq!(other.generations(NAME).unwrap(), [1, 2, 3]);
        let newest = other.latest(NAME).unwrap().unwrap();
        assert_eq!(read(&newest).unwrap(), numbers(3));
        assert!(newest.verify().is_intact());
        assert_eq!(other.latest_readable(NAME).unwrap().unwrap().generation(), 3);
        assert!(matches!(other.open_generation(NAME, 4), Err(Error::NotFound { .. })));
        assert_eq!(other.keep_last(NAME, 1).unwrap(), [1, 2]);
        assert_eq!(read(&store.open_generation(NAME, 3).unwrap()).unwrap(), numbers(3));
        let orphans = other.cleanup(&at_once()).unwrap();
        assert!(orphans.orphans.is_empty() && orphans.skipped.is_empty(), "{site:?}: {orphans:?}");
        if let Some(objects) = site.objects() {
            assert_eq!(objects, committed_files(&other), "{site:?}");
        }
    }
}

#[test]
fn another_process_opens_a_checkpoint_on_any_backend_but_memory() {
    for site in each_visible() {
        let address = write(&site.store(), &numbers(7)).unwrap().address();
        let output =
            children::command("servers::opener", "LARDER_SERVER_OPEN", &[&address]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Runs as a process of its own.
#[test]
fn opener() {
    let Some(words) = children::told("LARDER_SERVER_OPEN") else { return };
    let root = words[0].split_once(&format!("/{NAME}/")).unwrap().0;
    let checkpoint = backends::builder(root).open().unwrap().open_generation(NAME, 1).unwrap();
    assert_eq!(checkpoint.address(), words[0]);
    assert_eq!(read(&checkpoint).unwrap(), numbers(7));
}

#[test]
fn an_attempt_that_is_dropped_leaves_nothing_on_any_backend() {
    for site in backends::each() {
        let store = site.store();
        let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
        write_part(&attempt, 0, &numbers(1)[0]).unwrap();
        let mut open = attempt.part(2).unwrap();
        open.write(&chunks(&numbers(1)[2])[0]).unwrap();
        drop(attempt);
        drop(open);
        assert!(site.objects().unwrap_or_default().is_empty(), "{site:?}: {:?}", site.objects());
        let orphans = store.cleanup(&at_once()).unwrap();
        assert!(orphans.orphans.is_empty(), "{site:?}: {orphans:?}");
    }
}

#[test]
fn what_a_failed_removal_leaves_is_cleaned_up_on_any_backend() {
    for site in backends::each() {
        let plain = site.store();
        (1..=2).for_each(|seed| drop(write(&plain, &numbers(seed)).unwrap()));
        for (step, left) in [(Step::RemoveManifest, vec![1, 2]), (Step::RemoveData, vec![2])] {
            let hook = move |at, _: &str| match at == step {
                true => HookAction::FailBefore(std::io::ErrorKind::Other),
                false => HookAction::Continue,
            };
            let store = site.builder().hook(hook).open().unwrap();
            let error = store.remove_generation(NAME, 1).unwrap_err();
            assert_eq!(error.place().unwrap().step, step, "{error}");
            assert_eq!(plain.generations(NAME).unwrap(), left, "{site:?}");
        }
        assert_eq!(plain.cleanup(&at_once().dry_run(true)).unwrap().orphans.len(), 1, "{site:?}");
        assert_eq!(plain.cleanup(&at_once()).unwrap().orphans.len(), 1, "{site:?}");
        assert_eq!(read(&plain.latest(NAME).unwrap().unwrap()).unwrap(), numbers(2));
        if let Some(objects) = site.objects() {
            assert_eq!(objects, committed_files(&plain), "{site:?}");
        }
    }
}

#[test]
fn cleanup_spares_a_writer_at_work_on_any_backend() {
    for site in backends::each() {
        let store = site.store();
        let attempt = store.begin(NAME, spec(&numbers(1))).unwrap();
        write_parts(&attempt, &numbers(1)).unwrap();
        let others = site.store().cleanup(&CleanupOptions::default()).unwrap();
        assert!(others.orphans.is_empty() && others.skipped.is_empty(), "{site:?}: {others:?}");
        assert_eq!(read(&attempt.commit().unwrap()).unwrap(), numbers(1));
    }
}

#[test]
fn large_parts_come_back_chunk_by_chunk_on_any_backend() {
    for site in backends::each() {
        let attempt = begin_noise(&site.store());
        let mut part = attempt.part(0).unwrap();
        let chunks: Vec<_> = (0..7).map(|seed| noise(seed, (3 << 20) + 11)).collect();
        chunks.iter().for_each(|chunk| part.write(chunk).unwrap());
        part.finish().unwrap();
        attempt.verify_part(0).unwrap();
        let checkpoint = attempt.commit().unwrap();
        let read: Vec<_> =
            checkpoint.read_part(0).unwrap().map(|chunk| chunk.unwrap().stored().unwrap()).collect();
        assert!(
            read.iter().eq(chunks.iter().map(|chunk| chunk.stored().unwrap()).collect::<Vec<_>>().iter())
        );
        assert_eq!(site.open_uploads(), 0);
    }
}

#[test]
fn a_part_s_writer_holds_no_more_than_it_is_told_where_the_backend_has_a_choice() {
    for site in backends::each() {
        let store = site.builder().chunk_bytes(5 << 20).concurrency(4).open().unwrap();
        let attempt = begin_noise(&store);
        let mut held = Vec::new();
        for bytes_max in [usize::MAX, 22 << 20, 0] {
            let mut part = attempt.part_within(0, bytes_max).unwrap();
            assert_eq!(part.held_bytes(), 0);
            (0..6).for_each(|seed| part.write(&noise(seed, 4 << 20)).unwrap());
            held.push(part.held_bytes() >> 20);
        }
        let expected = match site.kind {
            Kind::Fs | Kind::Hdfs => [4, 4, 4],
            Kind::Memory => [0, 0, 0],
            // All there is; two pieces on their way and two besides; one and two.
            Kind::S3 => [24, 20, 15],
        };
        assert_eq!(held, expected, "{site:?}");
        let mut part = attempt.part_within(0, 0).unwrap();
        (0..6).for_each(|seed| part.write(&noise(seed, 4 << 20)).unwrap());
        part.finish().unwrap();
        attempt.verify_part(0).unwrap();
        let back = attempt.read_back(0).unwrap();
        let (batches, batch_mib) = match site.kind {
            Kind::Fs | Kind::Memory => (1, 4),
            Kind::S3 => (2, 5),
            Kind::Hdfs => (2, 8),
        };
        let of_one_batch =
            [back.bytes_max(), back.within(0).bytes_max()].map(|bytes| (bytes / batches) >> 20);
        // What is read at once of the backend, and the chunk that is the least.
        assert_eq!(of_one_batch, [batch_mib, 4], "{site:?}");
        attempt.read_back(0).unwrap().within(0).verify().unwrap();
    }
}

#[test]
fn no_way_to_fail_leaves_an_upload_open_on_s3() {
    let Some(site) = Kind::S3.fresh() else { return };
    for fault in [None, Some(Step::WriteChunk), Some(Step::WriteHeader), Some(Step::ClosePart)] {
        for after in [HookAction::FailBefore, HookAction::FailAfter] {
            let chunks = Arc::new(Mutex::new(0));
            let hook = move |step, _: &str| {
                *chunks.lock() += u32::from(step == Step::WriteChunk);
                // Late enough for the upload to have begun.
                let fails = Some(step) == fault && *chunks.lock() == 5;
                if fails { after(std::io::ErrorKind::Other) } else { HookAction::Continue }
            };
            let store = site.builder().chunk_bytes(5 << 20).hook(hook).open().unwrap();
            let attempt = begin_noise(&store);
            let mut part = attempt.part(0).unwrap();
            let written = (0..5).try_for_each(|seed| part.write(&noise(seed, 4 << 20)));
            if fault.is_none() {
                assert_eq!(site.open_uploads(), 1, "the test looks at an upload");
            }
            let failed = match fault {
                None => {
                    drop(part);
                    true
                }
                Some(_) => written.and_then(|()| part.finish()).is_err(),
            };
            assert!(failed, "{fault:?}");
            assert_eq!(site.open_uploads(), 0, "{fault:?}");
            drop(attempt);
            assert!(site.objects().unwrap().is_empty(), "{fault:?}");
        }
    }
}

#[test]
fn a_part_changed_on_the_server_is_named() {
    for site in each_visible() {
        let (store, outside) = (site.store(), site.outside().unwrap());
        let (older, newest) = (write(&store, &numbers(1)).unwrap(), write(&store, &numbers(2)).unwrap());
        let object = |checkpoint: &larder_checkpoint::Checkpoint, part: usize| {
            format!("{NAME}/{}", checkpoint.manifest().parts[part].path)
        };
        let part = object(&newest, 2);
        let (good, replaced) = (outside.get(&part), outside.get(&object(&older, 2)));
        assert_eq!(good.len(), replaced.len());
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 4;
            bytes
        };
        let longer = [&good[..], b"x"].concat();
        for (damaged, what) in [
            (&good[..good.len() / 2], "bytes where"),
            (&longer, "bytes where"),
            (&replaced, "checksum"),
            (&flipped(0), "chunk 0"),
            (&flipped(100), "chunk 3"),
            (&flipped(good.len() - 1), "damaged"),
        ] {
            outside.put(&part, damaged);
            let opened = site.store().latest(NAME).unwrap().unwrap();
            let error = read(&opened).unwrap_err();
            assert!(matches!(&error, Error::Part { partition: 2, .. }), "{site:?}: {error}");
            assert!(error.to_string().contains(&format!("{}/{part}", site.address)), "{error}");
            assert!(error.to_string().contains(what) && !error.is_retryable(), "{site:?}: {error}");
            assert_eq!(opened.verify().damaged.len(), 1);
        }
        outside.remove(&part);
        let error = read(&newest).unwrap_err();
        assert!(matches!(&error, Error::Part { source: PartError::Missing, .. }), "{site:?}: {error}");
        assert_eq!(read(&older).unwrap(), numbers(1), "the generation before is untouched");
        outside.put(&part, &good);
        assert_eq!(read(&newest).unwrap(), numbers(2));
    }
}

#[test]
fn a_range_of_records_reads_its_chunks_alone() {
    for site in each_visible() {
        let outside = site.outside().unwrap();
        let records: Vec<u64> = (0..23).collect();
        let checkpoint = write(&site.store(), std::slice::from_ref(&records)).unwrap();
        let range_of = |range| -> Result<Records<u64>, Error> {
            checkpoint.read_part(0)?.record_range(Arc::new(Bincode), range)
        };
        let read = |range: Range<u64>| -> Result<Vec<u64>, Error> {
            let read: Result<Vec<u64>, Error> = range_of(range.clone())?.collect();
            let (seen, error) = visited(range_of(range.clone())?);
            assert!(read.as_ref().map_or(error.is_some(), |read| *read == seen && error.is_none()));
            // Half of them by one, half by the other.
            let mut both = range_of(range.clone())?;
            let mut begun: Vec<u64> = both.by_ref().take(seen.len() / 2).collect::<Result<_, _>>()?;
            begun.extend(visited(both).0);
            assert_eq!(begun, seen);
            let mut both = range_of(range.clone())?;
            let mut begun: Vec<u64> = both.by_ref().take(seen.len() / 2).collect::<Result<_, _>>()?;
            begun.extend(viewed(both).0);
            assert_eq!(begun, seen);
            assert_eq!(viewed(range_of(range)?).0, seen);
            read
        };
        for start in 0..=23 {
            for end in start..=23 {
                let expected = &records[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
                if site.kind == Kind::Fs || (start + end) % 7 == 0 {
                    assert_eq!(read(start..end).unwrap(), expected, "{start}..{end}");
                }
            }
        }
        #[expect(clippy::reversed_empty_ranges, reason = "it has to be refused")]
        for range in [0..24, 24..24, 5..4] {
            assert!(matches!(read(range), Err(Error::Invalid { .. })));
        }
        let begun = || {
            let mut part = checkpoint.read_part(0).unwrap();
            part.next().unwrap().unwrap();
            part
        };
        let asked_late = begun().record_range::<u64>(Arc::new(Bincode), 0..1);
        assert!(matches!(asked_late, Err(Error::Invalid { .. })));
        assert!(matches!(begun().verify(), Err(Error::Invalid { .. })), "which is no damage");
        // Four records a chunk: damage the third chunk, records 8 to 11.
        let part = format!("{NAME}/{}", checkpoint.manifest().parts[0].path);
        let mut damaged = outside.get(&part);
        assert!(!damaged.is_empty(), "{site:?} {part}");
        damaged[2 * 32 + 5] ^= 1;
        outside.put(&part, &damaged);
        assert_eq!(read(0..8).unwrap(), records[..8], "{site:?}");
        assert_eq!(read(12..23).unwrap(), records[12..], "{site:?}");
        for range in [0..9, 11..12, 7..23] {
            assert!(matches!(read(range), Err(Error::Part { .. })), "{site:?}");
        }
    }
}

#[test]
fn a_checkpoint_of_10_000_parts_is_opened_by_one_listing_and_one_read() {
    for kind in [Kind::Fs, Kind::Memory] {
        let site = kind.fresh().unwrap();
        let attempt = site.store().begin(NAME, Spec::new(10_000, CodecId::BINCODE)).unwrap();
        (0..10_000).for_each(|partition| attempt.part(partition).unwrap().finish().unwrap());
        attempt.commit().unwrap();
        let trace = Arc::new(Mutex::new(Vec::new()));
        let hook = {
            let trace = Arc::clone(&trace);
            move |step, _: &str| {
                trace.lock().push(step);
                HookAction::Continue
            }
        };
        let checkpoint = site.builder().hook(hook).open().unwrap().latest(NAME).unwrap().unwrap();
        assert_eq!(checkpoint.partitions(), 10_000);
        assert_eq!(*trace.lock(), [Step::ListCommits, Step::ReadManifest], "{site:?}");
    }
}

/// Runs as a process of its own: begins a part, says so, and waits to be killed.
#[test]
fn victim() {
    let Some(words) = children::told("LARDER_VICTIM") else { return };
    let store = backends::builder(&words[0]).chunk_bytes(5 << 20).open().unwrap();
    let attempt = begin_noise(&store);
    let mut part = attempt.part(0).unwrap();
    (0..5).for_each(|seed| part.write(&noise(seed, 4 << 20)).unwrap());
    std::fs::write(&words[1], attempt.id().to_string()).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_writer_killed_in_the_middle_of_a_part_leaves_nothing_visible() {
    for site in each_visible() {
        let store = site.store();
        let attempt = begin_noise(&store);
        let mut part = attempt.part(0).unwrap();
        part.write(&noise(9, 1000)).unwrap();
        part.finish().unwrap();
        attempt.commit().unwrap();

        let dir = tempfile::tempdir().unwrap();
        let signal = dir.path().join("writing");
        let words = [&*site.address, signal.to_str().unwrap()];
        let mut child = children::command("servers::victim", "LARDER_VICTIM", &words).spawn().unwrap();
        while !signal.exists() {
            assert!(child.try_wait().unwrap().is_none(), "{site:?}: it died by itself");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let left_open = usize::from(site.kind == Kind::S3);
        assert_eq!(site.open_uploads(), left_open, "{site:?}");

        let recovered = site.store();
        assert_eq!(recovered.generations("noise").unwrap(), [1], "{site:?}");
        let newest = recovered.latest("noise").unwrap().unwrap();
        assert!(newest.verify().is_intact(), "{site:?}");
        let again = begin_noise(&recovered);
        let mut part = again.part(0).unwrap();
        part.write(&noise(10, 1000)).unwrap();
        part.finish().unwrap();
        assert_eq!(again.commit().unwrap().generation(), 2);
        assert!(recovered.cleanup(&CleanupOptions::default()).unwrap().orphans.is_empty(), "it is too young");
        let listed = recovered.cleanup(&at_once().dry_run(true)).unwrap();
        let killed = std::fs::read_to_string(&signal).unwrap();
        assert!(
            listed.orphans.len() == 1 && listed.orphans[0].object.contains(&killed),
            "{site:?}: {listed:?}"
        );
        assert_eq!(site.open_uploads(), left_open, "{site:?}");
        recovered.cleanup(&at_once()).unwrap();
        assert_eq!(site.objects().unwrap(), committed_files(&recovered), "{site:?}");
        assert_eq!(site.open_uploads(), 0, "{site:?}");
        assert!(recovered.latest("noise").unwrap().unwrap().verify().is_intact());
    }
}
