//! The suite finds each kind of fault.

use std::cell::Cell;

use super::*;
use crate::policy::Lru;

/// An LRU that does one thing wrong.
#[derive(Debug)]
struct Wrong {
    lru: Lru,
    fault: Fault,
    last: Option<Slot>,
    /// What was offered and may be in still.
    offered: BTreeSet<Slot>,
    /// Every block that ever came in.
    blocks: BTreeSet<BlockId>,
    /// What was in before under another slot.
    returned: BTreeSet<Slot>,
    calls: usize,
    odd: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Nothing,
    ForgetsRemoval,
    OffersTwice,
    SkipsOne,
    LosesSkipped,
    LosesReturning,
    ReliesOnRequester,
    OffersAfterStop,
    OffersOwn,
    Undecided,
    Inconsistent,
}

impl EvictionPolicy for Wrong {
    fn name(&self) -> &'static str {
        "wrong"
    }
    fn insert(&mut self, slot: Slot, candidate: &Candidate) {
        self.lru.insert(slot, candidate);
        self.offered.remove(&slot);
        self.last.take_if(|last| *last == slot);
        if !self.blocks.insert(candidate.block) {
            self.returned.insert(slot);
        }
    }
    fn touch(&mut self, slot: Slot) {
        self.lru.touch(slot);
    }
    fn remove(&mut self, slot: Slot, removed: Removed) {
        self.last = Some(slot);
        self.returned.remove(&slot);
        self.lru.remove(slot, removed);
    }
    fn rank(&mut self, requester: Option<DatasetId>, offer: &mut dyn FnMut(Slot) -> Offer) {
        self.calls += 1;
        let requester = requester.filter(|_| self.fault != Fault::OffersOwn);
        let mut order = Vec::new();
        self.lru.rank(requester, &mut |slot| {
            order.push(slot);
            Offer::Next
        });
        match self.fault {
            Fault::ForgetsRemoval => order.extend(self.last),
            Fault::OffersTwice => order.extend(order.first().copied()),
            Fault::SkipsOne => drop(order.pop()),
            Fault::LosesSkipped => order.retain(|slot| !self.offered.contains(slot)),
            Fault::LosesReturning => order.retain(|slot| !self.returned.contains(slot)),
            Fault::ReliesOnRequester if requester.is_some() => drop(order.pop()),
            Fault::Undecided if self.odd => order.reverse(),
            _ => {}
        }
        for slot in order {
            self.offered.insert(slot);
            if offer(slot) == Offer::Stop && self.fault != Fault::OffersAfterStop {
                return;
            }
        }
    }
    fn validate(&self) -> Result<(), String> {
        match self.fault {
            Fault::Inconsistent if self.calls > 2 => Err("a link is missing".to_owned()),
            _ => self.lru.validate(),
        }
    }
}

fn verdict(fault: Fault) -> Result<(), String> {
    let odd = Cell::new(false);
    check(|| {
        odd.set(!odd.get());
        Box::new(Wrong {
            lru: Lru::new(),
            fault,
            last: None,
            offered: BTreeSet::new(),
            blocks: BTreeSet::new(),
            returned: BTreeSet::new(),
            calls: 0,
            odd: odd.get(),
        })
    })
}

#[test]
fn a_right_policy_passes() {
    verdict(Fault::Nothing).unwrap();
}

#[test]
fn each_fault_is_found_and_reported_with_its_operations() {
    for (fault, message) in [
        (Fault::ForgetsRemoval, "was offered and is not in"),
        (Fault::OffersTwice, "was offered twice in one call"),
        (Fault::SkipsOne, "was not offered, though nobody said stop"),
        (Fault::LosesSkipped, "was not offered, though nobody said stop"),
        (Fault::LosesReturning, "was not offered, though nobody said stop"),
        (Fault::ReliesOnRequester, "was not offered, though nobody said stop"),
        (Fault::OffersAfterStop, "was offered after a stop"),
        (Fault::OffersOwn, "a block of the requester's own dataset"),
        (Fault::Undecided, "the same calls gave"),
        (Fault::Inconsistent, "its book-keeping is inconsistent: a link is missing"),
    ] {
        let report = verdict(fault).unwrap_err();
        assert!(report.contains(message), "{fault:?}: {report}");
        assert!(report.contains("policy `wrong`: ") && report.contains(" operations (seed "), "{report}");
        assert!(report.lines().count() < 40, "{report}");
    }
}
