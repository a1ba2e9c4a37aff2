//! A store under each eviction policy, and what it tells them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_blockstore::policy::{self, Candidate, EvictionPolicy, GreedyDual, Lru, Offer, Removed, Slot};
use larder_blockstore::{DatasetId, StorageLevel, StoredDataset};

use crate::support::{World, all_levels, put, read, record, stored};

const BLOCK: usize = 4_100;

fn block(seed: u64) -> [Vec<u8>; 1] {
    [record(seed, BLOCK)]
}

#[test]
fn under_every_policy_blocks_come_back_as_they_were_and_memory_is_given_back() {
    for name in policy::names() {
        let world = World::with(60_000, |builder| builder.policy(policy::by_name(name).unwrap()));
        let datasets: Vec<_> =
            all_levels().into_iter().map(|level| world.dataset(&level.to_string(), level)).collect();
        let mut state = 1_u64;
        for _ in 0..1_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize;
            let (nth, partition) = (at % datasets.len(), (at / 64 % 20) as u32 * (at as u32 / 4_096 % 3) / 2);
            let dataset = &datasets[nth];
            match at / 16 % 16 {
                0 => drop(dataset.remove(partition)),
                1 => drop(dataset.evict(partition).unwrap()),
                2 if partition == 7 => dataset.unpersist(),
                _ => {
                    let seed = nth as u64 * 1_000 + u64::from(partition);
                    assert_eq!(read(&put(dataset, partition, block(seed)).unwrap()), block(seed), "{name}");
                }
            }
        }
        let counters = world.store.counters();
        assert!(counters.evictions > 150 && counters.promotions > 30, "{name}: {counters:?}");
    }
}

/// What a policy was told.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<Call>>>);

#[derive(Clone, Debug, PartialEq)]
enum Call {
    Insert(Candidate),
    Remove(Removed),
}

impl Told {
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn inserted(&self) -> Candidate {
        match self.take().last() {
            Some(Call::Insert(candidate)) => *candidate,
            other => panic!("the last call was {other:?}"),
        }
    }
}

#[derive(Debug)]
struct Listening {
    lru: Lru,
    told: Told,
}

impl EvictionPolicy for Listening {
    fn name(&self) -> &'static str {
        "listening"
    }
    fn insert(&mut self, slot: Slot, candidate: &Candidate) {
        self.told.0.lock().unwrap().push(Call::Insert(*candidate));
        self.lru.insert(slot, candidate);
    }
    fn touch(&mut self, slot: Slot) {
        self.lru.touch(slot);
    }
    fn remove(&mut self, slot: Slot, removed: Removed) {
        self.told.0.lock().unwrap().push(Call::Remove(removed));
        self.lru.remove(slot, removed);
    }
    fn rank(&mut self, requester: Option<DatasetId>, offer: &mut dyn FnMut(Slot) -> Offer) {
        self.lru.rank(requester, offer);
    }
    fn validate(&self) -> Result<(), String> {
        self.lru.validate()
    }
}

fn listening(budget_bytes: u64) -> (World, Told) {
    let told = Told::default();
    let policy = told.clone();
    let make = move || Listening { lru: Lru::new(), told: policy.clone() };
    (World::with(budget_bytes, |builder| builder.policy(make)), told)
}

fn compute_slowly(dataset: &StoredDataset<Vec<u8>>, partition: u32, time: Duration) {
    let block = dataset.get_or_compute(partition, |out| {
        std::thread::sleep(time);
        out.push(record(1, BLOCK))
    });
    drop(block.unwrap());
}

