//! Blocks that are read in part.

use larder_blockstore::codec::{Codec, Pod};
use larder_blockstore::format::Compression;
use larder_blockstore::{BlockWriter, DiskReads, Error, Mark, Residence, StorageLevel, StoredDataset};

use crate::corruption::flip;
use crate::support::{World, all_levels, finish, keep, record, vacant};

/// Writes the records with a mark before each of these.
fn marked<T: Clone + std::fmt::Debug + Send + Sync + 'static>(
    dataset: &StoredDataset<T>,
    records: &[T],
    starts: &[usize],
) -> Vec<Mark> {
    let mut writer: BlockWriter<T> = vacant(dataset, 0);
    let mut marks = Vec::new();
    for (index, record) in records.iter().enumerate() {
        marks.extend(starts.iter().filter(|start| **start == index).map(|_| writer.mark().unwrap()));
        keep(&mut writer, record.clone());
    }
    marks.extend(starts.iter().filter(|start| **start == records.len()).map(|_| writer.mark().unwrap()));
    drop(finish(writer));
    marks
}

fn range<T: Clone + Send + Sync + 'static>(
    dataset: &StoredDataset<T>,
    from: Mark,
    records: u64,
) -> Result<Vec<T>, Error> {
    let mut batches = dataset.get_range(0, from, records)?.unwrap();
    let mut all = Vec::new();
    while let Some(batch) = batches.next_owned(100)? {
        all.extend(batch);
    }
    Ok(all)
}

fn check<T: Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static>(
    dataset: &StoredDataset<T>,
    records: &[T],
    starts: &[usize],
    marks: &[Mark],
) {
    assert!(range(dataset, Mark::START, u64::MAX).unwrap() == records, "from the start");
    for (start, mark) in starts.iter().zip(marks) {
        assert_eq!(mark.record(), *start as u64);
        for end in starts.iter().filter(|end| **end >= *start) {
            let wanted = (end - start) as u64;
            assert!(range(dataset, *mark, wanted).unwrap() == records[*start..*end], "{start} to {end}");
        }
        let mut by_reference = dataset.get_range(0, *mark, u64::MAX).unwrap().unwrap();
        let mut rest = Vec::new();
        while let Some(batch) = by_reference.next_batch().unwrap() {
            rest.extend_from_slice(batch);
        }
        assert!(rest == records[*start..], "from {start} on");
    }
}

/// Long ranges, short ones, empty ones, and the end of the block.
const STARTS: [usize; 9] = [0, 1, 150, 150, 155, 300, 301, 399, 400];

/// Checks a dataset in memory, on disk, and in memory again.
fn check_everywhere<T: Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static>(
    dataset: &StoredDataset<T>,
    records: &[T],
) {
    let marks = marked(dataset, records, &STARTS);
    check(dataset, records, &STARTS, &marks);
    if dataset.evict(0).unwrap() && dataset.level().uses_disk() {
        check(dataset, records, &STARTS, &marks);
        assert_eq!(
            dataset.block_status(0).unwrap().residences,
            [Residence::Disk],
            "no range promotes a block"
        );
        drop(dataset.get(0).unwrap());
        check(dataset, records, &STARTS, &marks);
    }
}

fn each_level(check: impl Fn(&World, StorageLevel, Compression)) {
    for level in all_levels() {
        for compression in [Compression::None, Compression::Lz4] {
            for reads in [DiskReads::Mapped, DiskReads::Buffered] {
                let world = World::with(8 << 20, |builder| {
                    builder
                        .chunk_bytes(64 << 10)
                        .disk_reads(reads)
                        .verify_memory(reads == DiskReads::Buffered)
                });
                check(&world, level, compression);
            }
        }
    }
}

#[test]
fn ranges_of_records_of_many_sizes_are_what_was_written_there() {
    let records: Vec<Vec<u8>> = (0..400).map(|n| record(n, (n as usize * 37) % 150)).collect();
    each_level(|world, level, compression| {
        let dataset = world.store.dataset("d").level(level).compression(compression).build().unwrap();
        check_everywhere(&dataset, &records);
    });
}

#[test]
fn ranges_of_plain_old_data_are_what_was_written_there() {
    let records: Vec<[u64; 3]> = (0..400).map(|n| [n, n * n, 7]).collect();
    assert!(Codec::<[u64; 3]>::record_bytes(&Pod).is_some());
    each_level(|world, level, compression| {
        let dataset = world.store.dataset_with("d", Pod, |_: &[u64; 3]| 0);
        check_everywhere(&dataset.level(level).compression(compression).build().unwrap(), &records);
    });
}

#[test]
fn a_block_of_values_that_is_spilled_half_way_is_found_by_number() {
    let world = World::new(100_000);
    let records: Vec<Vec<u8>> = (0..400).map(|n| record(n, 500)).collect();
    let dataset = world.dataset("d", StorageLevel::MEMORY_AND_DISK);
    let marks = marked(&dataset, &records, &STARTS);
    assert_eq!(dataset.block_status(0).unwrap().residences, [Residence::Disk]);
    check(&dataset, &records, &STARTS, &marks);
}

#[test]
fn an_absent_block_has_no_ranges() {
    let world = World::new(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY_SER);
    let marks = marked(&dataset, &[record(1, 10)], &[0]);
    dataset.remove(0);
    assert!(dataset.get_range(0, marks[0], 1).unwrap().is_none());
    assert_eq!(dataset.status().counters.misses, 2);
}

#[test]
fn a_range_reads_its_own_chunks_and_no_others() {
    for reads in [DiskReads::Mapped, DiskReads::Buffered] {
        let world = World::with(8 << 20, |builder| builder.disk_reads(reads));
        let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
        // 30 kB each: far below the length of a chunk.
        let records: Vec<Vec<u8>> = (0..30).map(|n| record(n, 3_000)).collect();
        let marks = marked(&dataset, &records, &[0, 10, 20]);
        assert!(flip(world.scratch.path(), &records[12], 5));
        for (mark, start) in [(marks[0], 0), (marks[2], 20)] {
            assert!(range(&dataset, mark, 10).unwrap() == records[start..start + 10], "{reads:?}");
        }
        let mut batches = dataset.get_range(0, marks[0], 10).unwrap().unwrap();
        drop(batches.next_owned(1).unwrap());
        let charged = world.store.memory().snapshot().heap.charged_bytes();
        assert!((30_000..40_000).contains(&charged), "{charged} bytes are held for 30,000");
        drop(batches);
        assert_eq!(dataset.status().counters.hits_disk, 3);
        let damaged = range(&dataset, marks[1], 10).unwrap_err();
        assert!(matches!(damaged, Error::Corrupt { chunk: 1, .. }), "{damaged}");
        assert!(!dataset.contains(0), "the copy is gone");
    }
}
