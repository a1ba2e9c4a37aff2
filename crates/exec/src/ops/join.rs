//! Joins: the right side becomes a table, the left side streams past it. Where the table does not fit, both sides
//! are sorted on disk instead ([`sort_merge`](crate::ops::sort_merge)); what comes out is the same.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::batch::{BATCH_RECORDS, Batch};
use crate::data::{Key, Portable};
use crate::error::TaskError;
use crate::node::WholeInputs;
use crate::ops::co_group::Sides;
use crate::ops::deferred::next_batch;
use crate::ops::sort_merge::SortMerge;
use crate::ops::step::Grouping;
use crate::ops::table::{Full, Table};
use crate::partitioner::TableHasher;
use crate::pipeline::{AnySource, Pipeline, Source};
use crate::shuffle::AnyShuffle;
use crate::spill::Working;
use crate::task::Task;

/// Which pairs a join gives.
pub(crate) trait JoinKind<V, W>: Send + Sync + 'static {
    type Pair: Portable;

    /// Whether left values without a right one count.
    const KEEPS_LEFT: bool;

    /// Whether right values without a left one count.
    const KEEPS_RIGHT: bool;

    /// A left and a right value of one key.
    fn both(left: V, right: W) -> Self::Pair;

    /// A left value whose key the right side lacks.
    fn left_only(left: V) -> Option<Self::Pair>;

    /// A right value whose key the left side lacks.
    fn right_only(right: W) -> Option<Self::Pair>;
}

pub(crate) struct Inner;
pub(crate) struct LeftOuter;
pub(crate) struct FullOuter;

impl<V: Portable, W: Portable> JoinKind<V, W> for Inner {
    type Pair = (V, W);

    const KEEPS_LEFT: bool = false;
    const KEEPS_RIGHT: bool = false;

    fn both(left: V, right: W) -> (V, W) {
        (left, right)
    }

    fn left_only(_left: V) -> Option<(V, W)> {
        None
    }

    fn right_only(_right: W) -> Option<(V, W)> {
        None
    }
}

impl<V: Portable, W: Portable> JoinKind<V, W> for LeftOuter {
    type Pair = (V, Option<W>);

    const KEEPS_LEFT: bool = true;
    const KEEPS_RIGHT: bool = false;

    fn both(left: V, right: W) -> Self::Pair {
        (left, Some(right))
    }

    fn left_only(left: V) -> Option<Self::Pair> {
        Some((left, None))
    }

    fn right_only(_right: W) -> Option<Self::Pair> {
        None
    }
}

impl<V: Portable, W: Portable> JoinKind<V, W> for FullOuter {
    type Pair = (Option<V>, Option<W>);

    const KEEPS_LEFT: bool = true;
    const KEEPS_RIGHT: bool = true;

    fn both(left: V, right: W) -> Self::Pair {
        (Some(left), Some(right))
    }

    fn left_only(left: V) -> Option<Self::Pair> {
        Some((Some(left), None))
    }

    fn right_only(right: W) -> Option<Self::Pair> {
        Some((None, Some(right)))
    }
}

pub(crate) struct Join<K, V, W, J> {
    sides: Sides,
    types: PhantomData<(K, V, W, J)>,
}

impl<K, V, W, J> Join<K, V, W, J> {
    pub(crate) fn new(sides: Sides) -> Self {
        Self { sides, types: PhantomData }
    }
}

