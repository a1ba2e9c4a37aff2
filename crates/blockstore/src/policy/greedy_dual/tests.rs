use super::*;
use crate::BlockId;
use crate::policy::tests::offers;
use std::time::Duration;

const KIB: u64 = 1 << 10;

fn insert(policy: &mut GreedyDual, slot: u32, dataset: u64, bytes: u64, compute: Duration) {
    let block = BlockId { dataset: DatasetId(dataset), partition: slot };
    policy.insert(Slot(slot), &Candidate::new(block, bytes).computed_in(compute));
}

fn of(blocks: &[(u64, u64)]) -> GreedyDual {
    let mut policy = GreedyDual::new();
    for (slot, (bytes, micros)) in blocks.iter().enumerate() {
        insert(&mut policy, slot as u32, 1, *bytes, Duration::from_micros(*micros));
    }
    policy
}

/// Makes room for one block: which one went.
fn evict(policy: &mut GreedyDual) -> u32 {
    let victim = offers(policy, None, 1)[0];
    policy.remove(Slot(victim), Removed::Evicted);
    policy.validate().unwrap();
    victim
}

#[test]
fn what_was_dear_for_its_size_stays_before_what_was_cheap() {
    let mut policy = of(&[(KIB, 1_000), (KIB, 10), (64 * KIB, 1_000), (64 * KIB, 10), (1_024 * KIB, 1_000)]);
    let order: Vec<u32> = (0..5).map(|_| evict(&mut policy)).collect();
    // Nanoseconds a byte: 977, 9.8, 15, 0.15, 0.95.
    assert_eq!(order, [3, 4, 1, 2, 0]);
}

#[test]
fn a_dear_block_that_is_not_read_goes_in_the_end() {
    let mut policy = of(&[(KIB, 1_000)]);
    for round in 0.. {
        insert(&mut policy, 1, 2, KIB, Duration::from_micros(100));
        if evict(&mut policy) == 0 {
            // Ten cheap ones were paid for in the meantime; at a tie the one used longer ago goes.
            assert_eq!(round, 9);
            break;
        }
        assert!(round < 100, "it stays for ever");
    }
}

#[test]
fn reading_a_block_renews_its_credit() {
    let mut policy = of(&[(KIB, 1_000)]);
    for _ in 0..100 {
        insert(&mut policy, 1, 2, KIB, Duration::from_micros(100));
        policy.touch(Slot(0));
        assert_eq!(evict(&mut policy), 1);
    }
}

#[test]
fn blocks_of_equal_worth_go_by_their_last_use() {
    let mut policy = of(&[(KIB, 0), (KIB, 0), (8 * KIB, 0)]);
    policy.touch(Slot(0));
    assert_eq!(offers(&mut policy, None, 9), [1, 2, 0]);
}

#[test]
fn only_evictions_inflate() {
    let mut policy = of(&[(KIB, 1_000), (KIB, 100), (KIB, 10)]);
    policy.remove(Slot(0), Removed::Dropped);
    assert_eq!(policy.inflation, 0);
    assert_eq!(offers(&mut policy, None, 9), [2, 1], "to look is not to take");
    assert_eq!(policy.inflation, 0);
    policy.remove(Slot(2), Removed::Evicted);
    assert_eq!(policy.inflation, 10_000 * (1 << 16) / 1_024);
}

#[test]
fn own_blocks_are_stepped_over() {
    let mut policy = GreedyDual::new();
    for (slot, dataset) in [1, 1, 2, 3, 1, 2].into_iter().enumerate() {
        insert(&mut policy, slot as u32, dataset, KIB, Duration::from_micros(slot as u64));
    }
    assert_eq!(offers(&mut policy, Some(DatasetId(1)), 9), [2, 3, 5]);
    assert_eq!(offers(&mut policy, Some(DatasetId(2)), 9), [0, 1, 3, 4]);
    policy.remove(Slot(3), Removed::Dropped);
    policy.remove(Slot(2), Removed::Dropped);
    policy.remove(Slot(5), Removed::Dropped);
    assert_eq!(offers(&mut policy, Some(DatasetId(1)), 9), [0; 0]);
}

#[test]
fn inflation_starts_again_before_it_overflows_and_keeps_what_blocks_are_ahead() {
    let mut policy = GreedyDual::new();
    policy.inflation = INFLATION_MAX - 1;
    let longest = Duration::MAX;
    insert(&mut policy, 0, 1, 0, longest);
    insert(&mut policy, 1, 1, KIB, Duration::from_micros(300));
    insert(&mut policy, 2, 1, KIB, Duration::from_micros(200));
    insert(&mut policy, 3, 1, KIB, Duration::from_micros(100));
    // 3 was pinned, and stays behind.
    policy.remove(Slot(2), Removed::Evicted);
    assert_eq!(policy.inflation, 0);
    insert(&mut policy, 2, 1, KIB, Duration::from_micros(50));
    assert_eq!(offers(&mut policy, None, 9), [3, 2, 1, 0]);
    assert_eq!(
        policy.credits.get(Slot(1)).unwrap().credit,
        (300_000 << 16) / 1_024 - (200_000 << 16) / 1_024
    );
}
