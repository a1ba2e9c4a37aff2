//! Reading a block from the best copy it has, and bringing it back to memory.

use std::sync::Arc;
use std::time::Instant;

use super::Inner;
use crate::block::{Block, DiskAccess};
use crate::error::{Error, Residence};
use crate::events::Event;
use crate::format::{Chunk, ChunkError};
use crate::mark::Mark;
use crate::memory::MemoryMode;
use crate::policy::Slot;
use crate::region::arena_bytes;
use crate::residence::{Form, MemoryCopy};
use crate::serialized::SerializedBlock;
use crate::table::{DiskCopy, Found, Taken};
use crate::unroll::ValuesUnroll;

/// Bytes of records that are decoded at a time onto the heap, where it is known what memory they take.
const KNOWN_BATCH_BYTES: usize = 1 << 20;
/// And where it has to be tried.
const TRIED_BATCH_BYTES: usize = 64 << 10;

impl<T: Send + Sync + 'static> Inner<T> {
    /// The block from its best copy. Damaged copies are discarded on the way; an error when the last one was.
    pub(crate) fn read(self: &Arc<Self>, partition: u32) -> Result<Option<Block<T>>, Error> {
        self.read_best(partition, Inner::verified, |copy| self.read_disk(partition, copy))
    }

    /// As [`read`](Self::read), for a reader of these records alone: a copy on disk stays there, and is verified as it
    /// is read.
    pub(crate) fn read_range(
        self: &Arc<Self>,
        partition: u32,
        from: Mark,
        records: u64,
    ) -> Result<Option<Block<T>>, Error> {
        let verify = |this: &Self, copy: &MemoryCopy<T>| this.verified_range(copy, from, records);
        self.read_best(partition, verify, |DiskCopy { bytes, .. }| {
            self.facts.counters.hits_disk.add(1);
            let block = self.read_block(partition, bytes, Arc::clone(bytes), DiskAccess::Copying);
            Ok((block, Residence::Disk))
        })
    }

    fn read_best(
        &self,
        partition: u32,
        verify: impl Fn(&Self, &MemoryCopy<T>) -> Result<(), (usize, ChunkError)>,
        read_disk: impl Fn(&DiskCopy) -> Result<(Block<T>, Residence), Error>,
    ) -> Result<Option<Block<T>>, Error> {
        let mut damage = None;
        loop {
            let read = match self.table.find(partition) {
                Found::Memory { copy, slot } => {
                    let verified = verify(self, &copy);
                    self.read_memory(copy, slot, verified)
                }
                Found::Disk(copy) => read_disk(&copy),
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
    fn read_memory(
        &self,
        copy: Arc<MemoryCopy<T>>,
        slot: Slot,
        verified: Result<(), (usize, ChunkError)>,
    ) -> Result<(Block<T>, Residence), Error> {
        let (partition, residence) = (copy.partition, copy.residence());
        match verified {
            Ok(()) => {
                self.facts.tier.touch(slot);
                Ok((Block::in_memory(copy), residence))
            }
            Err((chunk, source)) => {
                self.table.uncount_hit(&copy);
                self.discarded(partition, residence, self.table.take_memory(partition, &copy));
                Err(self.facts.chunk_error(partition, residence, chunk, source))
            }
        }
    }

    fn read_disk(self: &Arc<Self>, partition: u32, copy: &DiskCopy) -> Result<(Block<T>, Residence), Error> {
        let read = self.promoted(partition, copy).and_then(|promoted| match promoted {
            Some(block) => Ok(block),
            None => self.readable(partition, &copy.bytes),
        });
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

    /// As [`verified`](Self::verified), for the chunks of these records.
    fn verified_range(
        &self,
        copy: &MemoryCopy<T>,
        from: Mark,
        records: u64,
    ) -> Result<(), (usize, ChunkError)> {
        let Form::Bytes { bytes, .. } = &copy.form else { return Ok(()) };
        if !self.core.verifies_memory() {
            return Ok(());
        }
        let mut end = 0;
        for (index, chunk) in bytes.chunks().iter().enumerate() {
            let start = end;
            end += u64::from(chunk.records());
            if end > from.record() && start < from.record().saturating_add(records) {
                chunk.verify().map_err(|e| (index, e))?;
            }
        }
        Ok(())
    }

    /// A handle on a copy on disk, compared with its checksums unless it is large: then that is done chunk by chunk as
    /// it is read, so that no more of it than a chunk is in memory for its sake. What is not large and not mapped is read
    /// into memory, if that is free, and stays there while it is read.
    fn readable(&self, partition: u32, listed: &Arc<SerializedBlock>) -> Result<Block<T>, Error> {
        let stored = listed.stored_bytes();
        if stored > self.core.kept_bytes() {
            return Ok(self.disk_block(partition, listed));
        }
        let verified = self.core.prefetch(listed).map_err(|source| (0, source.into())).and_then(|()| {
            if !listed.is_in_memory()
                && let Ok(charge) = self.core.memory().try_reserve_storage(MemoryMode::Heap, stored)
            {
                return Ok((Arc::new(listed.loaded(charge)?), DiskAccess::Verified));
            }
            listed.verify()?;
            let access = if listed.is_in_memory() { DiskAccess::Verified } else { DiskAccess::Verifying };
            Ok((Arc::clone(listed), access))
        });
        let (bytes, access) =
            verified.map_err(|(chunk, source)| self.disk_error(partition, chunk, source))?;
        Ok(self.read_block(partition, listed, bytes, access))
    }

    /// What is wrong with a chunk on disk; a directory that was put aside for it is told of.
    fn disk_error(&self, partition: u32, chunk: usize, source: ChunkError) -> Error {
        self.core.report_directories(&self.facts.counters);
        self.facts.chunk_error(partition, Residence::Disk, chunk, source)
    }

    /// Counts a damaged copy, unless another reader took it out first.
    pub(super) fn discarded<C>(&self, partition: u32, residence: Residence, taken: Option<Taken<C>>) {
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
        let started = Instant::now();
        let form = if level.is_deserialized() {
            self.promoted_values(partition, disk, *memory_bytes)?
        } else {
            self.promoted_bytes(partition, disk, level.memory_mode())?
        };
        let Some(form) = form else { return Ok(None) };
        let copy = self.copy(partition, form);
        let bytes = copy.charged_bytes();
        let residence = copy.residence();
        let block = Block::in_memory(Arc::clone(&copy));
        let listed = self.list(copy, Some(started.elapsed()), *compute_nanos);
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
        let requester = self.facts.requester();
        let Ok(charge) = self.core.memory().reserve_storage(MemoryMode::Heap, need, requester) else {
            return Ok(None);
        };
        // What is decoded at a time is charged before where the need is known, else after.
        let batch_bytes = if memory_bytes > 0 { KNOWN_BATCH_BYTES } else { TRIED_BATCH_BYTES };
        let batch_records = (batch_bytes / size_of::<T>().max(1)).max(1);
        let ground = self.ground(partition);
        let mut values = ValuesUnroll::new(charge);
        let source = self.read_block(partition, disk, Arc::clone(disk), DiskAccess::Copying);
        let mut source = source.into_batches();
        while let Some(run) = source.next_decoded(batch_records)? {
            if !values.adopt(&ground, run) {
                self.table.note_need(partition, values.used_bytes().saturating_mul(2).max(need));
                return Ok(None);
            }
        }
        Ok(Some(Form::Values(values.finish())))
    }

    /// Reads the chunks as they are.
    fn promoted_bytes(
        &self,
        partition: u32,
        disk: &SerializedBlock,
        mode: MemoryMode,
    ) -> Result<Option<Form<T>>, Error> {
        let charge_of = |chunk: &Chunk| match mode {
            MemoryMode::Heap => chunk.stored_len() as u64,
            MemoryMode::OffHeap => arena_bytes(chunk.stored_len()),
        };
        let (need, requester) = (disk.chunks().iter().map(charge_of).sum(), self.facts.requester());
        let Ok(mut charge) = self.core.memory().reserve_storage(mode, need, requester) else {
            return Ok(None);
        };
        let mut chunks = Vec::with_capacity(disk.chunks().len());
        for (index, chunk) in disk.chunks().iter().enumerate() {
            let loaded = match mode {
                MemoryMode::Heap => self.core.loaded(chunk, charge.split(charge_of(chunk))).map(Some),
                MemoryMode::OffHeap => self.core.loaded_to_arena(requester, chunk, &mut charge),
            };
            match loaded.map_err(|source| self.disk_error(partition, index, source))? {
                Some(loaded) => chunks.push(loaded),
                None => return Ok(None),
            }
        }
        let bytes = SerializedBlock::new(disk.codec(), disk.compression(), chunks);
        Ok(Some(Form::Bytes { mode, bytes }))
    }
}
