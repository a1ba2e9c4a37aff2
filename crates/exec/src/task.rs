//! What a task knows of itself.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use larder_lineage::NodeId;

use crate::context::Context;
use crate::error::TaskError;
use crate::job::Job;

/// Whose operation works on what: a partition of a dataset, or the input of a shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    pub(crate) partition: u32,
    /// Whether it is the map side of the shuffle that the dataset reads: the partition is its parent's then.
    pub(crate) map_side: bool,
}

impl Place {
    pub(crate) fn of(node: NodeId, partition: u32) -> Self {
        Self { node, partition, map_side: false }
    }

    pub(crate) fn map_side_of(node: NodeId, partition: u32) -> Self {
        Self { node, partition, map_side: true }
    }
}

/// A running attempt at one partition. It lives on one thread; its pipelines hold it.
pub(crate) type Task = Rc<TaskState>;

pub(crate) struct TaskState {
    context: Context,
    job: Arc<Job>,
    partition: u32,
    /// Whose operation runs now: what to name when it fails.
    place: Cell<Place>,
    /// How many coalesced partitions that open their inputs late stand in each other now.
    late_inputs: Cell<u32>,
}

impl TaskState {
    pub(crate) fn new(context: &Context, job: &Arc<Job>, node: NodeId, partition: u32) -> Task {
        Rc::new(Self {
            context: context.clone(),
            job: Arc::clone(job),
            partition,
            place: Cell::new(Place::of(node, partition)),
            late_inputs: Cell::new(0),
        })
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// The partition the task is for, of the dataset its stage computes.
    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }

    /// An error if the job is over; asked at every batch.
    pub(crate) fn check(&self) -> Result<(), TaskError> {
        if self.job.is_halted() { Err(TaskError::Halted) } else { Ok(()) }
    }

    /// Says whose operation runs from now on, and whose ran before.
    pub(crate) fn working_on(&self, place: Place) -> Place {
        self.place.replace(place)
    }

    pub(crate) fn place(&self) -> Place {
        self.place.get()
    }

    pub(crate) fn late_inputs(&self) -> &Cell<u32> {
        &self.late_inputs
    }
}
