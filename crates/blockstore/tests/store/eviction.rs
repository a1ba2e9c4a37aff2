//! Who goes when memory is short: behaviours 9, 12, 15 and 17.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_blockstore::codec::{Bincode, ChunkBuffer, ChunkReader, Codec, CodecError, CodecId};
use larder_blockstore::{HeapSize, MemoryMode, Residence, StorageLevel, StoredDataset};

use crate::support::{
    PATIENCE, SPILLING_LEVELS, World, memory_levels, off_heap_only, on_a_thread, put, read, record, stored,
};

const BLOCK: usize = 4_100;

fn block(seed: u64) -> [Vec<u8>; 1] {
    [record(seed, BLOCK)]
}

fn in_memory(dataset: &StoredDataset<Vec<u8>>, partition: u32) -> bool {
    dataset.block_status(partition).is_some_and(|block| block.effective.uses_memory())
}

#[test]
fn the_third_block_evicts_the_least_recently_used_one() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let [a, b, c] = ["a", "b", "c"].map(|name| world.dataset(name, level));
        assert!(stored(&a, 0, block(1)) && stored(&b, 0, block(2)), "{level}");
        assert!(a.contains(0), "two fit: {level}");
        assert!(stored(&c, 0, block(3)), "{level}");
        assert!(!a.contains(0) && b.contains(0) && c.contains(0), "{level}");
        assert_eq!(read(&b.get(0).unwrap().unwrap()), block(2), "{level}");
        assert_eq!(read(&c.get(0).unwrap().unwrap()), block(3), "{level}");
        assert_eq!(a.status().counters.evictions, 1, "{level}");
        assert_eq!(b.status().counters.evictions + c.status().counters.evictions, 0, "{level}");
    }
}

#[test]
fn reading_the_elder_block_makes_the_other_one_the_victim() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let [a, b, c] = ["a", "b", "c"].map(|name| world.dataset(name, level));
        assert!(stored(&a, 0, block(1)) && stored(&b, 0, block(2)), "{level}");
        assert_eq!(read(&a.get(0).unwrap().unwrap()), block(1), "{level}");
        assert!(b.contains(0) && b.block_status(0).is_some(), "to look is not to use: {level}");
        assert!(stored(&c, 0, block(3)), "{level}");
        assert!(a.contains(0) && !b.contains(0) && c.contains(0), "{level}");
    }
}

#[test]
fn no_more_is_evicted_than_is_needed() {
    for level in memory_levels() {
        let world = World::new(100_000);
        let (small, large) = (world.dataset("small", level), world.dataset("large", level));
        for partition in 0..9 {
            assert!(stored(&small, partition, [record(partition.into(), 10_000)]), "{level}");
        }
        assert!(stored(&large, 0, [record(100, 38_000)]), "{level}");
        let left: Vec<_> = (0..9).filter(|partition| small.contains(*partition)).collect();
        assert_eq!(left, [3, 4, 5, 6, 7, 8], "{level}");
    }
}

#[test]
fn an_empty_block_is_no_victim() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let [a, b, c] = ["a", "b", "c"].map(|name| world.dataset(name, level));
        assert!(stored(&a, 0, []) && stored(&a, 1, block(1)) && stored(&b, 0, block(2)), "{level}");
        assert!(stored(&c, 0, block(3)), "{level}");
        assert!(a.contains(0) && !a.contains(1), "evicting nothing makes no room: {level}");
    }
}

#[test]
fn a_dataset_never_evicts_its_own_blocks_for_itself() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let (a, b) = (world.dataset("a", level), world.dataset("b", level));
        assert!(stored(&a, 1, block(1)) && stored(&a, 2, block(2)), "{level}");
        assert!(!stored(&a, 3, block(3)), "only its own blocks could make room: {level}");
        assert!(a.contains(1) && a.contains(2), "{level}");
        assert_eq!(a.status().counters.evictions, 0, "{level}");

        assert!(stored(&b, 1, block(4)), "others may: {level}");
        assert!(!a.contains(1) && a.contains(2), "{level}");
        assert!(stored(&a, 3, block(3)), "{level}");
        assert!(a.contains(2) && !b.contains(1), "the elder block of its own is spared: {level}");
    }
}

