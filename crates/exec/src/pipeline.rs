//! Pipelines: a source of batches and the operators its batches go through, driven by one loop.
//!
//! However long a narrow chain is, its operators stand side by side in one vector, and neither running nor
//! dropping them nests. Only operators that need whole inputs (`zip`, `map_partitions`, ...) are sources that own
//! pipelines of their own; [`DEPTH_MAX`] bounds how deep those may stand in each other.

mod each;
mod visit;

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::AddAssign;
use std::rc::Rc;
use std::time::Duration;

use crate::batch::{AnyBatch, BATCH_RECORDS, Batch, PIECE_RECORDS};
use crate::data::Data;
use crate::error::{Cause, TaskError};
use crate::task::{Place, Task};
use each::{ErasedEach, Seen};

pub(crate) use each::{EachRecord, Sight, any_each};
pub(crate) use visit::{Made, Visit};

/// How many pipelines may stand in each other. What would be deeper is run into memory first.
pub(crate) const DEPTH_MAX: u32 = 8;

/// Where records of a partition come from.
pub(crate) trait Source<T> {
    /// The next records, at most about `records_max` of them where that can be chosen, or none at the end.
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError>;

    /// How many records there are in all, if that is known without reading them.
    fn len(&self) -> Option<u64> {
        None
    }

    /// Its records to be looked at one by one, if that costs less than to have batches of them. It has none itself then.
    fn visit(&mut self) -> Option<Visit<T>> {
        None
    }
}

/// What an operator gives for a batch.
pub(crate) enum Flow<B> {
    /// Nothing for now.
    Empty,
    /// This, and the operator waits for its next input.
    Batch(B),
    /// This, and more of the same input after it: call [`Operator::resume`].
    More(B),
}

/// A record-wise operator.
pub(crate) trait Operator<I, O> {
    /// Takes the next batch.
    fn run(&mut self, input: Batch<I>) -> Result<Flow<Batch<O>>, TaskError>;

    /// Goes on with the batch it has, after it answered [`Flow::More`].
    fn resume(&mut self) -> Result<Flow<Batch<O>>, TaskError> {
        Ok(Flow::Empty)
    }
}

/// A [`Source`] whose record type is erased.
pub(crate) struct AnySource {
    source: Box<dyn ErasedSource>,
    /// How many pipelines stand in each other inside.
    depth: u32,
}

impl AnySource {
    /// A source that owns no pipeline.
    pub(crate) fn flat<T: 'static>(source: impl Source<T> + 'static) -> Self {
        Self { source: Box::new(Typed(source, PhantomData)), depth: 0 }
    }

    /// A source around pipelines of which the deepest is `depth` deep.
    pub(crate) fn around<T: 'static>(depth: u32, source: impl Source<T> + 'static) -> Self {
        Self { source: Box::new(Typed(source, PhantomData)), depth: depth + 1 }
    }
}

/// An [`Operator`] whose record types are erased.
pub(crate) type AnyOperator = Box<dyn ErasedOperator>;

/// Erases the types of an operator.
pub(crate) fn any_operator<I: 'static, O: 'static>(operator: impl Operator<I, O> + 'static) -> AnyOperator {
    Box::new(TypedOperator(operator, PhantomData))
}

pub(crate) trait ErasedSource {
    fn next(&mut self, records_max: usize) -> Result<Option<AnyBatch>, TaskError>;
    fn len(&self) -> Option<u64>;
    /// A boxed [`Visit`].
    fn visit(&mut self) -> Option<Box<dyn Any>>;
}

pub(crate) trait ErasedOperator {
    fn run(&mut self, input: AnyBatch) -> Result<Flow<AnyBatch>, TaskError>;
    fn resume(&mut self) -> Result<Flow<AnyBatch>, TaskError>;
    /// Itself, as an operator that gives one record for each if it is one.
    fn each(self: Box<Self>) -> Result<Box<dyn ErasedEach>, AnyOperator>;
}

struct Typed<T, S>(S, PhantomData<T>);

impl<T: 'static, S: Source<T>> ErasedSource for Typed<T, S> {
    fn next(&mut self, records_max: usize) -> Result<Option<AnyBatch>, TaskError> {
        Ok(self.0.next(records_max)?.map(|batch| Box::new(batch) as AnyBatch))
    }

    fn len(&self) -> Option<u64> {
        self.0.len()
    }

    fn visit(&mut self) -> Option<Box<dyn Any>> {
        self.0.visit().map(|visit| Box::new(visit) as Box<dyn Any>)
    }
}

struct TypedOperator<I, O, P>(P, PhantomData<(I, O)>);

