//! Giving up a block's copy in memory, after writing it to disk where its level says so.

use std::sync::Arc;

use super::Inner;
use crate::error::Error;
use crate::events::{Event, EvictReason};
use crate::policy::Slot;
use crate::residence::{Form, MemoryCopy};
use crate::serialized::SerializedBlock;
use crate::table::Taken;
use crate::unroll::{BytesUnroll, Ground};

impl<T: Send + Sync + 'static> Inner<T> {
    pub(crate) fn ground(&self, partition: u32) -> Ground<T> {
        Ground {
            core: Arc::clone(&self.core),
            facts: Arc::clone(&self.facts),
            block: self.facts.block(partition),
        }
    }

    /// Gives up the copy in memory; its bytes, or nothing when there was no such copy.
    ///
    /// Readers may go on reading it meanwhile, and after. No lock is held while it is written to disk.
    pub(crate) fn evict(&self, partition: u32, slot: Option<Slot>) -> Result<Option<u64>, Error> {
        let Some((copy, on_disk)) = self.table.memory_copy(partition, slot) else { return Ok(None) };
        let taken = if self.facts.level.uses_disk() {
            let spilled = if on_disk { None } else { Some(Arc::new(self.spilled(partition, &copy)?)) };
            let listed = self.table.replace_memory(partition, &copy, spilled);
            listed.map(|copy| Taken { copy, forgotten_replicas: None })
        } else {
            self.table.take_memory(partition, &copy)
        };
        let Some(Taken { copy: listed, forgotten_replicas }) = taken else { return Ok(None) };
        let bytes = copy.charged_bytes();
        let residence = copy.residence();
        drop(copy);
        self.facts.counters.evictions.add(1);
        self.facts.counters.evicted_bytes.add(bytes);
        let reason = if slot.is_some() { EvictReason::Room } else { EvictReason::Asked };
        self.core.events.emit(|| Event::Evicted {
            block: self.facts.block(partition),
            residence,
            bytes,
            reason,
        });
        drop(listed);
        self.remove_replicas(partition, forgotten_replicas);
        Ok(Some(bytes))
    }

    fn spilled(&self, partition: u32, copy: &MemoryCopy<T>) -> Result<SerializedBlock, Error> {
        self.spill(partition, copy).inspect_err(|error| {
            self.facts.counters.spills_failed.add(1);
            let block = self.facts.block(partition);
            self.core.events.emit(|| Event::SpillFailed { block, problem: error.to_string() });
        })
    }

    /// Writes a copy in memory to disk: bytes as they are, values encoded a chunk at a time.
    fn spill(&self, partition: u32, copy: &MemoryCopy<T>) -> Result<SerializedBlock, Error> {
        let ground = self.ground(partition);
        let spilled = match &copy.form {
            Form::Bytes { bytes, .. } => {
                let moved = ground.moved_to_disk(bytes.chunks())?;
                SerializedBlock::new(bytes.codec(), bytes.compression(), moved)
            }
            Form::Values(values) => {
                let mut unroll = BytesUnroll::on_disk();
                for run in &values.runs {
                    unroll.push_all(&ground, run)?;
                }
                unroll.finish_on_disk(&ground)?
            }
        };
        let bytes = spilled.stored_bytes();
        self.facts.counters.spills.add(1);
        self.facts.counters.spilled_bytes.add(bytes);
        self.core.events.emit(|| Event::Spilled { block: ground.block, bytes });
        Ok(spilled)
    }
}