#[test]
fn with_disk_a_dataset_that_fills_memory_goes_on_to_disk_and_spares_its_own_blocks() {
    for level in SPILLING_LEVELS {
        let world = World::new(12_000);
        let a = world.dataset("a", level);
        for partition in 0..6 {
            assert!(stored(&a, partition, block(partition.into())), "{level}");
        }
        for _ in 0..2 {
            let places: Vec<_> = (0..6).map(|partition| in_memory(&a, partition)).collect();
            assert_eq!(places, [true, true, false, false, false, false], "{level}");
            for partition in 0..6 {
                assert_eq!(read(&a.get(partition).unwrap().unwrap()), block(partition.into()), "{level}");
            }
        }
        assert_eq!(a.status().counters.evictions, 0, "reading promotes nothing at its own cost: {level}");
    }
}

#[test]
fn a_dataset_that_evicts_its_own_blocks_keeps_those_read_last() {
    for level in memory_levels().into_iter().chain(SPILLING_LEVELS) {
        let world = World::new(12_000);
        let a = world.store.dataset("a").level(level).evict_own(true).build().unwrap();
        assert!(stored(&a, 1, block(1)) && stored(&a, 2, block(2)), "{level}");
        assert_eq!(read(&a.get(1).unwrap().unwrap()), block(1), "{level}");
        assert!(stored(&a, 3, block(3)), "{level}");
        let places = [1, 2, 3].map(|partition| in_memory(&a, partition));
        assert_eq!(places, [true, false, true], "{level}");

        let Some(promoted) = a.get(2).unwrap() else {
            assert!(!level.uses_disk(), "{level}");
            continue;
        };
        assert_eq!(read(&promoted), block(2), "{level}");
        drop(promoted);
        let places = [1, 2, 3].map(|partition| in_memory(&a, partition));
        assert_eq!(places, [false, true, true], "the one read least recently makes room: {level}");
    }
}

#[test]
fn an_evicted_block_is_read_from_disk_promoted_and_evicted_again_without_a_write() {
    for level in SPILLING_LEVELS {
        let world = World::new(12_000);
        let (a, b) = (world.dataset("a", level), world.dataset("b", level));
        assert!(stored(&a, 0, block(1)) && stored(&a, 1, block(2)), "{level}");
        assert!(stored(&b, 0, block(3)), "{level}");
        assert_eq!(a.block_status(0).unwrap().residences, [Residence::Disk], "{level}");
        let written = world.disk_bytes();

        for round in 1..4 {
            assert!(b.evict(0).unwrap(), "{level}");
            let promoted = a.get(0).unwrap().unwrap();
            assert_ne!(promoted.residence(), Residence::Disk, "{level}");
            assert_eq!(read(&promoted), block(1), "{level}");
            drop(promoted);
            let status = a.block_status(0).unwrap();
            assert_eq!(status.residences.len(), 2, "the copy on disk stays valid: {level}");
            assert_eq!(a.status().counters.promotions, round, "{level}");
            // Reading the other one makes this one the victim.
            assert!(a.get(1).unwrap().is_some(), "{level}");
            assert!(b.get(0).unwrap().is_some() && in_memory(&b, 0), "{level}");
            assert_eq!(a.block_status(0).unwrap().residences, [Residence::Disk], "{level}");
        }
        assert_eq!(a.status().counters.spills, 1, "it was written once: {level}");
        let spilled_b = b.block_status(0).unwrap().disk_bytes.next_multiple_of(64);
        assert_eq!(world.disk_bytes(), written + spilled_b, "{level}");
    }
}

#[test]
fn a_read_that_is_promoted_counts_as_served_from_disk() {
    for level in SPILLING_LEVELS {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        assert!(stored(&dataset, 0, block(1)));
        dataset.evict(0).unwrap();
        dataset.get(0).unwrap().unwrap();
        dataset.get(0).unwrap().unwrap();
        let counters = dataset.status().counters;
        assert_eq!((counters.hits_disk, counters.hits()), (1, 2), "{level}");
    }
}

