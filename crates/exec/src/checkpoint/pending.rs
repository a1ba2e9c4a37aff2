//! A checkpoint whose parts are written by those who read the dataset, and the rest at the end.

use std::marker::PhantomData;
use std::sync::Arc;

use larder_blockstore::codec::Bincode;
use larder_checkpoint::{Attempt, Checkpoint, CheckpointStore, Error as CheckpointError, RecordWriter};
use larder_lineage::NodeId;
use parking_lot::{Condvar, Mutex};

use super::handle::{Failure, Request};
use super::open::open_parts;
use super::tee::TeePart;
use super::{Buffers, CheckpointInfo, PartMemory, spec};
use crate::context::Context;
use crate::data::Portable;
use crate::dataset::Dataset;
use crate::error::{Cause, Error, TaskError};
use crate::job::{CANCEL_CHECK, Job, Tees, WorksFor};
use crate::node::Node;
use crate::pipeline::Pipeline;
use crate::task::{Place, Task};

/// How often a commit of which nobody knows whether it took place is asked again.
const COMMIT_TRIES: u32 = 5;

/// Writes partitions of a dataset to a checkpoint while they are read, whatever its record type.
pub(crate) trait Tee: Send + Sync {
    /// Has a partition written while it is read, unless it is written already, or being written.
    fn tee(self: Arc<Self>, task: &Task, place: Place, pipeline: Pipeline) -> Pipeline;

    /// Writes what is missing and commits, unless others are at it. What came of it is known to the request. Gives
    /// what else was met on the way.
    fn complete(&self, context: &Context) -> Tees;

    /// Does so for a caller who waits for it: gives the checkpoint, or nothing if it was over already. After an error
    /// it waits for an action as before.
    fn complete_now(&self, context: &Context) -> Result<Option<CheckpointInfo>, Error>;

    /// Gives the checkpoint up, unless it is being completed: that looks for itself.
    fn withdraw(&self, why: &'static str);
}

/// Completes what an action met. Datasets are completed before those they are computed from: that reads the latter,
/// and so writes more of them.
pub(crate) fn complete(context: &Context, mut met: Tees) {
    while let Some((_, tee)) = met.pop_last() {
        met.extend(tee.complete(context));
    }
}

/// A checkpoint that is not committed yet.
pub(super) struct Pending<T> {
    dataset: NodeId,
    request: Arc<Request>,
    /// None when it is over.
    attempt: Mutex<Option<Arc<Attempt>>>,
    parts: Mutex<Parts>,
    changed: Condvar,
    records: PhantomData<fn() -> T>,
}

struct Parts {
    phase: Phase,
    states: Vec<PartState>,
    /// How many are being written by tees.
    writing: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Whoever reads a partition writes it.
    Open,
    /// One thread writes what is missing.
    Completing,
    /// It is committed or given up.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartState {
    Missing,
    Writing,
    Written,
}

impl<T: Portable> Pending<T> {
    /// Begins a checkpoint. One that is not open for tees is completed by whoever began it.
    pub(super) fn begin(
        dataset: &Dataset<T>,
        store: &CheckpointStore,
        request: Arc<Request>,
        open: bool,
    ) -> Result<Arc<Self>, Error> {
        let attempt = store.begin(request.name.as_str(), spec(dataset, &request.name))?;
        let states = vec![PartState::Missing; dataset.partitions() as usize];
        let phase = if open { Phase::Open } else { Phase::Completing };
        Ok(Arc::new(Self {
            dataset: dataset.id(),
            request,
            attempt: Mutex::new(Some(Arc::new(attempt))),
            parts: Mutex::new(Parts { phase, states, writing: 0 }),
            changed: Condvar::new(),
            records: PhantomData,
        }))
    }

    /// Takes on a partition that nobody has written or is writing.
    fn claim(self: &Arc<Self>, memory: &PartMemory, partition: u32) -> Option<Claim<T>> {
        let mut parts = self.parts.lock();
        let is_open = parts.phase == Phase::Open;
        let state = parts.states.get_mut(partition as usize)?;
        if !is_open || *state != PartState::Missing {
            return None;
        }
        *state = PartState::Writing;
        parts.writing += 1;
        drop(parts);
        // From here on dropping it gives the partition back.
        let mut claim = Claim { pending: Arc::clone(self), partition, writer: None, written: false };
        let attempt = self.attempt.lock().clone()?;
        // One that cannot be started now is tried again at the end, where its error can be told.
        claim.writer = Some(PartRecords::start(&attempt, memory, partition).ok()?);
        Some(claim)
    }

