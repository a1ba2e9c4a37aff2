//! `zip`: two partitions side by side.

use std::marker::PhantomData;

use crate::batch::{BATCH_RECORDS, Batch};
use crate::data::Data;
use crate::error::{Cause, TaskError};
use crate::node::WholeInputs;
use crate::pipeline::{AnySource, Failure, Pipeline, Records, Source, met};
use crate::task::Task;

pub(crate) struct Zip<T, U>(pub(crate) PhantomData<fn() -> (T, U)>);

impl<T: Data, U: Data> WholeInputs for Zip<T, U> {
    fn open(&self, _task: &Task, _partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError> {
        let [left, right] = <[_; 2]>::try_from(inputs).map_err(|_| TaskError::Stale)?;
        let depth = left.depth().max(right.depth());
        let (left, left_failure) = Records::<T>::new(left);
        let (right, right_failure) = Records::<U>::new(right);
        Ok(AnySource::around(depth, Zipped { left, left_failure, right, right_failure }))
    }
}

struct Zipped<T, U> {
    left: Records<T>,
    left_failure: Failure,
    right: Records<U>,
    right_failure: Failure,
}

impl<T: Data, U: Data> Source<(T, U)> for Zipped<T, U> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<(T, U)>>, TaskError> {
        let mut pairs = Vec::new();
        while pairs.len() < records_max.min(BATCH_RECORDS) {
            let pair = (self.left.next(), self.right.next());
            met(&self.left_failure)?;
            met(&self.right_failure)?;
            match pair {
                (Some(left), Some(right)) => pairs.push((left, right)),
                (None, None) => break,
                (Some(_), None) => return Err(Cause::UnequalZip { longer: "left" }.into()),
                (None, Some(_)) => return Err(Cause::UnequalZip { longer: "right" }.into()),
            }
        }
        Ok(if pairs.is_empty() { None } else { Some(Batch::Owned(pairs)) })
    }
}
