//! Blocks that are gone, by name: the last so many, and which of them have not come back.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::BlockId;

/// The last evicted blocks, oldest first, without those that came back.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    gone: VecDeque<BlockId>,
    /// The number of the oldest of them; numbers are consecutive and wrap around.
    oldest: u32,
    /// The numbers of those that did not come back, by block.
    ghosts: HashTable<u32>,
    hashes: DefaultHashBuilder,
}

impl Ghosts {
    fn block(&self, number: u32) -> Option<BlockId> {
        self.gone.get(number.wrapping_sub(self.oldest) as usize).copied()
    }

    /// Remembers a block that was evicted.
    pub(super) fn push(&mut self, block: BlockId) {
        self.take(block);
        let number = self.oldest.wrapping_add(self.gone.len() as u32);
        self.gone.push_back(block);
        let Self { gone, oldest, ghosts, hashes } = self;
        let hash_of = |number: &u32| {
            let block = gone.get(number.wrapping_sub(*oldest) as usize);
            block.map_or(0, |block| hashes.hash_one(block))
        };
        ghosts.insert_unique(hashes.hash_one(block), number, hash_of);
    }

    /// Whether a block that came back was remembered. It no longer is.
    pub(super) fn take(&mut self, block: BlockId) -> bool {
        let hash = self.hashes.hash_one(block);
        let Self { gone, oldest, ghosts, .. } = self;
        let is_it = |number: &u32| gone.get(number.wrapping_sub(*oldest) as usize) == Some(&block);
        match ghosts.find_entry(hash, is_it) {
            Ok(ghost) => {
                ghost.remove();
                true
            }
            Err(_) => false,
        }
    }

    /// Forgets all but the last so many evictions.
    pub(super) fn keep(&mut self, evictions: usize) {
        while self.gone.len() > evictions {
            let Some(block) = self.gone.front() else { return };
            let oldest = self.oldest;
            if let Ok(ghost) = self.ghosts.find_entry(self.hashes.hash_one(block), |number| *number == oldest)
            {
                ghost.remove();
            }
            self.gone.pop_front();
            self.oldest = oldest.wrapping_add(1);
        }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for number in &self.ghosts {
            let block = self.block(*number).ok_or(format!("ghost {number} has no name"))?;
            let hash = self.hashes.hash_one(block);
            if self.ghosts.find(hash, |other| self.block(*other) == Some(block)) != Some(number) {
                return Err(format!("ghost {number} of {block} is not found by name, or there are two"));
            }
        }
        Ok(())
    }

    /// Bytes allocated.
    #[cfg(test)]
    pub(super) fn allocated_bytes(&self) -> usize {
        self.gone.capacity() * size_of::<BlockId>() + self.ghosts.allocation_size()
    }
}
