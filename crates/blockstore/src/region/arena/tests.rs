use std::os::unix::fs::FileExt;
use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::random::Random;

const MIB: usize = 1 << 20;

/// Resident bytes of the arena's mapping, by the kernel's own count: bit 63 of a page's entry is "present".
fn resident_bytes(arena: &Arena) -> u64 {
    let page = rustix::param::page_size();
    let map = &arena.shared.map;
    let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
    let mut entries = vec![0; map.len() / page * 8];
    pagemap.read_exact_at(&mut entries, (map.as_ptr().addr() / page * 8) as u64).unwrap();
    entries.chunks_exact(8).filter(|entry| entry[7] & 0x80 != 0).count() as u64 * page as u64
}

#[test]
fn extents_are_aligned_writable_and_frozen_without_a_copy() {
    let arena = Arena::new(MIB as u64).unwrap();
    let _odd = arena.allocate(100).unwrap();
    let mut extent = arena.allocate(1000).unwrap();
    assert_eq!(extent.len(), 1000);
    extent.copy_from_slice(&[7; 1000]);
    let address = extent.as_ptr();
    assert_eq!(address.addr() % 64, 0);
    let bytes = extent.freeze(1000, ());
    assert_eq!((bytes.as_ptr(), &bytes[..]), (address, &[7; 1000][..]));
    assert_eq!(arena.used_bytes(), 128 + 1024);
}

#[test]
fn freezing_keeps_what_was_written_and_frees_the_rest() {
    let arena = Arena::new(8 * MIB as u64).unwrap();
    let mut extent = arena.allocate(4 * MIB).unwrap();
    extent.fill(1);
    let bytes = extent.freeze(100, ());
    assert_eq!((arena.used_bytes(), bytes.len()), (128, 100));
    let rest = arena.allocate(MIB).unwrap();
    assert_eq!(rest.as_ptr().addr(), bytes.as_ptr().addr() + 128);
    drop(rest);
    drop(arena.allocate(5).unwrap().freeze(0, ()));
    drop(arena.allocate(5).unwrap());
    assert_eq!(arena.used_bytes(), 128);
    drop(bytes);
    assert_eq!(arena.used_bytes(), 0);
}

#[test]
fn whole_chunks_start_at_huge_pages_and_share_none() {
    let arena = Arena::new(64 * MIB as u64).unwrap();
    let small = arena.allocate(64).unwrap();
    let chunks = [4 * MIB, 4 * MIB - 1000, 4 * MIB].map(|len| arena.allocate(len).unwrap());
    assert!(chunks.iter().all(|chunk| chunk.as_ptr().addr().is_multiple_of(2 * MIB)));
    assert_eq!(arena.resident_bytes_max(), 14 * MIB as u64);
    drop((chunks, small));
    arena.cool();
    assert_eq!(arena.resident_bytes_max(), 0);
}

#[test]
fn bytes_return_before_their_charge_and_only_with_the_last_clone() {
    struct Charge(Arena, StdArc<AtomicU64>);
    impl Drop for Charge {
        fn drop(&mut self) {
            self.1.store(self.0.used_bytes(), Ordering::SeqCst);
        }
    }
    let arena = Arena::new(MIB as u64).unwrap();
    let used_at_drop = StdArc::new(AtomicU64::new(u64::MAX));
    let charge = Charge(arena.clone(), StdArc::clone(&used_at_drop));
    let bytes = arena.allocate(4096).unwrap().freeze(4096, charge);
    let part = bytes.slice(10..20);
    drop(bytes);
    assert_eq!((arena.used_bytes(), used_at_drop.load(Ordering::SeqCst)), (4096, u64::MAX));
    drop(part);
    assert_eq!((arena.used_bytes(), used_at_drop.load(Ordering::SeqCst)), (0, 0));
}

