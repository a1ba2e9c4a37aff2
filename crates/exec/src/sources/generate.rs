//! Datasets that a function makes.

use std::ops::Range;
use std::sync::Arc;

use crate::batch::{BATCH_RECORDS, Batch};
use crate::context::Context;
use crate::data::Data;
use crate::dataset::Dataset;
use crate::error::{Error, TaskError};
use crate::node::{Compute, Node};
use crate::ops::deferred::{Iterated, deferred};
use crate::pipeline::{AnySource, Source};
use crate::transform::argument;

impl Context {
    /// The integers of a range, in this many partitions of about equal size.
    ///
    /// # Errors
    /// [`Error::Argument`] for zero partitions, unless the range is empty.
    pub fn range(&self, range: Range<i64>, partitions: u32) -> Result<Dataset<i64>, Error> {
        if partitions == 0 && !range.is_empty() {
            return Err(argument("range", "at least one partition is needed".to_owned()));
        }
        let len = (i128::from(range.end) - i128::from(range.start)).max(0);
        let bound = move |partition: u32| {
            let offset = (len * i128::from(partition)).checked_div(partitions.into()).unwrap_or_default();
            // Lies within the range.
            (i128::from(range.start) + offset) as i64
        };
        let open = move |_: &_, partition: u32| {
            Ok(AnySource::flat(Integers(bound(partition)..bound(partition + 1))))
        };
        self.add(Node::new::<i64>("range", partitions, None, Compute::Leaf(Arc::new(open)), None), Vec::new())
    }

    /// What a function makes for each partition. It is called again whenever the partition is computed again, and
    /// must make the same records then.
    ///
    /// # Errors
    /// None in practice: a source cannot be refused.
    pub fn generate<I>(
        &self,
        partitions: u32,
        f: impl Fn(u32) -> I + Send + Sync + 'static,
    ) -> Result<Dataset<I::Item>, Error>
    where
        I: IntoIterator<Item: Data, IntoIter: 'static> + 'static,
    {
        let f = Arc::new(f);
        let open = move |_: &_, partition: u32| {
            let f = Arc::clone(&f);
            Ok(deferred(0, move || Ok(Iterated(f(partition).into_iter()))))
        };
        let compute = Compute::Leaf(Arc::new(open));
        self.add(Node::new::<I::Item>("generate", partitions, None, compute, None), Vec::new())
    }
}

struct Integers(Range<i64>);

impl Source<i64> for Integers {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<i64>>, TaskError> {
        let batch: Vec<i64> = self.0.by_ref().take(records_max.min(BATCH_RECORDS)).collect();
        Ok(if batch.is_empty() { None } else { Some(Batch::Owned(batch)) })
    }
}
