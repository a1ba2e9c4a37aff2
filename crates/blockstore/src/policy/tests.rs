//! What holds for every policy of this crate, and how they compare.

use std::collections::HashMap;

use super::*;
use crate::random::Random;

fn block(dataset: u64, partition: u32) -> BlockId {
    BlockId { dataset: DatasetId(dataset), partition }
}

/// What a policy offers, up to so many.
pub(super) fn offers<P: EvictionPolicy + ?Sized>(
    policy: &mut P,
    requester: Option<DatasetId>,
    max: usize,
) -> Vec<u32> {
    let mut offered = Vec::new();
    policy.rank(requester, &mut |slot| {
        offered.push(slot.0);
        if offered.len() >= max { Offer::Stop } else { Offer::Next }
    });
    policy.validate().unwrap();
    offered
}

/// A cache of so many blocks of one byte.
struct Cache<P> {
    policy: P,
    capacity: usize,
    slots: HashMap<u32, Slot>,
    blocks: Vec<u32>,
}

impl<P: EvictionPolicy> Cache<P> {
    fn new(policy: P, capacity: usize) -> Self {
        Self { policy, capacity, slots: HashMap::new(), blocks: Vec::new() }
    }

    /// Reads a block, and puts it in if it is not there; whether it was.
    fn read(&mut self, partition: u32) -> bool {
        if let Some(slot) = self.slots.get(&partition) {
            self.policy.touch(*slot);
            return true;
        }
        let slot = if self.blocks.len() < self.capacity {
            self.blocks.push(partition);
            Slot(self.blocks.len() as u32 - 1)
        } else {
            let mut victim = None;
            self.policy.rank(None, &mut |slot| {
                victim = Some(slot);
                Offer::Stop
            });
            let victim = victim.unwrap();
            self.policy.remove(victim, Removed::Evicted);
            let gone = std::mem::replace(&mut self.blocks[victim.0 as usize], partition);
            self.slots.remove(&gone);
            victim
        };
        self.policy.insert(slot, &Candidate::new(block(0, partition), 1));
        self.slots.insert(partition, slot);
        false
    }

    fn hit_ratio(&mut self, trace: &[u32]) -> f64 {
        let hits = trace.iter().filter(|partition| self.read(**partition)).count();
        self.policy.validate().unwrap();
        hits as f64 / trace.len() as f64
    }
}

fn hit_ratios(capacity: usize, trace: &[u32]) -> HashMap<&'static str, f64> {
    let ratio = |name| Cache::new(by_name(name).unwrap()(), capacity).hit_ratio(trace);
    names().map(|name| (name, ratio(name))).collect()
}

/// Reads of so many blocks, the `n`-th of which is read in proportion to `1 / n`.
fn zipf(seed: u64, blocks: u32, reads: usize) -> Vec<u32> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=blocks)
        .map(|n| {
            sum += f64::from(n).recip();
            sum
        })
        .collect();
    let mut random = Random::new(seed);
    let mut read = || {
        let at = (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * sum;
        sums.partition_point(|sum| *sum < at) as u32
    };
    (0..reads).map(|_| read()).collect()
}

#[test]
fn each_conforms() {
    for name in names() {
        conformance::check(by_name(name).unwrap()).unwrap();
    }
}

#[test]
fn names_are_known_in_any_case_and_unknown_ones_are_told_the_known() {
    for name in names() {
        assert_eq!(by_name(name).unwrap()().name(), name);
        assert_eq!(by_name(&name.to_uppercase()).unwrap()().name(), name);
    }
    let unknown = by_name("mru").unwrap_err();
    let message = "no eviction policy is named `mru`: there are lru, fifo, s3-fifo, sieve, greedy-dual";
    assert_eq!(unknown.to_string(), message);
}

#[test]
fn where_some_blocks_are_read_more_often_sieve_and_s3_fifo_hit_more_than_lru() {
    for (seed, capacity) in [(1, 200), (2, 1_000), (3, 2_000)] {
        let ratios = hit_ratios(capacity, &zipf(seed, 10_000, 100_000));
        assert!(ratios["sieve"] > ratios["lru"] + 0.02, "{ratios:?}");
        assert!(ratios["s3-fifo"] > ratios["lru"] + 0.02, "{ratios:?}");
        assert!(ratios["lru"] > ratios["fifo"], "{ratios:?}");
        assert_eq!(ratios["greedy-dual"], ratios["lru"], "all blocks are worth the same");
    }
}

#[test]
fn on_a_loop_that_does_not_fit_only_s3_fifo_hits() {
    let trace: Vec<u32> = (0..20).flat_map(|_| 0..1_500).collect();
    let ratios = hit_ratios(1_000, &trace);
    for name in ["lru", "fifo", "sieve", "greedy-dual"] {
        assert_eq!(ratios[name], 0.0, "{name}");
    }
    assert!(ratios["s3-fifo"] > 0.1, "{ratios:?}");
}

