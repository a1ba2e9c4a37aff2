//! Each eviction policy against a plain model of it.

mod models;

use arbitrary::{Result, Unstructured};
use larder_blockstore::policy::{Candidate, EvictionPolicy, Offer, Removed, Slot, by_name};
use larder_blockstore::{BlockId, DatasetId};
use models::{Block, Model};
use std::time::Duration;

const DATASETS: u64 = 4;
const PARTITIONS: u32 = 40;
const SLOTS_MAX: usize = 64;

/// Inserts, touches, removes and ranks: every policy offers exactly what its model does, in its order.
pub fn policies(data: &[u8]) {
    for (name, model) in models::all() {
        let policy = by_name(name).expect("each model is named as its policy")();
        // Running out of bytes ends the sequence.
        let _ =
            Run { policy, model, slots: Vec::new(), vacant: Vec::new() }.run(&mut Unstructured::new(data));
    }
}

struct Run {
    policy: Box<dyn EvictionPolicy>,
    model: Box<dyn Model>,
    /// Those that are in.
    slots: Vec<Slot>,
    vacant: Vec<Slot>,
}

impl Run {
    fn run(mut self, input: &mut Unstructured<'_>) -> Result<()> {
        while !input.is_empty() {
            self.step(input)?;
            self.policy.validate().expect("its book-keeping is consistent");
            self.rank(None, usize::MAX);
        }
        Ok(())
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let dataset = DatasetId(input.int_in_range(0..=DATASETS - 1)?);
        match input.int_in_range(0..=9_u8)? {
            0..=3 if self.slots.len() < SLOTS_MAX => {
                let slot = self.vacant.pop().unwrap_or(Slot(self.slots.len() as u32));
                let block = BlockId { dataset, partition: input.int_in_range(0..=PARTITIONS - 1)? };
                let (bytes, nanos) = (input.arbitrary::<u16>()?, input.arbitrary::<u16>()?);
                let candidate =
                    Candidate::new(block, bytes.into()).computed_in(Duration::from_nanos(nanos.into()));
                self.slots.push(slot);
                self.policy.insert(slot, &candidate);
                self.model.insert(Block { slot, block, bytes: bytes.into(), nanos: nanos.into() });
            }
            4..=6 if !self.slots.is_empty() => {
                let slot = *input.choose(&self.slots)?;
                self.policy.touch(slot);
                self.model.touch(slot);
            }
            7 if !self.slots.is_empty() => {
                let slot = *input.choose(&self.slots)?;
                self.remove(slot, Removed::Dropped);
            }
            _ => {
                let requester = input.arbitrary::<bool>()?.then_some(dataset);
                let stop_after = input.int_in_range(1..=SLOTS_MAX)?;
                for slot in self.rank(requester, stop_after) {
                    if input.ratio(3_u8, 4_u8)? {
                        self.remove(slot, Removed::Evicted);
                    }
                }
            }
        }
        Ok(())
    }

    fn remove(&mut self, slot: Slot, removed: Removed) {
        self.slots.retain(|known| *known != slot);
        self.vacant.push(slot);
        self.policy.remove(slot, removed);
        self.model.remove(slot, removed);
    }

    fn rank(&mut self, requester: Option<DatasetId>, stop_after: usize) -> Vec<Slot> {
        let mut offered = Vec::new();
        self.policy.rank(requester, &mut |slot| {
            assert!(offered.len() < stop_after, "an offer after a stop");
            offered.push(slot);
            if offered.len() == stop_after { Offer::Stop } else { Offer::Next }
        });
        let expected = self.model.rank(requester, stop_after);
        assert_eq!(offered, expected, "{}", self.policy.name());
        offered
    }
}
