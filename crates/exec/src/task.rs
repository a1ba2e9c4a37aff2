//! What a task knows of itself.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use larder_lineage::NodeId;

use crate::context::Context;
use crate::error::TaskError;
use crate::job::Job;

/// A running attempt at one partition. It lives on one thread; its pipelines hold it.
pub(crate) type Task = Rc<TaskState>;

pub(crate) struct TaskState {
    context: Context,
    job: Arc<Job>,
    partition: u32,
    /// The dataset whose operation runs now: the one to name when it fails.
    node: Cell<NodeId>,
    /// How many coalesced partitions that open their inputs late stand in each other now.
    late_inputs: Cell<u32>,
}

impl TaskState {
    pub(crate) fn new(context: &Context, job: &Arc<Job>, node: NodeId, partition: u32) -> Task {
        Rc::new(Self {
            context: context.clone(),
            job: Arc::clone(job),
            partition,
            node: Cell::new(node),
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
    pub(crate) fn working_on(&self, node: NodeId) -> NodeId {
        self.node.replace(node)
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node.get()
    }

    pub(crate) fn late_inputs(&self) -> &Cell<u32> {
        &self.late_inputs
    }
}