    fn release(&self, partition: u32, state: PartState) {
        let mut parts = self.parts.lock();
        parts.writing -= 1;
        if let Some(part) = parts.states.get_mut(partition as usize) {
            *part = state;
        }
        drop(parts);
        self.changed.notify_all();
    }

    /// Becomes the one who completes it, when nobody writes a part any more; false if it is over.
    fn enter(&self, job: &Job) -> Result<bool, Error> {
        let mut parts = self.parts.lock();
        loop {
            match parts.phase {
                Phase::Over => return Ok(false),
                Phase::Open if parts.writing == 0 => {
                    parts.phase = Phase::Completing;
                    return Ok(true);
                }
                Phase::Open | Phase::Completing => {}
            }
            if job.is_halted() {
                return Err(Error::Cancelled);
            }
            self.changed.wait_for(&mut parts, CANCEL_CHECK);
        }
    }

    fn leave(&self, phase: Phase) {
        self.parts.lock().phase = phase;
        self.changed.notify_all();
        if phase == Phase::Over {
            drop(self.attempt.lock().take());
        }
    }

    /// Ends it for good.
    fn end(&self, node: Option<&Arc<Node>>, outcome: Result<CheckpointInfo, Failure>) {
        self.leave(Phase::Over);
        if let Some(node) = node {
            node.end_checkpointing(&self.request);
        }
        self.request.settle(outcome);
    }

    /// Writes a checkpoint at once.
    pub(super) fn write_now(
        dataset: &Dataset<T>,
        store: &CheckpointStore,
        request: Arc<Request>,
    ) -> Result<CheckpointInfo, Error> {
        let (context, node) = (dataset.context(), dataset.node());
        let begun = Self::begin(dataset, store, Arc::clone(&request), false);
        let written = begun.and_then(|pending| {
            let written = pending.write(context, node);
            pending.leave(Phase::Over);
            node.end_checkpointing(&request);
            // Whoever waits for it tries it too.
            let failed = |_| Failure::Cancelled("writing it failed");
            request.settle(written.as_ref().map(Clone::clone).map_err(failed));
            written
        });
        if written.is_err() {
            node.end_checkpointing(&request);
            request.settle(Err(Failure::Cancelled("it could not be begun")));
        }
        if request.job.is_outermost() {
            complete(context, request.job.take_met());
        }
        written
    }

    /// Writes the parts that are missing, reads all back, commits them, and cuts the lineage.
    fn write(&self, context: &Context, node: &Arc<Node>) -> Result<CheckpointInfo, Error> {
        let _for_it = WorksFor::job(&self.request.job);
        let attempt = self.attempt.lock().clone().ok_or(Error::Cancelled)?;
        let all: Vec<u32> = (0..node.partitions()).collect();
        let missing: Vec<u32> = all.iter().copied().filter(|&part| !attempt.is_finished(part)).collect();
        context.run_job(self.dataset, &missing, &|task, partition, pipeline| {
            write_part::<T>(&attempt, task, node, partition, pipeline)?;
            if let Some(state) = self.parts.lock().states.get_mut(partition as usize) {
                *state = PartState::Written;
            }
            Ok(())
        })?;
        let memory = PartMemory::of(context);
        context.run_tasks(self.dataset, &all, &|task| {
            Ok(memory.verify(&attempt, task.partition()).map_err(Cause::from)?)
        })?;
        if self.request.job.is_halted() {
            return Err(Error::Cancelled);
        }
        let checkpoint = commit(&attempt)?;
        let info = CheckpointInfo::of(&checkpoint);
        context.cut(self.dataset, node, open_parts::<T>(checkpoint))?;
        Ok(info)
    }
}

impl<T: Portable> Tee for Pending<T> {
    fn tee(self: Arc<Self>, task: &Task, place: Place, pipeline: Pipeline) -> Pipeline {
        let claim = self.claim(&PartMemory::of(task.context()), place.partition);
        task.job().meet(self.dataset, self);
        match claim {
            Some(claim) => TeePart::start(task, place, pipeline, claim),
            None => pipeline,
        }
    }

    fn complete(&self, context: &Context) -> Tees {
        {
            let mut parts = self.parts.lock();
            if parts.phase != Phase::Open || parts.writing > 0 {
                return Tees::new();
            }
            parts.phase = Phase::Completing;
        }
        let node = context.node(self.dataset).ok();
        let written = match &node {
            Some(node) => self.write(context, node),
            None => Err(Error::Cancelled),
        };
        match written {
            Ok(info) => self.end(node.as_ref(), Ok(info)),
            // The job was cancelled, not the request: the next action goes on.
            Err(Error::Cancelled) if node.is_some() && !self.request.job.is_halted() => {
                self.leave(Phase::Open)
            }
            Err(error) => self.end(node.as_ref(), Err(self.request.failure(error))),
        }
        self.request.job.take_met()
    }

