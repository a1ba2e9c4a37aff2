//! What a task knows of itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_blockstore::memory::TaskMemory;
use larder_lineage::NodeId;

use crate::checkpoint::Unfinished;
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
    /// What its operators work in, nested ones and all.
    memory: TaskMemory,
    partition: u32,
    /// Whose operation runs now: what to name when it fails.
    place: Cell<Place>,
    /// Time that is not to be counted for what is measured now: it went into other blocks, or into waiting.
    elsewhere: Cell<Duration>,
    /// How many coalesced partitions that open their inputs late stand in each other now.
    late_inputs: Cell<u32>,
    /// Partitions that it writes to checkpoints while it reads them, inputs first.
    unfinished: RefCell<Vec<Rc<dyn Unfinished>>>,
}

impl TaskState {
    pub(crate) fn new(context: &Context, job: &Arc<Job>, node: NodeId, partition: u32) -> Task {
        Rc::new(Self {
            context: context.clone(),
            job: Arc::clone(job),
            // Others may wait for this task: for a block it computes, for a map output. So it never waits for theirs.
            memory: context.store().memory().nonblocking_task().named(&context.label(node)),
            partition,
            place: Cell::new(Place::of(node, partition)),
            elsewhere: Cell::new(Duration::ZERO),
            late_inputs: Cell::new(0),
            unfinished: RefCell::default(),
        })
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn job(&self) -> &Job {
        &self.job
    }

    /// Has a part of a checkpoint finished when the task is through, however much of it was read until then.
    pub(crate) fn finish_later(&self, part: Rc<dyn Unfinished>) {
        self.unfinished.borrow_mut().push(part);
    }

    /// Those parts. They hold the task, so they have to be taken when it ends.
    pub(crate) fn take_unfinished(&self) -> Vec<Rc<dyn Unfinished>> {
        self.unfinished.take()
    }

    pub(crate) fn memory(&self) -> &TaskMemory {
        &self.memory
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

    /// Starts to measure what the task does from now on.
    pub(crate) fn clock(&self) -> Clock {
        Clock { started: Instant::now(), elsewhere: self.elsewhere.get() }
    }

    /// Keeps time out of what is measured now.
    pub(crate) fn spent_elsewhere(&self, time: Duration) {
        self.elsewhere.set(self.elsewhere.get() + time);
    }

    pub(crate) fn late_inputs(&self) -> &Cell<u32> {
        &self.late_inputs
    }
}

/// Measures the time a task spends on one thing, without what others inside it are measured for.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    /// What the task had spent elsewhere before.
    elsewhere: Duration,
}

impl Clock {
    pub(crate) fn read(&self, task: &TaskState) -> Duration {
        self.started.elapsed().saturating_sub(task.elsewhere.get().saturating_sub(self.elsewhere))
    }

    /// The time; it is kept out of what is measured around it.
    pub(crate) fn stop(self, task: &TaskState) -> Duration {
        let time = self.read(task);
        task.spent_elsewhere(time);
        time
    }
}
