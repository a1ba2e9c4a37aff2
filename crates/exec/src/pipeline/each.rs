//! A first operator that gives one record for each, over records that are looked at where they are decoded.

use std::any::Any;
use std::marker::PhantomData;

use super::{
    AnyOperator, ErasedOperator, ErasedSource, Flow, Made, Operator, Source, Typed, TypedOperator, Visit,
};
use crate::batch::{AnyBatch, BATCH_RECORDS, Batch};
use crate::error::{Cause, TaskError};
use crate::task::{Place, Task};

/// One record out for each record in, which is only looked at.
pub(crate) trait EachRecord<I, O>: Operator<I, O> {
    /// What it gives for a record.
    fn one(&self, record: &I) -> Result<O, TaskError>;

    /// Passes on what it gives for each of the next records, at most `records_max`; false at the end.
    fn each(
        &self,
        records: &mut Visit<I>,
        records_max: usize,
        sight: &mut Sight<'_>,
        mut pass_on: impl FnMut(O),
    ) -> Result<bool, TaskError>
    where
        I: 'static,
    {
        records.next(records_max, &mut |records| {
            sight.of(|| records.iter().try_for_each(|record| self.one(record).map(&mut pass_on)));
        })
    }
}

/// Says who works, while records are decoded and looked at by turns, and keeps the first failure of who looks.
pub(crate) struct Sight<'a> {
    task: &'a Task,
    decoding: Place,
    looking: Place,
    failed: Result<(), TaskError>,
}

impl Sight<'_> {
    /// Looks at records, unless that has failed before.
    #[inline]
    pub(crate) fn of(&mut self, look: impl FnOnce() -> Result<(), TaskError>) {
        if self.failed.is_err() {
            return;
        }
        self.task.working_on(self.looking);
        self.failed = look();
        if self.failed.is_ok() {
            self.task.working_on(self.decoding);
        }
    }
}

/// As [`any_operator`](super::any_operator). Where it is the first that gets the records of stored bytes, they are not
/// decoded into batches for it.
pub(crate) fn any_each<I: 'static, O: 'static>(operator: impl EachRecord<I, O> + 'static) -> AnyOperator {
    Box::new(TypedEach(TypedOperator(operator, PhantomData)))
}

/// An operator that gives one record for each, and can be put together with where they come from.
pub(crate) trait ErasedEach: ErasedOperator {
    fn over(self: Box<Self>, records: Seen) -> Result<Box<dyn ErasedSource>, TaskError>;
}

/// Records to be looked at, by an operator at `place`.
pub(crate) struct Seen {
    pub(super) task: Task,
    /// A [`Visit`].
    pub(super) visit: Box<dyn Any>,
    pub(super) visit_place: Place,
    pub(super) place: Place,
}

struct TypedEach<I, O, P>(TypedOperator<I, O, P>);

impl<I: 'static, O: 'static, P: EachRecord<I, O> + 'static> ErasedOperator for TypedEach<I, O, P> {
    fn run(&mut self, input: AnyBatch) -> Result<Flow<AnyBatch>, TaskError> {
        self.0.run(input)
    }

    fn resume(&mut self) -> Result<Flow<AnyBatch>, TaskError> {
        self.0.resume()
    }

    fn each(self: Box<Self>) -> Result<Box<dyn ErasedEach>, AnyOperator> {
        Ok(self)
    }
}

impl<I: 'static, O: 'static, P: EachRecord<I, O> + 'static> ErasedEach for TypedEach<I, O, P> {
    fn over(self: Box<Self>, records: Seen) -> Result<Box<dyn ErasedSource>, TaskError> {
        let Seen { task, visit, visit_place, place } = records;
        let visit = *visit.downcast::<Visit<I>>().map_err(|_| Cause::Internal)?;
        let each = Each { task, visit, visit_place, operator: self.0.0, place, output: PhantomData };
        Ok(Box::new(Typed(EachSource(Some(each)), PhantomData)))
    }
}

struct Each<I, O, P> {
    task: Task,
    visit: Visit<I>,
    visit_place: Place,
    operator: P,
    place: Place,
    output: PhantomData<O>,
}

impl<I: 'static, O, P: EachRecord<I, O>> Each<I, O, P> {
    /// Passes on what there is for each of the next records, at most `records_max`; false at the end.
    fn next(&mut self, records_max: usize, pass_on: impl FnMut(O)) -> Result<bool, TaskError> {
        let Self { task, visit, visit_place, operator, place, .. } = self;
        let mut sight = Sight { task, decoding: *visit_place, looking: *place, failed: Ok(()) };
        let more = operator.each(visit, records_max, &mut sight, pass_on);
        sight.failed.and(more)
    }
}

/// Empty once someone else looks at its records.
struct EachSource<I, O, P>(Option<Each<I, O, P>>);

impl<I: 'static, O: 'static, P: EachRecord<I, O> + 'static> Source<O> for EachSource<I, O, P> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<O>>, TaskError> {
        let Some(each) = &mut self.0 else { return Ok(None) };
        let mut batch = Vec::new();
        let more = each.next(records_max.min(BATCH_RECORDS), |record| batch.push(record))?;
        Ok(more.then_some(Batch::Owned(batch)))
    }

    fn visit(&mut self) -> Option<Visit<O>> {
        self.0.take().map(|each| Visit::Made(Box::new(each)))
    }
}

impl<I: 'static, O, P: EachRecord<I, O>> Made<O> for Each<I, O, P> {
    fn next(&mut self, records_max: usize, see: &mut dyn FnMut(&[O])) -> Result<bool, TaskError> {
        Each::next(self, records_max, |record| see(std::slice::from_ref(&record)))
    }
}
