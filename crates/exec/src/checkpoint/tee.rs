//! A partition that is written to a checkpoint while it is read.

use std::cell::RefCell;
use std::rc::Rc;

use super::pending::Claim;
use crate::batch::Batch;
use crate::data::Portable;
use crate::error::TaskError;
use crate::pipeline::{AnySource, Pipeline, Source};
use crate::task::{Place, Task};

/// A part that is to be finished when its task is through.
pub(crate) trait Unfinished {
    /// Reads on until it is finished, or cannot be.
    fn finish(&self);
}

/// A part of a checkpoint under way: its writer, and the pipeline its records come from.
///
/// The task holds it besides the reader, so that a part is finished whose reader had enough. It holds the task in
/// turn, until it is at its end or the task lets go of it.
pub(super) struct TeePart<T: Portable>(RefCell<State<T>>);

struct State<T: Portable> {
    records: Option<Pipeline>,
    claim: Option<Claim<T>>,
}

impl<T: Portable> TeePart<T> {
    /// A pipeline that gives the same records, and writes them.
    pub(super) fn start(task: &Task, place: Place, records: Pipeline, claim: Claim<T>) -> Pipeline {
        let (depth, effort) = (records.depth(), records.effort());
        let state = State { records: Some(records), claim: Some(claim) };
        let part = Rc::new(Self(RefCell::new(state)));
        task.finish_later(Rc::<Self>::clone(&part));
        let mut pipeline = Pipeline::new(task, place, AnySource::around(depth, Reader(part)));
        pipeline.add_effort(effort);
        pipeline
    }

    fn next(&self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        let mut state = self.0.borrow_mut();
        let Some(records) = &mut state.records else { return Ok(None) };
        match records.next::<T>(records_max) {
            Ok(Some(batch)) => {
                state.write(&batch);
                Ok(Some(batch))
            }
            Ok(None) => {
                state.finish();
                Ok(None)
            }
            Err(error) => {
                let State { records, claim } = &mut *state;
                drop((records.take(), claim.take()));
                Err(error)
            }
        }
    }
}

impl<T: Portable> Unfinished for TeePart<T> {
    fn finish(&self) {
        while self.0.borrow().claim.is_some() {
            if !matches!(self.next(usize::MAX), Ok(Some(_))) {
                return;
            }
        }
    }
}

impl<T: Portable> State<T> {
    fn write(&mut self, batch: &Batch<T>) {
        let Some((claim, records)) = self.claim.as_mut().zip(self.records.as_ref()) else { return };
        let clock = records.task().clock();
        // A part that fails is written anew at the end of the job, where its error can be told.
        if claim.push(batch.as_slice()).is_err() {
            self.claim = None;
        }
        clock.stop(records.task());
    }

    fn finish(&mut self) {
        if let (Some(claim), Some(records)) = (self.claim.take(), self.records.take()) {
            let clock = records.task().clock();
            // As in `write`.
            let _ = claim.finish();
            clock.stop(records.task());
        }
    }
}

struct Reader<T: Portable>(Rc<TeePart<T>>);

impl<T: Portable> Source<T> for Reader<T> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        self.0.next(records_max)
    }
}
