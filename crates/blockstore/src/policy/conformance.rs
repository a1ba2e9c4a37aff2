//! The tests every eviction policy passes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::{Candidate, EvictionPolicy, Offer, Removed, Slot};
use crate::random::Random;
use crate::{BlockId, DatasetId};

/// Runs of each length; short ones first, so that a fault shows in a short sequence.
const RUNS: [(usize, u64); 5] = [(4, 64), (16, 64), (64, 32), (256, 16), (2_048, 4)];

/// Drives a policy through seeded random sequences of operations, as a store would, and checks its side of the
/// contract of [`EvictionPolicy`]:
/// - what it offers is in, of another dataset than the requester's, and offered once and before the store says stop;
/// - unless the store says stop it offers all there is, so that neither a pinned block nor one that was offered before
///   hides another; with every block pinned it offers them in vain, and again once they are not;
/// - what left is not offered, also where its slot is used again or its block comes back, even before it has left;
/// - the same calls give the same order;
/// - [`validate`](EvictionPolicy::validate) is content after every call.
///
/// Takes a second or two in a debug build, if `validate` is linear in the number of slots.
///
/// ```
/// use std::collections::VecDeque;
///
/// use larder_blockstore::DatasetId;
/// use larder_blockstore::policy::{Candidate, EvictionPolicy, Offer, Removed, Slot, conformance};
///
/// /// Last in, first out: keeps the start of a loop that does not fit.
/// #[derive(Debug, Default)]
/// struct Lifo {
///     queue: VecDeque<(Slot, DatasetId)>,
/// }
///
/// impl EvictionPolicy for Lifo {
///     fn name(&self) -> &'static str {
///         "lifo"
///     }
///     fn insert(&mut self, slot: Slot, candidate: &Candidate) {
///         self.queue.push_front((slot, candidate.block.dataset));
///     }
///     fn touch(&mut self, _slot: Slot) {}
///     fn remove(&mut self, slot: Slot, _removed: Removed) {
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
/// conformance::check(|| Box::new(Lifo::default()))?;
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
    Insert(Slot, Candidate),
    Touch(Slot),
    Remove(Slot, Removed),
    /// What the store skips of what is offered, and how many more it takes before it says stop.
    Rank {
        requester: Option<DatasetId>,
        skips: Vec<Slot>,
        takes: usize,
    },
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insert(Slot(slot), Candidate { block, bytes, compute, restore }) => {
                write!(f, "insert({slot}, {block}, {bytes} bytes, computed in {compute:?}")?;
                restore.map_or(Ok(()), |restore| write!(f, ", read back in {restore:?}"))?;
                write!(f, ")")
            }
            Self::Touch(slot) => write!(f, "touch({})", slot.0),
            Self::Remove(slot, removed) => write!(f, "remove({}, {removed:?})", slot.0),
            Self::Rank { requester, skips, takes } => {
                match requester {
                    Some(requester) => write!(f, "rank({requester})")?,
                    None => write!(f, "rank(None)")?,
                }
                let skips: Vec<_> = skips.iter().map(|slot| slot.0).collect();
                match takes {
                    &usize::MAX => write!(f, ", never stops"),
                    takes => write!(f, ", stops after {takes} beside the skipped {skips:?}"),
                }
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
    pinned: BTreeSet<Slot>,
    /// Taken by a rank, and about to be removed, or kept after all.
    taken: Vec<Slot>,
    vacant: Vec<Slot>,
    /// The last blocks that left.
    gone: Vec<BlockId>,
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
            pinned: BTreeSet::new(),
            taken: Vec::new(),
            vacant: Vec::new(),
            gone: Vec::new(),
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
        match self.random.below(32) {
            0..=9 => self.insert(),
            10..=17 => self.touch(),
            18..=19 => self.drop_one(),
            20..=21 => self.rank_in_vain(),
            22..=26 => self.make_room(),
            27..=29 => self.finish_taken(),
            _ => {
                self.pin_or_unpin();
                Ok(())
            }
        }
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

    /// A new block, one that was in before, or, once in a while, one that is in.
    fn any_block(&mut self) -> BlockId {
        let seen = match self.random.below(8) {
            0 => self.any_slot().and_then(|slot| self.blocks.get(&slot)),
            1..=3 => self.gone.get(self.random.index(self.gone.len())),
            _ => None,
        };
        match seen {
            Some(block) => *block,
            None => BlockId { dataset: self.any_dataset(), partition: self.random.next() as u32 },
        }
    }

    fn insert(&mut self) -> Result<(), String> {
        let slot = if self.vacant.is_empty() {
            Slot(self.blocks.len() as u32)
        } else {
            let nth = self.random.index(self.vacant.len());
            self.vacant.swap_remove(nth)
        };
        let block = self.any_block();
        let [bytes, nanos] = [(); 2].map(|()| self.random.next() >> self.random.below(64));
        let mut candidate = Candidate::new(block, bytes).computed_in(Duration::from_nanos(nanos));
        if self.random.below(2) == 0 {
            candidate =
                candidate.restored_in(Duration::from_nanos(self.random.next() >> self.random.below(64)));
        }
        self.blocks.insert(slot, block);
        self.done.push(Operation::Insert(slot, candidate));
        self.tell(|policy| policy.insert(slot, &candidate))
    }

    fn touch(&mut self) -> Result<(), String> {
        let Some(slot) = self.any_slot() else { return Ok(()) };
        self.done.push(Operation::Touch(slot));
        self.tell(|policy| policy.touch(slot))
    }

    /// Removes a block as its user does, who may be faster than the store that has taken it.
    fn drop_one(&mut self) -> Result<(), String> {
        match self.any_slot() {
            Some(slot) => self.remove(slot, Removed::Dropped),
            None => Ok(()),
        }
    }

    fn remove(&mut self, slot: Slot, removed: Removed) -> Result<(), String> {
        self.gone.extend(self.blocks.remove(&slot));
        if self.gone.len() > 16 {
            self.gone.remove(0);
        }
        self.taken.retain(|taken| *taken != slot);
        self.pinned.remove(&slot);
        self.vacant.push(slot);
        self.done.push(Operation::Remove(slot, removed));
        self.tell(|policy| policy.remove(slot, removed))
    }

    /// Pins or unpins some blocks, or all.
    fn pin_or_unpin(&mut self) {
        match self.random.below(8) {
            0 => self.pinned.extend(self.blocks.keys()),
            1..=2 => self.pinned.clear(),
            3..=4 => {
                let unpinned = self.any_slot();
                self.pinned.retain(|slot| Some(*slot) != unpinned);
            }
            _ => {
                let pinned = self.any_slot();
                self.pinned.extend(pinned);
            }
        }
    }

    /// Looks at everything that is offered and takes nothing.
    fn rank_in_vain(&mut self) -> Result<(), String> {
        let requester = (self.random.below(2) == 0).then(|| self.any_dataset());
        self.rank(requester, usize::MAX).map(drop)
    }

    /// Takes some of what is offered, skips the rest, and leaves all where that is not enough.
    fn make_room(&mut self) -> Result<(), String> {
        let requester = (self.random.below(2) == 0).then(|| self.any_dataset());
        let takes = 1 + self.random.below(4) as usize;
        let taken = self.rank(requester, takes)?;
        if taken.len() == takes {
            self.taken.extend(taken);
        }
        Ok(())
    }

    /// Evicts most of what was taken, and keeps what "could not be written".
    fn finish_taken(&mut self) -> Result<(), String> {
        for slot in std::mem::take(&mut self.taken) {
            if self.random.below(8) > 0 {
                self.remove(slot, Removed::Evicted)?;
            }
        }
        Ok(())
    }

    /// What the store takes of what is offered, until it has so many.
    fn rank(&mut self, requester: Option<DatasetId>, takes: usize) -> Result<Vec<Slot>, String> {
        let skips: BTreeSet<_> = self.pinned.iter().chain(&self.taken).copied().collect();
        self.done.push(Operation::Rank { requester, skips: skips.iter().copied().collect(), takes });
        let offered = self.offers(requester, &skips, takes)?;
        let mut taken = offered.clone();
        taken.retain(|slot| !skips.contains(slot));
        let stopped = taken.len() == takes;
        let may_be_offered = |(_, block): &(&Slot, &BlockId)| Some(block.dataset) != requester;
        if !stopped
            && let Some((missing, _)) =
                self.blocks.iter().filter(may_be_offered).find(|(slot, _)| !offered.contains(slot))
        {
            return Err(format!("{missing:?} was not offered, though nobody said stop"));
        }
        let (mut twins, twins_max) = (Vec::new(), offered.len() + usize::from(!stopped));
        self.twin.rank(requester, &mut |slot| {
            twins.push(slot);
            if twins.len() >= twins_max { Offer::Stop } else { Offer::Next }
        });
        if twins != offered {
            return Err(format!("the same calls gave {offered:?} once and {twins:?} another time"));
        }
        self.validate()?;
        Ok(taken)
    }

    /// What the policy offers, if it may offer it.
    fn offers(
        &mut self,
        requester: Option<DatasetId>,
        skips: &BTreeSet<Slot>,
        takes: usize,
    ) -> Result<Vec<Slot>, String> {
        let (blocks, mut offered, mut seen, mut fault) = (&self.blocks, Vec::new(), BTreeSet::new(), None);
        let mut wanted = takes;
        self.policy.rank(requester, &mut |slot| {
            let found = match blocks.get(&slot) {
                _ if wanted == 0 => Some(format!("{slot:?} was offered after a stop")),
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
            wanted = wanted.saturating_sub(usize::from(!skips.contains(&slot)));
            if fault.is_some() || wanted == 0 { Offer::Stop } else { Offer::Next }
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