impl<K: Key, V: Portable, W: Portable, J: JoinKind<V, W>> WholeInputs for Join<K, V, W, J> {
    fn open(&self, task: &Task, _partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError> {
        let [left, right] = <[_; 2]>::try_from(inputs).map_err(|_| TaskError::Stale)?;
        let depth = left.depth().max(right.depth());
        let joined = Joined::<K, V, W, J> { task: Rc::clone(task), state: State::Unread { left, right } };
        Ok(AnySource::around(depth, joined))
    }

    fn shuffle(&self, dependency: usize) -> Option<Arc<dyn AnyShuffle>> {
        self.sides.shuffle(dependency)
    }
}

struct Joined<K: Key, V: Portable, W: Portable, J> {
    task: Task,
    state: State<K, V, W, J>,
}

enum State<K: Key, V: Portable, W: Portable, J> {
    Unread { left: Pipeline, right: Pipeline },
    InMemory(Box<Probe<K, V, W, J>>),
    OnDisk(Box<SortMerge<K, V, W, J>>),
    Ended,
}

impl<K: Key, V: Portable, W: Portable, J: JoinKind<V, W>> Joined<K, V, W, J> {
    fn start(&self, left: Pipeline, mut right: Pipeline) -> Result<State<K, V, W, J>, TaskError> {
        let mut table = Table::<K, W, Vec<W>, _>::new(&self.task, Arc::new(Grouping))?;
        right.for_each_batch(|batch| table.add(batch))?;
        drop(right);
        table.evict_all_if_closed()?;
        let Full { rows, working, spilled } = table.finish();
        if let Some(right) = spilled {
            drop(working);
            return Ok(State::OnDisk(Box::new(SortMerge::start(&self.task, left, right)?)));
        }
        let met = if J::KEEPS_RIGHT { vec![false; rows.len()] } else { Vec::new() };
        Ok(State::InMemory(Box::new(Probe {
            left: Some(left),
            batch: None,
            next: 0,
            next_right: 0,
            rows,
            met,
            rest: None,
            rest_values: None,
            _working: working,
            kind: PhantomData,
        })))
    }
}

impl<K: Key, V: Portable, W: Portable, J: JoinKind<V, W>> Source<(K, J::Pair)> for Joined<K, V, W, J> {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<(K, J::Pair)>>, TaskError> {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Unread { left, right } => self.start(left, right)?,
            state => state,
        };
        let batch = match &mut self.state {
            State::InMemory(probe) => probe.next()?,
            State::OnDisk(merge) => next_batch(&mut **merge, records_max)?,
            State::Unread { .. } | State::Ended => None,
        };
        if batch.is_none() {
            self.state = State::Ended;
        }
        Ok(batch)
    }
}

type Pairs<K, P> = Batch<(K, P)>;

type Rows<K, W> = IndexMap<K, Option<Vec<W>>, TableHasher>;

/// Left records in order, each with its right values; then the right records that met none, in order.
struct Probe<K, V, W, J> {
    left: Option<Pipeline>,
    batch: Option<Batch<(K, V)>>,
    next: usize,
    /// How many right values the next left record is paired with already.
    next_right: usize,
    /// Right values by key.
    rows: Rows<K, W>,
    /// Which rows met a left record; kept only where it matters.
    met: Vec<bool>,
    /// The rows that met none, once the left side is at its end.
    rest: Option<Rest<K, W>>,
    /// The one of them that was begun.
    rest_values: Option<(K, std::vec::IntoIter<W>)>,
    _working: Working,
    kind: PhantomData<fn() -> J>,
}

type Rest<K, W> = std::iter::Zip<indexmap::map::IntoIter<K, Option<Vec<W>>>, std::vec::IntoIter<bool>>;

impl<K: Key, V: Portable, W: Portable, J: JoinKind<V, W>> Probe<K, V, W, J> {
    fn next(&mut self) -> Result<Option<Pairs<K, J::Pair>>, TaskError> {
        let mut output = Vec::new();
        while let Some(left) = &mut self.left {
            if let Some(batch) = &self.batch
                && self.next < batch.len()
            {
                if self.join_batch(&mut output) {
                    return Ok(Some(Batch::Owned(output)));
                }
                continue;
            }
            self.batch = left.next(usize::MAX)?;
            self.next = 0;
            if self.batch.is_none() {
                self.left = None;
            }
        }
        self.rest(&mut output);
        Ok(if output.is_empty() { None } else { Some(Batch::Owned(output)) })
    }

