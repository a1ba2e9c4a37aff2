//! Records of a block that was refused, on their way back to the caller.

use std::fmt;

use crate::block::{Block, OwnedBatches};
use crate::error::Error;
use crate::memory::Reservation;
use crate::residence::Values;

/// The records that were kept before memory was refused, each once, in order.
///
/// What they were charged is given back when they are drained or this is dropped.
pub struct Unrolled<T> {
    source: Source<T>,
    batch: std::vec::IntoIter<T>,
}

enum Source<T> {
    Values { runs: std::vec::IntoIter<Vec<T>>, charge: Option<Reservation> },
    Bytes(OwnedBatches<T>),
    Drained,
}

impl<T> Unrolled<T> {
    pub(crate) fn empty() -> Self {
        Self { source: Source::Drained, batch: Vec::new().into_iter() }
    }

    pub(crate) fn of_values(values: Values<T>) -> Self {
        let source = Source::Values { runs: values.runs.into_iter(), charge: values.charge };
        Self { source, batch: Vec::new().into_iter() }
    }
}

impl<T: 'static> Unrolled<T> {
    pub(crate) fn of_bytes(block: Block<T>) -> Self {
        Self { source: Source::Bytes(block.into_batches()), batch: Vec::new().into_iter() }
    }

    /// The next records as a batch of their own, or none at the end.
    ///
    /// # Errors
    /// [`Error::Decode`] when the codec disagrees with what it wrote.
    pub fn next_batch(&mut self) -> Result<Option<Vec<T>>, Error> {
        if self.batch.len() > 0 {
            return Ok(Some(std::mem::take(&mut self.batch).collect()));
        }
        let next = match &mut self.source {
            Source::Values { runs, .. } => Ok(runs.find(|run| !run.is_empty())),
            Source::Bytes(batches) => batches.next_decoded(usize::MAX),
            Source::Drained => Ok(None),
        };
        if !matches!(next, Ok(Some(_))) {
            self.source = Source::Drained;
        }
        next
    }

    /// All records as values, with what they are charged; `rest` after them, charged to nobody.
    pub(crate) fn into_values(mut self, rest: Vec<T>) -> Result<Values<T>, Error> {
        let mut runs: Vec<Vec<T>> = Vec::new();
        let mut charge = None;
        match std::mem::replace(&mut self.source, Source::Drained) {
            Source::Values { runs: kept, charge: charged } => {
                runs.extend(kept);
                charge = charged;
            }
            Source::Bytes(mut batches) => {
                while let Some(batch) = batches.next_decoded(usize::MAX)? {
                    runs.push(batch);
                }
            }
            Source::Drained => {}
        }
        runs.push(rest);
        let records = runs.iter().map(|run| run.len() as u64).sum();
        Ok(Values { runs, records, charge })
    }
}

impl<T: 'static> Iterator for Unrolled<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.batch.next() {
                return Some(Ok(record));
            }
            match self.next_batch() {
                Ok(batch) => self.batch = batch?.into_iter(),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

impl<T> fmt::Debug for Unrolled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unrolled").finish_non_exhaustive()
    }
}
