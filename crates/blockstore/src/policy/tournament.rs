//! A tournament of slots: who is first, and who is first among the blocks of other datasets than one.
//!
//! A binary tree in a vector. The slots are its leaves; each node above names the winner of the slots below it, and
//! the *rival*: the winner among those of other datasets than the winner's. So the first slot that is not of a
//! given dataset is the winner or the rival of the root, however many the dataset has.
#![expect(
    clippy::indexing_slicing,
    reason = "nodes and slots are numbered by the lengths of the vectors; `check` proves what names them"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Slot;
use crate::DatasetId;

const NONE: u32 = u32::MAX;

/// Slots with their keys; the least key wins.
#[derive(Debug)]
pub(super) struct Tournament<K> {
    /// By slot; as many as a power of two.
    entries: Vec<Option<Entry<K>>>,
    /// The nodes above the slots, the root at 1, the two below a node `n` at `2 n` and `2 n + 1`. The numbers that
    /// come next, from the length of this on, are the slots.
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    dataset: DatasetId,
    key: K,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    winner: u32,
    rival: u32,
}

const EMPTY: Node = Node { winner: NONE, rival: NONE };

impl<K> Default for Tournament<K> {
    fn default() -> Self {
        Self { entries: vec![None], nodes: vec![EMPTY] }
    }
}

impl<K: Copy + Ord> Tournament<K> {
    /// The key of a slot that is in.
    pub(super) fn get(&self, slot: Slot) -> Option<K> {
        self.entry(slot.0).map(|entry| entry.key)
    }

    /// Puts a slot in.
    pub(super) fn insert(&mut self, slot: Slot, dataset: DatasetId, key: K) {
        if slot.0 as usize >= self.entries.len() {
            self.grow(slot.0 as usize + 1);
        }
        self.entries[slot.0 as usize] = Some(Entry { dataset, key });
        self.replay(slot.0);
    }

    /// Changes the key of a slot that is in.
    pub(super) fn set(&mut self, slot: Slot, key: K) {
        if let Some(Some(entry)) = self.entries.get_mut(slot.0 as usize) {
            entry.key = key;
            self.replay(slot.0);
        }
    }

    /// Takes a slot out; its key.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<K> {
        let entry = self.entries.get_mut(slot.0 as usize)?.take()?;
        self.replay(slot.0);
        Some(entry.key)
    }

    /// Changes every key, in time linear in the number of slots.
    pub(super) fn update_all(&mut self, update: impl Fn(&mut K)) {
        self.entries.iter_mut().flatten().for_each(|entry| update(&mut entry.key));
        self.replay_all();
    }

    /// Slots by key, without those of the spared dataset. The first is there at once, each further one takes time
    /// logarithmic in the number of slots.
    pub(super) fn iter(&self, spared: Option<DatasetId>) -> Ranking<'_, K> {
        let mut ranking = Ranking { tournament: self, spared, unbeaten: BinaryHeap::new(), last: None };
        ranking.enter(1);
        ranking
    }

    fn entry(&self, slot: u32) -> Option<&Entry<K>> {
        self.entries.get(slot as usize)?.as_ref()
    }

    /// The slot number of a leaf.
    fn slot_at(&self, node: usize) -> Option<u32> {
        node.checked_sub(self.nodes.len()).map(|slot| slot as u32)
    }

    fn node(&self, node: usize) -> Node {
        match self.slot_at(node) {
            None => self.nodes[node],
            Some(slot) if self.entry(slot).is_some() => Node { winner: slot, rival: NONE },
            Some(_) => EMPTY,
        }
    }

    /// The first slot at or below a node that is not of the spared dataset.
    fn first(&self, node: Node, spared: Option<DatasetId>) -> u32 {
        match self.entry(node.winner) {
            Some(winner) if Some(winner.dataset) == spared => node.rival,
            _ => node.winner,
        }
    }

    /// The one of two slots that goes first; either may be none.
    fn earlier(&self, one: u32, other: u32) -> u32 {
        match (self.entry(one), self.entry(other)) {
            (Some(a), Some(b)) if (b.key, other) < (a.key, one) => other,
            (Some(_), _) => one,
            (None, _) => other,
        }
    }

    fn played(&self, node: usize) -> Node {
        let (left, right) = (self.node(2 * node), self.node(2 * node + 1));
        let winner = self.earlier(left.winner, right.winner);
        let Some(Entry { dataset, .. }) = self.entry(winner) else { return EMPTY };
        let spared = Some(*dataset);
        Node { winner, rival: self.earlier(self.first(left, spared), self.first(right, spared)) }
    }

    /// After a slot changed: plays again every game that it can have changed.
    fn replay(&mut self, slot: u32) {
        let mut node = (self.nodes.len() + slot as usize) / 2;
        while node > 0 {
            let played = self.played(node);
            let same = played == self.nodes[node] && played.winner != slot && played.rival != slot;
            if same {
                return;
            }
            self.nodes[node] = played;
            node /= 2;
        }
    }

    fn grow(&mut self, slots: usize) {
        let slots = slots.next_power_of_two();
        self.entries.resize(slots, None);
        self.nodes = vec![EMPTY; slots];
        self.replay_all();
    }

    fn replay_all(&mut self) {
        for node in (1..self.nodes.len()).rev() {
            self.nodes[node] = self.played(node);
        }
    }

    /// Plays every game again; gives the number of slots that are in.
    pub(super) fn check(&self) -> Result<usize, String> {
        if !self.nodes.len().is_power_of_two() || self.nodes.len() != self.entries.len() {
            return Err(format!("{} nodes over {} slots", self.nodes.len(), self.entries.len()));
        }
        for node in 1..self.nodes.len() {
            let (played, known) = (self.played(node), self.nodes[node]);
            if played != known {
                return Err(format!(
                    "node {node} of {} is {known:?} and should be {played:?}",
                    self.nodes.len()
                ));
            }
        }
        Ok(self.entries.iter().flatten().count())
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn allocated_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Option<Entry<K>>>() + self.nodes.capacity() * size_of::<Node>()
    }
}

/// Slots of a tournament by key.
pub(super) struct Ranking<'a, K> {
    tournament: &'a Tournament<K>,
    spared: Option<DatasetId>,
    /// The first slot of each part of the tree that was not given, and the node above that part.
    unbeaten: BinaryHeap<Reverse<(K, u32, usize)>>,
    /// What was given last; those whom it beat are still to enter.
    last: Option<(u32, usize)>,
}

impl<K: Copy + Ord> Ranking<'_, K> {
    fn enter(&mut self, node: usize) {
        let slot = self.tournament.first(self.tournament.node(node), self.spared);
        self.unbeaten.extend(self.tournament.entry(slot).map(|entry| Reverse((entry.key, slot, node))));
    }
}

impl<K: Copy + Ord> Iterator for Ranking<'_, K> {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        if let Some((slot, top)) = self.last {
            let mut node = self.tournament.nodes.len() + slot as usize;
            while node > top {
                self.enter(node ^ 1);
                node /= 2;
            }
        }
        let Reverse((_, slot, node)) = self.unbeaten.pop()?;
        self.last = Some((slot, node));
        Some(Slot(slot))
    }
}