#[test]
fn reserving_commits_nothing_and_freed_pages_go_back_to_the_kernel() {
    let huge = Arena::new(4 << 30).unwrap();
    assert_eq!((resident_bytes(&huge), huge.resident_bytes_max()), (0, 0));
    let arena = Arena::new(128 << 20).unwrap();
    let mut random = Random::new(1);
    let mut live = Vec::new();
    for _ in 0..40 {
        let mut extent = arena.allocate(1 + random.index(3 * MIB)).unwrap();
        extent.fill(0xAB);
        let len = random.index(extent.len());
        live.push(extent.freeze(len, ()));
    }
    assert!(resident_bytes(&arena) >= arena.used_bytes());
    while !live.is_empty() {
        drop(live.swap_remove(random.index(live.len())));
        assert!(resident_bytes(&arena) <= arena.resident_bytes_max());
    }
    assert_eq!(arena.used_bytes(), 0);
    assert!(arena.shared.warm.lock().bytes() <= 16 << 20, "an eighth may wait");
    arena.cool();
    assert_eq!(resident_bytes(&arena), 0);
}

#[test]
fn a_long_extent_finds_the_pages_of_the_one_before_it() {
    let arena = Arena::new(64 << 20).unwrap();
    let mut first = arena.allocate(4 * MIB).unwrap();
    first.fill(1);
    let address = first.as_ptr().addr();
    drop(first);
    assert_eq!((arena.used_bytes(), resident_bytes(&arena)), (0, 4 << 20));
    let similar = arena.allocate(4 * MIB - 100_000).unwrap();
    assert_eq!(similar.as_ptr().addr(), address);
    let shorter = arena.allocate(2 * MIB).unwrap();
    assert_ne!(shorter.as_ptr().addr(), address);
    drop((similar, shorter));
    assert!(arena.shared.warm.lock().bytes() <= 8 << 20);
}

#[test]
fn what_waits_goes_back_before_live_bytes_and_it_exceed_the_budget() {
    let arena = Arena::new(64 << 20).unwrap();
    let extents: Vec<_> = (0..2).map(|_| arena.allocate(4 * MIB).unwrap()).collect();
    extents.into_iter().for_each(|mut extent| extent.fill(1));
    assert_eq!(arena.shared.warm.lock().bytes(), 8 << 20);
    let live: Vec<_> = (0..60).map(|_| arena.allocate(MIB).unwrap()).collect();
    assert_eq!(arena.used_bytes(), 60 << 20);
    assert_eq!(arena.shared.warm.lock().bytes(), 4 << 20);
    drop(live);
    assert_eq!(arena.used_bytes(), 0);
}

#[test]
fn a_budget_no_address_space_can_hold_is_an_error() {
    let error = Arena::new(u64::MAX).unwrap_err().to_string();
    assert!(error.contains(&u64::MAX.to_string()), "{error}");
    Arena::new(1 << 60).unwrap_err();
    let none = Arena::new(0).unwrap();
    assert!(none.allocate(64 * MIB).is_none());
}

#[test]
fn bytes_outlive_every_handle_to_the_arena() {
    let arena = Arena::new(MIB as u64).unwrap();
    let mut extent = arena.allocate(10).unwrap();
    drop(arena);
    extent.fill(3);
    assert_eq!(&extent.freeze(10, ())[..], &[3; 10]);
}

#[test]
fn four_threads_write_read_and_drop_without_touching_each_other() {
    let arena = Arena::new(16 * MIB as u64).unwrap();
    thread::scope(|scope| {
        for seed in 0..4 {
            let arena = &arena;
            scope.spawn(move || {
                let mut random = Random::new(seed);
                let mut live: Vec<(Bytes, Vec<u8>)> = Vec::new();
                for _ in 0..1_500 {
                    let len = if random.below(10) == 0 { random.index(MIB) } else { random.index(10_000) };
                    if let Some(mut extent) = arena.allocate(len).filter(|_| live.len() < 20) {
                        let content = random.bytes(len);
                        extent.copy_from_slice(&content);
                        let kept = random.index(len + 1);
                        live.push((extent.freeze(kept, ()), content));
                    } else if !live.is_empty() {
                        let (bytes, content) = live.swap_remove(random.index(live.len()));
                        assert_eq!(bytes, content[..bytes.len()]);
                    }
                }
                assert!(live.iter().all(|(bytes, content)| bytes == &content[..bytes.len()]));
            });
        }
    });
    arena.shared.extents.validate();
    arena.cool();
    assert_eq!((arena.used_bytes(), resident_bytes(&arena)), (0, 0));
}
