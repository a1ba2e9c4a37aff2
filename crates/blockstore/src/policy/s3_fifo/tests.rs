use super::*;
use crate::BlockId;
use crate::policy::tests::offers;

fn block(dataset: u64, partition: u32) -> BlockId {
    BlockId { dataset: DatasetId(dataset), partition }
}

fn insert(s3: &mut S3Fifo, slot: u32, partition: u32) {
    s3.insert(Slot(slot), &Candidate::new(block(1, partition), 100));
}

/// So many blocks, partition and slot alike; the first `hot` of them were read twice.
fn with(blocks: u32, hot: u32) -> S3Fifo {
    let mut s3 = S3Fifo::new();
    for slot in 0..blocks {
        insert(&mut s3, slot, slot);
    }
    for slot in 0..hot {
        s3.touch(Slot(slot));
        s3.touch(Slot(slot));
    }
    s3
}

/// Makes room for one block: which slot went.
fn evict(s3: &mut S3Fifo) -> u32 {
    let victim = offers(s3, None, 1)[0];
    s3.remove(Slot(victim), Removed::Evicted);
    s3.validate().unwrap();
    victim
}

fn is_in_main(s3: &S3Fifo, slot: u32) -> bool {
    s3.queues.mark(Slot(slot)).is_in_main
}

#[test]
fn blocks_that_are_read_once_leave_before_the_rest() {
    let mut s3 = with(100, 80);
    // A scan of 1,000 blocks that are read at most once more.
    for scanned in 0..1_000 {
        let slot = evict(&mut s3);
        assert!(slot >= 80, "block {slot} was read twice, and went at scanned block {scanned}");
        insert(&mut s3, slot, 1_000 + scanned);
        if scanned % 2 == 0 {
            s3.touch(Slot(slot));
        }
    }
    assert!((0..80).all(|slot| is_in_main(&s3, slot)));
}

#[test]
fn a_block_that_comes_back_after_its_eviction_goes_to_the_main_queue() {
    let mut s3 = with(100, 0);
    assert_eq!(evict(&mut s3), 0);
    insert(&mut s3, 0, 0);
    assert!(is_in_main(&s3, 0));
    assert_eq!(evict(&mut s3), 1, "it is spared as long as the small queue has more than its share");
    insert(&mut s3, 1, 1_000);
    assert!(!is_in_main(&s3, 1), "another block in its slot is new");
}

#[test]
fn a_block_that_was_dropped_leaves_no_ghost() {
    let mut s3 = with(100, 0);
    s3.remove(Slot(0), Removed::Dropped);
    insert(&mut s3, 0, 0);
    assert!(!is_in_main(&s3, 0));
}

#[test]
fn a_block_that_leaves_the_main_queue_leaves_no_ghost() {
    let mut s3 = with(10, 10);
    assert_eq!(evict(&mut s3), 0, "all were promoted, and their reads are behind them");
    insert(&mut s3, 0, 0);
    assert!(!is_in_main(&s3, 0));
}

#[test]
fn ghosts_are_of_the_last_evictions_nine_for_ten_blocks() {
    let mut s3 = with(100, 0);
    for scanned in 0..95 {
        let slot = evict(&mut s3);
        insert(&mut s3, slot, 1_000 + scanned);
    }
    // Partitions 0 to 94 went, and the last 90 of them are remembered.
    s3.remove(Slot(99), Removed::Dropped);
    insert(&mut s3, 99, 4);
    assert!(!is_in_main(&s3, 99));
    s3.remove(Slot(99), Removed::Dropped);
    insert(&mut s3, 99, 94);
    assert!(is_in_main(&s3, 99));
}

#[test]
fn in_the_main_queue_a_block_goes_round_once_for_each_read() {
    let mut s3 = with(4, 4);
    // Promotes all, takes none of them for good: 0 is pinned and goes to the new end.
    assert_eq!(offers(&mut s3, None, 1), [0]);
    for (slot, reads) in [(1, 2), (2, 1), (3, 9), (0, 0)] {
        (0..reads).for_each(|_| s3.touch(Slot(slot)));
    }
    assert_eq!(offers(&mut s3, None, 9), [0, 2, 1, 3]);
    // Going round uses up a read.
    assert_eq!(offers(&mut s3, None, 1), [0]);
    assert_eq!(offers(&mut s3, None, 9), [2, 0, 1, 3]);
}

#[test]
fn the_small_queue_gives_up_blocks_down_to_a_tenth_of_all_bytes() {
    let mut s3 = with(100, 90);
    assert_eq!(evict(&mut s3), 90);
    assert!(is_in_main(&s3, 89) && !is_in_main(&s3, 91));
    // 9 of 99 blocks are small, which is less than a tenth: the next is the oldest of the main queue.
    assert_eq!(evict(&mut s3), 0);
    // A tenth and more again.
    insert(&mut s3, 0, 1_000);
    assert_eq!(evict(&mut s3), 91);
}

#[test]
fn blocks_are_offered_in_the_order_of_one_eviction_after_another() {
    let mut s3 = with(20, 3);
    s3.touch(Slot(5));
    let offered = offers(&mut s3, None, 99);
    // Small down to its tenth (2 blocks of 20), then main, then what is left of small.
    let order: Vec<u32> = (3..19).chain([0, 1, 2]).chain([19]).collect();
    assert_eq!(offered, order);
}

#[test]
fn own_blocks_keep_their_place() {
    let mut s3 = S3Fifo::new();
    for (slot, dataset) in [1, 1, 2, 1, 2, 1].into_iter().enumerate() {
        s3.insert(Slot(slot as u32), &Candidate::new(block(dataset, slot as u32), 100));
    }
    assert_eq!(offers(&mut s3, Some(DatasetId(1)), 1), [2]);
    assert_eq!(offers(&mut s3, None, 99), [0, 1, 3, 4, 5, 2], "2 was offered and stays: it is in use");
}
