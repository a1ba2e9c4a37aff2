//! Everything that happens to a block is told and counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use larder_blockstore::{Counters, Event, EvictReason, Residence, StorageLevel};

use crate::support::{World, all_levels, put, record, stored, vacant};

type Told = Arc<Mutex<Vec<Event>>>;

fn listen(world: &World) -> (Told, larder_blockstore::Subscription) {
    let told = Told::default();
    let telling = Arc::clone(&told);
    let subscription = world.store.subscribe(move |event| telling.lock().unwrap().push(event.clone()));
    (told, subscription)
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::Stored { .. } => "stored",
        Event::Hit { .. } => "hit",
        Event::Miss { .. } => "miss",
        Event::Computed { .. } => "computed",
        Event::Evicted { .. } => "evicted",
        Event::Spilled { .. } => "spilled",
        Event::Promoted { .. } => "promoted",
        Event::Corrupt { .. } => "corrupt",
        Event::Refused { .. } => "refused",
        Event::Removed { .. } => "removed",
        Event::SpillFailed { .. } => "spill failed",
        Event::DiskError { .. } => "disk error",
        Event::DirectoryFailed { .. } => "directory failed",
        Event::UnderReplicated { .. } => "under-replicated",
        other => panic!("a new event: {other:?}"),
    }
}

fn take(told: &Told) -> Vec<Event> {
    std::mem::take(&mut *told.lock().unwrap())
}

fn names(told: &Told) -> Vec<&'static str> {
    take(told).iter().map(name).collect()
}

#[test]
fn the_life_of_a_block_is_told_step_by_step() {
    let world = World::new(12_000);
    let (told, _subscription) = listen(&world);
    let dataset = world.dataset("d", StorageLevel::MEMORY_AND_DISK);
    let block = put(&dataset, 0, [record(1, 4_100)]).unwrap().id();
    let bytes = dataset.block_status(0).unwrap().heap_bytes;
    assert_eq!(
        take(&told),
        [
            Event::Miss { block },
            Event::Stored { block, residence: Residence::Values, bytes },
            Event::Computed { block, again: false },
        ]
    );
    drop(dataset.get(0).unwrap());
    assert_eq!(take(&told), [Event::Hit { block, residence: Residence::Values }]);

    dataset.evict(0).unwrap();
    let on_disk = dataset.block_status(0).unwrap().disk_bytes;
    let (residence, reason) = (Residence::Values, EvictReason::Asked);
    assert_eq!(
        take(&told),
        [Event::Spilled { block, bytes: on_disk }, Event::Evicted { block, residence, bytes, reason }]
    );
    drop(dataset.get(0).unwrap());
    assert_eq!(
        take(&told),
        [Event::Promoted { block, residence, bytes }, Event::Hit { block, residence: Residence::Disk }]
    );

    let other = world.dataset("other", StorageLevel::MEMORY_ONLY);
    let large = put(&other, 0, [record(2, 9_000)]).unwrap().id();
    let told_now = take(&told);
    assert_eq!(told_now[1], Event::Evicted { block, residence, bytes, reason: EvictReason::Room });
    assert!(other.evict(0).unwrap());
    drop(put(&other, 0, [record(2, 9_000)]).unwrap());
    assert_eq!(take(&told).last(), Some(&Event::Computed { block: large, again: true }));

    drop(put(&other, 1, [record(2, 50_000)]).unwrap());
    assert_eq!(names(&told), ["miss", "refused", "computed"]);
    assert!(dataset.get(7).unwrap().is_none());
    assert_eq!(names(&told), ["miss"]);
    dataset.remove(0);
    assert_eq!(take(&told), [Event::Removed { block }]);
}

#[test]
fn a_block_that_goes_to_disk_at_once_is_told_as_spilled() {
    let world = World::new(12_000);
    let (told, _subscription) = listen(&world);
    let dataset = world.dataset("d", StorageLevel::MEMORY_AND_DISK_SER);
    drop(put(&dataset, 0, [record(1, 50_000)]).unwrap());
    assert_eq!(names(&told), ["miss", "stored", "spilled", "computed"]);
    let on_disk = world.dataset("d", StorageLevel::DISK_ONLY);
    drop(put(&on_disk, 0, [record(1, 50_000)]).unwrap());
    assert_eq!(names(&told), ["miss", "stored", "computed"], "that is where it belongs");
}

