//! Records with a string in them, at every storage level: put, and read again.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;

use bincode::config::{Configuration, Fixint, LittleEndian};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use larder_blockstore::{Block, StorageLevel, StoredDataset};

use crate::records::{Sale, sales};
use crate::stores::roomy;
use crate::turns::{compare, prepared};

/// The name of a level in the names of the cases: `put_ser`, `scan_ser`.
const LEVELS: [(&str, StorageLevel); 6] = [
    ("memory_only", StorageLevel::MEMORY_ONLY),
    ("ser", StorageLevel::MEMORY_ONLY_SER),
    ("memory_and_disk", StorageLevel::MEMORY_AND_DISK),
    ("memory_and_disk_ser", StorageLevel::MEMORY_AND_DISK_SER),
    ("off_heap", StorageLevel::OFF_HEAP),
    ("disk_only", StorageLevel::DISK_ONLY),
];

const CONFIG: Configuration<LittleEndian, Fixint> =
    bincode::config::standard().with_little_endian().with_fixed_int_encoding();

pub(crate) fn bench(c: &mut Criterion) {
    let records = sales();
    for (name, level) in LEVELS {
        let (_scratch, store) = roomy();
        let dataset = store.dataset::<Sale>(name).level(level).build().expect("a dataset");
        bench_put(c, &format!("put_{name}"), &dataset, &records);
        put(&dataset, records.clone());
        let mut group = c.benchmark_group(format!("scan_{name}"));
        bench_scan(&mut group, &dataset, &records);
        group.finish();
    }
}

fn put(dataset: &StoredDataset<Sale>, records: Vec<Sale>) -> Block<Sale> {
    dataset
        .get_or_compute(0, |out| black_box(records).into_iter().try_for_each(|record| out.push(record)))
        .expect("a block that fits")
}

/// Ours: push the records and finish. Bare: push them into a `Vec`; or encode them into a `Vec<u8>` with bincode,
/// and for the disk write that to a file.
fn bench_put(c: &mut Criterion, name: &str, dataset: &StoredDataset<Sale>, records: &[Sale]) {
    let level = dataset.level();
    let owned = || records.to_vec();
    let removed = || {
        dataset.remove(0);
        owned()
    };
    let ours = prepared(removed, |records| put(dataset, records));
    if level.is_deserialized() {
        compare(c, name, ours, prepared(owned, pushed));
    } else if level.uses_memory() {
        compare(c, name, ours, prepared(owned, encoded));
    } else {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let input = || (owned(), tempfile::tempfile_in(scratch.path()).expect("a file"));
        compare(c, name, ours, prepared(input, written));
    }
}

fn pushed(records: Vec<Sale>) -> Vec<Sale> {
    let mut kept = Vec::new();
    for record in black_box(records) {
        kept.push(record);
    }
    kept
}

fn encoded(records: Vec<Sale>) -> Vec<u8> {
    let mut bytes = Bytes(Vec::new());
    for record in black_box(records) {
        bincode::serde::encode_into_writer(&record, &mut bytes, CONFIG).expect("an encodable record");
    }
    bytes.0
}

struct Bytes(Vec<u8>);

impl Writer for &mut Bytes {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn written((records, mut file): (Vec<Sale>, File)) -> File {
    file.write_all(&encoded(records)).expect("room on the disk");
    file
}

/// Ours: get the block and fold a sum over a field of its records. Bare: sum over the `Vec`; or decode the bytes of a
/// `Vec<u8>` record by record and sum.
fn bench_scan(group: &mut BenchmarkGroup<'_, WallTime>, dataset: &StoredDataset<Sale>, records: &[Sale]) {
    let expected: f64 = records.iter().map(|record| record.value).sum();
    let ours = || {
        let block = dataset.get(0).expect("a sound block").expect("the block that was put");
        let sum = block.fold(0.0, |sum, record| sum + record.value).expect("a readable block");
        assert!((sum - expected).abs() < 1.0);
    };
    group.bench_function("ours", |b| b.iter(ours));
    if dataset.level().is_deserialized() {
        let bare = || black_box(records).iter().fold(0.0, |sum, record| sum + record.value);
        group.bench_function("bare", |b| b.iter(bare));
    } else {
        let bytes = encoded(records.to_vec());
        group.bench_function("bare", |b| b.iter(|| decoded_sum(black_box(&bytes), records.len())));
    }
}

fn decoded_sum(mut bytes: &[u8], count: usize) -> f64 {
    let mut sum = 0.0;
    for _ in 0..count {
        let (record, used): (Sale, usize) =
            bincode::serde::decode_from_slice(bytes, CONFIG).expect("what was encoded");
        sum += record.value;
        bytes = bytes.get(used..).unwrap_or_default();
    }
    sum
}
