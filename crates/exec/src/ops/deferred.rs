//! Sources that do their work when the first record is asked for, and hand on an iterator's records from then on.

use crate::batch::{BATCH_RECORDS, Batch};
use crate::error::TaskError;
use crate::pipeline::{AnySource, Source};

/// A source around pipelines of at most this depth.
pub(crate) fn deferred<I, S>(depth: u32, start: S) -> AnySource
where
    I: Iterator<Item: 'static> + 'static,
    S: FnOnce() -> Result<I, TaskError> + 'static,
{
    AnySource::around(depth, Deferred { start: Some(start), records: None })
}

struct Deferred<I, S> {
    start: Option<S>,
    records: Option<I>,
}

impl<I: Iterator, S: FnOnce() -> Result<I, TaskError>> Source<I::Item> for Deferred<I, S> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<I::Item>>, TaskError> {
        if let Some(start) = self.start.take() {
            self.records = Some(start()?);
        }
        let Some(records) = &mut self.records else { return Ok(None) };
        let batch: Vec<I::Item> = records.take(records_max.min(BATCH_RECORDS)).collect();
        if batch.is_empty() {
            self.records = None;
            return Ok(None);
        }
        Ok(Some(Batch::Owned(batch)))
    }
}
