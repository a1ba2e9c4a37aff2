//! Least recently used, and a dataset spares its own blocks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

use hashbrown::HashMap;

use super::links::{Ends, Links};
use super::{EvictionPolicy, Offer, Slot};
use crate::{BlockId, DatasetId};

/// Least recently used first, among the blocks of other datasets than the requester's. The default.
///
/// Each dataset has a list of its own, ordered by last use, and victims come from a merge of the lists' cold ends
/// that skips the requester's list as a whole. So making room for a dataset costs the same whether it has ten
/// blocks of its own or a million.
///
/// # Cost
///
/// With D datasets that have evictable blocks: `insert`, `touch` and `remove` are O(1), and O(log D) when the
/// coldest block of a dataset changes; a victim is O(log D). Book-keeping is 24 bytes a block, up to 48 after
/// the vector has just grown, and some 100 bytes a dataset. Slots are numbers below the most blocks that were
/// ever evictable at once, and the vector does not shrink. Measured with a million blocks of 1 to 1,000
/// datasets: 25 bytes a block; 30 to 90 ns to insert, touch or remove, most of it cache misses; 30 ns to find a
/// victim, also past a million colder blocks of the requester's own.
///
/// ```
/// use larder_blockstore::policy::{EvictionPolicy, Lru, Offer, Slot};
/// use larder_blockstore::{BlockId, DatasetId};
///
/// let (links, ranks) = (DatasetId(1), DatasetId(2));
/// let mut lru = Lru::new();
/// lru.insert(Slot(0), BlockId { dataset: links, partition: 0 }, 4_000);
/// lru.insert(Slot(1), BlockId { dataset: ranks, partition: 0 }, 4_000);
/// lru.insert(Slot(2), BlockId { dataset: links, partition: 1 }, 4_000);
/// lru.touch(Slot(0));
///
/// let mut order = Vec::new();
/// let mut all = |slot| { order.push(slot); Offer::Next };
/// lru.rank(None, &mut all);
/// lru.rank(Some(links), &mut all);
/// assert_eq!(order, [Slot(1), Slot(2), Slot(0), Slot(1)]);
/// ```
#[derive(Default)]
pub struct Lru {
    links: Links,
    lists: Vec<List>,
    /// Entries of `lists` that no dataset uses.
    vacant: Vec<u32>,
    of_dataset: HashMap<DatasetId, u32>,
    /// The stamp of each list's coldest slot, and the list.
    by_coldest: BTreeMap<u64, u32>,
    /// The stamp given last.
    clock: u64,
}

struct List {
    dataset: DatasetId,
    ends: Ends,
}

impl Lru {
    /// With no blocks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The list of a dataset, which may be new.
    fn list_for(&mut self, dataset: DatasetId) -> u32 {
        if let Some(list) = self.of_dataset.get(&dataset) {
            return *list;
        }
        let new = List { dataset, ends: Ends::EMPTY };
        let list = match self.vacant.pop() {
            Some(vacant) => vacant,
            None => self.lists.len() as u32,
        };
        match self.lists.get_mut(list as usize) {
            Some(entry) => *entry = new,
            None => self.lists.push(new),
        }
        self.of_dataset.insert(dataset, list);
        list
    }

    /// Edits one list, then puts right what is known of it elsewhere.
    fn edit(&mut self, list: u32, edit: impl FnOnce(&mut Links, &mut Ends)) {
        let Some(List { dataset, ends }) = self.lists.get_mut(list as usize) else {
            debug_assert!(false, "list {list} does not exist");
            return;
        };
        let coldest = |links: &Links, ends: &Ends| (*ends != Ends::EMPTY).then(|| links.stamp(ends.coldest));
        let before = coldest(&self.links, ends);
        edit(&mut self.links, ends);
        let after = coldest(&self.links, ends);
        if before == after {
            return;
        }
        if let Some(stamp) = before {
            self.by_coldest.remove(&stamp);
        }
        match after {
            Some(stamp) => {
                self.by_coldest.insert(stamp, list);
            }
            None => {
                self.of_dataset.remove(dataset);
                self.vacant.push(list);
            }
        }
    }

