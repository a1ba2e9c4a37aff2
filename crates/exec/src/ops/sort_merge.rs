//! Joins on disk: both sides are brought together by the hash of their keys, and the result back into the order of
//! the left side.
//!
//! Right values that many left records meet are not copied for each of them: the few of a key go with its left
//! records, many are written once and read again for each.

use std::cmp::Ordering;
use std::hash::BuildHasher;
use std::marker::PhantomData;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::data::{Key, Portable};
use crate::error::TaskError;
use crate::ops::deferred::Stream;
use crate::ops::join::JoinKind;
use crate::ops::step::Part;
use crate::ops::table::{Spilled, SpilledSorter};
use crate::partitioner::TableHasher;
use crate::pipeline::Pipeline;
use crate::spill::{Order, Run, RunReader, RunWriter, Sorted, Sorter, Spill, heap_bytes};
use crate::task::Task;

/// Right values of a key that are copied for each left record.
const FEW_VALUES_MAX: usize = 256;
const FEW_BYTES_MAX: usize = 32 << 10;

/// A left record, for the order of hashes.
#[derive(Clone, Serialize, Deserialize)]
struct Left<K, V> {
    hash: u64,
    place: u64,
    key: K,
    value: V,
}

struct LeftByHash;

impl<K: 'static, V: 'static> Order<Left<K, V>> for LeftByHash {
    type Key = (u64, u64);

    fn key(&self, left: &Left<K, V>) -> (u64, u64) {
        (left.hash, left.place)
    }

    fn compare(&self, left: &(u64, u64), right: &(u64, u64)) -> Ordering {
        left.cmp(right)
    }
}

/// A record with what it met, for the order of its side.
#[derive(Clone, Serialize, Deserialize)]
struct Placed<K, X> {
    place: u64,
    key: K,
    what: X,
}

struct ByPlace;

impl<K: 'static, X: 'static> Order<Placed<K, X>> for ByPlace {
    type Key = u64;

    fn key(&self, placed: &Placed<K, X>) -> u64 {
        placed.place
    }

    fn compare(&self, left: &u64, right: &u64) -> Ordering {
        left.cmp(right)
    }
}

/// The right values a left record met.
#[derive(Clone, Serialize, Deserialize)]
enum Met<W> {
    None,
    Few(Vec<W>),
    /// The number of their run.
    Many(u32),
}

type Lefts<K, V, W> = Placed<K, (V, Met<W>)>;

/// Left records in order, each with its right values; then the right records that met none, in order.
pub(crate) struct SortMerge<K: Key, V: Portable, W: Portable, J> {
    lefts: Sorted<Lefts<K, V, W>, ByPlace>,
    rest: Sorted<Placed<K, W>, ByPlace>,
    many: Many<W>,
    current: Option<Current<K, V, W>>,
    kind: PhantomData<fn() -> J>,
}

/// A left record and the right values it is still to be paired with.
struct Current<K, V, W: Portable> {
    key: K,
    value: V,
    right: Rights<W>,
}

enum Rights<W: Portable> {
    Few(std::vec::IntoIter<W>),
    Many(RunReader<W>),
}

impl<K: Key, V: Portable, W: Portable, J: JoinKind<V, W>> SortMerge<K, V, W, J> {
    pub(crate) fn start(
        task: &Task,
        mut left: Pipeline,
        mut right: SpilledSorter<K, W, Vec<W>>,
    ) -> Result<Self, TaskError> {
        right.park()?;
        right.shares_memory();
        let mut lefts = Sorter::new(task, LeftByHash)?;
        lefts.shares_memory();
        let mut place = 0;
        left.for_each_batch::<(K, V)>(|batch| {
            batch.try_for_each(|(key, value)| {
                let hash = TableHasher.hash_one(&key);
                place += 1;
                lefts.push(Left { hash, place, key, value })
            })
        })?;
        drop(left);
        lefts.park()?;
        let mut matching = Matching::<K, V, W, J> {
            lefts: Sorter::new(task, ByPlace)?,
            rest: Sorter::new(task, ByPlace)?,
            many: Many { task: Rc::clone(task), spill: None, runs: Vec::new() },
            kind: PhantomData,
        };
        matching.run(lefts.finish()?, right.finish()?)?;
        let Matching { mut lefts, mut rest, many, .. } = matching;
        lefts.park()?;
        rest.park()?;
        rest.shares_memory();
        let (lefts, rest) = (lefts.finish()?, rest.finish()?);
        Ok(Self { lefts, rest, many, current: None, kind: PhantomData })
    }
}

impl<K: Key, V: Portable, W: Portable, J: JoinKind<V, W>> Stream<(K, J::Pair)> for SortMerge<K, V, W, J> {
    fn next(&mut self) -> Result<Option<(K, J::Pair)>, TaskError> {
        loop {
            if let Some(current) = &mut self.current {
                let right = match &mut current.right {
                    Rights::Few(values) => values.next(),
                    Rights::Many(values) => values.next()?,
                };
                if let Some(right) = right {
                    return Ok(Some((current.key.clone(), J::both(current.value.clone(), right))));
                }
                self.current = None;
            }
            let Some(Placed { key, what: (value, met), .. }) = self.lefts.next()? else { break };
            let right = match met {
                Met::None => match J::left_only(value) {
                    Some(pair) => return Ok(Some((key, pair))),
                    None => continue,
                },
                Met::Few(values) => Rights::Few(values.into_iter()),
                Met::Many(run) => Rights::Many(self.many.read(run)?),
            };
            self.current = Some(Current { key, value, right });
        }
        while let Some(Placed { key, what, .. }) = self.rest.next()? {
            if let Some(pair) = J::right_only(what) {
                return Ok(Some((key, pair)));
            }
        }
        Ok(None)
    }

