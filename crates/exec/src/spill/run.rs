//! Runs: records on disk in the order in which they were written, read as streams.

use std::cell::Cell;
use std::rc::Rc;

use larder_blockstore::codec::Bincode;
use larder_blockstore::{
    BlockWriter, Entry, Finished, Mark, OwnedBatches, Pushed, StorageLevel, StoredDataset,
};

use super::heap_bytes;
use crate::batch::BATCH_RECORDS;
use crate::data::Portable;
use crate::error::{Cause, TaskError};
use crate::task::Task;

/// Records of so many bytes make a block, which is what a reader has in memory at a time: few where memory is short, so that
/// many runs can be read at once, and more where it is not, since each costs a write and a free.
const BLOCK_BYTES_MIN: usize = 32 << 10;
const BLOCK_BYTES_MAX: usize = 512 << 10;

/// Blocks in the memory of the operator that spills.
const BLOCKS_A_MEMORY: u64 = 128;

/// The runs of one operator: blocks of one dataset on disk, removed when the last run or reader drops.
pub(crate) struct Spill<R: Portable> {
    blocks: StoredDataset<R>,
    next: Cell<u32>,
    block_bytes: usize,
}

impl<R: Portable> Spill<R> {
    /// For an operator that holds `memory_bytes`.
    ///
    /// # Errors
    /// The store's, when it has no disk.
    pub(crate) fn new(task: &Task, memory_bytes: u64) -> Result<Rc<Self>, TaskError> {
        let share = usize::try_from(memory_bytes / BLOCKS_A_MEMORY).unwrap_or(BLOCK_BYTES_MAX);
        let block_bytes = share.clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
        let context = task.context();
        let operation = context.node(task.place().node).map_or_else(|_| "?".into(), |node| node.name());
        let builder = context.store().dataset_with::<R>(&format!("spill of {operation}"), Bincode, |_| 0);
        let blocks = builder.level(StorageLevel::DISK_ONLY).build().map_err(Cause::from)?;
        Ok(Rc::new(Self { blocks, next: Cell::new(0), block_bytes }))
    }

    /// A writer for another block, whose number joins `blocks`.
    fn vacant(&self, blocks: &mut Vec<u32>) -> Result<BlockWriter<R>, TaskError> {
        let number = self.next.get();
        match self.blocks.entry(number).map_err(Cause::from)? {
            Entry::Vacant(writer) => {
                // Four thousand million blocks of 32 KiB are more than a task lives to write.
                self.next.set(number.wrapping_add(1));
                blocks.push(number);
                Ok(writer)
            }
            Entry::Resident(_) | Entry::InFlight(_) => Err(Cause::Internal.into()),
        }
    }
}

/// A finished run.
#[derive(Clone)]
pub(crate) struct Run {
    blocks: Vec<u32>,
    records: u64,
    bytes: u64,
    largest_bytes: usize,
    block_bytes: usize,
}

impl Run {
    /// What reading it takes: a block, and no more than that of records decoded from it.
    pub(crate) fn reader_bytes(&self) -> u64 {
        self.block_bytes.max(self.largest_bytes).saturating_mul(2) as u64
    }

    /// How many records are decoded at once.
    fn batch_records(&self) -> usize {
        let record_bytes = (self.bytes / self.records.max(1)).max(1);
        usize::try_from(self.block_bytes as u64 / record_bytes)
            .unwrap_or(BATCH_RECORDS)
            .clamp(1, BATCH_RECORDS)
    }
}

/// Writes one run.
pub(crate) struct RunWriter<R: Portable> {
    spill: Rc<Spill<R>>,
    block: Option<BlockWriter<R>>,
    block_bytes: usize,
    run: Run,
}

impl<R: Portable> RunWriter<R> {
    pub(crate) fn new(spill: &Rc<Spill<R>>) -> Self {
        let block_bytes = spill.block_bytes;
        let run = Run { blocks: Vec::new(), records: 0, bytes: 0, largest_bytes: 0, block_bytes };
        Self { spill: Rc::clone(spill), block: None, block_bytes: 0, run }
    }

    pub(crate) fn push(&mut self, record: R) -> Result<(), TaskError> {
        let bytes = size_of::<R>() + heap_bytes(&record);
        let block = match &mut self.block {
            Some(block) => block,
            None => self.block.insert(self.spill.vacant(&mut self.run.blocks)?),
        };
        match block.push(record).map_err(Cause::from)? {
            Pushed::Kept => {}
            // Nothing on disk is refused: the disk is full, which is an error, or takes it.
            Pushed::Refused(_) => return Err(Cause::Internal.into()),
        }
        self.run.records += 1;
        self.run.bytes += bytes as u64;
        self.run.largest_bytes = self.run.largest_bytes.max(bytes);
        self.block_bytes += bytes;
        if self.block_bytes >= self.run.block_bytes { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<(), TaskError> {
        let Some(block) = self.block.take() else { return Ok(()) };
        let Finished::Stored(_) = block.finish().map_err(Cause::from)? else {
            return Err(Cause::Internal.into());
        };
        self.block_bytes = 0;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<Run, TaskError> {
        self.end_block()?;
        Ok(self.run)
    }
}

/// Reads one run, a block at a time.
pub(crate) struct RunReader<R: Portable> {
    spill: Rc<Spill<R>>,
    blocks: std::vec::IntoIter<u32>,
    batch_records: usize,
    /// Whether blocks stay when they are read, for another reader.
    keeps: bool,
    open: Option<(u32, OwnedBatches<R>)>,
    batch: std::vec::IntoIter<R>,
}

impl<R: Portable> RunReader<R> {
    /// Reads a run for the last time: its disk space is returned block by block.
    pub(crate) fn last(spill: &Rc<Spill<R>>, run: Run) -> Self {
        let batch_records = run.batch_records();
        let (spill, blocks) = (Rc::clone(spill), run.blocks.into_iter());
        Self { spill, blocks, batch_records, keeps: false, open: None, batch: Vec::new().into_iter() }
    }

    /// Reads a run that will be read again.
    pub(crate) fn again(spill: &Rc<Spill<R>>, run: &Run) -> Self {
        Self { keeps: true, ..Self::last(spill, run.clone()) }
    }

    pub(crate) fn next(&mut self) -> Result<Option<R>, TaskError> {
        loop {
            if let Some(record) = self.batch.next() {
                return Ok(Some(record));
            }
            if !self.refill()? {
                return Ok(None);
            }
        }
    }

    /// Decodes the next batch; false at the end.
    fn refill(&mut self) -> Result<bool, TaskError> {
        loop {
            if let Some((number, block)) = &mut self.open {
                if let Some(batch) = block.next_owned(self.batch_records).map_err(Cause::from)? {
                    self.batch = batch.into_iter();
                    return Ok(true);
                }
                let number = *number;
                self.open = None;
                if !self.keeps {
                    self.spill.blocks.remove(number);
                }
            }
            let Some(number) = self.blocks.next() else { return Ok(false) };
            // Only who removed the dataset from the store can have taken it: the task begins again.
            let block = self.spill.blocks.get_range(number, Mark::START, u64::MAX).map_err(Cause::from)?;
            self.open = Some((number, block.ok_or(TaskError::Lost)?));
        }
    }
}