    fn complete_now(&self, context: &Context) -> Result<Option<CheckpointInfo>, Error> {
        let node = context.node(self.dataset)?;
        let job = Job::start();
        let running = context.register(&job);
        if !self.enter(&job)? {
            return Ok(None);
        }
        drop(running);
        match self.write(context, &node) {
            Ok(info) => {
                self.end(Some(&node), Ok(info.clone()));
                complete(context, self.request.job.take_met());
                Ok(Some(info))
            }
            Err(error) if self.request.job.is_halted() => {
                self.end(Some(&node), Err(self.request.failure(Error::Cancelled)));
                drop(self.request.job.take_met());
                Err(error)
            }
            Err(error) => {
                self.leave(Phase::Open);
                // It holds what was met, and that it.
                drop(self.request.job.take_met());
                Err(error)
            }
        }
    }

    fn withdraw(&self, why: &'static str) {
        {
            let mut parts = self.parts.lock();
            if parts.phase != Phase::Open {
                return;
            }
            parts.phase = Phase::Over;
        }
        self.end(None, Err(Failure::Cancelled(why)));
    }
}

impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.request.settle(Err(Failure::Cancelled("its dataset was dropped")));
    }
}

/// A part that is written by one reader of the partition.
pub(super) struct Claim<T: Portable> {
    pending: Arc<Pending<T>>,
    partition: u32,
    writer: Option<PartRecords<T>>,
    written: bool,
}

impl<T: Portable> Claim<T> {
    /// Appends records. An error means that the part is to be written anew.
    pub(super) fn push(&mut self, records: &[T]) -> Result<(), CheckpointError> {
        match &mut self.writer {
            Some(writer) => writer.push(records),
            None => Ok(()),
        }
    }

    pub(super) fn finish(mut self) -> Result<(), CheckpointError> {
        if let Some(writer) = self.writer.take() {
            writer.finish()?;
            self.written = true;
        }
        Ok(())
    }
}

impl<T: Portable> Drop for Claim<T> {
    fn drop(&mut self) {
        // An unfinished one removes what it wrote, before anybody else writes the part.
        drop(self.writer.take());
        let state = if self.written { PartState::Written } else { PartState::Missing };
        self.pending.release(self.partition, state);
    }
}

/// Writes one part: chunks of a stored block as they are, else records as they are computed.
fn write_part<T: Portable>(
    attempt: &Attempt,
    task: &Task,
    node: &Node,
    partition: u32,
    mut pipeline: Pipeline,
) -> Result<(), TaskError> {
    let memory = PartMemory::of(task.context());
    if let Some(blocks) = node.persisted()
        && blocks.write_part(partition, attempt, &memory, &mut |_| task.check())?.is_some()
    {
        return Ok(());
    }
    let mut part = PartRecords::<T>::start(attempt, &memory, partition).map_err(Cause::from)?;
    pipeline.for_each_batch::<T>(|batch| Ok(part.push(batch.as_slice()).map_err(Cause::from)?))?;
    Ok(part.finish().map_err(Cause::from)?)
}

/// The records of a part on their way into it, and what they take on that way.
struct PartRecords<T: 'static> {
    writer: RecordWriter<T>,
    buffers: Buffers,
}

impl<T: Portable> PartRecords<T> {
    fn start(attempt: &Attempt, memory: &PartMemory, partition: u32) -> Result<Self, CheckpointError> {
        let (part, buffers) = memory.start(attempt, partition)?;
        Ok(Self { writer: part.records(Arc::new(Bincode))?, buffers })
    }

    fn push(&mut self, records: &[T]) -> Result<(), CheckpointError> {
        records.iter().try_for_each(|record| {
            self.writer.push(record)?;
            self.buffers.cover(self.writer.held_bytes());
            Ok(())
        })
    }

    fn finish(self) -> Result<(), CheckpointError> {
        self.writer.finish()
    }
}

/// Commits, and asks again while it is unknown whether the commit took place.
pub(super) fn commit(attempt: &Attempt) -> Result<Checkpoint, CheckpointError> {
    let mut tries = 1;
    loop {
        match attempt.commit() {
            Err(CheckpointError::CommitUnknown { .. }) if tries < COMMIT_TRIES => tries += 1,
            result => return result,
        }
    }
}
