//! Joins: the right side becomes a table, the left side streams past it.

use std::marker::PhantomData;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::batch::{BATCH_RECORDS, Batch};
use crate::data::{Data, Key};
use crate::error::TaskError;
use crate::node::WholeInputs;
use crate::ops::co_group::Sides;
use crate::partitioner::TableHasher;
use crate::pipeline::{AnySource, Pipeline, Source};
use crate::shuffle::AnyShuffle;
use crate::task::Task;

/// Which pairs a join gives.
pub(crate) trait JoinKind<V, W>: Send + Sync + 'static {
    type Pair: Data;

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

impl<V: Data, W: Data> JoinKind<V, W> for Inner {
    type Pair = (V, W);

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

impl<V: Data, W: Data> JoinKind<V, W> for LeftOuter {
    type Pair = (V, Option<W>);

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

impl<V: Data, W: Data> JoinKind<V, W> for FullOuter {
    type Pair = (Option<V>, Option<W>);

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

impl<K: Key, V: Data, W: Data, J: JoinKind<V, W>> WholeInputs for Join<K, V, W, J> {
    fn open(&self, _task: &Task, _partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError> {
        let [left, right] = <[_; 2]>::try_from(inputs).map_err(|_| TaskError::Stale)?;
        let depth = left.depth().max(right.depth());
        let joined = Joined::<K, V, W, J> {
            left: Some(left),
            right: Some(right),
            batch: None,
            next: 0,
            table: IndexMap::default(),
            rest: None,
            kind: PhantomData,
        };
        Ok(AnySource::around(depth, joined))
    }

    fn shuffle(&self, dependency: usize) -> Option<Arc<dyn AnyShuffle>> {
        self.sides.shuffle(dependency)
    }
}

struct Row<W> {
    values: Vec<W>,
    met: bool,
}

type Rows<K, W> = IndexMap<K, Row<W>, TableHasher>;

/// Left records in order, each with its right values; then the right records that met none, in order.
struct Joined<K, V, W, J> {
    left: Option<Pipeline>,
    /// Until it has become the table.
    right: Option<Pipeline>,
    batch: Option<Batch<(K, V)>>,
    next: usize,
    table: Rows<K, W>,
    /// The table, once the left side is at its end.
    rest: Option<indexmap::map::IntoIter<K, Row<W>>>,
    kind: PhantomData<fn() -> J>,
}

impl<K: Key, V: Data, W: Data, J: JoinKind<V, W>> Joined<K, V, W, J> {
    fn build(&mut self) -> Result<(), TaskError> {
        let Some(mut right) = self.right.take() else { return Ok(()) };
        right.for_each_batch::<(K, W)>(|batch| {
            for (key, value) in batch.into_vec() {
                let row = self.table.entry(key).or_insert_with(|| Row { values: Vec::new(), met: false });
                row.values.push(value);
            }
            Ok(())
        })
    }

    /// Joins records of the current left batch until there is a batch of output. False if more left records are
    /// needed.
    fn join_batch(&mut self, output: &mut Vec<(K, J::Pair)>) -> bool {
        let records = self.batch.as_ref().map(Batch::as_slice).unwrap_or_default();
        for (key, value) in records.get(self.next..).unwrap_or_default() {
            if output.len() >= BATCH_RECORDS {
                return true;
            }
            self.next += 1;
            match self.table.get_mut(key) {
                Some(row) => {
                    row.met = true;
                    let pairs = row.values.iter().map(|right| J::both(value.clone(), right.clone()));
                    output.extend(pairs.map(|pair| (key.clone(), pair)));
                }
                None => output.extend(J::left_only(value.clone()).map(|pair| (key.clone(), pair))),
            }
        }
        output.len() >= BATCH_RECORDS
    }

    fn rest(&mut self, output: &mut Vec<(K, J::Pair)>) {
        let table = std::mem::take(&mut self.table);
        let rest = self.rest.get_or_insert_with(|| table.into_iter());
        while output.len() < BATCH_RECORDS
            && let Some((key, row)) = rest.next()
        {
            if !row.met {
                let pairs = row.values.into_iter().filter_map(J::right_only);
                output.extend(pairs.map(|pair| (key.clone(), pair)));
            }
        }
    }
}

impl<K: Key, V: Data, W: Data, J: JoinKind<V, W>> Source<(K, J::Pair)> for Joined<K, V, W, J> {
    fn next(&mut self, _records_max: usize) -> Result<Option<Batch<(K, J::Pair)>>, TaskError> {
        self.build()?;
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
}
