//! The rows of a table in the order in which keys first came: those in memory, then those on disk.

use std::cmp::Ordering;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::data::{Key, Portable};
use crate::error::{Cause, TaskError};
use crate::ops::deferred::Stream;
use crate::ops::step::{Part, Step};
use crate::ops::table::{Full, Spilled, SpilledSorter};
use crate::spill::{Order, Sorted, Sorter, Working, heap_bytes};
use crate::task::Task;

/// Streams keys with their combined values.
pub(crate) struct Rows<K: Key, X: Portable, C: Portable, S> {
    task: Task,
    step: Arc<S>,
    resident: indexmap::map::IntoIter<K, Option<C>>,
    /// Covers the resident rows.
    working: Option<Working>,
    /// What is on disk, by hash, until the resident rows are through.
    spilled: Option<SpilledSorter<K, X, C>>,
    /// The same, combined and in order.
    combined: Option<Sorted<Row<K, C>, ByPlace>>,
}

/// A key that was on disk, combined.
#[derive(Clone, Serialize, Deserialize)]
struct Row<K, C> {
    /// Of its first input.
    place: u64,
    key: K,
    combined: C,
}

struct ByPlace;

impl<K: 'static, C: 'static> Order<Row<K, C>> for ByPlace {
    type Key = u64;

    fn key(&self, row: &Row<K, C>) -> u64 {
        row.place
    }

    fn compare(&self, left: &u64, right: &u64) -> Ordering {
        left.cmp(right)
    }
}

impl<K: Key, X: Portable, C: Portable, S: Step<X, C>> Rows<K, X, C, S> {
    pub(crate) fn new(task: Task, step: Arc<S>, table: Full<K, X, C>) -> Self {
        Self {
            task,
            step,
            resident: table.rows.into_iter(),
            working: Some(table.working),
            spilled: table.spilled,
            combined: None,
        }
    }

    #[cold]
    fn next_spilled(&mut self) -> Result<Option<(K, C)>, TaskError> {
        if self.working.take().is_some() {
            self.resident = IndexMap::<K, Option<C>>::new().into_iter();
        }
        if let Some(spilled) = self.spilled.take() {
            self.combined = Some(combine(&self.task, &*self.step, spilled)?);
        }
        let Some(combined) = &mut self.combined else { return Ok(None) };
        Ok(combined.next()?.map(|row| (row.key, row.combined)))
    }
}

impl<K: Key, X: Portable, C: Portable, S: Step<X, C>> Stream<(K, C)> for Rows<K, X, C, S> {
    #[inline]
    fn next(&mut self) -> Result<Option<(K, C)>, TaskError> {
        for (key, combined) in self.resident.by_ref() {
            if let Some(combined) = combined {
                return Ok(Some((key, combined)));
            }
        }
        self.next_spilled()
    }

    fn is_charged(&self) -> bool {
        self.working.is_some() || self.combined.as_ref().is_some_and(Stream::is_charged)
    }
}

/// Combines what is on disk, key by key, and sorts the results by the place of their first input.
fn combine<K: Key, X: Portable, C: Portable, S: Step<X, C>>(
    task: &Task,
    step: &S,
    spilled: SpilledSorter<K, X, C>,
) -> Result<Sorted<Row<K, C>, ByPlace>, TaskError> {
    let mut spilled = spilled.finish()?;
    let mut sorter = Sorter::new(task, ByPlace)?;
    let mut hash = None;
    let mut keys = KeysOfHash { step, rows: Vec::new(), heap_bytes: 0, working: Working::new(task)? };
    while let Some(row) = spilled.next()? {
        if hash != Some(row.hash) {
            keys.flush(&mut sorter)?;
            hash = Some(row.hash);
        }
        keys.add(row)?;
    }
    keys.flush(&mut sorter)?;
    drop((spilled, keys));
    sorter.finish()
}

/// The keys of one hash that are being combined: seldom more than one.
struct KeysOfHash<'a, K, C, S> {
    step: &'a S,
    rows: Vec<Row<K, C>>,
    heap_bytes: usize,
    working: Working,
}

impl<K: Key, C: Portable, S> KeysOfHash<'_, K, C, S> {
    fn add<X: Portable>(&mut self, row: Spilled<K, X, C>) -> Result<(), TaskError>
    where
        S: Step<X, C>,
    {
        let Spilled { place, key, part, .. } = row;
        let known = self.rows.iter().position(|row| row.key == key);
        let combined = match (known.map(|at| self.rows.remove(at)), part) {
            (None, Part::Combined(combined)) => {
                self.heap_bytes += self.step.heap_bytes(&combined);
                Row { place, key, combined }
            }
            (None, Part::Input(input)) => {
                let combined = self.step.first(input);
                self.heap_bytes += self.step.heap_bytes(&combined);
                Row { place, key, combined }
            }
            (Some(row), Part::Input(input)) => {
                self.heap_bytes += self.step.growth(&row.combined, &input);
                Row { combined: self.step.add(row.combined, input), ..row }
            }
            // A key leaves the table once, before any input of it goes to disk.
            (Some(_), Part::Combined(_)) => return Err(Cause::Internal.into()),
        };
        self.rows.push(combined);
        self.cover()
    }

    /// Sees that what the rows own is granted; measures it anew before it is refused for good.
    fn cover(&mut self) -> Result<(), TaskError> {
        if self.heap_bytes as u64 <= self.working.covered_bytes()
            || self.working.cover(self.heap_bytes as u64).is_ok()
        {
            return Ok(());
        }
        self.heap_bytes = self.rows.iter().map(|row| heap_bytes(&row.key) + heap_bytes(&row.combined)).sum();
        self.working.cover(self.heap_bytes as u64).map_err(|refused| {
            Cause::GroupTooLarge {
                needed_bytes: self.heap_bytes as u64,
                available_bytes: refused.available_bytes + self.working.covered_bytes(),
                budget_bytes: refused.budget_bytes,
            }
            .into()
        })
    }

    fn flush(&mut self, sorter: &mut Sorter<Row<K, C>, ByPlace>) -> Result<(), TaskError> {
        self.heap_bytes = 0;
        self.working.shrink_to(0);
        self.rows.drain(..).try_for_each(|row| sorter.push(row))
    }
}
