//! Codecs of one's own, and records that are viewed where they lie.

use larder_blockstore::codec::{Bincode, Codec, CodecId, Pod};
use larder_blockstore::format::{BlockHeader, Compression};
use larder_blockstore::{Block, StorageLevel, StoredDataset};

use crate::support::{World, all_levels, finish, put, read, vacant};

type Point = [f64; 4];

fn points(count: usize) -> Vec<Point> {
    (0..count).map(|i| [i as f64, 0.5, -1.0, (i * i) as f64]).collect()
}

fn pod(world: &World, level: StorageLevel, compression: Compression) -> StoredDataset<Point> {
    let dataset = world.store.dataset_with("points", Pod, |_: &Point| 0);
    dataset.level(level).compression(compression).build().unwrap()
}

/// Where each batch of a block lies.
fn addresses(block: &Block<Point>) -> Vec<*const u8> {
    let mut batches = block.batches();
    let mut addresses = Vec::new();
    while let Some(batch) = batches.next_batch().unwrap() {
        addresses.push(batch.as_ptr().cast());
    }
    addresses
}

#[test]
fn plain_old_data_is_viewed_in_its_chunks_and_never_copied() {
    for level in all_levels().into_iter().filter(|level| !level.is_deserialized()) {
        let world = World::with(1 << 20, |builder| builder.chunk_bytes(8_192));
        let dataset = pod(&world, level, Compression::None);
        let mut block = put(&dataset, 0, points(1_000)).unwrap();
        for _ in 0..2 {
            let chunks = block.serialized().unwrap().chunks();
            assert_eq!(chunks.len(), 4, "{level}");
            let stored: Vec<_> = chunks.iter().map(|chunk| chunk.stored().unwrap().as_ptr()).collect();
            assert_eq!(addresses(&block), stored, "{level}");
            let mut batches = block.batches();
            let mut seen = Vec::new();
            while let Some(batch) = batches.next_batch().unwrap() {
                seen.extend_from_slice(batch);
            }
            assert_eq!(seen, points(1_000), "{level}");
            let mut folded = Vec::new();
            block.fold((), |(), point| folded.push(std::ptr::from_ref(point).cast())).unwrap();
            assert_eq!(folded.len(), 1_000, "{level}");
            assert!(addresses(&block).iter().all(|batch| folded.contains(batch)), "{level}");
            if level.uses_disk() && level.uses_memory() {
                drop(block);
                dataset.evict(0).unwrap();
            }
            block = dataset.get(0).unwrap().unwrap();
        }
    }
}

#[test]
fn compressed_plain_old_data_is_decompressed_and_equal() {
    for level in all_levels() {
        let world = World::with(1 << 20, |builder| builder.chunk_bytes(8_192));
        let dataset = pod(&world, level, Compression::Lz4);
        let block = put(&dataset, 0, points(1_000)).unwrap();
        assert!(block.serialized().is_none_or(|bytes| bytes.chunks()[0].is_compressed()), "{level}");
        assert_eq!(read(&block), points(1_000), "{level}");
        assert_eq!(block.into_records().map(Result::unwrap).collect::<Vec<_>>(), points(1_000), "{level}");
    }
}

#[test]
fn plain_old_data_pushed_as_a_slice_fills_chunks_to_the_brim() {
    for level in all_levels() {
        let world = World::with(1 << 20, |builder| builder.chunk_bytes(8_200));
        let dataset = pod(&world, level, Compression::None);
        let mut writer = vacant(&dataset, 0);
        for slice in points(1_000).chunks(300) {
            assert_eq!(writer.push_slice(slice).unwrap(), slice.len());
        }
        let block = finish(writer);
        assert_eq!(read(&block), points(1_000), "{level}");
        if let Some(bytes) = block.serialized() {
            let records: Vec<_> = bytes.chunks().iter().map(|chunk| chunk.records()).collect();
            assert_eq!(records, [256, 256, 256, 232], "{level}");
        }
    }
}

#[test]
fn values_are_read_by_reference() {
    let world = World::new(1 << 20);
    let dataset = pod(&world, StorageLevel::MEMORY_ONLY, Compression::None);
    let block = put(&dataset, 0, points(1_000)).unwrap();
    let slices: Vec<*const u8> = block.slices().unwrap().map(|slice| slice.as_ptr().cast()).collect();
    assert_eq!(addresses(&block), slices);
    let again = dataset.get(0).unwrap().unwrap();
    assert_eq!(addresses(&again), slices, "two handles read the same memory");
    assert!(block.serialized().is_none());
}

#[test]
fn a_block_names_its_codec_and_its_header_finds_its_chunks() {
    for level in all_levels().into_iter().filter(|level| !level.is_deserialized()) {
        let world = World::with(1 << 20, |builder| builder.chunk_bytes(8_192));
        let dataset = pod(&world, level, Compression::None);
        let block = put(&dataset, 0, points(1_000)).unwrap();
        let bytes = block.serialized().unwrap();
        assert_eq!(bytes.codec(), CodecId::POD);
        let mut file = Vec::new();
        bytes.chunks().iter().for_each(|chunk| file.extend_from_slice(&chunk.stored().unwrap()));
        file.extend(bytes.header().encode());
        let header = BlockHeader::decode(&file).unwrap();
        assert_eq!((header.codec, header.records()), (CodecId::POD, 1_000));
        for (index, chunk) in bytes.chunks().iter().enumerate() {
            let range = header.chunk_range(index).unwrap();
            assert_eq!(file[range.start as usize..range.end as usize], chunk.stored().unwrap()[..]);
            chunk.verify().unwrap();
        }
    }
}

#[test]
fn a_dataset_may_choose_its_codec() {
    let world = World::new(1 << 20);
    let dataset =
        world.store.dataset::<[u64; 2]>("d").codec(Pod).level(StorageLevel::MEMORY_ONLY_SER).build();
    let block = put(&dataset.unwrap(), 0, [[1, 2], [3, 4]]).unwrap();
    assert_eq!(block.serialized().unwrap().codec(), CodecId::POD);
    assert_eq!(block.serialized().unwrap().stored_bytes(), 32);
    assert_eq!(Codec::<u8>::id(&Bincode), CodecId::BINCODE);
}
