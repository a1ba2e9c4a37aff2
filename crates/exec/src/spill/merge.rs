//! Merging sorted runs into one stream.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::rc::Rc;

use super::run::{Run, RunReader, RunWriter, Spill};
use super::sorter::Order;
use super::working::Working;
use crate::batch::BATCH_RECORDS;
use crate::data::Portable;
use crate::error::TaskError;
use crate::task::Task;

/// The least runs that are read at once: with fewer, merging gets nowhere.
const FAN_IN_MIN: usize = 2;

/// The records of several sorted runs in order; of equal records, those of earlier runs first.
pub(crate) struct Merge<R: Portable, O: Order<R>> {
    task: Task,
    heads: BinaryHeap<Head<R, O>>,
    since_check: usize,
    _working: Working,
}

/// The next record of a run.
struct Head<R: Portable, O: Order<R>> {
    key: O::Key,
    record: R,
    run: usize,
    reader: Box<RunReader<R>>,
    order: Rc<O>,
}

impl<R: Portable, O: Order<R>> Merge<R, O> {
    /// Merges runs until few enough are left to be read at once in the memory there is.
    pub(crate) fn open(
        task: &Task,
        spill: &Rc<Spill<R>>,
        order: &Rc<O>,
        mut runs: Vec<Run>,
        fan_in_max: usize,
    ) -> Result<Self, TaskError> {
        loop {
            let mut working = Working::new(task)?;
            let each = runs.iter().map(Run::reader_bytes).max().unwrap_or_default();
            let fan_in = working.cover_some(each, runs.len().clamp(FAN_IN_MIN, fan_in_max), FAN_IN_MIN);
            if runs.len() <= fan_in {
                return Self::of(task, spill, order, runs, working);
            }
            let mut merged = Vec::with_capacity(runs.len().div_ceil(fan_in));
            let mut rest = runs.into_iter();
            loop {
                let group: Vec<Run> = rest.by_ref().take(fan_in).collect();
                if group.len() < 2 {
                    merged.extend(group);
                    break;
                }
                let mut merge = Self::of(task, spill, order, group, Working::new(task)?)?;
                let mut writer = RunWriter::new(spill);
                while let Some(record) = merge.next()? {
                    writer.push(record)?;
                }
                merged.push(writer.finish()?);
            }
            runs = merged;
        }
    }

    fn of(
        task: &Task,
        spill: &Rc<Spill<R>>,
        order: &Rc<O>,
        runs: Vec<Run>,
        working: Working,
    ) -> Result<Self, TaskError> {
        let mut heads = BinaryHeap::with_capacity(runs.len());
        for (number, run) in runs.into_iter().enumerate() {
            let mut reader = Box::new(RunReader::last(spill, run));
            if let Some(record) = reader.next()? {
                let key = order.key(&record);
                heads.push(Head { key, record, run: number, reader, order: Rc::clone(order) });
            }
        }
        Ok(Self { task: Rc::clone(task), heads, since_check: 0, _working: working })
    }

    pub(crate) fn next(&mut self) -> Result<Option<R>, TaskError> {
        self.since_check += 1;
        if self.since_check >= BATCH_RECORDS {
            self.since_check = 0;
            self.task.check()?;
        }
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        match head.reader.next()? {
            Some(record) => {
                head.key = head.order.key(&record);
                Ok(Some(std::mem::replace(&mut head.record, record)))
            }
            None => Ok(Some(PeekMut::pop(head).record)),
        }
    }
}

/// The greatest is the one to come first: heaps give their greatest.
impl<R: Portable, O: Order<R>> Ord for Head<R, O> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.compare(&self.key, &other.key).then(self.run.cmp(&other.run)).reverse()
    }
}

impl<R: Portable, O: Order<R>> PartialOrd for Head<R, O> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R: Portable, O: Order<R>> PartialEq for Head<R, O> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<R: Portable, O: Order<R>> Eq for Head<R, O> {}
