//! Queues of slots over one vector: `u32` links, no pointers, and a way past all blocks of one dataset.
//!
//! A queue is a ring through a node of its own, its head. Neighbours of one dataset are a *run*, and the two ends
//! of a run know each other, so whoever spares a dataset steps over a run of its blocks at once. Behind a run comes
//! a block of another dataset, or the end: so a walk takes at most one such step for each slot it gives, and one.
#![expect(
    clippy::indexing_slicing,
    reason = "links are set in this file alone, to nodes that are in a queue; `check` proves it"
)]

use super::Slot;
use crate::{BlockId, DatasetId};

/// The link of a node that is in no queue.
const NONE: u32 = u32::MAX;

/// `QUEUES` queues, numbered from 0, and a mark of the policy's own on each slot. A slot is in one queue or in none.
#[derive(Debug)]
pub(super) struct Queues<M, const QUEUES: usize> {
    /// The heads of the queues, then the slots.
    nodes: Vec<Node<M>>,
}

#[derive(Clone, Copy, Debug)]
struct Node<M> {
    dataset: DatasetId,
    partition: u32,
    older: u32,
    newer: u32,
    /// The other end of the run, if this is one end of it; out of date in the midst of a run.
    far_end: u32,
    mark: M,
}

impl<M: Copy + Default, const QUEUES: usize> Default for Queues<M, QUEUES> {
    fn default() -> Self {
        let head = |at| Node { older: at, newer: at, ..Self::vacant() };
        Self { nodes: (0..QUEUES as u32).map(head).collect() }
    }
}

impl<M: Copy + Default, const QUEUES: usize> Queues<M, QUEUES> {
    const HEADS: u32 = QUEUES as u32;

    fn vacant() -> Node<M> {
        let dataset = DatasetId(0);
        Node { dataset, partition: 0, older: NONE, newer: NONE, far_end: NONE, mark: M::default() }
    }

    fn node_of(slot: Slot) -> u32 {
        slot.0.saturating_add(Self::HEADS)
    }

    /// What is known of a slot that is in a queue.
    pub(super) fn get(&self, slot: Slot) -> Option<(BlockId, M)> {
        let node = self.nodes.get(Self::node_of(slot) as usize).filter(|node| node.older != NONE)?;
        Some((BlockId { dataset: node.dataset, partition: node.partition }, node.mark))
    }

    /// The mark of a slot; the default where it is in no queue.
    pub(super) fn mark(&self, slot: Slot) -> M {
        self.get(slot).map(|(_, mark)| mark).unwrap_or_default()
    }

    /// The mark of a slot that is in a queue.
    pub(super) fn mark_mut(&mut self, slot: Slot) -> Option<&mut M> {
        let node = self.nodes.get_mut(Self::node_of(slot) as usize).filter(|node| node.older != NONE)?;
        Some(&mut node.mark)
    }

    pub(super) fn is_empty(&self, queue: u32) -> bool {
        self.nodes[queue as usize].newer == queue
    }

    /// Appends a slot that is in no queue at the new end.
    pub(super) fn push(&mut self, queue: u32, slot: Slot, block: BlockId, mark: M) {
        let at = Self::node_of(slot);
        if at as usize >= self.nodes.len() {
            self.nodes.resize(at as usize + 1, Self::vacant());
        }
        let BlockId { dataset, partition } = block;
        self.nodes[at as usize] = Node { dataset, partition, mark, ..Self::vacant() };
        self.link(queue, at);
    }

