//! `zip_with_index`: each record with its position in the dataset.

use std::sync::Arc;

use larder_lineage::NodeId;

use crate::context::Context;
use crate::data::Data;
use crate::dataset::Dataset;
use crate::error::{Error, TaskError};
use crate::node::{Compute, Node};
use crate::ops::records::Number;
use crate::pipeline::any_operator;
use crate::prepared::{Find, Prepared};
use crate::task::Task;

impl<T: Data> Dataset<T> {
    /// Each record with its position, from 0. With more than one partition, the first action runs a job of its own
    /// that counts all partitions but the last.
    #[must_use]
    pub fn zip_with_index(&self) -> Dataset<(T, u64)> {
        let find = CountPartitions::<T> {
            parent: self.id(),
            partitions: self.partitions(),
            records: std::marker::PhantomData,
        };
        let starts = Arc::new(Prepared::new(find));
        let prepare = Arc::clone(&starts);
        let start = move |task: &Task, partition: u32| -> Result<_, TaskError> {
            let starts = starts.get(task.context())?;
            let next = starts.get(partition as usize).copied().unwrap_or_default();
            Ok(any_operator::<T, (T, u64)>(Number { next }))
        };
        let compute = Compute::Records(Arc::new(start));
        let node = Node::new::<(T, u64)>("zip_with_index", self.partitions(), None, compute, Some(prepare));
        self.one_to_one(node)
    }
}

/// Finds the position at which each partition starts.
struct CountPartitions<T> {
    parent: NodeId,
    partitions: u32,
    records: std::marker::PhantomData<fn(T)>,
}

impl<T: Data> Find<Vec<u64>> for CountPartitions<T> {
    fn find(&self, context: &Context) -> Result<Vec<u64>, Error> {
        let counted: Vec<u32> = (0..self.partitions.saturating_sub(1)).collect();
        let counts = context.run_job(self.parent, &counted, &|_, _, pipeline| pipeline.count::<T>())?;
        let mut next = 0;
        let mut starts = vec![0];
        starts.extend(counts.into_iter().map(|count| {
            next += count;
            next
        }));
        Ok(starts)
    }
}