impl<I: 'static, O: 'static, P: Operator<I, O> + 'static> ErasedOperator for TypedOperator<I, O, P> {
    fn run(&mut self, input: AnyBatch) -> Result<Flow<AnyBatch>, TaskError> {
        self.0.run(typed(input)?).map(erase)
    }

    fn resume(&mut self) -> Result<Flow<AnyBatch>, TaskError> {
        self.0.resume().map(erase)
    }

    fn each(self: Box<Self>) -> Result<Box<dyn ErasedEach>, AnyOperator> {
        Err(self)
    }
}

fn erase<T: 'static>(flow: Flow<Batch<T>>) -> Flow<AnyBatch> {
    match flow {
        Flow::Empty => Flow::Empty,
        Flow::Batch(batch) => Flow::Batch(Box::new(batch)),
        Flow::More(batch) => Flow::More(Box::new(batch)),
    }
}

fn typed<T: 'static>(batch: AnyBatch) -> Result<Batch<T>, TaskError> {
    batch.downcast::<Batch<T>>().map(|batch| *batch).map_err(|_| Cause::Internal.into())
}

/// What the time that a pipeline runs does not tell of the time its records take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Effort {
    /// What went into it before it runs: inputs that were gathered, sources that were opened.
    pub(crate) spent: Duration,
    /// What blocks inside it take that are measured on their own.
    pub(crate) known: Duration,
}

impl Effort {
    /// The time its records take, when it runs for so long.
    pub(crate) fn of(self, running: Duration) -> Duration {
        (self.spent + running).saturating_sub(self.known)
    }
}

impl AddAssign for Effort {
    fn add_assign(&mut self, other: Self) {
        self.spent += other.spent;
        self.known += other.known;
    }
}

/// One partition on its way through a narrow chain. One pointer wide: a task may assemble a million of them.
pub(crate) struct Pipeline {
    parts: Box<Parts>,
}

struct Parts {
    task: Task,
    source: AnySource,
    source_place: Place,
    /// Whether the first operator is in the source.
    source_takes_each: bool,
    steps: Vec<Step>,
    effort: Effort,
    /// Operators that have more output for their last input, the last one on top.
    unfinished: Vec<usize>,
}

struct Step {
    operator: AnyOperator,
    place: Place,
}

impl Pipeline {
    pub(crate) fn new(task: &Task, place: Place, source: AnySource) -> Self {
        let task = Rc::clone(task);
        let (steps, unfinished) = (Vec::new(), Vec::new());
        let effort = Effort::default();
        let parts =
            Parts { task, source, source_place: place, source_takes_each: false, steps, effort, unfinished };
        Self { parts: Box::new(parts) }
    }

    pub(crate) fn effort(&self) -> Effort {
        self.parts.effort
    }

    pub(crate) fn add_effort(&mut self, effort: Effort) {
        self.parts.effort += effort;
    }

    /// Appends an operator. The first one gets the records of stored bytes where they are decoded, if it only looks at
    /// each; one alone, so that however long the chain is, nothing nests.
    pub(crate) fn push(&mut self, place: Place, operator: AnyOperator) -> Result<(), TaskError> {
        let parts = &mut *self.parts;
        if !parts.steps.is_empty() || parts.source_takes_each {
            parts.steps.push(Step { operator, place });
            return Ok(());
        }
        let operator = match operator.each() {
            Ok(each) => match parts.source.source.visit() {
                Some(visit) => {
                    let (task, visit_place) = (Rc::clone(&parts.task), parts.source_place);
                    parts.source.source = each.over(Seen { task, visit, visit_place, place })?;
                    parts.source_takes_each = true;
                    return Ok(());
                }
                None => each,
            },
            Err(operator) => operator,
        };
        parts.steps.push(Step { operator, place });
        Ok(())
    }

    pub(crate) fn depth(&self) -> u32 {
        self.parts.source.depth
    }

    pub(crate) fn task(&self) -> &Task {
        &self.parts.task
    }