/// Bytes a block at a million blocks, and the most at any number of blocks from 1,000 on. With `ghosts` a block is
/// evicted for every one that stays.
fn bytes_a_block<P: EvictionPolicy>(
    mut policy: P,
    allocated_bytes: fn(&P) -> usize,
    ghosts: bool,
) -> (usize, usize) {
    let (mut worst, mut spare, mut inserted) = (0, Slot(0), 0_u32);
    let mut insert = |policy: &mut P, slot| {
        inserted += 1;
        let compute = Duration::from_nanos(u64::from(inserted) % 97);
        let block = block(u64::from(inserted) % 1_000, inserted);
        policy.insert(slot, &Candidate::new(block, 1).computed_in(compute));
    };
    for blocks in 1..=1_000_000_usize {
        insert(&mut policy, spare);
        spare = Slot(blocks as u32);
        if ghosts {
            insert(&mut policy, spare);
            policy.rank(None, &mut |slot| {
                spare = slot;
                Offer::Stop
            });
            policy.remove(spare, Removed::Evicted);
        }
        if blocks >= 1_000 {
            worst = worst.max(allocated_bytes(&policy).div_ceil(blocks));
        }
    }
    (allocated_bytes(&policy).div_ceil(1_000_000), worst)
}

/// Asserts what the policy's docs say, and the limit of all policies.
fn check_bytes_a_block<P: EvictionPolicy>(
    policy: P,
    allocated_bytes: fn(&P) -> usize,
    ghosts: bool,
    documented: (usize, usize),
) {
    let name = policy.name();
    let measured = bytes_a_block(policy, allocated_bytes, ghosts);
    assert!(measured.0 <= documented.0 && measured.1 <= documented.1, "{name}: {measured:?} bytes a block");
    assert!(measured.0 * 4 >= documented.0 * 3, "{name}: the docs say too much: {measured:?} bytes a block");
    assert!(measured.1 <= 128, "{name}: {measured:?} bytes a block");
}

#[test]
fn book_keeping_of_a_million_blocks_in_one_queue_or_two_is_as_documented() {
    check_bytes_a_block(Lru::new(), Lru::allocated_bytes, false, (26, 50));
    check_bytes_a_block(Fifo::new(), Fifo::allocated_bytes, false, (26, 50));
    check_bytes_a_block(Sieve::new(), Sieve::allocated_bytes, false, (34, 66));
}

#[test]
fn book_keeping_of_a_million_blocks_and_their_ghosts_is_as_documented() {
    check_bytes_a_block(S3Fifo::new(), S3Fifo::allocated_bytes, true, (75, 122));
}

#[test]
fn book_keeping_of_a_million_credits_is_as_documented() {
    check_bytes_a_block(GreedyDual::new(), GreedyDual::allocated_bytes, false, (51, 97));
}

/// What a request for room leaves behind when nothing or not enough could be taken.
#[test]
fn a_rank_that_is_not_stopped_leaves_everything_as_it_was() {
    for name in names() {
        for seed in 0..10 {
            let (mut random, make) = (Random::new(seed), by_name(name).unwrap());
            let (mut policy, mut undisturbed) = (make(), make());
            for step in 0..120 {
                let slot = Slot(step);
                let compute = Duration::from_nanos(random.below(1_000));
                let candidate = Candidate::new(block(random.below(3), step), 1 + random.below(50));
                let touched = Slot(random.below(u64::from(step) + 1) as u32);
                for policy in [&mut policy, &mut undisturbed] {
                    policy.insert(slot, &candidate.computed_in(compute));
                    policy.touch(touched);
                }
                let requester = (random.below(2) == 0).then(|| DatasetId(random.below(4)));
                offers(&mut policy, requester, usize::MAX);
                if random.below(3) == 0 {
                    let expected = offers(&mut undisturbed, requester, 3);
                    assert_eq!(offers(&mut policy, requester, 3), expected, "{name}, seed {seed}");
                }
            }
        }
    }
}

#[test]
fn a_million_blocks_of_the_requesters_own_are_stepped_over_at_once() {
    const OWN: u32 = 1_000_000;
    // The memory of all others is taken and filled again, once; at each victim all own blocks are colder.
    for name in names() {
        let mut policy = by_name(name).unwrap()();
        let free = |slot: u32, dataset| Candidate::new(block(dataset, slot), 1);
        for slot in 0..OWN {
            policy.insert(Slot(slot), &free(slot, 1));
        }
        for slot in OWN..OWN + 300 {
            policy.insert(Slot(slot), &free(slot, 2).computed_in(Duration::from_secs(1)));
        }
        let begun = std::time::Instant::now();
        for round in 0..300 {
            let mut victim = None;
            policy.rank(Some(DatasetId(1)), &mut |slot| {
                victim = Some(slot);
                Offer::Stop
            });
            let victim = victim.unwrap();
            assert!(victim.0 >= OWN, "{name}");
            policy.remove(victim, Removed::Evicted);
            policy.insert(victim, &free(OWN + 300 + round, 2));
        }
        // A walk over them would take 3 * 10^8 steps: some ten seconds here, and this some milliseconds.
        assert!(begun.elapsed() < Duration::from_secs(1), "{name}: {:?}", begun.elapsed());
    }
}
