use super::*;
use crate::policy::conformance;
use crate::random::Random;

const A: DatasetId = DatasetId(1);
const B: DatasetId = DatasetId(2);

fn block(dataset: DatasetId, partition: u32) -> BlockId {
    BlockId { dataset, partition }
}

fn ranked(lru: &mut Lru, requester: Option<DatasetId>) -> Vec<u32> {
    let mut order = Vec::new();
    lru.rank(requester, &mut |slot| {
        order.push(slot.0);
        Offer::Next
    });
    lru.validate().unwrap();
    order
}

#[test]
fn conforms() {
    conformance::check(|| Box::new(Lru::new())).unwrap();
}

#[test]
fn the_elder_goes_first_and_reading_it_spares_it() {
    let mut lru = Lru::new();
    lru.insert(Slot(0), block(A, 1), 4_000);
    lru.insert(Slot(1), block(A, 2), 4_000);
    assert_eq!(ranked(&mut lru, None), [0, 1]);
    lru.touch(Slot(0));
    assert_eq!(ranked(&mut lru, None), [1, 0]);
    lru.remove(Slot(1));
    lru.insert(Slot(1), block(B, 3), 4_000);
    assert_eq!(ranked(&mut lru, None), [0, 1]);
}

#[test]
fn a_dataset_is_never_offered_its_own_blocks() {
    let mut lru = Lru::new();
    for partition in 0..3 {
        lru.insert(Slot(partition), block(A, partition), 1);
    }
    assert_eq!(ranked(&mut lru, Some(A)), [0; 0]);
    assert_eq!(ranked(&mut lru, Some(B)), [0, 1, 2]);
    lru.insert(Slot(3), block(B, 0), 1);
    assert_eq!(ranked(&mut lru, Some(A)), [3]);
    assert_eq!(ranked(&mut lru, Some(B)), [0, 1, 2]);
}

#[test]
fn datasets_are_merged_by_last_use() {
    let mut lru = Lru::new();
    for (slot, dataset) in [A, B, DatasetId(3), A, B, DatasetId(3)].into_iter().enumerate() {
        lru.insert(Slot(slot as u32), block(dataset, slot as u32), 1);
    }
    assert_eq!(ranked(&mut lru, None), [0, 1, 2, 3, 4, 5]);
    assert_eq!(ranked(&mut lru, Some(B)), [0, 2, 3, 5]);
    for slot in [1, 0, 3] {
        lru.touch(Slot(slot));
    }
    assert_eq!(ranked(&mut lru, None), [2, 4, 5, 1, 0, 3]);
}

#[test]
fn a_dataset_that_left_leaves_nothing_behind() {
    let mut lru = Lru::new();
    for dataset in 0..1_000 {
        lru.insert(Slot(0), block(DatasetId(dataset), 0), 1);
        lru.remove(Slot(0));
    }
    lru.validate().unwrap();
    assert_eq!((lru.lists.len(), lru.of_dataset.len(), lru.by_coldest.len()), (1, 0, 0));
}

#[test]
fn agrees_with_a_plain_vector() {
    for seed in 0..20 {
        let (mut random, mut lru, mut model) =
            (Random::new(seed), Lru::new(), Vec::<(u32, DatasetId)>::new());
        for _ in 0..2_000 {
            let slot = random.below(48) as u32;
            let at = model.iter().position(|(known, _)| *known == slot);
            match (at, random.below(4)) {
                (None, _) => {
                    let dataset = DatasetId(random.below(6));
                    model.push((slot, dataset));
                    lru.insert(Slot(slot), block(dataset, slot), 1);
                }
                (Some(at), 0) => {
                    model.remove(at);
                    lru.remove(Slot(slot));
                }
                (Some(at), _) => {
                    let entry = model.remove(at);
                    model.push(entry);
                    lru.touch(Slot(slot));
                }
            }
            let requester = (random.below(2) == 0).then(|| DatasetId(random.below(7)));
            let expected: Vec<_> =
                model.iter().filter(|(_, d)| Some(*d) != requester).map(|(slot, _)| *slot).collect();
            assert_eq!(ranked(&mut lru, requester), expected, "seed {seed}");
        }
    }
}

#[test]
fn keeps_at_most_64_bytes_a_block() {
    let mut lru = Lru::new();
    let mut worst = 0;
    for slot in 0..100_000 {
        lru.insert(Slot(slot), block(A, slot), 1);
        if slot > 1_000 {
            worst = worst.max(lru.links.allocated_bytes() / (slot as usize + 1));
        }
    }
    assert!((24..=48).contains(&worst), "{worst} bytes a block");
}
