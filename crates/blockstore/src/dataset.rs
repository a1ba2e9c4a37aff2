//! A dataset as a store keeps it: its facts, its table of blocks, and what happens to them.

mod evict;
mod read;

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::block::{Block, DiskAccess, DiskRead};
use crate::entry::{Entry, Flight};
use crate::error::{Error, Residence};
use crate::events::Event;
use crate::format::{ChunkEncoder, ChunkError, Compression};
use crate::id::{BlockId, DatasetId};
use crate::level::StorageLevel;
use crate::memory::MemoryManager;
use crate::metrics::{Counters, LiveCounters};
use crate::policy::{Candidate, Slot};
use crate::record::RecordKind;
use crate::residence::{Blanks, Form, MemoryCopy};
use crate::serialized::SerializedBlock;
use crate::status::{BlockStatus, DatasetStatus};
use crate::store::Core;
use crate::table::{Claim, Listed, State, Stored, Table};
use crate::tier::{Pins, Tier};
use crate::writer::BlockWriter;

/// What never changes about a dataset.
pub(crate) struct DatasetFacts<T> {
    pub(crate) id: DatasetId,
    pub(crate) name: Arc<str>,
    pub(crate) level: StorageLevel,
    pub(crate) compression: Compression,
    pub(crate) evicts_own: bool,
    pub(crate) kind: RecordKind<T>,
    /// Where its copies in memory are ranked.
    pub(crate) tier: Arc<Tier>,
    pub(crate) memory: MemoryManager,
    pub(crate) counters: Arc<LiveCounters>,
    /// Told by readers of copies that turn out damaged.
    pub(crate) owner: Weak<dyn Owner<T>>,
}

/// Whose blocks they are, as a reader sees it that outlives a damaged copy.
pub(crate) trait Owner<T>: Send + Sync {
    /// Takes a damaged copy in memory out of the store, if it is still listed.
    fn discard_memory(&self, copy: &Arc<MemoryCopy<T>>);
    /// Takes a damaged copy on disk out of the store, if it is still listed.
    fn discard_disk(&self, partition: u32, bytes: &Arc<SerializedBlock>);
}

impl<T> DatasetFacts<T> {
    pub(crate) fn block(&self, partition: u32) -> BlockId {
        BlockId { dataset: self.id, partition }
    }

    /// Whose blocks are spared when memory is made for one of its own.
    pub(crate) fn requester(&self) -> Option<DatasetId> {
        (!self.evicts_own).then_some(self.id)
    }

    /// What is wrong with a chunk of one of its blocks.
    pub(crate) fn chunk_error(
        &self,
        partition: u32,
        residence: Residence,
        chunk: usize,
        source: ChunkError,
    ) -> Error {
        let (block, name) = (self.block(partition), self.name.to_string());
        match source {
            ChunkError::Unreadable { source } => Error::Unreadable { block, name, source: *source },
            source => Error::Corrupt { block, name, residence, chunk, source },
        }
    }
}

/// A dataset of whatever record type, as its store sees it.
pub(crate) trait AnyDataset: Send + Sync {
    /// Gives up the copy in memory that has this slot; its bytes, free once no reader holds them.
    fn evict_slot(&self, partition: u32, slot: Slot) -> Result<u64, Error>;
    fn name(&self) -> &Arc<str>;
    fn status(&self) -> DatasetStatus;
    fn block_status(&self, partition: u32) -> Option<BlockStatus>;
    /// Removes all blocks and grants no more writers; false when it was closed before.
    fn close(&self) -> bool;
}

pub(crate) struct Inner<T> {
    pub(crate) core: Arc<Core>,
    pub(crate) facts: Arc<DatasetFacts<T>>,
    pub(crate) table: Table<T>,
    blanks: Blanks<T>,
    this: Weak<Self>,
}

/// How long a block that was never read from disk will take, as a guess: 50 us and a nanosecond a byte.
fn expected_read(bytes: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_add(50_000))
}

