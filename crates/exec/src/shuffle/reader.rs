//! The input of a reduce task.

use std::sync::Arc;

use larder_blockstore::OwnedBatches;

use super::Shared;
use super::output::Round;
use crate::batch::Batch;
use crate::data::Portable;
use crate::error::{Cause, TaskError};
use crate::pipeline::Source;

/// Reads a reduce partition, map output by map output and round by round: its slice of each block.
pub(super) struct Reader<W: Portable> {
    shared: Arc<Shared<W>>,
    reduce_partition: u32,
    maps: u32,
    next_map: u32,
    /// Of the last map output that was begun.
    rounds: Arc<[Round]>,
    next_round: usize,
    open: Option<Open<W>>,
}

struct Open<W> {
    slice: OwnedBatches<W>,
    batch_records: usize,
}

impl<W: Portable> Reader<W> {
    pub(super) fn new(shared: &Arc<Shared<W>>, reduce_partition: u32) -> Self {
        let (shared, rounds) = (Arc::clone(shared), Arc::new([]));
        let maps = shared.maps();
        Self { shared, reduce_partition, maps, next_map: 0, rounds, next_round: 0, open: None }
    }

    /// Opens the next slice that has records; none at the end.
    fn open_next(&mut self) -> Result<Option<Open<W>>, TaskError> {
        loop {
            while let Some(round) = self.rounds.get(self.next_round) {
                self.next_round += 1;
                let Some((start, records)) = round.slice(self.reduce_partition) else { continue };
                let slice = match self.shared.blocks.get_range(round.block, start, records) {
                    Ok(Some(slice)) => slice,
                    Ok(None) => return Err(self.lost()),
                    Err(error) => return Err(self.failed(error)),
                };
                return Ok(Some(Open { slice, batch_records: round.batch_records }));
            }
            if self.next_map >= self.maps {
                return Ok(None);
            }
            self.rounds = self.shared.rounds_of(self.next_map).ok_or(TaskError::Lost)?;
            self.next_round = 0;
            self.next_map += 1;
        }
    }

    fn failed(&self, error: larder_blockstore::Error) -> TaskError {
        if error.is_lost_copy() { self.lost() } else { Cause::from(error).into() }
    }

    /// A block of the map output that is read is gone.
    fn lost(&self) -> TaskError {
        self.shared.lose(self.next_map - 1, &self.rounds);
        TaskError::Lost
    }
}

impl<W: Portable> Source<W> for Reader<W> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<W>>, TaskError> {
        loop {
            if let Some(Open { slice, batch_records }) = &mut self.open {
                match slice.next_owned(records_max.min(*batch_records)) {
                    Ok(Some(batch)) => return Ok(Some(Batch::Owned(batch))),
                    Ok(None) => {}
                    Err(error) => return Err(self.failed(error)),
                }
            }
            self.open = self.open_next()?;
            if self.open.is_none() {
                return Ok(None);
            }
        }
    }
}