#[test]
fn where_promotion_finds_no_memory_the_block_is_read_on_disk() {
    for level in SPILLING_LEVELS {
        let world = World::new(12_000);
        let (a, b) = (world.dataset("a", level), world.dataset("b", level));
        assert!(stored(&a, 0, block(1)) && stored(&b, 0, block(2)), "{level}");
        a.evict(0).unwrap();
        let pinned = b.get(0).unwrap().unwrap();
        assert!(stored(&b, 1, block(3)), "{level}");
        let pinned_too = b.get(1).unwrap().unwrap();
        let block_of_a = a.get(0).unwrap().unwrap();
        assert_eq!(block_of_a.residence(), Residence::Disk, "{level}");
        assert_eq!(read(&block_of_a), block(1), "{level}");
        assert!(in_memory(&b, 0) && in_memory(&b, 1), "{level}");
        drop((pinned, pinned_too));
    }
}

/// Calls out while it encodes: user code in the middle of an eviction.
struct Hooked(Arc<Mutex<Option<Hook>>>);

type Hook = Box<dyn FnOnce() -> Result<(), CodecError> + Send>;

impl Codec<Vec<u8>> for Hooked {
    fn id(&self) -> CodecId {
        CodecId { id: 300, version: 1 }
    }

    fn encode(&self, record: &Vec<u8>, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        let hook = self.0.lock().unwrap().take();
        hook.map_or(Ok(()), |hook| hook())?;
        Bincode.encode(record, out)
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<Vec<u8>, CodecError> {
        Bincode.decode(input)
    }
}

fn hooked(world: &World) -> (StoredDataset<Vec<u8>>, Arc<Mutex<Option<Hook>>>) {
    let hook = Arc::new(Mutex::new(None));
    let dataset = world
        .store
        .dataset_with("hooked", Hooked(Arc::clone(&hook)), Vec::heap_bytes)
        .level(StorageLevel::MEMORY_AND_DISK)
        .build()
        .unwrap();
    (dataset, hook)
}

#[test]
fn victims_that_vanish_between_choice_and_drop_are_room_all_the_same() {
    // What the spill of the first victim removes: itself, the second victim, or both.
    for vanishing in [[true, false], [false, true], [true, true]] {
        let world = World::new(12_000);
        let (first, hook) = hooked(&world);
        let second = world.dataset("second", StorageLevel::MEMORY_ONLY);
        assert!(stored(&first, 0, block(1)) && stored(&second, 0, block(2)));
        let (first_too, second_too) = (first.clone(), second.clone());
        *hook.lock().unwrap() = Some(Box::new(move || {
            assert!(!vanishing[0] || first_too.remove(0));
            assert!(!vanishing[1] || second_too.remove(0));
            Ok(())
        }));
        let third = world.dataset("third", StorageLevel::MEMORY_ONLY);
        assert!(stored(&third, 0, [record(3, 11_000)]), "{vanishing:?}");
        assert!(hook.lock().unwrap().is_none(), "the first victim was spilled");
        assert_eq!(first.contains(0), !vanishing[0]);
        assert!(!second.contains(0));
    }
}

#[test]
fn a_victim_that_a_reader_takes_while_it_is_spilled_gives_its_memory_back_with_the_reader() {
    let world = World::new(12_000);
    let (first, hook) = hooked(&world);
    let second = world.dataset("second", StorageLevel::MEMORY_ONLY);
    assert!(stored(&first, 0, block(1)) && stored(&second, 0, block(2)));
    let reader = Arc::new(Mutex::new(None));
    let (first_too, reader_too) = (first.clone(), Arc::clone(&reader));
    *hook.lock().unwrap() = Some(Box::new(move || {
        *reader_too.lock().unwrap() = first_too.get(0).unwrap();
        Ok(())
    }));
    let third = world.dataset("third", StorageLevel::MEMORY_ONLY);
    assert!(stored(&third, 0, block(3)), "the next victim went in its place");
    assert!(!second.contains(0));
    let held = reader.lock().unwrap().take().unwrap();
    assert_eq!(read(&held), block(1));
    assert_eq!(first.block_status(0).unwrap().residences, [Residence::Disk]);
}

#[test]
fn a_victim_that_cannot_be_written_stays_and_the_next_one_goes() {
    let world = World::new(12_000);
    let (first, hook) = hooked(&world);
    let second = world.dataset("second", StorageLevel::MEMORY_ONLY);
    assert!(stored(&first, 0, block(1)) && stored(&second, 0, block(2)));
    let fail = || -> Hook {
        let source = "cannot be written".into();
        Box::new(|| Err(CodecError::Encode { codec: CodecId { id: 300, version: 1 }, source }))
    };
    *hook.lock().unwrap() = Some(fail());
    let third = world.dataset("third", StorageLevel::MEMORY_ONLY);
    assert!(stored(&third, 0, block(3)));
    assert!(hook.lock().unwrap().is_none(), "it was tried first");
    assert!(!second.contains(0));
    assert_eq!(first.block_status(0).unwrap().residences, [Residence::Values]);
    assert_eq!(read(&first.get(0).unwrap().unwrap()), block(1));

    // Asked for by name, the failure is an error, and the block stays too.
    *hook.lock().unwrap() = Some(fail());
    assert!(first.evict(0).unwrap_err().to_string().contains("cannot be encoded"));
    assert_eq!(read(&first.get(0).unwrap().unwrap()), block(1));
    assert!(first.evict(0).unwrap(), "the next try may succeed");
    assert_eq!(read(&first.get(0).unwrap().unwrap()), block(1));
}

#[test]
fn a_request_that_needs_what_another_is_about_to_evict_waits_for_it() {
    let world = World::new(100_000);
    let (first, hook) = hooked(&world);
    assert!(stored(&first, 0, [record(1, 95_000)]));
    let (spilling, go_on) = (channel::<()>(), channel::<()>());
    *hook.lock().unwrap() = Some(Box::new(move || {
        spilling.0.send(()).unwrap();
        go_on.1.recv_timeout(PATIENCE).unwrap();
        Ok(())
    }));
    let memory = world.store.memory().clone();
    let evicting = on_a_thread(move || memory.task().reserve(MemoryMode::Heap, 10_000));
    spilling.1.recv_timeout(PATIENCE).unwrap();
    let memory = world.store.memory().clone();
    let waiting = on_a_thread(move || memory.task().reserve(MemoryMode::Heap, 10_000));
    let second = world.dataset("second", StorageLevel::MEMORY_ONLY);
    let storing = on_a_thread(move || stored(&second, 0, [record(2, 10_000)]).then_some(second));
    assert!(waiting.recv_timeout(Duration::from_millis(50)).is_err(), "nothing is free yet");
    go_on.0.send(()).unwrap();
    assert!(evicting.recv_timeout(PATIENCE).unwrap().is_ok());
    assert!(waiting.recv_timeout(PATIENCE).unwrap().is_ok());
    assert!(storing.recv_timeout(PATIENCE).unwrap().is_some());
    assert_eq!(first.status().counters.spills, 1);
}

#[test]
fn a_codec_that_panics_while_its_block_is_evicted_leaves_the_block_evictable() {
    let world = World::new(12_000);
    let (first, hook) = hooked(&world);
    assert!(stored(&first, 0, block(1)));
    *hook.lock().unwrap() = Some(Box::new(|| panic!("a codec panics on purpose")));
    let second = world.dataset("second", StorageLevel::MEMORY_ONLY);
    let panicked =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stored(&second, 0, [record(2, 9_000)])));
    assert!(panicked.is_err());
    assert_eq!(read(&first.get(0).unwrap().unwrap()), block(1));
    assert!(stored(&second, 0, [record(2, 9_000)]), "evicted at the second try");
    assert_eq!(first.block_status(0).unwrap().residences, [Residence::Disk]);
}

#[test]
fn blocks_are_evicted_from_the_memory_that_is_short_and_from_no_other() {
    let world = World::new(12_000);
    let (heap, arena) = (world.dataset("h", StorageLevel::MEMORY_ONLY), world.dataset("o", off_heap_only()));
    assert!(stored(&arena, 0, block(1)) && stored(&heap, 0, block(2)) && stored(&heap, 1, block(3)));
    let other = world.dataset("other", StorageLevel::MEMORY_ONLY_SER);
    assert!(stored(&other, 0, block(4)));
    assert!(arena.contains(0) && !heap.contains(0));
    drop(put(&other, 0, []).unwrap());
}
