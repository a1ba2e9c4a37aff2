//! The policies as their papers tell them, over plain vectors, oldest first.

use larder_blockstore::policy::{Removed, Slot};
use larder_blockstore::{BlockId, DatasetId};

/// What a policy does, at whatever cost.
pub(super) trait Model {
    fn insert(&mut self, block: Block);
    fn touch(&mut self, slot: Slot);
    fn remove(&mut self, slot: Slot, removed: Removed);
    /// What is offered until a stop after so many, and what that stop leaves behind.
    fn rank(&mut self, requester: Option<DatasetId>, stop_after: usize) -> Vec<Slot>;
}

#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) slot: Slot,
    pub(super) block: BlockId,
    pub(super) bytes: u64,
    pub(super) nanos: u64,
}

pub(super) fn all() -> [(&'static str, Box<dyn Model>); 5] {
    [
        ("lru", Box::new(Queue { blocks: Vec::new(), by_use: true })),
        ("fifo", Box::new(Queue { blocks: Vec::new(), by_use: false })),
        ("s3-fifo", Box::new(S3Fifo::default())),
        ("sieve", Box::new(Sieve::default())),
        ("greedy-dual", Box::new(GreedyDual::default())),
    ]
}

fn is_offered(block: BlockId, requester: Option<DatasetId>) -> bool {
    Some(block.dataset) != requester
}

/// FIFO; by last use, LRU.
struct Queue {
    blocks: Vec<Block>,
    by_use: bool,
}

impl Model for Queue {
    fn insert(&mut self, block: Block) {
        self.blocks.push(block);
    }

    fn touch(&mut self, slot: Slot) {
        if self.by_use {
            let at = self.blocks.iter().position(|block| block.slot == slot).expect("it is in");
            let block = self.blocks.remove(at);
            self.blocks.push(block);
        }
    }

    fn remove(&mut self, slot: Slot, _removed: Removed) {
        self.blocks.retain(|block| block.slot != slot);
    }

    fn rank(&mut self, requester: Option<DatasetId>, stop_after: usize) -> Vec<Slot> {
        let offered = self.blocks.iter().filter(|block| is_offered(block.block, requester));
        offered.map(|block| block.slot).take(stop_after).collect()
    }
}

/// Blocks in the order in which they came, each with its bit; the hand is an index.
#[derive(Clone, Default)]
struct Sieve {
    blocks: Vec<(Block, bool)>,
    hand: usize,
}

impl Model for Sieve {
    fn insert(&mut self, block: Block) {
        self.blocks.push((block, false));
    }

    fn touch(&mut self, slot: Slot) {
        self.blocks
            .iter_mut()
            .filter(|(block, _)| block.slot == slot)
            .for_each(|(_, visited)| *visited = true);
    }

    fn remove(&mut self, slot: Slot, _removed: Removed) {
        let at = self.blocks.iter().position(|(block, _)| block.slot == slot).expect("it is in");
        self.blocks.remove(at);
        self.hand -= usize::from(at < self.hand);
        if self.hand == self.blocks.len() {
            self.hand = 0;
        }
    }

    fn rank(&mut self, requester: Option<DatasetId>, stop_after: usize) -> Vec<Slot> {
        let mut after = self.clone();
        let mut offered = Vec::new();
        // Each turn of the hand offers something new or clears bits; two offer all.
        for _ in 0..2 * self.blocks.len() {
            let (block, visited) = &mut after.blocks[after.hand];
            let taken = is_offered(block.block, requester) && !*visited && !offered.contains(&block.slot);
            if is_offered(block.block, requester) {
                *visited = false;
            }
            offered.extend(taken.then_some(block.slot));
            after.hand = (after.hand + 1) % self.blocks.len();
            if offered.len() == stop_after {
                *self = after;
                break;
            }
        }
        offered
    }
}

#[derive(Clone, Copy)]
struct Counted {
    block: Block,
    reads: u8,
}

#[derive(Clone, Default)]
struct S3Fifo {
    small: Vec<Counted>,
    main: Vec<Counted>,
    /// The last evictions from the small queue; those that came back are none.
    ghosts: Vec<Option<BlockId>>,
}

impl S3Fifo {
    fn trim_ghosts(&mut self) {
        let blocks = self.small.len() + self.main.len();
        let surplus = self.ghosts.len().saturating_sub(blocks - blocks / 10);
        self.ghosts.drain(..surplus);
    }

    fn forget_ghost(&mut self, block: BlockId) -> bool {
        let ghost = self.ghosts.iter_mut().find(|ghost| **ghost == Some(block));
        ghost.is_some_and(|ghost| ghost.take().is_some())
    }
}

/// Takes the oldest block that is not the requester's out of a queue.
fn pop(queue: &mut Vec<Counted>, requester: Option<DatasetId>) -> Option<Counted> {
    let at = queue.iter().position(|counted| is_offered(counted.block.block, requester))?;
    Some(queue.remove(at))
}

impl Model for S3Fifo {
    fn insert(&mut self, block: Block) {
        let queue = if self.forget_ghost(block.block) { &mut self.main } else { &mut self.small };
        queue.push(Counted { block, reads: 0 });
    }

    fn touch(&mut self, slot: Slot) {
        let blocks = self.small.iter_mut().chain(&mut self.main);
        blocks
            .filter(|counted| counted.block.slot == slot)
            .for_each(|counted| counted.reads = 3.min(counted.reads + 1));
    }

    fn remove(&mut self, slot: Slot, removed: Removed) {
        if let Some(at) = self.small.iter().position(|counted| counted.block.slot == slot) {
            let gone = self.small.remove(at).block.block;
            if removed == Removed::Evicted {
                self.forget_ghost(gone);
                self.ghosts.push(Some(gone));
            }
        }
        self.main.retain(|counted| counted.block.slot != slot);
        self.trim_ghosts();
    }

    /// Evicts one block after another, as though the budget were what is in now. Evicted ones stay at the new end of
    /// their queue, to be removed later, or not.
    fn rank(&mut self, requester: Option<DatasetId>, stop_after: usize) -> Vec<Slot> {
        let bytes_of = |queue: &[Counted]| queue.iter().map(|counted| counted.block.bytes).sum::<u64>();
        let budget_bytes = bytes_of(&self.small) + bytes_of(&self.main);
        let mut small_bytes = bytes_of(&self.small);
        let mut after = self.clone();
        let mut offered: Vec<Slot> = Vec::new();
        let others =
            |queue: &[Counted]| queue.iter().filter(|c| is_offered(c.block.block, requester)).count();
        let all = others(&self.small) + others(&self.main);
        let (mut small_left, mut main_left) = (others(&self.small), others(&self.main));
        while offered.len() < all {
            let from_small = small_left > 0 && (small_bytes * 10 >= budget_bytes || main_left == 0);
            if from_small {
                let mut counted = pop(&mut after.small, requester).expect("one is left");
                small_left -= 1;
                small_bytes -= counted.block.bytes;
                if counted.reads > 1 {
                    counted.reads = 0;
                    after.main.push(counted);
                    main_left += 1;
                    continue;
                }
                offered.push(counted.block.slot);
                after.small.push(counted);
            } else {
                let mut counted = pop(&mut after.main, requester).expect("one is left");
                if counted.reads == 0 && !offered.contains(&counted.block.slot) {
                    offered.push(counted.block.slot);
                    main_left -= 1;
                }
                counted.reads = counted.reads.saturating_sub(1);
                after.main.push(counted);
            }
            if offered.len() == stop_after {
                *self = after;
                break;
            }
        }
        offered
    }
}

/// Credits as they are, without a tree.
#[derive(Default)]
struct GreedyDual {
    blocks: Vec<(Block, u64)>,
    inflation: u64,
}

impl GreedyDual {
    fn credit(&self, block: &Block) -> u64 {
        self.inflation + (block.nanos << 16) / block.bytes.max(1)
    }
}

impl Model for GreedyDual {
    fn insert(&mut self, block: Block) {
        self.blocks.push((block, self.credit(&block)));
    }

    fn touch(&mut self, slot: Slot) {
        let at = self.blocks.iter().position(|(block, _)| block.slot == slot).expect("it is in");
        let (block, _) = self.blocks.remove(at);
        self.insert(block);
    }

    fn remove(&mut self, slot: Slot, removed: Removed) {
        let at = self.blocks.iter().position(|(block, _)| block.slot == slot).expect("it is in");
        let (_, credit) = self.blocks.remove(at);
        if removed == Removed::Evicted {
            self.inflation = self.inflation.max(credit);
        }
    }

    fn rank(&mut self, requester: Option<DatasetId>, stop_after: usize) -> Vec<Slot> {
        let mut offered = self.blocks.clone();
        offered.retain(|(block, _)| is_offered(block.block, requester));
        // Stable: those of equal credit stay in the order of their last use.
        offered.sort_by_key(|(_, credit)| *credit);
        offered.into_iter().map(|(block, _)| block.slot).take(stop_after).collect()
    }
}
