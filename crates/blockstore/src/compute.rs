//! Computing a block that is not there.

use std::fmt;
use std::sync::Arc;

use crate::block::Block;
use crate::dataset::Inner;
use crate::entry::Entry;
use crate::error::Error;
use crate::residence::Form;
use crate::unrolled::Unrolled;
use crate::writer::{BlockWriter, Finished, Pushed};

/// Where a computation pushes its records. Given to the closure of
/// [`get_or_compute`](crate::StoredDataset::get_or_compute).
pub struct Sink<T: Send + Sync + 'static> {
    writer: BlockWriter<T>,
    rest: Vec<T>,
}

impl<T: Send + Sync + 'static> Sink<T> {
    /// Appends a record. It never comes back: what a store without disk refuses is kept for the caller alone, on
    /// the heap and charged to nobody, and the block is not stored.
    ///
    /// # Errors
    /// [`Error::Encode`] and [`Error::Disk`]. Return it from the closure; nothing is then stored.
    #[inline]
    pub fn push(&mut self, record: T) -> Result<(), Error> {
        if let Pushed::Refused(record) = self.writer.push(record)? {
            self.rest.push(record);
        }
        Ok(())
    }

    /// Moves all records of `batch` into the block, as [`push`](Self::push) does one.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn append(&mut self, batch: &mut Vec<T>) -> Result<(), Error> {
        self.writer.append(batch)?;
        self.rest.append(batch);
        Ok(())
    }

    fn finish(self) -> Result<Block<T>, Error> {
        let Self { writer, rest } = self;
        let inner = Arc::clone(writer.inner());
        let partition = writer.id().partition;
        match writer.finish()? {
            Finished::Stored(block) => Ok(block),
            Finished::Refused(unrolled) => {
                let values = unrolled.into_values(rest)?;
                Ok(Block::in_memory(inner.copy(partition, Form::Values(values))))
            }
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Sink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("block", &self.writer.id()).finish_non_exhaustive()
    }
}

/// A block that was read or computed. Made by
/// [`get_or_compute_iter`](crate::StoredDataset::get_or_compute_iter).
#[derive(Debug)]
#[must_use = "a refused block's records are in here"]
pub enum Computed<T: Send + Sync + 'static, I> {
    /// It is stored; here it is, pinned.
    Stored(Block<T>),
    /// Memory is short and the level has no disk: nothing is stored. Here are the records.
    Uncached(Uncached<T, I>),
}

/// The records of a block that was refused: what was kept before, then the rest of the computation, each record
/// once, in order, and no more of them in memory than were kept.
#[derive(Debug)]
pub struct Uncached<T, I> {
    unrolled: Unrolled<T>,
    refused: Option<T>,
    rest: I,
}

impl<T: 'static, I, E> Iterator for Uncached<T, I>
where
    I: Iterator<Item = Result<T, E>>,
    E: From<Error>,
{
    type Item = Result<T, E>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(record) = self.unrolled.next() {
            return Some(record.map_err(E::from));
        }
        self.refused.take().map(Ok).or_else(|| self.rest.next())
    }
}

impl<T: Send + Sync + 'static> Inner<T> {
    pub(crate) fn get_or_compute<E: From<Error>>(
        self: &Arc<Self>,
        partition: u32,
        compute: impl FnOnce(&mut Sink<T>) -> Result<(), E>,
    ) -> Result<Block<T>, E> {
        match self.block_or_writer(partition)? {
            BlockOrWriter::Block(block) => Ok(block),
            BlockOrWriter::Writer(writer) => {
                let mut sink = Sink { writer, rest: Vec::new() };
                compute(&mut sink)?;
                Ok(sink.finish()?)
            }
        }
    }

    pub(crate) fn get_or_compute_iter<I, E>(
        self: &Arc<Self>,
        partition: u32,
        compute: impl FnOnce() -> Result<I, E>,
    ) -> Result<Computed<T, I>, E>
    where
        I: Iterator<Item = Result<T, E>>,
        E: From<Error>,
    {
        let mut writer = match self.block_or_writer(partition)? {
            BlockOrWriter::Block(block) => return Ok(Computed::Stored(block)),
            BlockOrWriter::Writer(writer) => writer,
        };
        let mut records = compute()?;
        for record in records.by_ref() {
            if let Pushed::Refused(record) = writer.push(record?)? {
                let unrolled = writer.into_unrolled();
                return Ok(Computed::Uncached(Uncached { unrolled, refused: Some(record), rest: records }));
            }
        }
        Ok(match writer.finish()? {
            Finished::Stored(block) => Computed::Stored(block),
            Finished::Refused(unrolled) => {
                Computed::Uncached(Uncached { unrolled, refused: None, rest: records })
            }
        })
    }

    /// The block, or the right to write it, after waiting for whoever had it.
    fn block_or_writer(self: &Arc<Self>, partition: u32) -> Result<BlockOrWriter<T>, Error> {
        loop {
            match self.entry(partition)? {
                Entry::Resident(block) => return Ok(BlockOrWriter::Block(block)),
                Entry::Vacant(mut writer) => {
                    writer.computes_on_this_thread();
                    return Ok(BlockOrWriter::Writer(writer));
                }
                Entry::InFlight(flight) => {
                    if let Some(block) = flight.wait()? {
                        return Ok(BlockOrWriter::Block(block));
                    }
                }
            }
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "moved once a block; a box would cost every push")]
enum BlockOrWriter<T: Send + Sync + 'static> {
    Block(Block<T>),
    Writer(BlockWriter<T>),
}