    /// Joins records of the current left batch until there is a batch of output. False if more left records are
    /// needed.
    fn join_batch(&mut self, output: &mut Vec<(K, J::Pair)>) -> bool {
        let records = self.batch.as_ref().map(Batch::as_slice).unwrap_or_default();
        for (key, value) in records.get(self.next..).unwrap_or_default() {
            if output.len() >= BATCH_RECORDS {
                return true;
            }
            match self.rows.get_full(key) {
                Some((row, _, values)) => {
                    if let Some(met) = self.met.get_mut(row) {
                        *met = true;
                    }
                    // Many records of a hot key would be more than anybody was granted.
                    let rights = values.as_deref().and_then(|values| values.get(self.next_right..));
                    let mut rights = rights.unwrap_or_default().iter();
                    let room = BATCH_RECORDS - output.len();
                    let pairs = rights.by_ref().take(room).map(|right| J::both(value.clone(), right.clone()));
                    output.extend(pairs.map(|pair| (key.clone(), pair)));
                    if rights.len() > 0 {
                        self.next_right += room;
                        return true;
                    }
                    self.next_right = 0;
                }
                None => output.extend(J::left_only(value.clone()).map(|pair| (key.clone(), pair))),
            }
            self.next += 1;
        }
        output.len() >= BATCH_RECORDS
    }

    fn rest(&mut self, output: &mut Vec<(K, J::Pair)>) {
        let (rows, met) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.met));
        let rest = self.rest.get_or_insert_with(|| rows.into_iter().zip(met));
        loop {
            if let Some((key, values)) = &mut self.rest_values {
                let values = values.by_ref().take(BATCH_RECORDS - output.len());
                output.extend(values.filter_map(J::right_only).map(|pair| (key.clone(), pair)));
                if output.len() >= BATCH_RECORDS {
                    return;
                }
            }
            let unmet = rest.find(|(_, met)| !met);
            self.rest_values = unmet.map(|((key, values), _)| (key, values.unwrap_or_default().into_iter()));
            if self.rest_values.is_none() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::batch::BATCH_RECORDS;
    use crate::context::Context;
    use crate::dataset::Dataset;
    use crate::error::Error;

    /// The records of the one partition, and how many came at once.
    fn batches<T: crate::data::Data>(dataset: &Dataset<T>) -> Result<(Vec<T>, usize), Error> {
        let parts = dataset.run(&|_, mut pipeline| {
            let (mut records, mut most) = (Vec::new(), 0);
            pipeline.for_each_batch::<T>(|batch| {
                most = most.max(batch.len());
                batch.try_for_each(|record| {
                    records.push(record);
                    Ok(())
                })
            })?;
            Ok((records, most))
        })?;
        Ok(parts.into_iter().next().unwrap_or_default())
    }

    #[test]
    fn a_key_of_many_values_is_joined_in_bounded_batches() -> Result<(), Error> {
        const VALUES: i64 = 5_000;
        let context = Context::builder().threads(1).progress(false).memory("64MiB").build()?;
        let left = context.parallelize(vec![(0, 'a'), (1, 'b'), (7, 'c'), (1, 'd')], 1)?;
        let right = context.range(0..2 * VALUES, 1)?.map(|n| (n % 2 + 1, *n));
        let values = |key: i64| (0..VALUES).map(move |n| 2 * n + key - 1);
        let met = |name| values(1).map(move |n| (1, (Some(name), Some(n))));
        let only = |key, name| (key, (Some(name), None));
        let mut expected = vec![only(0, 'a')];
        expected.extend(met('b'));
        expected.push(only(7, 'c'));
        expected.extend(met('d'));
        let inner: Vec<_> =
            expected.iter().filter_map(|(key, (left, right))| Some((*key, ((*left)?, (*right)?)))).collect();
        let (joined, most) = batches(&left.join(&right)?)?;
        assert!(joined == inner && most <= BATCH_RECORDS, "{} pairs, {most} at once", joined.len());
        expected.extend(values(2).map(|n| (2, (None, Some(n)))));
        let (joined, most) = batches(&left.full_outer_join(&right)?)?;
        assert!(joined == expected && most <= BATCH_RECORDS, "{} pairs, {most} at once", joined.len());
        Ok(())
    }
}
