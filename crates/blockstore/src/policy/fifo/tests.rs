use super::*;
use crate::BlockId;
use crate::policy::tests::offers;

fn insert(fifo: &mut Fifo, slot: u32, dataset: u64) {
    let block = BlockId { dataset: DatasetId(dataset), partition: slot };
    fifo.insert(Slot(slot), &Candidate::new(block, 1));
}

#[test]
fn the_first_to_come_goes_first_however_often_it_is_read() {
    let mut fifo = Fifo::new();
    for slot in [2, 0, 1] {
        insert(&mut fifo, slot, 1);
    }
    for slot in [2, 2, 0] {
        fifo.touch(Slot(slot));
    }
    assert_eq!(offers(&mut fifo, None, 9), [2, 0, 1]);
    fifo.remove(Slot(0), Removed::Dropped);
    insert(&mut fifo, 0, 1);
    assert_eq!(offers(&mut fifo, None, 9), [2, 1, 0]);
}

#[test]
fn a_block_that_was_offered_and_stays_keeps_its_place() {
    let mut fifo = Fifo::new();
    for slot in 0..3 {
        insert(&mut fifo, slot, 1);
    }
    assert_eq!(offers(&mut fifo, None, 2), [0, 1]);
    fifo.remove(Slot(1), Removed::Evicted);
    assert_eq!(offers(&mut fifo, None, 9), [0, 2]);
}

#[test]
fn own_blocks_between_others_are_stepped_over() {
    let mut fifo = Fifo::new();
    for (slot, dataset) in [1, 1, 2, 1, 3, 3, 1, 1].into_iter().enumerate() {
        insert(&mut fifo, slot as u32, dataset);
    }
    assert_eq!(offers(&mut fifo, Some(DatasetId(1)), 9), [2, 4, 5]);
    // What lay between two runs of one dataset leaves, and they are one.
    fifo.remove(Slot(2), Removed::Dropped);
    assert_eq!(offers(&mut fifo, Some(DatasetId(1)), 9), [4, 5]);
    fifo.remove(Slot(4), Removed::Dropped);
    fifo.remove(Slot(5), Removed::Dropped);
    assert_eq!(offers(&mut fifo, Some(DatasetId(1)), 9), [0; 0]);
    assert_eq!(offers(&mut fifo, Some(DatasetId(3)), 9), [0, 1, 3, 6, 7]);
}