    fn remove_if_in(&mut self, slot: Slot) -> bool {
        let Some(list) = self.links.list_of(slot.0) else { return false };
        self.edit(list, |links, ends| links.unlink(ends, slot.0));
        true
    }

    fn coldest_of(&self, list: u32) -> Option<u32> {
        self.lists.get(list as usize).filter(|list| list.ends != Ends::EMPTY).map(|list| list.ends.coldest)
    }
}

impl fmt::Debug for Lru {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lru").field("datasets", &self.of_dataset.len()).finish_non_exhaustive()
    }
}

impl EvictionPolicy for Lru {
    fn name(&self) -> &'static str {
        "lru"
    }

    fn insert(&mut self, slot: Slot, block: BlockId, _bytes: u64) {
        debug_assert!(self.links.list_of(slot.0).is_none(), "{slot:?} is in already");
        self.remove_if_in(slot);
        let (list, stamp) = (self.list_for(block.dataset), self.tick());
        self.edit(list, |links, ends| links.push_hottest(ends, list, slot.0, stamp));
    }

    fn touch(&mut self, slot: Slot) {
        let Some(list) = self.links.list_of(slot.0) else {
            debug_assert!(false, "{slot:?} is touched and not in");
            return;
        };
        let stamp = self.tick();
        self.edit(list, |links, ends| {
            links.unlink(ends, slot.0);
            links.push_hottest(ends, list, slot.0, stamp);
        });
    }

    fn remove(&mut self, slot: Slot) {
        let was_in = self.remove_if_in(slot);
        debug_assert!(was_in, "{slot:?} is removed and not in");
    }

    fn rank(&mut self, requester: Option<DatasetId>, offer: &mut dyn FnMut(Slot) -> Offer) {
        let spared = requester.and_then(|dataset| self.of_dataset.get(&dataset).copied());
        // Lists are opened in the order of their coldest slots, each when its turn comes.
        let mut unopened = self.by_coldest.iter().filter(|(_, list)| Some(**list) != spared).peekable();
        let mut open = BinaryHeap::new();
        loop {
            let colder_than_open =
                |stamp: &u64| open.peek().is_none_or(|Reverse((coldest, _))| stamp < coldest);
            if let Some((stamp, list)) = unopened.next_if(|(stamp, _)| colder_than_open(stamp)) {
                open.extend(self.coldest_of(*list).map(|slot| Reverse((*stamp, slot))));
            }
            let Some(Reverse((_, slot))) = open.pop() else { return };
            if offer(Slot(slot)) == Offer::Stop {
                return;
            }
            open.extend(self.links.hotter(slot).map(|next| Reverse((self.links.stamp(next), next))));
        }
    }

    fn validate(&self) -> Result<(), String> {
        let mut occupied = 0;
        for (dataset, list) in &self.of_dataset {
            let entry = self.lists.get(*list as usize).ok_or(format!("{dataset} has no list"))?;
            if entry.dataset != *dataset {
                return Err(format!("the list of {dataset} is of {}", entry.dataset));
            }
            let length = self.links.check(entry.ends, *list)?;
            if length == 0 {
                return Err(format!("{dataset} has an empty list"));
            }
            if self.by_coldest.get(&self.links.stamp(entry.ends.coldest)) != Some(list) {
                return Err(format!("the coldest block of {dataset} is not where lists are merged"));
            }
            occupied += length;
        }
        if self.by_coldest.len() != self.of_dataset.len() {
            return Err(format!("{} lists are merged of {}", self.by_coldest.len(), self.of_dataset.len()));
        }
        if self.vacant.len() + self.of_dataset.len() != self.lists.len() {
            return Err(format!("of {} lists some are neither used nor vacant", self.lists.len()));
        }
        if occupied != self.links.occupied() {
            return Err(format!("{} slots are in a list, {occupied} are reached", self.links.occupied()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