    /// Takes a slot out of its queue; nothing where it is in none.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<(BlockId, M)> {
        let known = self.get(slot)?;
        self.unlink(Self::node_of(slot));
        self.nodes[Self::node_of(slot) as usize] = Self::vacant();
        Some(known)
    }

    /// Moves a slot that is in a queue to the new end of one.
    pub(super) fn move_to(&mut self, queue: u32, slot: Slot) {
        let at = Self::node_of(slot);
        self.unlink(at);
        self.link(queue, at);
    }

    /// Moves the oldest run to the new end of another queue, if it is of this dataset; whether it was.
    pub(super) fn move_oldest_run(&mut self, dataset: DatasetId, from: u32, to: u32) -> bool {
        let first = self.nodes[from as usize].newer;
        if first == from || self.nodes[first as usize].dataset != dataset {
            return false;
        }
        let last = self.nodes[first as usize].far_end;
        self.connect(from, self.nodes[last as usize].newer);
        let newest = self.nodes[to as usize].older;
        self.connect(newest, first);
        self.connect(last, to);
        if self.are_one_run(newest, first) {
            self.make_run(self.nodes[newest as usize].far_end, last);
        }
        true
    }

    /// The oldest slot of a queue that is not of the spared dataset.
    pub(super) fn oldest(&self, queue: u32, spared: Option<DatasetId>) -> Option<Slot> {
        self.past_run(self.nodes[queue as usize].newer, spared)
    }

    /// Slots from the oldest on, without those of the spared dataset.
    pub(super) fn iter(&self, queue: u32, spared: Option<DatasetId>) -> impl Iterator<Item = Slot> {
        std::iter::successors(self.oldest(queue, spared), move |slot| {
            self.past_run(self.nodes[Self::node_of(*slot) as usize].newer, spared)
        })
    }

    /// The slot at a node that is a head, not spared, or the first of its run; past that run where it is spared.
    fn past_run(&self, at: u32, spared: Option<DatasetId>) -> Option<Slot> {
        let node = &self.nodes[at as usize];
        let is_spared = at >= Self::HEADS && Some(node.dataset) == spared;
        let at = if is_spared { self.nodes[node.far_end as usize].newer } else { at };
        at.checked_sub(Self::HEADS).map(Slot)
    }

    fn link(&mut self, queue: u32, at: u32) {
        let newest = self.nodes[queue as usize].older;
        self.connect(newest, at);
        self.connect(at, queue);
        let first = if self.are_one_run(newest, at) { self.nodes[newest as usize].far_end } else { at };
        self.make_run(first, at);
    }

    fn unlink(&mut self, at: u32) {
        let Node { older, newer, far_end, .. } = self.nodes[at as usize];
        let (is_first, is_last) = (!self.are_one_run(older, at), !self.are_one_run(at, newer));
        self.connect(older, newer);
        match (is_first, is_last) {
            (false, false) => {}
            (true, false) => self.make_run(newer, far_end),
            (false, true) => self.make_run(far_end, older),
            (true, true) if self.are_one_run(older, newer) => {
                self.make_run(self.nodes[older as usize].far_end, self.nodes[newer as usize].far_end);
            }
            (true, true) => {}
        }
    }

    fn connect(&mut self, older: u32, newer: u32) {
        self.nodes[older as usize].newer = newer;
        self.nodes[newer as usize].older = older;
    }

    fn make_run(&mut self, first: u32, last: u32) {
        self.nodes[first as usize].far_end = last;
        self.nodes[last as usize].far_end = first;
    }

    /// Whether two neighbours are of one dataset. A head is of none.
    fn are_one_run(&self, one: u32, other: u32) -> bool {
        one.min(other) >= Self::HEADS
            && self.nodes[one as usize].dataset == self.nodes[other as usize].dataset
    }

    /// Walks all queues, and gives the slots of each: that links agree, runs are as long as can be, and every slot
    /// is reached.
    pub(super) fn check(&self) -> Result<[Vec<Slot>; QUEUES], String> {
        let mut queues = [const { Vec::new() }; QUEUES];
        for (queue, slots) in queues.iter_mut().enumerate() {
            self.check_queue(queue as u32, slots)?;
        }
        let reached = QUEUES + queues.iter().map(Vec::len).sum::<usize>();
        let linked = self.nodes.iter().filter(|node| node.older != NONE).count();
        if reached != linked {
            return Err(format!("{linked} nodes are in a queue, {reached} are reached"));
        }
        Ok(queues)
    }

    fn check_queue(&self, queue: u32, slots: &mut Vec<Slot>) -> Result<(), String> {
        let (mut before, mut first) = (queue, queue);
        loop {
            let at = self.nodes[before as usize].newer;
            let node =
                self.nodes.get(at as usize).ok_or(format!("node {before} links to {at}, which is none"))?;
            if node.older != before {
                return Err(format!("node {at} comes after {before} and links back to {}", node.older));
            }
            if !self.are_one_run(before, at) {
                let ends = (self.nodes[first as usize].far_end, self.nodes[before as usize].far_end);
                if before != queue && ends != (before, first) {
                    return Err(format!("the run from node {first} to {before} knows its ends as {ends:?}"));
                }
                first = at;
            }
            if at == queue {
                return Ok(());
            }
            if at < Self::HEADS || slots.len() >= self.nodes.len() {
                return Err(format!("queue {queue} does not end where it began: node {at}"));
            }
            slots.push(Slot(at - Self::HEADS));
            before = at;
        }
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn allocated_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node<M>>()
    }
}
