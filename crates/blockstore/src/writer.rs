//! Writing a block, record by record.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::block::Block;
use crate::dataset::Inner;
use crate::error::{Error, Residence};
use crate::events::Event;
use crate::id::BlockId;
use crate::mark::Mark;
use crate::memory::MemoryMode;
use crate::residence::{Form, MemoryCopy};
use crate::serialized::SerializedBlock;
use crate::table::{FlightOf, Stored};
use crate::unroll::{BytesUnroll, Ground, ValuesUnroll};
use crate::unrolled::Unrolled;

/// Writes one block: push its records, then finish.
///
/// The block is unrolled into memory with a reservation that grows with it. When memory is short, a level with
/// disk moves what it has to disk and goes on there; a level without keeps what it has and hands every further
/// record back ([`Pushed::Refused`]).
///
/// Dropping an unfinished writer leaves nothing behind, and makes one of those who wait for the block its writer.
/// ```
/// # use larder_blockstore::{BlockStore, Entry, Finished, StorageLevel};
/// let store = BlockStore::builder().memory(1 << 20).build()?;
/// let words = store.dataset::<String>("words").level(StorageLevel::MEMORY_ONLY).build()?;
///
/// let Entry::Vacant(mut writer) = words.entry(0)? else { panic!("nothing is stored yet") };
/// writer.push("pear".to_owned())?;
/// writer.push("plum".to_owned())?;
/// let Finished::Stored(block) = writer.finish()? else { panic!("two words fit into a megabyte") };
/// assert_eq!(block.len(), 2);
/// # Ok::<(), larder_blockstore::Error>(())
/// ```
pub struct BlockWriter<T: Send + Sync + 'static> {
    inner: Arc<Inner<T>>,
    ground: Ground<T>,
    partition: u32,
    flight: FlightOf<T>,
    started: Instant,
    unroll: Unroll<T>,
    refused: bool,
}

/// Records that are copied at a time from where they lie.
const COPIED_RECORDS_MAX: usize = 1_024;

enum Unroll<T> {
    Values(ValuesUnroll<T>),
    Bytes(BytesUnroll),
    Taken,
}

/// What became of a pushed record.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a refused record comes back to the caller"]
pub enum Pushed<T> {
    /// It is part of the block.
    Kept,
    /// Memory is short and the level has no disk: the record comes back, and so will all further ones.
    Refused(T),
}

/// What became of a block.
#[derive(Debug)]
#[must_use = "a refused block's records are in here"]
pub enum Finished<T: Send + Sync + 'static> {
    /// It is stored; here it is, pinned.
    Stored(Block<T>),
    /// Memory was short and the level has no disk: nothing is stored. Here are the records that were kept.
    Refused(Unrolled<T>),
}

