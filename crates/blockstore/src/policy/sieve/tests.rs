use super::*;
use crate::BlockId;
use crate::policy::tests::offers;

fn insert(sieve: &mut Sieve, slot: u32, dataset: u64) {
    let block = BlockId { dataset: DatasetId(dataset), partition: slot };
    sieve.insert(Slot(slot), &Candidate::new(block, 1));
}

fn with(blocks: u32) -> Sieve {
    let mut sieve = Sieve::new();
    for slot in 0..blocks {
        insert(&mut sieve, slot, 1);
    }
    sieve
}

/// Makes room for one block: which one went.
fn evict(sieve: &mut Sieve) -> u32 {
    let victim = offers(sieve, None, 1)[0];
    sieve.remove(Slot(victim), Removed::Evicted);
    sieve.validate().unwrap();
    victim
}

#[test]
fn the_hand_spares_what_was_read_and_stays_where_it_took_one() {
    let mut sieve = with(7);
    for slot in [0, 1, 6] {
        sieve.touch(Slot(slot));
    }
    assert_eq!(evict(&mut sieve), 2, "0 and 1 were read");
    insert(&mut sieve, 7, 1);
    sieve.touch(Slot(0));
    assert_eq!(evict(&mut sieve), 3, "the hand goes on from there");
    insert(&mut sieve, 8, 1);
    let rest: Vec<u32> = (0..6).map(|_| evict(&mut sieve)).collect();
    assert_eq!(rest, [4, 5, 7, 8, 1, 6], "6 and 0 were read since; 1 and 0 were there before the hand");
    assert_eq!(evict(&mut sieve), 0);
}

#[test]
fn a_scan_goes_by_and_what_is_read_again_stays() {
    let mut sieve = with(100);
    for slot in 0..50 {
        sieve.touch(Slot(slot));
    }
    // A scan of 1,000 blocks, while the 50 are read now and then.
    for scanned in 0..1_000 {
        let slot = evict(&mut sieve);
        assert!(slot >= 50, "block {slot} was read, and went at scanned block {scanned}");
        insert(&mut sieve, slot, 2);
        sieve.touch(Slot(scanned % 50));
    }
}

#[test]
fn a_block_that_is_passed_while_pinned_is_not_offered_before_the_hand_comes_round() {
    let mut sieve = with(4);
    // 0 is pinned: the store skips it and takes 1.
    assert_eq!(offers(&mut sieve, None, 2), [0, 1]);
    sieve.remove(Slot(1), Removed::Evicted);
    assert_eq!(offers(&mut sieve, None, 9), [2, 3, 0]);
}

#[test]
fn own_blocks_are_passed_and_keep_their_place_and_bits() {
    let mut sieve = Sieve::new();
    for (slot, dataset) in [1, 1, 2, 1, 2, 1].into_iter().enumerate() {
        insert(&mut sieve, slot as u32, dataset);
    }
    sieve.touch(Slot(0));
    assert_eq!(offers(&mut sieve, Some(DatasetId(1)), 1), [2]);
    sieve.remove(Slot(2), Removed::Evicted);
    // The hand is at 3; 0, which comes when it is round, keeps its bit.
    assert_eq!(offers(&mut sieve, None, 9), [3, 4, 5, 1, 0]);
}

#[test]
fn what_comes_in_while_the_hand_is_at_the_new_end_waits_for_the_old_ones() {
    let mut sieve = with(3);
    sieve.touch(Slot(0));
    sieve.touch(Slot(1));
    assert_eq!(evict(&mut sieve), 2, "the newest, and the hand is round");
    insert(&mut sieve, 3, 1);
    assert_eq!(offers(&mut sieve, None, 9), [0, 1, 3]);
}
