//! The blocks of one dataset, by partition.

use std::sync::Arc;

use hashbrown::hash_map::Entry as MapEntry;
use hashbrown::{HashMap, HashSet};

use crate::block::Block;
use crate::flight::FlightCell;
use crate::memory::MemoryMode;
use crate::policy::Slot;
use crate::residence::{Form, MemoryCopy};
use crate::serialized::SerializedBlock;
use crate::sync::{Mutex, MutexGuard};

/// Who computes a block, and whoever waits for it.
pub(crate) type FlightOf<T> = Arc<FlightCell<Block<T>>>;

/// Locks of a table, so that readers of different blocks seldom meet. A power of two. One is all a model can try.
const SHARDS: usize = if cfg!(loom) { 1 } else { 8 };

/// The table behind its locks. Whatever is taken out of it is handed to the caller, who drops it unlocked.
pub(crate) struct Table<T> {
    shards: [Shard<T>; SHARDS],
}

/// Partitions that are equal modulo the number of shards; on cache lines of its own.
#[repr(align(128))]
struct Shard<T> {
    blocks: Mutex<Blocks<T>>,
}

/// In this order, so that a get finds the lock, the map and the count on one cache line: what it writes has to come
/// from the processor that read another block last.
#[repr(C)]
struct Blocks<T> {
    states: HashMap<u32, State<T>>,
    hits: MemoryHits,
    closed: bool,
    /// Partitions that were computed and are not stored: computing one of them is computing it again.
    computed_before: HashSet<u32>,
}

/// How often a copy in memory was found, by its form. Counted under the lock that is held anyway.
#[derive(Clone, Copy, Default)]
pub(crate) struct MemoryHits {
    pub(crate) values: u64,
    pub(crate) heap_bytes: u64,
    pub(crate) off_heap: u64,
}

impl MemoryHits {
    fn of<T>(&mut self, copy: &MemoryCopy<T>) -> &mut u64 {
        match &copy.form {
            Form::Values(_) => &mut self.values,
            Form::Bytes { mode: MemoryMode::Heap, .. } => &mut self.heap_bytes,
            Form::Bytes { mode: MemoryMode::OffHeap, .. } => &mut self.off_heap,
        }
    }
}

/// What the table holds for a partition.
pub(crate) enum State<T> {
    InFlight(FlightOf<T>),
    Stored(Stored<T>),
}

/// A stored block: at most one copy in memory, at most one on disk, at least one in all.
pub(crate) struct Stored<T> {
    pub(crate) memory: Option<Listed<T>>,
    pub(crate) disk: Option<Arc<SerializedBlock>>,
    /// What a copy in memory was charged, or was refused, the last time: known need for a promotion. 0 when unknown.
    pub(crate) memory_bytes: u64,
    /// How long the block took to compute.
    pub(crate) compute_nanos: u64,
    pub(crate) replicas: u8,
}

/// A copy that left the table.
pub(crate) struct Taken<C> {
    pub(crate) copy: C,
    /// Where it was the last one here: the copies the block was thought to have in all.
    pub(crate) forgotten_replicas: Option<u8>,
}

/// A copy in memory that its tier knows, for as long as the store lists it.
pub(crate) struct Listed<T> {
    pub(crate) copy: Arc<MemoryCopy<T>>,
    pub(crate) slot: Slot,
}

impl<T> Drop for Listed<T> {
    fn drop(&mut self) {
        self.copy.facts.tier.remove(self.slot);
        self.copy.leaves();
    }
}

/// A copy on disk, and what is known for its promotion.
pub(crate) struct DiskCopy {
    pub(crate) bytes: Arc<SerializedBlock>,
    pub(crate) memory_bytes: u64,
    pub(crate) compute_nanos: u64,
}

/// What a reader finds.
pub(crate) enum Found<T> {
    Memory { copy: Arc<MemoryCopy<T>>, slot: Slot },
    Disk(DiskCopy),
    InFlight(FlightOf<T>),
    Absent,
}

/// What a would-be writer gets.
pub(crate) enum Claim<T> {
    /// Somebody stored it, or is about to.
    Found(Found<T>),
    /// The block is the caller's to write.
    Granted(FlightOf<T>),
    /// The dataset was removed.
    Closed,
}

impl<T> State<T> {
    fn is_flight(&self, flight: &FlightOf<T>) -> bool {
        matches!(self, Self::InFlight(current) if Arc::ptr_eq(current, flight))
    }

    fn found(&self) -> Found<T> {
        match self {
            Self::InFlight(flight) => Found::InFlight(Arc::clone(flight)),
            Self::Stored(stored) => stored.found(),
        }
    }
}

