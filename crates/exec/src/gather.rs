//! Running a pipeline into memory: where pipelines would stand too deep in each other, and where one partition is
//! read twice in one task.

use std::collections::VecDeque;
use std::rc::Rc;

use crate::batch::{Batch, SharedBatch};
use crate::data::Data;
use crate::error::TaskError;
use crate::pipeline::{AnySource, Pipeline, Source};
use crate::task::Place;

/// A partition in memory that can be read again and again.
pub(crate) trait Replay {
    fn replay(&self) -> Pipeline;
}

/// Runs a pipeline into memory and gives one that reads it from there, of depth zero.
pub(crate) fn gather<T: Data>(place: Place, mut pipeline: Pipeline) -> Result<Pipeline, TaskError> {
    let mut batches = VecDeque::new();
    pipeline.for_each_batch::<T>(|batch| {
        batches.push_back(batch);
        Ok(())
    })?;
    Ok(Pipeline::new(pipeline.task(), place, AnySource::flat(Gathered(batches))))
}

struct Gathered<T>(VecDeque<Batch<T>>);

impl<T> Source<T> for Gathered<T> {
    fn next(&mut self, _records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        Ok(self.0.pop_front())
    }
}

/// Runs a pipeline into memory, to be read several times.
pub(crate) fn share<T: Data>(place: Place, mut pipeline: Pipeline) -> Result<Box<dyn Replay>, TaskError> {
    let mut batches = Vec::new();
    pipeline.for_each_batch::<T>(|batch| {
        batches.push(batch.share());
        Ok(())
    })?;
    Ok(Box::new(Replayed { place, pipeline, batches: batches.into() }))
}

struct Replayed<T> {
    place: Place,
    /// At its end; kept for its task.
    pipeline: Pipeline,
    batches: Rc<[SharedBatch<T>]>,
}

impl<T: Data> Replay for Replayed<T> {
    fn replay(&self) -> Pipeline {
        let source = SharedBatches { batches: Rc::clone(&self.batches), at: 0 };
        Pipeline::new(self.pipeline.task(), self.place, AnySource::flat(source))
    }
}

struct SharedBatches<T> {
    batches: Rc<[SharedBatch<T>]>,
    at: usize,
}

impl<T> Source<T> for SharedBatches<T> {
    fn next(&mut self, _records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        let batch = self.batches.get(self.at).cloned();
        self.at += 1;
        Ok(batch.map(Batch::Shared))
    }
}