impl<T: Send + Sync + 'static> Inner<T> {
    pub(crate) fn new(
        core: Arc<Core>,
        facts: impl FnOnce(Weak<dyn Owner<T>>) -> DatasetFacts<T>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| {
            let owner: Weak<Self> = Weak::clone(this);
            Self {
                core,
                facts: Arc::new(facts(owner)),
                table: Table::new(),
                blanks: Blanks::new(),
                this: Weak::clone(this),
            }
        })
    }

    /// A handle on a copy on disk that is listed, or about to be, and whose chunks are compared with their checksums
    /// as they are read.
    pub(crate) fn disk_block(&self, partition: u32, listed: &Arc<SerializedBlock>) -> Block<T> {
        self.read_block(partition, listed, Arc::clone(listed), DiskAccess::Verifying)
    }

    pub(crate) fn read_block(
        &self,
        partition: u32,
        listed: &Arc<SerializedBlock>,
        bytes: Arc<SerializedBlock>,
        access: DiskAccess,
    ) -> Block<T> {
        Block::on_disk(DiskRead {
            facts: Arc::clone(&self.facts),
            core: Arc::clone(&self.core),
            partition,
            listed: Arc::clone(listed),
            bytes,
            access,
        })
    }

    /// A copy in memory of one of its blocks.
    pub(crate) fn copy(&self, partition: u32, form: Form<T>) -> Arc<MemoryCopy<T>> {
        let mut blank = self.blanks.take(&self.facts);
        match Arc::get_mut(&mut blank) {
            Some(copy) => {
                (copy.partition, copy.form) = (partition, form);
                blank
            }
            None => Arc::new(MemoryCopy::new(Arc::clone(&self.facts), partition, form)),
        }
    }

    /// A copy, made known to its tier; it becomes visible to readers with the table. Where there is one on disk too, it
    /// was `read_in` so long.
    pub(crate) fn list(
        &self,
        copy: Arc<MemoryCopy<T>>,
        read_in: Option<Duration>,
        compute_nanos: u64,
    ) -> Listed<T> {
        let this: Weak<Self> = Weak::clone(&self.this);
        let block = self.facts.block(copy.partition);
        let compute = Duration::from_nanos(compute_nanos);
        let bytes = copy.charged_bytes();
        let mut candidate = Candidate::new(block, bytes).computed_in(compute);
        let uses_disk = self.facts.level.uses_disk();
        if uses_disk {
            candidate = candidate.restored_in(read_in.unwrap_or_else(|| expected_read(bytes)));
        }
        let must_be_written = read_in.is_none() && uses_disk;
        let slot = self.facts.tier.insert(&candidate, this, Pins::of(&copy), must_be_written);
        Listed { copy, slot }
    }

    pub(crate) fn entry(self: &Arc<Self>, partition: u32) -> Result<Entry<T>, Error> {
        loop {
            match self.read(partition) {
                Ok(Some(block)) => return Ok(Entry::Resident(block)),
                // A damaged copy is gone now: the block is to be computed again.
                Ok(None) => {}
                Err(e) if e.is_lost_copy() => {}
                Err(e) => return Err(e),
            }
            match self.table.claim(partition) {
                Claim::Granted(flight) => {
                    self.count_miss(partition);
                    let writer = BlockWriter::new(Arc::clone(self), partition, flight);
                    return Ok(Entry::Vacant(writer));
                }
                Claim::Found(crate::table::Found::InFlight(flight)) => {
                    self.facts.counters.waits.add(1);
                    return Ok(Entry::InFlight(Flight::new(flight, Arc::clone(self), partition)));
                }
                Claim::Found(_) => {}
                Claim::Closed => {
                    let name = self.facts.name.to_string();
                    return Err(Error::DatasetRemoved { dataset: self.facts.id, name });
                }
            }
        }
    }

    /// Places further copies of a block elsewhere; how many.
    pub(crate) fn replicate(&self, block: &Block<T>, copies: u8) -> u8 {
        let Some(replicator) = self.core.replicator() else { return 0 };
        let encoded = match block.serialized() {
            Some(bytes) => Some(bytes.clone()),
            None => self.encoded(block),
        };
        encoded.map_or(0, |bytes| replicator.replicate(block.id(), &bytes, copies).min(copies))
    }

    /// After the last copy here went: those elsewhere go too, if there are any.
    pub(crate) fn remove_replicas(&self, partition: u32, replicas: Option<u8>) {
        if replicas.is_some_and(|replicas| replicas > 1) {
            self.core.remove_replicas(self.facts.block(partition));
        }
    }

    fn encoded(&self, block: &Block<T>) -> Option<SerializedBlock> {
        let RecordKind { codec, .. } = &self.facts.kind;
        let compression = self.facts.compression;
        let mut encoder = ChunkEncoder::new(Arc::clone(codec), compression, self.core.chunk_bytes());
        let mut chunks = Vec::new();
        for record in block.slices()?.flatten() {
            chunks.extend(encoder.push(record).ok()?);
        }
        chunks.extend(encoder.finish());
        Some(SerializedBlock::new(codec.id(), compression, chunks))
    }

    pub(crate) fn counters(&self) -> Counters {
        let hits = self.table.hits();
        Counters {
            hits_values: hits.values,
            hits_heap_bytes: hits.heap_bytes,
            hits_off_heap: hits.off_heap,
            ..self.facts.counters.snapshot()
        }
    }

    pub(crate) fn count_miss(&self, partition: u32) {
        self.facts.counters.misses.add(1);
        self.core.events.emit(|| Event::Miss { block: self.facts.block(partition) });
    }

    pub(crate) fn remove(&self, partition: u32) -> bool {
        let Some(state) = self.table.remove(partition) else { return false };
        self.removed(partition, state);
        true
    }

    pub(crate) fn clear(&self) {
        let mut states: Vec<_> = self.table.clear().collect();
        // About the order in which they were written: their space on disk comes back in long runs.
        states.sort_unstable_by_key(|(partition, _)| *partition);
        for (partition, state) in states {
            self.removed(partition, state);
        }
    }

    /// After a block left the table: whoever waits gets "absent", and its copies go with the last handle.
    fn removed(&self, partition: u32, state: State<T>) {
        match state {
            State::InFlight(flight) => flight.settle(None),
            State::Stored(stored) => {
                self.remove_replicas(partition, Some(stored.replicas));
                drop(stored);
            }
        }
        self.facts.counters.removed.add(1);
        self.core.events.emit(|| Event::Removed { block: self.facts.block(partition) });
    }
}