impl<T> Stored<T> {
    fn found(&self) -> Found<T> {
        match (&self.memory, &self.disk) {
            (Some(listed), _) => Found::Memory { copy: Arc::clone(&listed.copy), slot: listed.slot },
            (None, Some(bytes)) => Found::Disk(DiskCopy {
                bytes: Arc::clone(bytes),
                memory_bytes: self.memory_bytes,
                compute_nanos: self.compute_nanos,
            }),
            (None, None) => Found::Absent,
        }
    }

    pub(crate) fn records(&self) -> u64 {
        match (&self.memory, &self.disk) {
            (Some(listed), _) => listed.copy.records(),
            (None, disk) => disk.as_ref().map_or(0, |bytes| bytes.records()),
        }
    }

    fn is_empty(&self) -> bool {
        self.memory.is_none() && self.disk.is_none()
    }

    fn take_memory(&mut self, copy: &Arc<MemoryCopy<T>>) -> Option<Listed<T>> {
        let listed = self.memory.take_if(|listed| Arc::ptr_eq(&listed.copy, copy))?;
        self.memory_bytes = copy.charged_bytes();
        Some(listed)
    }
}

impl<T> Blocks<T> {
    fn new() -> Self {
        let (states, computed_before) = (HashMap::new(), HashSet::new());
        Self { states, computed_before, closed: false, hits: MemoryHits::default() }
    }

    fn stored_mut(&mut self, partition: u32) -> Option<&mut Stored<T>> {
        match self.states.get_mut(&partition) {
            Some(State::Stored(stored)) => Some(stored),
            _ => None,
        }
    }

    /// Forgets a block that has lost its last copy here; how many copies it was thought to have in all.
    fn forget_if_empty(&mut self, partition: u32) -> Option<u8> {
        let replicas = self.stored_mut(partition).filter(|stored| stored.is_empty())?.replicas;
        self.remove(partition);
        Some(replicas)
    }

