//! `cartesian`: every record of the left partition with every record of the right one.

use std::marker::PhantomData;

use crate::batch::{BATCH_RECORDS, Batch, SharedBatch};
use crate::data::Data;
use crate::error::TaskError;
use crate::node::WholeInputs;
use crate::pipeline::{AnySource, Pipeline, Source};
use crate::task::Task;

pub(crate) struct Cartesian<T, U>(pub(crate) PhantomData<fn() -> (T, U)>);

impl<T: Data, U: Data> WholeInputs for Cartesian<T, U> {
    fn open(&self, _task: &Task, _partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError> {
        let [left, right] = <[_; 2]>::try_from(inputs).map_err(|_| TaskError::Stale)?;
        let depth = left.depth().max(right.depth());
        let product = Product::<T, U> {
            left,
            left_batch: None,
            left_next: 0,
            right: Right::Unread(right),
            right_batch: 0,
            right_next: 0,
        };
        Ok(AnySource::around(depth, product))
    }
}

/// Left records in order, each with all right records. The right partition is held in memory, or pinned.
struct Product<T, U> {
    left: Pipeline,
    left_batch: Option<Batch<T>>,
    left_next: usize,
    right: Right<U>,
    right_batch: usize,
    right_next: usize,
}

enum Right<U> {
    Unread(Pipeline),
    Read(Vec<SharedBatch<U>>),
}

impl<U: Data> Right<U> {
    fn read(&mut self) -> Result<&[SharedBatch<U>], TaskError> {
        if let Self::Unread(pipeline) = self {
            let mut batches = Vec::new();
            pipeline.for_each_batch(|batch| {
                batches.push(batch.share());
                Ok(())
            })?;
            *self = Self::Read(batches);
        }
        match self {
            Self::Read(batches) => Ok(batches),
            Self::Unread(_) => Ok(&[]),
        }
    }
}

impl<T: Data, U: Data> Source<(T, U)> for Product<T, U> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<(T, U)>>, TaskError> {
        let wanted = records_max.min(BATCH_RECORDS);
        let mut pairs = Vec::new();
        let right = self.right.read()?;
        while pairs.len() < wanted && !right.is_empty() {
            let lefts = self.left_batch.as_ref().map(Batch::as_slice).unwrap_or_default();
            let Some(left) = lefts.get(self.left_next) else {
                self.left_batch = self.left.next(BATCH_RECORDS)?;
                self.left_next = 0;
                if self.left_batch.is_none() {
                    break;
                }
                continue;
            };
            let Some(batch) = right.get(self.right_batch) else {
                self.left_next += 1;
                self.right_batch = 0;
                self.right_next = 0;
                continue;
            };
            let batch = Batch::Shared(batch.clone());
            let rest = batch.as_slice().get(self.right_next..).unwrap_or_default();
            let taken = rest.len().min(wanted - pairs.len());
            pairs.extend(rest.iter().take(taken).map(|right| (left.clone(), right.clone())));
            self.right_next += taken;
            if self.right_next >= batch.len() {
                self.right_batch += 1;
                self.right_next = 0;
            }
        }
        Ok(if pairs.is_empty() { None } else { Some(Batch::Owned(pairs)) })
    }
}
