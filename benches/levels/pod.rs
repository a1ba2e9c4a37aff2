//! Plain old data, 64 MiB a block: what moves at the speed of memory.

use std::hint::black_box;

use bytemuck::{Zeroable, cast_slice};
use criterion::Criterion;
use larder_blockstore::codec::Pod;
use larder_blockstore::format::Compression;
use larder_blockstore::{Block, BlockStore, StorageLevel, StoredDataset};
use lz4_flex::block::{compress_into_with_table, decompress_into, get_maximum_output_size};
use memmap2::Mmap;
use rustix::fs::{MemfdFlags, SealFlags};
use twox_hash::XxHash3_64;

use crate::records::{POD_BYTES, Reading, readings};
use crate::stores::roomy;
use crate::turns::{compare, prepared, timed};

const CHUNK_BYTES: usize = 4 << 20;

pub(crate) fn bench(c: &mut Criterion) {
    let records = readings();
    bench_off_heap(c, &records);
    bench_disk(c, &records);
    bench_lz4(c, &records);
}

fn dataset(store: &BlockStore, level: StorageLevel, compression: Compression) -> StoredDataset<Reading> {
    store
        .dataset_with("readings", Pod, |_: &Reading| 0)
        .level(level)
        .compression(compression)
        .build()
        .expect("a dataset")
}

fn put(dataset: &StoredDataset<Reading>, records: &[Reading]) -> Block<Reading> {
    let larder_blockstore::Entry::Vacant(mut writer) = dataset.entry(0).expect("a dataset that is there")
    else {
        return dataset.get(0).expect("a sound block").expect("a block that is there");
    };
    let kept = writer.push_slice(records).expect("encodable records");
    assert_eq!(kept, records.len(), "memory for all of them");
    match writer.finish().expect("a block that fits") {
        larder_blockstore::Finished::Stored(block) => block,
        larder_blockstore::Finished::Refused(_) => unreachable!("the store is roomy"),
    }
}

fn sum(records: &[Reading]) -> f64 {
    records.iter().fold(0.0, |sum, record| sum + record.value)
}

fn get_and_sum(dataset: &StoredDataset<Reading>) -> f64 {
    let block = dataset.get(0).expect("a sound block").expect("the block that was put");
    block.fold(0.0, |sum, record| sum + record.value).expect("a readable block")
}

/// Put: ours pushes a slice into the arena, bare copies into memory that was touched before. Read: ours sums over
/// the block viewed in place, bare over a `Vec`.
fn bench_off_heap(c: &mut Criterion, records: &[Reading]) {
    let (_scratch, store) = roomy();
    let dataset = dataset(&store, StorageLevel::OFF_HEAP, Compression::None);
    let put_ours = prepared(|| dataset.remove(0), |_| put(&dataset, records));
    let mut kept = records.to_vec();
    let put_bare = timed(|| black_box(&mut kept).copy_from_slice(black_box(records)));
    compare(c, "put_off_heap_pod", put_ours, put_bare);

    put(&dataset, records);
    assert_eq!(get_and_sum(&dataset).to_bits(), sum(records).to_bits());
    let (read_ours, read_bare) = (timed(|| get_and_sum(&dataset)), timed(|| sum(black_box(records))));
    compare(c, "read_off_heap_pod", read_ours, read_bare);
}

/// Ours: read a block on disk, in the page cache, compared with its checksums and viewed in place. Bare: hash all
/// pages of a mapping and sum over them. (A sealed memory file: its pages are page cache too, and mapping it needs
/// no `unsafe`.)
fn bench_disk(c: &mut Criterion, records: &[Reading]) {
    let (_scratch, store) = roomy();
    let dataset = dataset(&store, StorageLevel::DISK_ONLY, Compression::None);
    put(&dataset, records);
    assert_eq!(get_and_sum(&dataset).to_bits(), sum(records).to_bits());
    let map = mapped(cast_slice(records));
    let bare = || {
        let bytes: &[u8] = black_box(&map);
        black_box(bytes.chunks(CHUNK_BYTES).map(XxHash3_64::oneshot).fold(0, u64::wrapping_add));
        sum(cast_slice(bytes))
    };
    compare(c, "read_disk_warm_pod", timed(|| get_and_sum(&dataset)), timed(bare));
}

fn mapped(bytes: &[u8]) -> Mmap {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::memfd_create("readings", flags).expect("a memory file"));
    std::io::Write::write_all(&mut &file, bytes).expect("memory for it");
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::WRITE).expect("a seal");
    Mmap::map_if_safe(&file).expect("a mapping")
}

/// Ours: put a compressed block and read it. Bare: compress the same chunks into memory that is there, decompress
/// them into memory that is there, and sum.
fn bench_lz4(c: &mut Criterion, records: &[Reading]) {
    let (_scratch, store) = roomy();
    let dataset = dataset(&store, StorageLevel::MEMORY_ONLY_SER, Compression::Lz4);
    put(&dataset, records);
    let stored_bytes = store.memory().snapshot().heap.storage_bytes;
    assert!(stored_bytes < POD_BYTES as u64 * 7 / 8, "it was worth compressing: {stored_bytes} bytes");
    let roundtrip = |_| {
        put(&dataset, records);
        get_and_sum(&dataset)
    };
    let mut bare = BareLz4::new();
    let bare = timed(|| bare.roundtrip(cast_slice(black_box(records))));
    compare(c, "lz4_roundtrip", prepared(|| dataset.remove(0), roundtrip), bare);
}

struct BareLz4 {
    table: lz4_flex::block::CompressTable,
    compressed: Vec<u8>,
    raw: Vec<Reading>,
}

impl BareLz4 {
    fn new() -> Self {
        Self {
            table: lz4_flex::block::CompressTable::default(),
            compressed: vec![0; POD_BYTES / CHUNK_BYTES * get_maximum_output_size(CHUNK_BYTES)],
            raw: vec![Reading::zeroed(); CHUNK_BYTES / size_of::<Reading>()],
        }
    }

    fn roundtrip(&mut self, bytes: &[u8]) -> f64 {
        let Self { table, compressed, raw } = self;
        let mut lengths = Vec::new();
        let slots = compressed.chunks_mut(get_maximum_output_size(CHUNK_BYTES));
        for (chunk, slot) in bytes.chunks(CHUNK_BYTES).zip(slots) {
            lengths.push(compress_into_with_table(chunk, slot, table).expect("a slot that is large enough"));
        }
        let slots = compressed.chunks(get_maximum_output_size(CHUNK_BYTES));
        lengths.iter().zip(slots).fold(0.0, |total, (&length, slot)| {
            let stored = slot.get(..length).unwrap_or_default();
            decompress_into(stored, bytemuck::cast_slice_mut(raw)).expect("what was compressed");
            total + sum(raw)
        })
    }
}
