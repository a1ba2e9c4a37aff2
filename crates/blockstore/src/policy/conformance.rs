//! The tests every eviction policy passes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{EvictionPolicy, Offer, Slot};
use crate::random::Random;
use crate::{BlockId, DatasetId};

/// Runs of each length; short ones first, so that a fault shows in a short sequence.
const RUNS: [(usize, u64); 5] = [(4, 64), (16, 64), (64, 32), (256, 16), (2_048, 4)];

/// Drives a policy through seeded random sequences of operations and checks its side of the contract of
/// [`EvictionPolicy`]. Takes a second or so in a debug build, if `validate` is linear in the number of slots.
///
/// ```
/// use std::collections::VecDeque;
///
/// use larder_blockstore::policy::{EvictionPolicy, Offer, Slot, conformance};
/// use larder_blockstore::{BlockId, DatasetId};
///
/// /// First in, first out.
/// #[derive(Debug, Default)]
/// struct Fifo {
///     queue: VecDeque<(Slot, DatasetId)>,
/// }
///
/// impl EvictionPolicy for Fifo {
///     fn name(&self) -> &'static str {
///         "fifo"
///     }
///     fn insert(&mut self, slot: Slot, block: BlockId, _bytes: u64) {
///         self.queue.push_back((slot, block.dataset));
///     }
///     fn touch(&mut self, _slot: Slot) {}
///     fn remove(&mut self, slot: Slot) {
///         self.queue.retain(|(queued, _)| *queued != slot);
///     }
///     fn rank(&mut self, requester: Option<DatasetId>, offer: &mut dyn FnMut(Slot) -> Offer) {
///         for (slot, dataset) in &self.queue {
///             if requester != Some(*dataset) && offer(*slot) == Offer::Stop {
///                 return;
///             }
///         }
///     }
///     fn validate(&self) -> Result<(), String> {
///         Ok(())
///     }
/// }
///
/// conformance::check(|| Box::new(Fifo::default()))?;
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// What the policy did wrong, and the shortest sequence found that shows it.
pub fn check(make: impl Fn() -> Box<dyn EvictionPolicy>) -> Result<(), String> {
    for (operations, seeds) in RUNS {
        for seed in 0..seeds {
            let mut run = Run::new(&make, seed);
            for _ in 0..operations {
                run.step().map_err(|fault| run.report(&fault))?;
            }
        }
    }
    Ok(())
}

/// One operation, as it is reported.
#[derive(Debug)]
enum Operation {
    Insert { slot: Slot, block: BlockId, bytes: u64 },
    Touch(Slot),
    Remove(Slot),
    Rank { requester: Option<DatasetId>, stop_after: usize },
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insert { slot, block, bytes } => write!(f, "insert({}, {block}, {bytes})", slot.0),
            Self::Touch(slot) => write!(f, "touch({})", slot.0),
            Self::Remove(slot) => write!(f, "remove({})", slot.0),
            Self::Rank { requester: None, stop_after } => write!(f, "rank(None), stop after {stop_after}"),
            Self::Rank { requester: Some(requester), stop_after } => {
                write!(f, "rank({requester}), stop after {stop_after}")
            }
        }
    }
}

/// A policy, its twin that gets the same calls, and what they were told.
struct Run {
    policy: Box<dyn EvictionPolicy>,
    twin: Box<dyn EvictionPolicy>,
    seed: u64,
    random: Random,
    blocks: BTreeMap<Slot, BlockId>,
    vacant: Vec<Slot>,
    done: Vec<Operation>,
}

impl Run {
    fn new(make: impl Fn() -> Box<dyn EvictionPolicy>, seed: u64) -> Self {
        Self {
            policy: make(),
            twin: make(),
            seed,
            random: Random::new(seed),
            blocks: BTreeMap::new(),
            vacant: Vec::new(),
            done: Vec::new(),
        }
    }

    fn report(&self, fault: &str) -> String {
        let mut report = format!("policy `{}`: {fault}\n", self.policy.name());
        report += &format!("after these {} operations (seed {}):\n", self.done.len(), self.seed);
        for operation in &self.done {
            report += &format!("  {operation}\n");
        }
        report
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(16) {
            0..=5 => self.insert()?,
            6..=9 => self.touch()?,
            10..=11 => self.remove_any()?,
            12..=13 => drop(self.rank()?),
            _ => self.evict()?,
        }
        Ok(())
    }

    fn any_slot(&mut self) -> Option<Slot> {
        let nth = self.random.index(self.blocks.len());
        self.blocks.keys().nth(nth).copied()
    }