    fn is_charged(&self) -> bool {
        false
    }
}

/// Brings left and right records of a key together.
struct Matching<K: Key, V: Portable, W: Portable, J> {
    lefts: Sorter<Lefts<K, V, W>, ByPlace>,
    rest: Sorter<Placed<K, W>, ByPlace>,
    many: Many<W>,
    kind: PhantomData<fn() -> J>,
}

impl<K: Key, V: Portable, W: Portable, J: JoinKind<V, W>> Matching<K, V, W, J> {
    fn run(
        &mut self,
        mut lefts: impl Stream<Left<K, V>>,
        mut rights: impl Stream<Spilled<K, W, Vec<W>>>,
    ) -> Result<(), TaskError> {
        let (mut left, mut right) = (lefts.next()?, rights.next()?);
        let mut groups: Vec<Group<K, W>> = Vec::new();
        loop {
            let hash = match (&left, &right) {
                (None, None) => return Ok(()),
                (Some(left), None) => left.hash,
                (None, Some(right)) => right.hash,
                (Some(left), Some(right)) => left.hash.min(right.hash),
            };
            let is_wanted = J::KEEPS_RIGHT || left.as_ref().is_some_and(|left| left.hash == hash);
            while let Some(row) = right.take_if(|right| right.hash == hash) {
                if is_wanted {
                    self.gather(&mut groups, row)?;
                }
                right = rights.next()?;
            }
            for group in &mut groups {
                group.end(&mut self.many)?;
            }
            while let Some(row) = left.take_if(|left| left.hash == hash) {
                self.place(&mut groups, row)?;
                left = lefts.next()?;
            }
            for group in groups.drain(..) {
                self.keep_rest(group)?;
            }
        }
    }

    /// Adds right values to the group of their key.
    fn gather(&mut self, groups: &mut Vec<Group<K, W>>, row: Spilled<K, W, Vec<W>>) -> Result<(), TaskError> {
        let Spilled { place, key, part, .. } = row;
        if groups.iter().all(|group| group.key != key) {
            groups.push(Group::new(key.clone(), place));
        }
        let Some(group) = groups.iter_mut().find(|group| group.key == key) else { return Ok(()) };
        match part {
            Part::Input(value) => group.add(value, &mut self.many),
            Part::Combined(values) => {
                values.into_iter().try_for_each(|value| group.add(value, &mut self.many))
            }
        }
    }

    /// Sends a left record with what it met to its place.
    fn place(&mut self, groups: &mut [Group<K, W>], left: Left<K, V>) -> Result<(), TaskError> {
        let Left { place, key, value, .. } = left;
        let met = match groups.iter_mut().find(|group| group.key == key) {
            Some(group) => {
                group.met = true;
                group.run.map_or_else(|| Met::Few(group.values.clone()), Met::Many)
            }
            None if J::KEEPS_LEFT => Met::None,
            None => return Ok(()),
        };
        self.lefts.push(Placed { place, key, what: (value, met) })
    }

    fn keep_rest(&mut self, group: Group<K, W>) -> Result<(), TaskError> {
        if !J::KEEPS_RIGHT || group.met {
            return Ok(());
        }
        let (key, place) = (group.key, group.place);
        let mut keep = |what| self.rest.push(Placed { place, key: key.clone(), what });
        group.values.into_iter().try_for_each(&mut keep)?;
        if let Some(run) = group.run {
            let mut values = self.many.read(run)?;
            while let Some(value) = values.next()? {
                keep(value)?;
            }
        }
        Ok(())
    }
}

/// The right values of one key.
struct Group<K, W: Portable> {
    key: K,
    /// Of the first of them.
    place: u64,
    values: Vec<W>,
    bytes: usize,
    writer: Option<RunWriter<W>>,
    run: Option<u32>,
    met: bool,
}

impl<K, W: Portable> Group<K, W> {
    fn new(key: K, place: u64) -> Self {
        Self { key, place, values: Vec::new(), bytes: 0, writer: None, run: None, met: false }
    }

    fn add(&mut self, value: W, many: &mut Many<W>) -> Result<(), TaskError> {
        if let Some(writer) = &mut self.writer {
            return writer.push(value);
        }
        self.bytes += size_of::<W>() + heap_bytes(&value);
        self.values.push(value);
        if self.values.len() > FEW_VALUES_MAX || self.bytes > FEW_BYTES_MAX {
            let writer = self.writer.insert(RunWriter::new(many.spill()?));
            std::mem::take(&mut self.values).into_iter().try_for_each(|value| writer.push(value))?;
        }
        Ok(())
    }

    fn end(&mut self, many: &mut Many<W>) -> Result<(), TaskError> {
        if let Some(writer) = self.writer.take() {
            self.run = Some(many.keep(writer.finish()?));
        }
        Ok(())
    }
}

/// Right values that are read again and again.
struct Many<W: Portable> {
    task: Task,
    spill: Option<Rc<Spill<W>>>,
    runs: Vec<Run>,
}

impl<W: Portable> Many<W> {
    fn spill(&mut self) -> Result<&Rc<Spill<W>>, TaskError> {
        match &mut self.spill {
            Some(spill) => Ok(spill),
            none => Ok(none.insert(Spill::new(&self.task, 0)?)),
        }
    }

    fn keep(&mut self, run: Run) -> u32 {
        self.runs.push(run);
        (self.runs.len() - 1) as u32
    }

    fn read(&self, run: u32) -> Result<RunReader<W>, TaskError> {
        match (&self.spill, self.runs.get(run as usize)) {
            (Some(spill), Some(run)) => Ok(RunReader::again(spill, run)),
            _ => Err(crate::error::Cause::Internal.into()),
        }
    }
}
