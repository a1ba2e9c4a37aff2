//! The default eviction policy against a list in the order of use.

use arbitrary::{Result, Unstructured};
use larder_blockstore::policy::{EvictionPolicy, Lru, Offer, Slot};
use larder_blockstore::{BlockId, DatasetId};

const DATASETS: u64 = 4;
const SLOTS_MAX: usize = 64;

/// What is in, coldest first.
#[derive(Default)]
struct Model {
    order: Vec<(Slot, DatasetId)>,
    vacant: Vec<Slot>,
}

impl Model {
    fn insert(&mut self, dataset: DatasetId) -> Slot {
        let slot = self.vacant.pop().unwrap_or(Slot(self.order.len() as u32));
        self.order.push((slot, dataset));
        slot
    }

    fn touch(&mut self, at: usize) -> Slot {
        let used = self.order.remove(at);
        self.order.push(used);
        used.0
    }

    fn remove(&mut self, at: usize) -> Slot {
        let (slot, _) = self.order.remove(at);
        self.vacant.push(slot);
        slot
    }

    fn rank(&self, requester: Option<DatasetId>, stop_after: usize) -> Vec<Slot> {
        let offered = self.order.iter().filter(|(_, dataset)| Some(*dataset) != requester);
        offered.map(|(slot, _)| *slot).take(stop_after).collect()
    }
}

/// Inserts, touches, removes and ranks: [`Lru`] offers exactly what the list says, in its order.
pub fn lru_policy(data: &[u8]) {
    // Running out of bytes ends the sequence.
    let _ = run(&mut Unstructured::new(data));
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let (mut lru, mut model) = (Lru::new(), Model::default());
    while !input.is_empty() {
        step(input, &mut lru, &mut model)?;
        lru.validate().expect("its book-keeping is consistent");
        assert_eq!(offers(&mut lru, None, usize::MAX), model.rank(None, usize::MAX));
    }
    Ok(())
}

fn step(input: &mut Unstructured<'_>, lru: &mut Lru, model: &mut Model) -> Result<()> {
    let dataset = DatasetId(input.int_in_range(0..=DATASETS - 1)?);
    match input.int_in_range(0..=7_u8)? {
        0..=2 if model.order.len() < SLOTS_MAX => {
            let slot = model.insert(dataset);
            lru.insert(slot, BlockId { dataset, partition: slot.0 }, input.arbitrary()?);
        }
        3 | 4 if !model.order.is_empty() => lru.touch(model.touch(input.choose_index(model.order.len())?)),
        5 if !model.order.is_empty() => lru.remove(model.remove(input.choose_index(model.order.len())?)),
        _ => {
            let requester = input.arbitrary::<bool>()?.then_some(dataset);
            let stop_after = input.int_in_range(1..=SLOTS_MAX)?;
            assert_eq!(offers(lru, requester, stop_after), model.rank(requester, stop_after));
        }
    }
    Ok(())
}

fn offers(lru: &mut Lru, requester: Option<DatasetId>, stop_after: usize) -> Vec<Slot> {
    let mut offered = Vec::new();
    lru.rank(requester, &mut |slot| {
        assert!(offered.len() < stop_after, "an offer after a stop");
        offered.push(slot);
        if offered.len() == stop_after { Offer::Stop } else { Offer::Next }
    });
    offered
}
