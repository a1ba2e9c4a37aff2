use super::*;
use crate::BlockId;
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
fn the_elder_goes_first_and_reading_it_spares_it() {
    let mut lru = Lru::new();
    lru.insert(Slot(0), &Candidate::new(block(A, 1), 4_000));
    lru.insert(Slot(1), &Candidate::new(block(A, 2), 4_000));
    assert_eq!(ranked(&mut lru, None), [0, 1]);
    lru.touch(Slot(0));
    assert_eq!(ranked(&mut lru, None), [1, 0]);
    lru.remove(Slot(1), Removed::Evicted);
    lru.insert(Slot(1), &Candidate::new(block(B, 3), 4_000));
    assert_eq!(ranked(&mut lru, None), [0, 1]);
}

#[test]
fn a_dataset_is_never_offered_its_own_blocks() {
    let mut lru = Lru::new();
    for partition in 0..3 {
        lru.insert(Slot(partition), &Candidate::new(block(A, partition), 1));
    }
    assert_eq!(ranked(&mut lru, Some(A)), [0; 0]);
    assert_eq!(ranked(&mut lru, Some(B)), [0, 1, 2]);
    lru.insert(Slot(3), &Candidate::new(block(B, 0), 1));
    assert_eq!(ranked(&mut lru, Some(A)), [3]);
    assert_eq!(ranked(&mut lru, Some(B)), [0, 1, 2]);
}

#[test]
fn datasets_are_merged_by_last_use() {
    let mut lru = Lru::new();
    for (slot, dataset) in [A, B, DatasetId(3), A, B, DatasetId(3)].into_iter().enumerate() {
        lru.insert(Slot(slot as u32), &Candidate::new(block(dataset, slot as u32), 1));
    }
    assert_eq!(ranked(&mut lru, None), [0, 1, 2, 3, 4, 5]);
    assert_eq!(ranked(&mut lru, Some(B)), [0, 2, 3, 5]);
    for slot in [1, 0, 3] {
        lru.touch(Slot(slot));
    }
    assert_eq!(ranked(&mut lru, None), [2, 4, 5, 1, 0, 3]);
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
                    lru.insert(Slot(slot), &Candidate::new(block(dataset, slot), 1));
                }
                (Some(at), 0) => {
                    model.remove(at);
                    lru.remove(Slot(slot), Removed::Evicted);
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
