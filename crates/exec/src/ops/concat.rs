//! One input after the other: `coalesce`.

use std::rc::Rc;

use larder_lineage::NodeId;

use crate::assemble;
use crate::batch::Batch;
use crate::data::Data;
use crate::error::TaskError;
use crate::node::Concat;
use crate::pipeline::{AnySource, Pipeline, Source};
use crate::task::{Task, TaskState};

/// Reads inputs that are open already.
pub(crate) fn chain<T: Data>(inputs: Vec<Pipeline>) -> AnySource {
    let depth = inputs.iter().map(|input| input.depth()).max().unwrap_or_default();
    AnySource::around::<T>(depth, Chain { inputs: inputs.into_iter(), current: None })
}

struct Chain {
    inputs: std::vec::IntoIter<Pipeline>,
    current: Option<Pipeline>,
}

impl<T: Data> Source<T> for Chain {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        loop {
            if let Some(input) = &mut self.current
                && let Some(batch) = input.next(records_max)?
            {
                return Ok(Some(batch));
            }
            self.current = self.inputs.next();
            if self.current.is_none() {
                return Ok(None);
            }
        }
    }
}

/// Opens each input when the one before it is at its end, so that one is pinned or filled at a time.
pub(crate) fn open_late<T: Data>(task: &Task, concat: &Concat, partition: u32) -> AnySource {
    let inputs = concat.groups.get(partition as usize).cloned().unwrap_or_default();
    let (task, parent) = (Rc::clone(task), concat.parent);
    let late = Late { task, parent, inputs: inputs.into_iter(), current: None };
    AnySource::around::<T>(0, late)
}

struct Late {
    task: Task,
    parent: NodeId,
    inputs: std::vec::IntoIter<u32>,
    current: Option<Pipeline>,
}

impl<T: Data> Source<T> for Late {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        loop {
            let _inside = Inside::enter(&self.task);
            if let Some(input) = &mut self.current
                && let Some(batch) = input.next(records_max)?
            {
                return Ok(Some(batch));
            }
            self.current = None;
            let Some(partition) = self.inputs.next() else { return Ok(None) };
            let outer = self.task.place();
            let input = assemble::open(&self.task, self.parent, partition)?;
            self.task.spent_elsewhere(input.effort().known);
            self.current = Some(input);
            self.task.working_on(outer);
        }
    }
}

/// Counts how deep late inputs stand in each other.
struct Inside<'a>(&'a TaskState);

impl<'a> Inside<'a> {
    fn enter(task: &'a TaskState) -> Self {
        task.late_inputs().set(task.late_inputs().get() + 1);
        Self(task)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.late_inputs().set(self.0.late_inputs().get() - 1);
    }
}