#[test]
fn events_and_counters_say_the_same() {
    let world = World::with(30_000, |builder| builder.disk_limit(40_000));
    let (told, _subscription) = listen(&world);
    let datasets: Vec<_> = all_levels().into_iter().map(|level| world.dataset("d", level)).collect();
    let two = world.dataset("two", StorageLevel::MEMORY_ONLY_2);
    drop(put(&two, 0, [record(1, 10)]).unwrap());
    drop(put(&two, 1, [record(1, 50_000)]).unwrap());
    for round in 0..6_u32 {
        for dataset in &datasets {
            // Where the disk is full, that is an error, and told.
            drop(put(dataset, round % 4, [record(round.into(), 3_000 * (1 + round as usize % 3))]));
            drop(dataset.get(round % 3));
            drop(dataset.evict((round + 1) % 4));
            if round == 3 {
                dataset.remove(1);
            }
        }
    }
    let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
    take(&told).iter().for_each(|event| *counted.entry(name(event)).or_default() += 1);
    let of = |name| counted.get(name).copied().unwrap_or(0);
    let Counters { misses, stored, evictions, spills, promotions, refused, removed, disk_errors, .. } =
        world.store.counters();
    let all = world.store.counters();
    assert_eq!(
        [of("miss"), of("stored"), of("evicted"), of("spilled"), of("promoted")],
        [misses, stored, evictions, spills, promotions]
    );
    assert_eq!([of("refused"), of("removed"), of("disk error")], [refused, removed, disk_errors]);
    assert_eq!(of("spill failed"), all.spills_failed);
    assert_eq!([of("hit"), of("computed")], [all.hits(), all.computed + all.recomputed]);
    assert_eq!(of("under-replicated"), 1);
    assert!(
        disk_errors > 0 && promotions > 0 && evictions > 0 && refused > 0 && all.spills_failed > 0,
        "{all:?}"
    );
}

#[test]
fn a_directory_that_fails_is_told_once() {
    // A directory on a file system that cannot be written: its files are refused when they are opened.
    let world = World::new(0);
    let (told, _subscription) = listen(&world);
    let dataset = world.dataset("d", StorageLevel::DISK_ONLY);
    std::fs::remove_dir(world.scratch.path()).unwrap();
    for partition in 0..3 {
        let error = put(&dataset, partition, [record(1, 10)]).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(world.scratch.path().to_str().unwrap()), "{source}");
    }
    assert_eq!(
        names(&told),
        ["miss", "directory failed", "disk error", "miss", "disk error", "miss", "disk error"]
    );
    assert!(world.store.disk().unwrap().directories[0].failed.is_some());
    std::fs::create_dir(world.scratch.path()).unwrap();
}

#[test]
fn nothing_is_told_after_a_subscription_ends() {
    let world = World::new(1 << 20);
    let (first, subscription) = listen(&world);
    let (second, other) = listen(&world);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    assert!(dataset.get(0).unwrap().is_none());
    drop(subscription);
    assert!(dataset.get(0).unwrap().is_none());
    drop(other);
    assert!(dataset.get(0).unwrap().is_none());
    assert_eq!((first.lock().unwrap().len(), second.lock().unwrap().len()), (1, 2));
}

#[test]
fn a_listener_may_use_the_store() {
    let world = World::new(12_000);
    let dataset = world.dataset("d", StorageLevel::MEMORY_AND_DISK);
    let (listening, store) = (dataset.clone(), world.store.clone());
    let seen = Arc::new(Mutex::new(0));
    let seeing = Arc::clone(&seen);
    let subscription = world.store.subscribe(move |event| {
        *seeing.lock().unwrap() += 1;
        if matches!(event, Event::Stored { .. } | Event::Evicted { .. } | Event::Spilled { .. }) {
            assert!(listening.status().blocks <= 4 && !store.datasets().is_empty());
            drop(listening.get(99).unwrap());
        }
    });
    for partition in 0..4 {
        assert!(stored(&dataset, partition, [record(partition.into(), 4_100)]));
    }
    dataset.evict(0).unwrap();
    vacant(&dataset, 9).abort();
    assert!(*seen.lock().unwrap() > 12);
    drop(subscription);
}