impl<T: Send + Sync + 'static> Owner<T> for Inner<T> {
    fn discard_memory(&self, copy: &Arc<MemoryCopy<T>>) {
        let (partition, residence) = (copy.partition, copy.residence());
        self.discarded(partition, residence, self.table.take_memory(partition, copy));
    }

    fn discard_disk(&self, partition: u32, bytes: &Arc<SerializedBlock>) {
        self.core.report_directories(&self.facts.counters);
        self.discarded(partition, Residence::Disk, self.table.take_disk(partition, bytes));
    }
}

impl<T: Send + Sync + 'static> AnyDataset for Inner<T> {
    fn evict_slot(&self, partition: u32, slot: Slot) -> Result<u64, Error> {
        self.evict(partition, Some(slot)).map(|freed| freed.unwrap_or(0))
    }

    fn name(&self) -> &Arc<str> {
        &self.facts.name
    }

    fn status(&self) -> DatasetStatus {
        let facts = &self.facts;
        let mut status = DatasetStatus {
            dataset: facts.id,
            name: facts.name.to_string(),
            level: facts.level,
            blocks: 0,
            blocks_in_memory: 0,
            records: 0,
            heap_bytes: 0,
            off_heap_bytes: 0,
            disk_bytes: 0,
            under_replicated: 0,
            counters: self.counters(),
        };
        self.table.for_each_stored(|partition, stored| {
            let block = self.describe(partition, stored);
            status.blocks += 1;
            status.blocks_in_memory += u64::from(stored.memory.is_some());
            status.records += block.records;
            status.heap_bytes += block.heap_bytes;
            status.off_heap_bytes += block.off_heap_bytes;
            status.disk_bytes += block.disk_bytes;
            status.under_replicated += u64::from(block.replicas < facts.level.replication());
        });
        status
    }

    fn block_status(&self, partition: u32) -> Option<BlockStatus> {
        self.table.with_stored(partition, |stored| self.describe(partition, stored))
    }

    fn close(&self) -> bool {
        let first = self.table.close();
        self.clear();
        first
    }
}

impl<T: Send + Sync + 'static> Inner<T> {
    fn describe(&self, partition: u32, stored: &Stored<T>) -> BlockStatus {
        use crate::level::LevelFacts;
        let memory = stored.memory.as_ref().map(|listed| &listed.copy);
        let residence = memory.map(|copy| copy.residence());
        let memory_bytes = memory.map_or(0, |copy| copy.charged_bytes());
        let off_heap = residence == Some(Residence::OffHeap);
        let facts = LevelFacts {
            disk: stored.disk.is_some(),
            memory: memory.is_some(),
            off_heap,
            deserialized: residence == Some(Residence::Values),
            replication: stored.replicas,
        };
        BlockStatus {
            block: self.facts.block(partition),
            requested: self.facts.level,
            effective: StorageLevel::custom(facts).unwrap_or(StorageLevel::NONE),
            residences: residence
                .into_iter()
                .chain(stored.disk.is_some().then_some(Residence::Disk))
                .collect(),
            records: stored.records(),
            heap_bytes: if off_heap { 0 } else { memory_bytes },
            off_heap_bytes: if off_heap { memory_bytes } else { 0 },
            disk_bytes: stored.disk.as_ref().map_or(0, |bytes| bytes.stored_bytes()),
            replicas: stored.replicas,
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod disk_tests;
#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests;