    fn any_dataset(&mut self) -> DatasetId {
        DatasetId(
            [0, 1, 2, 1 << 40, u64::MAX].get(self.random.below(5) as usize).copied().unwrap_or_default(),
        )
    }

    fn insert(&mut self) -> Result<(), String> {
        let slot = if self.vacant.is_empty() {
            Slot(self.blocks.len() as u32)
        } else {
            let nth = self.random.index(self.vacant.len());
            self.vacant.swap_remove(nth)
        };
        let dataset = self.any_dataset();
        let taken: BTreeSet<u32> =
            self.blocks.values().filter(|b| b.dataset == dataset).map(|b| b.partition).collect();
        let partition = (0..).find(|partition| !taken.contains(partition)).unwrap_or_default();
        let block = BlockId { dataset, partition };
        let bytes = self.random.next() >> (24 + self.random.below(40));
        self.blocks.insert(slot, block);
        self.done.push(Operation::Insert { slot, block, bytes });
        self.tell(|policy| policy.insert(slot, block, bytes))
    }

    fn touch(&mut self) -> Result<(), String> {
        let Some(slot) = self.any_slot() else { return Ok(()) };
        self.done.push(Operation::Touch(slot));
        self.tell(|policy| policy.touch(slot))
    }

    fn remove_any(&mut self) -> Result<(), String> {
        match self.any_slot() {
            Some(slot) => self.remove(slot),
            None => Ok(()),
        }
    }

    fn remove(&mut self, slot: Slot) -> Result<(), String> {
        self.blocks.remove(&slot);
        self.vacant.push(slot);
        self.done.push(Operation::Remove(slot));
        self.tell(|policy| policy.remove(slot))
    }

    /// Makes room as the store does: takes some of what is offered and skips the rest.
    fn evict(&mut self) -> Result<(), String> {
        for slot in self.rank()? {
            if self.random.below(2) == 0 {
                self.remove(slot)?;
            }
        }
        Ok(())
    }

    fn rank(&mut self) -> Result<Vec<Slot>, String> {
        let requester = (self.random.below(2) == 0).then(|| self.any_dataset());
        let stop_after = match self.random.below(6) {
            0 => usize::MAX,
            _ => 1 + self.random.below(4) as usize,
        };
        self.done.push(Operation::Rank { requester, stop_after });
        let offered = self.offers(requester, stop_after)?;
        if requester.is_none()
            && offered.len() < stop_after
            && let Some(missing) = self.blocks.keys().find(|slot| !offered.contains(slot))
        {
            return Err(format!("{missing:?} was not offered, though nobody said stop"));
        }
        let (mut twins, twins_max) = (Vec::new(), stop_after.min(self.blocks.len() + 1));
        self.twin.rank(requester, &mut |slot| {
            twins.push(slot);
            if twins.len() >= twins_max { Offer::Stop } else { Offer::Next }
        });
        if twins != offered {
            return Err(format!("the same calls gave {offered:?} once and {twins:?} another time"));
        }
        self.validate()?;
        Ok(offered)
    }

    /// What the policy offers, if it may offer it.
    fn offers(&mut self, requester: Option<DatasetId>, stop_after: usize) -> Result<Vec<Slot>, String> {
        let (blocks, mut offered, mut seen, mut fault) = (&self.blocks, Vec::new(), BTreeSet::new(), None);
        self.policy.rank(requester, &mut |slot| {
            let found = match blocks.get(&slot) {
                _ if offered.len() >= stop_after => Some(format!("{slot:?} was offered after a stop")),
                None => Some(format!("{slot:?} was offered and is not in")),
                Some(block) if Some(block.dataset) == requester => {
                    Some(format!("{slot:?} was offered, a block of the requester's own dataset"))
                }
                Some(_) if !seen.insert(slot) => Some(format!("{slot:?} was offered twice in one call")),
                Some(_) => None,
            };
            if fault.is_some() {
                return Offer::Stop;
            }
            fault = found;
            offered.push(slot);
            if fault.is_some() || offered.len() >= stop_after { Offer::Stop } else { Offer::Next }
        });
        match fault {
            Some(fault) => Err(fault),
            None => Ok(offered),
        }
    }

    fn tell(&mut self, call: impl Fn(&mut dyn EvictionPolicy)) -> Result<(), String> {
        call(&mut *self.policy);
        call(&mut *self.twin);
        self.validate()
    }

    fn validate(&self) -> Result<(), String> {
        self.policy.validate().map_err(|fault| format!("its book-keeping is inconsistent: {fault}"))
    }
}

#[cfg(test)]
mod tests;