impl<T: Send + Sync + 'static> BlockWriter<T> {
    pub(crate) fn new(inner: Arc<Inner<T>>, partition: u32, flight: FlightOf<T>) -> Self {
        let ground = inner.ground(partition);
        let level = inner.facts.level;
        let nothing = |mode| ground.core.memory().reserve_storage(mode, 0, None);
        let mode = level.memory_mode();
        let unroll = match nothing(mode) {
            Ok(charge) if level.is_deserialized() => Unroll::Values(ValuesUnroll::new(charge)),
            Ok(charge) if level.uses_memory() => Unroll::Bytes(BytesUnroll::in_memory(charge)),
            _ => Unroll::Bytes(BytesUnroll::on_disk()),
        };
        Self { inner, ground, partition, flight, started: Instant::now(), unroll, refused: false }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner<T>> {
        &self.inner
    }

    /// Says that this thread computes the block until it is finished. To [wait](crate::Flight::wait) for it is then an
    /// error where it would never end: on this thread, and on one for whose block this thread waits itself.
    pub fn computes_on_this_thread(&mut self) {
        self.flight.lead_here();
    }

    /// Which block is written.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.ground.block
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`Error::Encode`] and [`Error::Disk`]; the record is then not part of the block.
    #[inline]
    pub fn push(&mut self, record: T) -> Result<Pushed<T>, Error> {
        if let Unroll::Values(values) = &mut self.unroll
            && values.has_room_unmeasured()
        {
            values.push_unmeasured(record);
            return Ok(Pushed::Kept);
        }
        if let Unroll::Bytes(bytes) = &mut self.unroll
            && !self.refused
            && bytes.push(&self.ground, &record)?
        {
            return Ok(Pushed::Kept);
        }
        self.push_further(record)
    }

    /// Appends a record for which there is no room yet.
    #[cold]
    fn push_further(&mut self, mut record: T) -> Result<Pushed<T>, Error> {
        while !self.refused {
            record = match &mut self.unroll {
                Unroll::Values(values) => match values.push(&self.ground, record) {
                    None => return Ok(Pushed::Kept),
                    Some(record) => record,
                },
                Unroll::Bytes(bytes) => {
                    if bytes.push(&self.ground, &record)? {
                        return Ok(Pushed::Kept);
                    }
                    record
                }
                Unroll::Taken => record,
            };
            self.refuse_or_spill()?;
        }
        Ok(Pushed::Refused(record))
    }

    /// Moves all records of `batch` into the block; those that stay in it were refused.
    ///
    /// # Errors
    /// As [`push`](Self::push); what then stays in `batch`, the bad record with it, is not part of the block. So it is
    /// when a record's own code panics while it is encoded.
    pub fn append(&mut self, batch: &mut Vec<T>) -> Result<(), Error> {
        while !self.refused && !batch.is_empty() {
            match &mut self.unroll {
                Unroll::Values(values) => values.append(&self.ground, batch),
                Unroll::Bytes(bytes) => {
                    let appending = Appending { before: bytes.records(), bytes, batch };
                    appending.bytes.push_all(&self.ground, appending.batch)?;
                }
                Unroll::Taken => {}
            }
            if !batch.is_empty() {
                self.refuse_or_spill()?;
            }
        }
        Ok(())
    }

    /// Appends records by reference; how many were kept before memory was refused. Levels that keep bytes encode
    /// them where they lie, levels that keep values clone them.
    ///
    /// # Errors
    /// As [`push`](Self::push); some of the records are then part of the block.
    pub fn push_slice(&mut self, records: &[T]) -> Result<usize, Error>
    where
        T: Clone,
    {
        let mut kept = 0;
        while let Some(rest) = records.get(kept..).filter(|rest| !self.refused && !rest.is_empty()) {
            match &mut self.unroll {
                Unroll::Values(values) => {
                    let piece = rest.get(..COPIED_RECORDS_MAX.min(rest.len())).unwrap_or_default();
                    match values.paid_copies(&self.ground, piece) {
                        Some(mut batch) => {
                            self.append(&mut batch)?;
                            kept += piece.len() - batch.len();
                        }
                        None => {
                            kept += values.copy_one_by_one(&self.ground, piece);
                            self.refuse_or_spill()?;
                        }
                    }
                }
                Unroll::Bytes(bytes) => {
                    let before = bytes.records();
                    bytes.push_all(&self.ground, rest)?;
                    kept += (bytes.records() - before) as usize;
                    if kept < records.len() {
                        self.refuse_or_spill()?;
                    }
                }
                Unroll::Taken => break,
            }
        }
        Ok(kept)
    }

    /// Marks where the next record begins, for who wants to read the block from there with
    /// [`StoredDataset::get_range`](crate::StoredDataset::get_range). A chunk of 8 KiB or more is closed at the mark, so that
    /// long ranges have chunks of their own and short ones share few.
    ///
    /// # Errors
    /// [`Error::Disk`] when the chunk is written to disk and cannot be.
    pub fn mark(&mut self) -> Result<Mark, Error> {
        match &mut self.unroll {
            Unroll::Values(values) => Ok(Mark::of_value(values.records())),
            // What is on disk of a block of values may be written anew, with other chunks.
            Unroll::Bytes(bytes) if self.inner.facts.level.is_deserialized() => {
                Ok(Mark::of_value(bytes.records()))
            }
            Unroll::Bytes(bytes) => bytes.mark(&self.ground),
            Unroll::Taken => Ok(Mark::of_value(0)),
        }
    }

    /// Memory was refused: on to disk where the level has one, else an end of it.
    #[cold]
    fn refuse_or_spill(&mut self) -> Result<(), Error> {
        let values = match &mut self.unroll {
            Unroll::Values(values) if self.inner.facts.level.uses_disk() => values,
            unroll => {
                if let Unroll::Values(values) = unroll {
                    values.close();
                }
                self.refused = true;
                return Ok(());
            }
        };
        // By reference: if the disk is full too, what was kept stays kept.
        let mut bytes = BytesUnroll::on_disk();
        for run in values.runs() {
            bytes.push_all(&self.ground, run)?;
        }
        self.unroll = Unroll::Bytes(bytes);
        Ok(())
    }

    /// Stores the block, unless memory was refused.
    ///
    /// # Errors
    /// [`Error::Disk`] when the rest of the block cannot be written; nothing of it is then stored.
    pub fn finish(mut self) -> Result<Finished<T>, Error> {
        if self.refused {
            return Ok(Finished::Refused(self.into_unrolled()));
        }
        let (memory, disk) = match std::mem::replace(&mut self.unroll, Unroll::Taken) {
            Unroll::Values(mut values) => {
                if !values.measure(&self.ground) {
                    self.unroll = Unroll::Values(values);
                    self.refuse_or_spill()?;
                    return self.finish();
                }
                (Some(Form::Values(values.finish())), None)
            }
            Unroll::Bytes(mut unroll) => {
                let Some(bytes) = unroll.finish(&self.ground)? else {
                    self.unroll = Unroll::Bytes(unroll);
                    self.refused = true;
                    return Ok(Finished::Refused(self.into_unrolled()));
                };
                match unroll.mode() {
                    Some(mode) => (Some(Form::Bytes { mode, bytes }), None),
                    None => (None, Some(Arc::new(bytes))),
                }
            }
            Unroll::Taken => (None, None),
        };
        let memory = memory.map(|form| self.inner.copy(self.partition, form));
        Ok(Finished::Stored(self.publish(memory, disk)))
    }

    fn publish(
        &mut self,
        memory: Option<Arc<MemoryCopy<T>>>,
        disk: Option<Arc<SerializedBlock>>,
    ) -> Block<T> {
        let compute_nanos = self.compute_nanos();
        let facts = &self.inner.facts;
        let empty = || Arc::new(SerializedBlock::new(facts.kind.codec.id(), facts.compression, Vec::new()));
        let block = match &memory {
            Some(copy) => Block::in_memory(Arc::clone(copy)),
            None => self.inner.disk_block(self.partition, &disk.clone().unwrap_or_else(empty)),
        };
        let replicas = self.replicate(&block);
        let bytes = memory.as_ref().map_or(0, |copy| copy.charged_bytes())
            + disk.as_ref().map_or(0, |bytes| bytes.stored_bytes());
        let stored = Stored {
            replicas,
            memory: memory.map(|copy| self.inner.list(copy, None, compute_nanos)),
            disk,
            memory_bytes: 0,
            compute_nanos,
        };
        // A block that was removed while it was written is the caller's alone.
        let (unlisted, again) = self.inner.table.publish(self.partition, &self.flight, stored);
        self.flight.settle(unlisted.is_none().then(|| block.clone()));
        match unlisted {
            None => self.count_stored(&block, bytes),
            Some(unlisted) => {
                self.inner.remove_replicas(self.partition, Some(unlisted.replicas));
                drop(unlisted);
            }
        }
        self.count_computed(compute_nanos, again);
        block
    }

    fn count_stored(&self, block: &Block<T>, bytes: u64) {
        let facts = &self.inner.facts;
        let residence = block.residence();
        facts.counters.stored.add(1);
        self.inner.core.events.emit(|| Event::Stored { block: block.id(), residence, bytes });
        if residence == Residence::Disk && facts.level.uses_memory() {
            facts.counters.spills.add(1);
            facts.counters.spilled_bytes.add(bytes);
            self.inner.core.events.emit(|| Event::Spilled { block: block.id(), bytes });
        }
    }

    /// Nanoseconds since the block was granted to this writer.
    fn compute_nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn count_computed(&self, compute_nanos: u64, again: bool) {
        let counters = &self.inner.facts.counters;
        let counter = if again { &counters.recomputed } else { &counters.computed };
        counter.add(1);
        counters.compute_nanos.add(compute_nanos);
        self.inner.core.events.emit(|| Event::Computed { block: self.id(), again });
    }

    /// Places further copies; how many there are in all.
    fn replicate(&self, block: &Block<T>) -> u8 {
        let wanted = self.inner.facts.level.replication();
        if wanted <= 1 {
            return 1;
        }
        let placed = 1 + self.inner.replicate(block, wanted - 1);
        if placed < wanted {
            self.inner.core.events.emit(|| Event::UnderReplicated { block: block.id(), wanted, placed });
        }
        placed
    }

    /// Gives the block up and takes back the records that were kept so far.
    #[must_use]
    pub fn into_unrolled(mut self) -> Unrolled<T> {
        if self.refused {
            self.inner.facts.counters.refused.add(1);
            self.inner.core.events.emit(|| Event::Refused { block: self.id() });
            let again = self.inner.table.note_computed(self.partition);
            self.count_computed(self.compute_nanos(), again);
        }
        match std::mem::replace(&mut self.unroll, Unroll::Taken) {
            Unroll::Values(values) => Unrolled::of_values(values.finish()),
            Unroll::Bytes(bytes) => {
                let mode = bytes.mode().unwrap_or(MemoryMode::Heap);
                let form = Form::Bytes { mode, bytes: bytes.into_kept(&self.ground) };
                Unrolled::of_bytes(Block::in_memory(self.inner.copy(self.partition, form)))
            }
            Unroll::Taken => Unrolled::empty(),
        }
    }

    /// Gives the block up, with all that was pushed. Dropping the writer does the same.
    pub fn abort(self) {}
}

/// A batch that is encoded. What the block has of it leaves it, even when a record's own code panics.
struct Appending<'a, T> {
    before: u64,
    bytes: &'a mut BytesUnroll,
    batch: &'a mut Vec<T>,
}

impl<T> Drop for Appending<'_, T> {
    fn drop(&mut self) {
        let kept = usize::try_from(self.bytes.records() - self.before).unwrap_or(usize::MAX);
        if kept >= self.batch.len() {
            self.batch.clear();
        } else {
            drop(self.batch.drain(..kept));
        }
    }
}

impl<T: Send + Sync + 'static> Drop for BlockWriter<T> {
    fn drop(&mut self) {
        self.inner.table.withdraw(self.partition, &self.flight);
        self.flight.settle(None);
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for BlockWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockWriter")
            .field("block", &self.id())
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}