#[test]
fn a_policy_is_told_what_a_block_is_and_how_long_it_took_to_compute() {
    let (world, told) = listening(1 << 20);
    let dataset = world.dataset("d", StorageLevel::MEMORY_AND_DISK);
    let time = Duration::from_millis(30);
    compute_slowly(&dataset, 3, time);
    let first = told.inserted();
    assert_eq!((first.block.dataset, first.block.partition), (dataset.id(), 3));
    assert_eq!(first.bytes, dataset.block_status(3).unwrap().heap_bytes);
    assert!(first.compute >= time && first.compute < 100 * time, "{first:?}");

    assert!(first.restore.is_some_and(|restore| restore == first.cost() && restore < time), "{first:?}");

    // A promotion is no computation; how long it took is what the next one is expected to take.
    for _ in 0..2 {
        assert!(dataset.evict(3).unwrap());
        drop(dataset.get(3).unwrap().unwrap());
        let promoted = told.inserted();
        assert!(promoted.restore.is_some_and(|restore| !restore.is_zero()));
        assert_eq!(
            (promoted.block, promoted.bytes, promoted.compute),
            (first.block, first.bytes, first.compute)
        );
    }

    // Computed again, it is measured again.
    dataset.remove(3);
    compute_slowly(&dataset, 3, Duration::ZERO);
    assert!(told.inserted().compute < time);
}

#[test]
fn a_block_that_was_written_straight_to_disk_has_its_time_when_it_comes_to_memory() {
    let (world, told) = listening(12_000);
    let (hog, dataset) =
        (world.dataset("hog", StorageLevel::MEMORY_ONLY), world.dataset("d", StorageLevel::MEMORY_AND_DISK));
    assert!(stored(&hog, 0, block(1)) && stored(&hog, 1, block(2)));
    let pins = [hog.get(0).unwrap(), hog.get(1).unwrap()];
    let time = Duration::from_millis(30);
    compute_slowly(&dataset, 0, time);
    assert_eq!(dataset.status().blocks_in_memory, 0);
    drop(pins);
    hog.unpersist();
    told.take();
    drop(dataset.get(0).unwrap().unwrap());
    let promoted = told.inserted();
    assert!(promoted.compute >= time && promoted.cost() < time, "{promoted:?}");
}

#[test]
fn a_policy_is_told_which_blocks_left_to_make_room() {
    let (world, told) = listening(12_000);
    let [a, b, c] = ["a", "b", "c"].map(|name| world.dataset(name, StorageLevel::MEMORY_AND_DISK));
    assert!(stored(&a, 0, block(1)) && stored(&b, 0, block(2)));
    told.take();
    assert!(stored(&c, 0, block(3)));
    assert_eq!(told.take()[0], Call::Remove(Removed::Evicted));
    // By name, not for room.
    assert!(b.evict(0).unwrap());
    assert_eq!(told.take(), [Call::Remove(Removed::Dropped)]);
    assert!(c.remove(0));
    assert_eq!(told.take(), [Call::Remove(Removed::Dropped)]);
    assert!(stored(&c, 1, block(4)));
    told.take();
    c.unpersist();
    assert_eq!(told.take(), [Call::Remove(Removed::Dropped)]);
}

#[test]
fn greedy_dual_keeps_the_block_that_took_long_to_compute() {
    for (slow, keeps) in [(0, [true, false]), (1, [false, true])] {
        let world = World::with(12_000, |builder| builder.policy(GreedyDual::new));
        let [a, b, c] = ["a", "b", "c"].map(|name| world.dataset(name, StorageLevel::MEMORY_ONLY));
        for (nth, dataset) in [&a, &b].into_iter().enumerate() {
            compute_slowly(dataset, 0, Duration::from_millis(if nth == slow { 60 } else { 0 }));
        }
        assert!(stored(&c, 0, block(3)));
        assert_eq!([&a, &b].map(|dataset| dataset.contains(0)), keeps);
    }
}

#[test]
fn greedy_dual_gives_up_the_block_that_is_on_disk_before_one_that_would_be_lost() {
    let world = World::with(12_000, |builder| builder.policy(GreedyDual::new));
    let spilling = world.dataset("spilling", StorageLevel::MEMORY_AND_DISK);
    let [lost, other] = ["lost", "other"].map(|name| world.dataset(name, StorageLevel::MEMORY_ONLY));
    compute_slowly(&lost, 0, Duration::from_millis(60));
    compute_slowly(&spilling, 0, Duration::from_millis(120));
    compute_slowly(&other, 0, Duration::from_millis(60));
    assert!(lost.contains(0) && other.contains(0), "dear to compute");
    assert!(!in_memory(&spilling), "dearer, and cheap to read");
}

fn in_memory(dataset: &StoredDataset<Vec<u8>>) -> bool {
    dataset.block_status(0).is_some_and(|block| block.effective.uses_memory())
}