    fn remove(&mut self, partition: u32) -> Option<State<T>> {
        let state = self.states.remove(&partition);
        if let Some(State::Stored(_)) = &state {
            self.computed_before.insert(partition);
        }
        state
    }
}

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Shard { blocks: Mutex::new(Blocks::new()) }) }
    }

    fn shard(&self, partition: u32) -> MutexGuard<'_, Blocks<T>> {
        let [first, ..] = &self.shards;
        self.shards.get(partition as usize % SHARDS).unwrap_or(first).blocks.lock()
    }

    /// What is there. A copy in memory is counted as a hit.
    #[inline]
    pub(crate) fn find(&self, partition: u32) -> Found<T> {
        let mut blocks = self.shard(partition);
        let Blocks { states, hits, .. } = &mut *blocks;
        let found = states.get(&partition).map_or(Found::Absent, State::found);
        if let Found::Memory { copy, .. } = &found {
            *hits.of(copy) += 1;
        }
        found
    }

    /// Takes back what [`find`](Self::find) counted, for a copy that turned out damaged.
    pub(crate) fn uncount_hit(&self, copy: &MemoryCopy<T>) {
        *self.shard(copy.partition).hits.of(copy) -= 1;
    }

    pub(crate) fn hits(&self) -> MemoryHits {
        let mut sum = MemoryHits::default();
        for shard in &self.shards {
            let hits = shard.blocks.lock().hits;
            sum.values += hits.values;
            sum.heap_bytes += hits.heap_bytes;
            sum.off_heap += hits.off_heap;
        }
        sum
    }

    /// What is there, or the right to write it.
    pub(crate) fn claim(&self, partition: u32) -> Claim<T>
    where
        T: 'static,
    {
        let mut blocks = self.shard(partition);
        if blocks.closed {
            return Claim::Closed;
        }
        match blocks.states.entry(partition) {
            MapEntry::Occupied(state) => Claim::Found(state.get().found()),
            MapEntry::Vacant(place) => {
                let flight = Arc::new(FlightCell::new());
                place.insert(State::InFlight(Arc::clone(&flight)));
                Claim::Granted(flight)
            }
        }
    }

    /// Puts a finished block in the place of its flight; hands it back if it was removed meanwhile. And whether it had
    /// been computed before.
    pub(crate) fn publish(
        &self,
        partition: u32,
        flight: &FlightOf<T>,
        stored: Stored<T>,
    ) -> (Option<Stored<T>>, bool) {
        let mut blocks = self.shard(partition);
        match blocks.states.get_mut(&partition) {
            Some(state) if state.is_flight(flight) => {
                *state = State::Stored(stored);
                (None, blocks.computed_before.contains(&partition))
            }
            _ => (Some(stored), !blocks.computed_before.insert(partition)),
        }
    }

    /// Remembers that a block was computed and is not stored; whether it had been before.
    pub(crate) fn note_computed(&self, partition: u32) -> bool {
        !self.shard(partition).computed_before.insert(partition)
    }

    /// Withdraws a flight that came to nothing.
    pub(crate) fn withdraw(&self, partition: u32, flight: &FlightOf<T>) {
        let mut blocks = self.shard(partition);
        if blocks.states.get(&partition).is_some_and(|state| state.is_flight(flight)) {
            blocks.states.remove(&partition);
        }
    }

    /// The copy in memory, if it still has this slot (or whatever slot it has), and whether there is one on disk.
    pub(crate) fn memory_copy(
        &self,
        partition: u32,
        slot: Option<Slot>,
    ) -> Option<(Arc<MemoryCopy<T>>, bool)> {
        let blocks = self.shard(partition);
        let Some(State::Stored(Stored { memory: Some(listed), disk, .. })) = blocks.states.get(&partition)
        else {
            return None;
        };
        let same = slot.is_none_or(|slot| slot == listed.slot);
        same.then(|| (Arc::clone(&listed.copy), disk.is_some()))
    }

    /// Takes out a copy in memory.
    pub(crate) fn take_memory(&self, partition: u32, copy: &Arc<MemoryCopy<T>>) -> Option<Taken<Listed<T>>> {
        let mut blocks = self.shard(partition);
        let stored = blocks.stored_mut(partition)?;
        let copy = stored.take_memory(copy)?;
        let forgotten_replicas = blocks.forget_if_empty(partition);
        Some(Taken { copy, forgotten_replicas })
    }

    /// Takes out a copy in memory that has a copy on disk; where it has none, puts `disk` there in the same step.
    /// Without either it stays.
    pub(crate) fn replace_memory(
        &self,
        partition: u32,
        copy: &Arc<MemoryCopy<T>>,
        disk: Option<Arc<SerializedBlock>>,
    ) -> Option<Listed<T>> {
        let mut blocks = self.shard(partition);
        let stored = blocks.stored_mut(partition)?;
        if stored.disk.is_none() && disk.is_none() {
            return None;
        }
        let listed = stored.take_memory(copy)?;
        if stored.disk.is_none() {
            stored.disk = disk;
        }
        Some(listed)
    }

    /// Takes out a copy on disk.
    pub(crate) fn take_disk(
        &self,
        partition: u32,
        bytes: &Arc<SerializedBlock>,
    ) -> Option<Taken<Arc<SerializedBlock>>> {
        let mut blocks = self.shard(partition);
        let copy = blocks.stored_mut(partition)?.disk.take_if(|disk| Arc::ptr_eq(disk, bytes))?;
        let forgotten_replicas = blocks.forget_if_empty(partition);
        Some(Taken { copy, forgotten_replicas })
    }

    /// Adds a copy in memory to a block that has this one on disk; hands it back if another was faster.
    pub(crate) fn add_memory(
        &self,
        partition: u32,
        disk: &Arc<SerializedBlock>,
        listed: Listed<T>,
    ) -> Option<Listed<T>> {
        let mut blocks = self.shard(partition);
        match blocks.stored_mut(partition) {
            Some(stored)
                if stored.memory.is_none() && stored.disk.as_ref().is_some_and(|d| Arc::ptr_eq(d, disk)) =>
            {
                stored.memory = Some(listed);
                None
            }
            _ => Some(listed),
        }
    }

    /// Remembers what a promotion needed and was refused.
    pub(crate) fn note_need(&self, partition: u32, memory_bytes: u64) {
        if let Some(stored) = self.shard(partition).stored_mut(partition) {
            stored.memory_bytes = memory_bytes;
        }
    }

    pub(crate) fn remove(&self, partition: u32) -> Option<State<T>> {
        self.shard(partition).remove(partition)
    }

    /// Grants no more writers; false when it was closed before.
    pub(crate) fn close(&self) -> bool {
        let closed =
            self.shards.each_ref().map(|shard| std::mem::replace(&mut shard.blocks.lock().closed, true));
        !closed.contains(&true)
    }

    /// Takes out everything.
    pub(crate) fn clear(&self) -> impl Iterator<Item = (u32, State<T>)> + use<T> {
        let taken = self.shards.each_ref().map(|shard| {
            let mut blocks = shard.blocks.lock();
            blocks.computed_before.clear();
            std::mem::take(&mut blocks.states)
        });
        taken.into_iter().flatten()
    }

    /// Reads one stored block under its lock.
    pub(crate) fn with_stored<R>(&self, partition: u32, read: impl FnOnce(&Stored<T>) -> R) -> Option<R> {
        match self.shard(partition).states.get(&partition) {
            Some(State::Stored(stored)) => Some(read(stored)),
            _ => None,
        }
    }

    /// Reads every stored block under its lock.
    pub(crate) fn for_each_stored(&self, mut read: impl FnMut(u32, &Stored<T>)) {
        for shard in &self.shards {
            for (partition, state) in &shard.blocks.lock().states {
                if let State::Stored(stored) = state {
                    read(*partition, stored);
                }
            }
        }
    }
}
