//! `map_partitions`: a closure over all records of a partition.

use std::sync::Arc;

use crate::batch::{BATCH_RECORDS, Batch};
use crate::data::Data;
use crate::error::TaskError;
use crate::node::WholeInputs;
use crate::pipeline::{AnySource, Failure, Pipeline, Records, Source, met};
use crate::task::Task;

pub(crate) struct MapPartitions<T, F> {
    f: Arc<F>,
    input: std::marker::PhantomData<fn(T)>,
}

impl<T, F> MapPartitions<T, F> {
    pub(crate) fn new(f: F) -> Self {
        Self { f: Arc::new(f), input: std::marker::PhantomData }
    }
}

impl<T, I, F> WholeInputs for MapPartitions<T, F>
where
    T: Data,
    I: IntoIterator<Item: Data, IntoIter: 'static> + 'static,
    F: Fn(u32, Records<T>) -> I + Send + Sync + 'static,
{
    fn open(&self, _task: &Task, partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError> {
        let input = inputs.into_iter().next().ok_or(TaskError::Stale)?;
        let depth = input.depth();
        let (records, failure) = Records::new(input);
        let start = Start { f: Arc::clone(&self.f), partition, records };
        Ok(AnySource::around(depth, Mapped { state: State::Waiting(Some(start)), failure }))
    }
}

/// The output of the closure. It is called when the first record is asked for, not when the partition is opened.
struct Mapped<T, I: IntoIterator, F> {
    state: State<T, I, F>,
    failure: Failure,
}

enum State<T, I: IntoIterator, F> {
    Waiting(Option<Start<T, F>>),
    Running(I::IntoIter),
}

struct Start<T, F> {
    f: Arc<F>,
    partition: u32,
    records: Records<T>,
}

impl<T, I, F> Source<I::Item> for Mapped<T, I, F>
where
    T: Data,
    I: IntoIterator,
    F: Fn(u32, Records<T>) -> I,
{
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<I::Item>>, TaskError> {
        if let State::Waiting(start) = &mut self.state
            && let Some(Start { f, partition, records }) = start.take()
        {
            self.state = State::Running(f(partition, records).into_iter());
        }
        let State::Running(output) = &mut self.state else { return Ok(None) };
        let batch: Vec<I::Item> = output.take(records_max.min(BATCH_RECORDS)).collect();
        met(&self.failure)?;
        Ok(if batch.is_empty() { None } else { Some(Batch::Owned(batch)) })
    }
}
