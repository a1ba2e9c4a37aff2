//! Nothing is made for a block before memory for it is granted: behaviours 10 and 13.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use larder_blockstore::codec::{Bincode, ChunkBuffer, ChunkReader, Codec, CodecError, CodecId};
use larder_blockstore::{Error, Finished, MemoryMode, StorageLevel};

use crate::support::{World, keep, off_heap_only, read, record, stored, vacant};

const MIB: usize = 1 << 20;

/// Counts its clones.
#[derive(Debug)]
struct Cloned(Arc<AtomicUsize>);

impl Clone for Cloned {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

struct NoCodec;

impl<T> Codec<T> for NoCodec {
    fn id(&self) -> CodecId {
        CodecId { id: 301, version: 1 }
    }

    fn encode(&self, _record: &T, _out: &mut ChunkBuffer) -> Result<(), CodecError> {
        Ok(())
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<T, CodecError> {
        Err(CodecError::Truncated { offset: input.offset(), missing: 1 })
    }
}

#[test]
fn records_are_copied_only_as_far_as_their_memory_is_granted() {
    let world = World::new(100_000);
    let dataset = world.store.dataset_with("d", NoCodec, |_: &Cloned| 1_000).build().unwrap();
    let clones = Arc::new(AtomicUsize::new(0));
    let records = vec![Cloned(Arc::clone(&clones)); 50_000];
    clones.store(0, Ordering::Relaxed);
    let mut writer = vacant(&dataset, 0);
    let kept = writer.push_slice(&records).unwrap();
    assert!((50..100).contains(&kept), "{kept} were kept");
    assert_eq!(clones.load(Ordering::Relaxed), kept);
}

/// A record that encodes to so many bytes, a MiB at a time.
struct Long;

impl Codec<usize> for Long {
    fn id(&self) -> CodecId {
        CodecId { id: 302, version: 1 }
    }

