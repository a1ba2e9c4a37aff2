//! Datasets of what is in memory already.

use std::rc::Rc;
use std::sync::Arc;

use crate::batch::{Batch, SharedCursor, Slices};
use crate::context::Context;
use crate::data::Data;
use crate::dataset::Dataset;
use crate::error::{Error, TaskError};
use crate::node::{Compute, Node};
use crate::pipeline::{AnySource, Source};
use crate::transform::argument;

impl Context {
    /// The records of a collection, in this many partitions of about equal size. The dataset keeps the collection,
    /// uncharged.
    ///
    /// # Errors
    /// [`Error::Argument`] for zero partitions, unless there is no record.
    pub fn parallelize<T: Data>(&self, records: Vec<T>, partitions: u32) -> Result<Dataset<T>, Error> {
        if partitions == 0 && !records.is_empty() {
            let problem = format!("{} records need at least one partition", records.len());
            return Err(argument("parallelize", problem));
        }
        let records = Arc::new(records);
        let open = move |_: &_, partition: u32| {
            let bound = |partition: u32| {
                (u64::from(partition) * records.len() as u64)
                    .checked_div(partitions.into())
                    .unwrap_or_default() as usize
            };
            let part =
                Part { records: Arc::clone(&records), start: bound(partition), end: bound(partition + 1) };
            Ok(AnySource::flat(Collection(SharedCursor::new(Rc::new(part), 1))))
        };
        let compute = Compute::Leaf(Arc::new(open));
        self.add(Node::new::<T>("parallelize", partitions, None, compute, None), Vec::new())
    }
}

/// One partition's share of a collection.
struct Part<T> {
    records: Arc<Vec<T>>,
    start: usize,
    end: usize,
}

impl<T> Slices<T> for Part<T> {
    fn slice(&self, index: usize) -> &[T] {
        match index {
            0 => self.records.get(self.start..self.end).unwrap_or_default(),
            _ => &[],
        }
    }
}

struct Collection<T>(SharedCursor<T>);

impl<T: Data> Source<T> for Collection<T> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        Ok(self.0.next(records_max))
    }
}
