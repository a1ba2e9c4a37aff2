//! Sources that do their work when the first record is asked for, and hand on a stream's records from then on.

use crate::batch::{BATCH_RECORDS, Batch};
use crate::data::Portable;
use crate::error::TaskError;
use crate::pipeline::{AnySource, Source};
use crate::spill::heap_bytes;

/// Records of a batch that nobody else is charged for own no more than about this.
pub(crate) const BATCH_BYTES: usize = 256 << 10;

/// Records one after the other.
pub(crate) trait Stream<T> {
    /// The next record, or none at the end.
    fn next(&mut self) -> Result<Option<T>, TaskError>;

    /// Whether its records stay charged while it lives. If not, they are handed on in small batches.
    fn is_charged(&self) -> bool;
}

/// Up to `records_max` records of a stream.
pub(crate) fn next_batch<T: Portable>(
    stream: &mut impl Stream<T>,
    records_max: usize,
) -> Result<Option<Batch<T>>, TaskError> {
    let records_max = records_max.clamp(1, BATCH_RECORDS);
    let is_charged = stream.is_charged();
    let mut batch = Vec::new();
    let mut bytes = 0;
    while batch.len() < records_max && bytes < BATCH_BYTES {
        let Some(record) = stream.next()? else { break };
        if !is_charged {
            bytes += size_of::<T>() + heap_bytes(&record);
        }
        batch.push(record);
    }
    Ok(if batch.is_empty() { None } else { Some(Batch::Owned(batch)) })
}

/// A source around pipelines of at most this depth.
pub(crate) fn deferred<T, R, S>(depth: u32, start: S) -> AnySource
where
    T: 'static,
    R: Source<T> + 'static,
    S: FnOnce() -> Result<R, TaskError> + 'static,
{
    AnySource::around::<T>(depth, Deferred { start: Some(start), records: None })
}

struct Deferred<R, S> {
    start: Option<S>,
    records: Option<R>,
}

impl<T, R: Source<T>, S: FnOnce() -> Result<R, TaskError>> Source<T> for Deferred<R, S> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        if let Some(start) = self.start.take() {
            self.records = Some(start()?);
        }
        let Some(records) = &mut self.records else { return Ok(None) };
        let batch = records.next(records_max)?;
        if batch.is_none() {
            self.records = None;
        }
        Ok(batch)
    }
}

/// The records of a stream.
pub(crate) struct Streamed<S>(pub(crate) S);

impl<T: Portable, S: Stream<T>> Source<T> for Streamed<S> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        next_batch(&mut self.0, records_max)
    }
}

/// The records of an iterator.
pub(crate) struct Iterated<I>(pub(crate) I);

impl<I: Iterator> Source<I::Item> for Iterated<I> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<I::Item>>, TaskError> {
        let batch: Vec<I::Item> = self.0.by_ref().take(records_max.min(BATCH_RECORDS)).collect();
        Ok(if batch.is_empty() { None } else { Some(Batch::Owned(batch)) })
    }
}
