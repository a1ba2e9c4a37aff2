//! Encryption of blocks on disk: behaviour 21.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use larder_blockstore::format::Compression;
use larder_blockstore::{Error, Residence, StorageLevel, StoredDataset};

use crate::support::{SPILLING_LEVELS, World, put, read, record};

fn encrypted() -> World {
    World::with(1 << 20, |builder| builder.encrypt_disk(true).chunk_bytes(4_096))
}

/// The files of a store. They have no name, but the process holds them open, and `/proc` opens them again.
fn segment_files(directory: &Path) -> Vec<File> {
    let links = fs::read_dir("/proc/self/fd").unwrap().map(|fd| fd.unwrap().path());
    let of_store = links.filter(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(directory)));
    of_store.filter_map(|link| OpenOptions::new().read(true).write(true).open(link).ok()).collect()
}

/// What was written to each file; no test writes more than this.
fn on_disk(directory: &Path) -> Vec<Vec<u8>> {
    let content = |file: File| {
        assert!(file.metadata().unwrap().blocks() > 0, "nothing was written");
        let mut content = vec![0; 1 << 20];
        file.read_exact_at(&mut content, 0).unwrap();
        content.truncate(content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        content
    };
    segment_files(directory).into_iter().map(content).collect()
}

fn finds(content: &[Vec<u8>], wanted: &[u8]) -> bool {
    content.iter().any(|content| content.windows(wanted.len()).any(|window| window == wanted))
}

fn fill(dataset: &StoredDataset<Vec<u8>>) {
    for partition in 0..5 {
        drop(put(dataset, partition, records(partition)).unwrap());
        dataset.evict(partition).unwrap();
        assert_eq!(dataset.block_status(partition).unwrap().residences, [Residence::Disk]);
    }
}

fn records(partition: u32) -> Vec<Vec<u8>> {
    (0..40).map(|i| [record(u64::from(partition) * 100 + i, 300), vec![b'x'; 100]].concat()).collect()
}

#[test]
fn no_plaintext_of_any_record_is_on_disk_and_all_of_them_come_back() {
    for level in SPILLING_LEVELS.into_iter().chain([StorageLevel::DISK_ONLY]) {
        for compression in [Compression::None, Compression::Lz4] {
            for world in [encrypted(), World::new(1 << 20)] {
                let dataset = world.store.dataset("d").level(level).compression(compression).build().unwrap();
                fill(&dataset);
                let content = on_disk(world.scratch.path());
                let is_encrypted = format!("{:?}", world.store).contains("DiskCipher");
                for partition in 0..5 {
                    // What LZ4 leaves of random bytes are the bytes themselves.
                    let any =
                        records(partition).iter().step_by(13).any(|record| finds(&content, &record[..16]));
                    assert_eq!(any, !is_encrypted, "{level} {compression}");
                }
                for partition in 0..5 {
                    let block = dataset.get(partition).unwrap().unwrap();
                    assert_eq!(read(&block), records(partition), "{level} {compression}");
                }
                assert_eq!(world.store.counters().corrupt, 0);
            }
        }
    }
}

#[test]
fn sizes_are_those_of_the_bytes_before_they_are_encrypted() {
    let sizes = [encrypted(), World::with(1 << 20, |builder| builder.chunk_bytes(4_096))].map(|world| {
        let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
        fill(&dataset);
        let block = dataset.get(0).unwrap().unwrap();
        let bytes = block.serialized().unwrap();
        let header = bytes.header();
        let status = dataset.block_status(0).unwrap();
        (status.disk_bytes, dataset.status().disk_bytes, bytes.stored_bytes(), header)
    });
    assert_eq!(sizes[0], sizes[1]);
}

#[test]
fn a_flipped_bit_is_found_and_the_block_computed_again() {
    for level in SPILLING_LEVELS.into_iter().chain([StorageLevel::DISK_ONLY]) {
        for at in [0, 1_000, 4_000] {
            let world = encrypted();
            let dataset = world.dataset("d", level);
            drop(put(&dataset, 0, records(0)).unwrap());
            dataset.evict(0).unwrap();
            let [file] = &segment_files(world.scratch.path())[..] else { panic!("one file") };
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            let error = dataset.get(0).unwrap_err();
            assert!(matches!(error, Error::Corrupt { residence: Residence::Disk, .. }), "{error}");
            assert_eq!(read(&put(&dataset, 0, records(0)).unwrap()), records(0), "{level}");
            let counters = dataset.status().counters;
            assert_eq!((counters.corrupt, counters.recomputed), (1, 1), "{level}");
        }
    }
}

#[test]
fn a_chunk_put_in_the_place_of_another_is_found() {
    let world = encrypted();
    let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
    for partition in 0..2 {
        drop(put(&dataset, partition, [record(partition.into(), 4_000)]).unwrap());
    }
    let [file] = &segment_files(world.scratch.path())[..] else { panic!("one file") };
    let mut content = vec![0; 16 << 10];
    file.read_exact_at(&mut content, 0).unwrap();
    // One record and its length, in an extent of whole 64 bytes; the second starts at the block after.
    let second = content[4_032..].iter().position(|byte| *byte != 0).unwrap() + 4_032;
    let (first, at) = (content[..4_032].to_vec(), second as u64);
    file.write_all_at(&first, at).unwrap();
    assert!(matches!(dataset.get(1), Err(Error::Corrupt { .. })));
    assert_eq!(read(&dataset.get(0).unwrap().unwrap()), [record(0, 4_000)]);
}

#[test]
fn nothing_is_mapped_and_what_is_decrypted_is_charged() {
    let world = encrypted();
    let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
    fill(&dataset);
    let scratch = world.scratch.path().to_str().unwrap();
    assert!(!fs::read_to_string("/proc/self/maps").unwrap().contains(scratch));
    assert_eq!(world.charged(), 0);
    let block = dataset.get(0).unwrap().unwrap();
    assert_eq!(world.charged(), block.serialized().unwrap().stored_bytes());
}