    /// The next records, at most about `records_max` of them where no operator changes their number.
    pub(crate) fn next<T: 'static>(&mut self, records_max: usize) -> Result<Option<Batch<T>>, TaskError> {
        let outer = self.parts.task.working_on(self.parts.source_place);
        let batch = self.parts.next(records_max)?;
        self.parts.task.working_on(outer);
        batch.map(typed).transpose()
    }

    /// Counts the records, without reading those of a stored block.
    pub(crate) fn count<T: 'static>(mut self) -> Result<u64, TaskError> {
        if self.parts.steps.is_empty()
            && let Some(len) = self.parts.source.source.len()
        {
            return Ok(len);
        }
        let mut count = 0;
        self.for_each_batch::<T>(|batch| {
            count += batch.len() as u64;
            Ok(())
        })?;
        Ok(count)
    }

    /// Calls `consume` with each batch, and looks between them whether the job is over. Shared ones come in pieces: what
    /// a source has in one slice may be a whole partition, and what is done with it may be slow.
    pub(crate) fn for_each_batch<T: 'static>(
        &mut self,
        mut consume: impl FnMut(Batch<T>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        while let Some(batch) = self.next::<T>(usize::MAX)? {
            match batch {
                Batch::Owned(_) => consume(batch)?,
                Batch::Shared(shared) => {
                    for piece in shared.pieces(PIECE_RECORDS) {
                        self.parts.task.check()?;
                        consume(Batch::Shared(piece))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Shows all records, a slice at a time, and looks between slices whether the job is over. For who only looks at them:
    /// stored bytes are decoded one by one, which takes less time than batches of them.
    pub(crate) fn visit<T: 'static>(&mut self, mut see: impl FnMut(&[T])) -> Result<(), TaskError> {
        let parts = &mut *self.parts;
        if parts.steps.is_empty()
            && let Some(visit) = parts.source.source.visit()
        {
            let mut visit = *visit.downcast::<Visit<T>>().map_err(|_| Cause::Internal)?;
            let outer = parts.task.working_on(parts.source_place);
            parts.task.check()?;
            while visit.next(BATCH_RECORDS, &mut see)? {
                parts.task.check()?;
            }
            parts.task.working_on(outer);
            return Ok(());
        }
        while let Some(batch) = self.next::<T>(usize::MAX)? {
            for records in batch.as_slice().chunks(PIECE_RECORDS) {
                self.parts.task.check()?;
                see(records);
            }
        }
        Ok(())
    }
}

impl Parts {
    fn next(&mut self, records_max: usize) -> Result<Option<AnyBatch>, TaskError> {
        let source_records = if self.steps.is_empty() { records_max } else { records_max.min(BATCH_RECORDS) };
        'batch: loop {
            self.task.check()?;
            let (mut batch, mut at) = match self.unfinished.pop() {
                Some(at) => match self.resume(at)? {
                    Some(batch) => (batch, at + 1),
                    None => continue,
                },
                None => {
                    self.task.working_on(self.source_place);
                    match self.source.source.next(source_records)? {
                        Some(batch) => (batch, 0),
                        None => return Ok(None),
                    }
                }
            };
            while let Some(step) = self.steps.get_mut(at) {
                self.task.check()?;
                self.task.working_on(step.place);
                match step.operator.run(batch)? {
                    Flow::Empty => continue 'batch,
                    Flow::Batch(output) => batch = output,
                    Flow::More(output) => {
                        self.unfinished.push(at);
                        batch = output;
                    }
                }
                at += 1;
            }
            return Ok(Some(batch));
        }
    }

    fn resume(&mut self, at: usize) -> Result<Option<AnyBatch>, TaskError> {
        let Some(step) = self.steps.get_mut(at) else { return Ok(None) };
        self.task.working_on(step.place);
        Ok(match step.operator.resume()? {
            Flow::Empty => None,
            Flow::Batch(batch) => Some(batch),
            Flow::More(batch) => {
                self.unfinished.push(at);
                Some(batch)
            }
        })
    }
}

/// The records of one partition, as the closures of `map_partitions` and its kin receive them.
///
/// When what is upstream fails, the records end early, and the task fails when the closure is done.
pub struct Records<T> {
    pipeline: Pipeline,
    batch: std::vec::IntoIter<T>,
    failure: Failure,
}

/// Where a [`Records`] leaves its error.
pub(crate) type Failure = Rc<RefCell<Option<TaskError>>>;

impl<T> std::fmt::Debug for Records<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl<T: Data> Records<T> {
    pub(crate) fn new(pipeline: Pipeline) -> (Self, Failure) {
        let failure = Failure::default();
        (Self { pipeline, batch: Vec::new().into_iter(), failure: Rc::clone(&failure) }, failure)
    }
}

impl<T: Data> Iterator for Records<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            if let Some(record) = self.batch.next() {
                return Some(record);
            }
            if self.failure.borrow().is_some() {
                return None;
            }
            match self.pipeline.next::<T>(BATCH_RECORDS) {
                Ok(Some(batch)) => self.batch = batch.into_vec().into_iter(),
                Ok(None) => return None,
                Err(error) => *self.failure.borrow_mut() = Some(error),
            }
        }
    }
}

/// The error a [`Records`] met, if it met one.
pub(crate) fn met(failure: &Failure) -> Result<(), TaskError> {
    failure.borrow_mut().take().map_or(Ok(()), Err)
}
