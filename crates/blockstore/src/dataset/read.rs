//! Reading a block from the best copy it has, and bringing it back to memory.

use std::sync::Arc;

use bytes::Bytes;

use super::Inner;
use crate::block::Block;
use crate::error::{Error, Residence};
use crate::events::Event;
use crate::format::{Chunk, ChunkError};
use crate::memory::MemoryMode;
use crate::policy::Slot;
use crate::region::arena_bytes;
use crate::residence::{Form, MemoryCopy};
use crate::serialized::SerializedBlock;
use crate::table::{DiskCopy, Found, Taken};
use crate::unroll::{HeapChunk, ValuesUnroll};

impl<T: Send + Sync + 'static> Inner<T> {
    /// The block from its best copy. Damaged copies are discarded on the way; an error when the last one was.
    pub(crate) fn read(self: &Arc<Self>, partition: u32) -> Result<Option<Block<T>>, Error> {
        let mut damage = None;
        loop {
            let read = match self.table.find(partition) {
                Found::Memory { copy, slot } => self.read_memory(copy, slot),
                Found::Disk(copy) => self.read_disk(partition, &copy),
                Found::InFlight(_) | Found::Absent => return damage.map_or(Ok(None), Err),
            };
            match read {
                Ok((block, residence)) => {
                    self.core.events.emit(|| Event::Hit { block: block.id(), residence });
                    return Ok(Some(block));
                }
                Err(error @ (Error::Corrupt { .. } | Error::Unreadable { .. })) => damage = Some(error),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads a copy that was counted as a hit.
    fn read_memory(&self, copy: Arc<MemoryCopy<T>>, slot: Slot) -> Result<(Block<T>, Residence), Error> {
        let (partition, residence) = (copy.partition, copy.residence());
        match self.verified(&copy) {
            Ok(()) => {
                self.facts.tier.touch(slot);
                Ok((Block::in_memory(copy), residence))
            }
            Err((chunk, source)) => {
                self.table.uncount_hit(&copy);
                self.discarded(partition, residence, self.table.take_memory(partition, &copy));
                Err(self.corrupt(partition, residence, chunk, source))
            }
        }
    }

    fn read_disk(self: &Arc<Self>, partition: u32, copy: &DiskCopy) -> Result<(Block<T>, Residence), Error> {
        let read = self
            .readable(partition, &copy.bytes)
            .and_then(|()| self.promoted(partition, copy))
            .map(|promoted| promoted.unwrap_or_else(|| self.disk_block(partition, &copy.bytes)));
        if let Err(Error::Corrupt { .. } | Error::Unreadable { .. }) = &read {
            self.discarded(partition, Residence::Disk, self.table.take_disk(partition, &copy.bytes));
        }
        let block = read?;
        self.facts.counters.hits_disk.add(1);
        Ok((block, Residence::Disk))
    }

    fn verified(&self, copy: &MemoryCopy<T>) -> Result<(), (usize, ChunkError)> {
        match &copy.form {
            Form::Bytes { bytes, .. } if self.core.verifies_memory() => bytes.verify(),
            _ => Ok(()),
        }
    }

    /// Reads a copy on disk into memory and compares it with its checksums.
    fn readable(&self, partition: u32, bytes: &SerializedBlock) -> Result<(), Error> {
        self.core.prefetch(bytes).map_err(|source| Error::Unreadable {
            block: self.facts.block(partition),
            name: self.facts.name.to_string(),
            source,
        })?;
        bytes.verify().map_err(|(chunk, source)| self.corrupt(partition, Residence::Disk, chunk, source))
    }

    fn corrupt(&self, partition: u32, residence: Residence, chunk: usize, source: ChunkError) -> Error {
        let block = self.facts.block(partition);
        Error::Corrupt { block, name: self.facts.name.to_string(), residence, chunk, source }
    }

    /// Counts a damaged copy, unless another reader took it out first.
    fn discarded<C>(&self, partition: u32, residence: Residence, taken: Option<Taken<C>>) {
        let Some(Taken { copy, forgotten_replicas }) = taken else { return };
        drop(copy);
        self.facts.counters.corrupt.add(1);
        self.core.events.emit(|| Event::Corrupt { block: self.facts.block(partition), residence });
        self.remove_replicas(partition, forgotten_replicas);
    }

    /// A copy back in memory, if the level wants one and memory is granted.
    fn promoted(self: &Arc<Self>, partition: u32, disk: &DiskCopy) -> Result<Option<Block<T>>, Error> {
        let DiskCopy { bytes: disk, memory_bytes, compute_nanos } = disk;
        let level = self.facts.level;
        if !level.uses_memory() {
            return Ok(None);
        }
        let form = if level.is_deserialized() {
            self.promoted_values(partition, disk, *memory_bytes)?
        } else {
            let mode = level.memory_mode();
            let form = self.promoted_bytes(disk, mode);
            self.core.release(disk);
            form
        };
        let Some(form) = form else { return Ok(None) };
        let copy = self.copy(partition, form);
        let bytes = copy.charged_bytes();
        let residence = copy.residence();
        let block = Block::in_memory(Arc::clone(&copy));
        let listed = self.list(copy, true, *compute_nanos);
        if self.table.add_memory(partition, disk, listed).is_none() {
            self.facts.counters.promotions.add(1);
            self.facts.counters.promoted_bytes.add(bytes);
            self.core.events.emit(|| Event::Promoted { block: block.id(), residence, bytes });
        }
        Ok(Some(block))
    }

    /// Decodes the block onto the heap; nothing when memory is refused, before the work where the need is known.
    fn promoted_values(
        &self,
        partition: u32,
        disk: &Arc<SerializedBlock>,
        memory_bytes: u64,
    ) -> Result<Option<Form<T>>, Error> {
        // Decoded records never take less than the bytes they were encoded to by much; knowing better needs a try.
        let need = if memory_bytes > 0 { memory_bytes } else { disk.stored_bytes() };
        let Ok(charge) = self.core.memory().reserve_storage(MemoryMode::Heap, need, Some(self.facts.id))
        else {
            return Ok(None);
        };
        let ground = self.ground(partition);
        let mut values = ValuesUnroll::new(charge);
        let mut source = self.disk_block(partition, disk).into_batches();
        while let Some(mut batch) = source.next_decoded(usize::MAX)? {
            values.append(&ground, &mut batch);
            if !batch.is_empty() {
                self.table.note_need(partition, values.used_bytes().saturating_mul(2).max(need));
                return Ok(None);
            }
        }
        Ok(Some(Form::Values(values.finish())))
    }

    /// Copies the chunks as they are.
    fn promoted_bytes(&self, disk: &SerializedBlock, mode: MemoryMode) -> Option<Form<T>> {
        let charge_of = |chunk: &Chunk| match mode {
            MemoryMode::Heap => chunk.stored().len() as u64,
            MemoryMode::OffHeap => arena_bytes(chunk.stored().len()),
        };
        let need = disk.chunks().iter().map(charge_of).sum();
        let mut charge = self.core.memory().reserve_storage(mode, need, Some(self.facts.id)).ok()?;
        let copied = |chunk: &Chunk| {
            let stored = chunk.stored();
            let place = match mode {
                MemoryMode::OffHeap => self.core.write_to_arena(Some(self.facts.id), stored, &mut charge)?,
                MemoryMode::Heap => {
                    let charge = charge.split(stored.len() as u64);
                    Bytes::from_owner(HeapChunk { bytes: stored.to_vec(), _charge: charge })
                }
            };
            Some(chunk.moved_to(place))
        };
        let chunks = disk.chunks().iter().map(copied).collect::<Option<Vec<_>>>()?;
        let bytes = SerializedBlock::new(disk.codec(), disk.compression(), chunks);
        Some(Form::Bytes { mode, bytes })
    }
}