    fn encode(&self, bytes: &usize, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        (0..bytes / MIB).for_each(|_| out.extend_from_slice(&[7; MIB]));
        Ok(())
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<usize, CodecError> {
        let bytes = input.remaining().len();
        input.advance(bytes);
        Ok(bytes)
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[test]
fn a_record_larger_than_memory_is_not_held_to_find_that_out() {
    for level in [StorageLevel::MEMORY_ONLY_SER, off_heap_only()] {
        let world = World::new(MIB as u64);
        let dataset = world.store.dataset_with("d", Long, |_: &usize| 0).level(level).build().unwrap();
        let mut writer = vacant(&dataset, 0);
        let before = resident_bytes();
        let larder_blockstore::Pushed::Refused(_) = writer.push(900 * MIB).unwrap() else {
            panic!("900 MiB fit into one")
        };
        let more = resident_bytes().saturating_sub(before);
        assert!(more < 450 * MIB, "{more} bytes are held at {level}");
    }
}

#[test]
fn a_large_record_makes_one_large_chunk_and_no_more() {
    for level in [StorageLevel::MEMORY_ONLY_SER, StorageLevel::DISK_ONLY, StorageLevel::OFF_HEAP] {
        let world = World::new(64 * MIB as u64);
        let dataset = world.dataset("d", level);
        let mut writer = vacant(&dataset, 0);
        let large = record(0, 5 * MIB);
        keep(&mut writer, large.clone());
        (0..3_000).for_each(|seed| keep(&mut writer, record(seed, 1_000)));
        let Finished::Stored(block) = writer.finish().unwrap() else { panic!("it fits") };
        let chunks = block.serialized().unwrap().chunks();
        assert_eq!(chunks[0].records(), 1, "{level}");
        assert!(chunks[1..].iter().all(|chunk| chunk.raw_len() as usize <= MIB), "{level}");
        let records = read(&block);
        assert_eq!((records.len(), &records[0]), (3_001, &large), "{level}");
    }
}

#[test]
fn nobody_is_evicted_for_a_batch_that_can_never_fit() {
    for level in [StorageLevel::MEMORY_ONLY, StorageLevel::MEMORY_AND_DISK] {
        let world = World::new(MIB as u64);
        let others = world.dataset("others", StorageLevel::MEMORY_ONLY);
        assert!((0..90).all(|partition| stored(&others, partition, [record(partition.into(), 10_000)])));
        let dataset = world.dataset("d", level);
        let mut writer = vacant(&dataset, 0);
        let mut batch: Vec<_> = (0..1_000).map(|seed| record(seed, 10_000)).collect();
        writer.append(&mut batch).unwrap();
        drop(writer);
        assert_eq!(others.status().blocks, 90, "{level}");
    }
}

#[test]
fn a_full_arena_evicts_and_is_charged_what_its_extents_take() {
    let world = World::new(64 * 1_024);
    let [first, second] = ["first", "second"]
        .map(|name| world.store.dataset::<u8>(name).level(off_heap_only()).build().unwrap());
    for partition in 0..1_024 {
        assert!(stored(&first, partition, [7_u8]), "{partition}");
    }
    assert_eq!(world.charged(), 64 * 1_024, "each takes a unit of 64 bytes");
    assert!(stored(&second, 0, [7_u8]));
    assert_eq!((first.status().blocks, world.store.arena_bytes()), (1_023, 64 * 1_024));
}

/// Says that its records take two bytes, and writes three.
struct Lying;

impl Codec<u8> for Lying {
    fn id(&self) -> CodecId {
        CodecId { id: 303, version: 1 }
    }

    fn encode(&self, record: &u8, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        out.extend_from_slice(&[*record; 3]);
        Ok(())
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<u8, CodecError> {
        Ok(input.take(3)?.first().copied().unwrap_or_default())
    }

    fn record_bytes(&self) -> Option<usize> {
        Some(2)
    }
}

/// Decodes half of what it is asked for.
struct Halving;

impl Codec<u64> for Halving {
    fn id(&self) -> CodecId {
        CodecId { id: 304, version: 1 }
    }

    fn encode(&self, record: &u64, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        Bincode.encode(record, out)
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<u64, CodecError> {
        Bincode.decode(input)
    }

    fn decode_into(
        &self,
        input: &mut ChunkReader<'_>,
        count: usize,
        out: &mut Vec<u64>,
    ) -> Result<(), CodecError> {
        for _ in 0..count / 2 {
            out.push(self.decode(input)?);
        }
        Ok(())
    }

    fn decode_each(
        &self,
        input: &mut ChunkReader<'_>,
        count: usize,
        each: &mut dyn FnMut(&u64),
    ) -> Result<(), CodecError> {
        for _ in 0..count / 2 {
            each(&self.decode(input)?);
        }
        Ok(())
    }
}

#[test]
fn a_codec_that_does_not_keep_its_word_is_an_error_and_no_lost_record() {
    let world = World::new(MIB as u64);
    let lying = world.store.dataset_with("lying", Lying, |_: &u8| 0);
    let lying = lying.level(StorageLevel::MEMORY_ONLY_SER).build().unwrap();
    let mut writer = vacant(&lying, 0);
    let error = writer.append(&mut vec![1; 100_000]).unwrap_err();
    assert!(matches!(error, Error::Encode { source: CodecError::RecordSize { said: 2 }, .. }), "{error}");

    let halving = world.store.dataset_with("halving", Halving, |_: &u64| 0);
    let halving = halving.level(StorageLevel::MEMORY_ONLY_SER).build().unwrap();
    let block = halving.get_or_compute(0, |out| (0..100).try_for_each(|n| out.push(n))).unwrap();
    let count = CodecError::RecordCount { asked: 100, decoded: 50 };
    for error in [block.iter().find_map(Result::err).unwrap(), block.fold((), |(), _| ()).unwrap_err()] {
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), count.to_string());
    }
    drop(block);
    assert_eq!(world.store.memory().snapshot().mode(MemoryMode::Heap).execution_bytes, 0);
}
