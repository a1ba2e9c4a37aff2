//! Combining the values of each key: the tables behind `reduce_by_key`, `group_by_key` and their kin.

use std::marker::PhantomData;
use std::sync::Arc;

use indexmap::IndexMap;
use indexmap::map::Entry;

use crate::batch::Batch;
use crate::data::{Data, Key};
use crate::error::TaskError;
use crate::node::WholeInputs;
use crate::ops::deferred::deferred;
use crate::partitioner::TableHasher;
use crate::pipeline::{AnySource, Pipeline};
use crate::shuffle::AnyShuffle;
use crate::task::Task;

/// How values become a combined value.
pub(crate) trait Aggregate<V, C>: Send + Sync + 'static {
    /// The combined value of one value.
    fn first(&self, value: &V) -> C;

    /// One more value.
    fn add(&self, combined: C, value: &V) -> C;

    /// Two combined values, the left one of earlier records.
    fn merge(&self, left: C, right: C) -> C;

    /// As [`first`](Self::first), of a value that may be kept.
    fn first_owned(&self, value: V) -> C {
        self.first(&value)
    }

    /// As [`add`](Self::add), of a value that may be kept.
    fn add_owned(&self, combined: C, value: V) -> C {
        self.add(combined, &value)
    }
}

/// Values reduced by a closure.
pub(crate) struct Reduce<F>(pub(crate) F);

impl<V: Data, F: Fn(V, &V) -> V + Send + Sync + 'static> Aggregate<V, V> for Reduce<F> {
    fn first(&self, value: &V) -> V {
        value.clone()
    }

    fn first_owned(&self, value: V) -> V {
        value
    }

    fn add(&self, combined: V, value: &V) -> V {
        (self.0)(combined, value)
    }

    fn merge(&self, left: V, right: V) -> V {
        (self.0)(left, &right)
    }
}

/// Values folded into a start value, and results merged.
pub(crate) struct Fold<C, A, M> {
    pub(crate) zero: C,
    pub(crate) add: A,
    pub(crate) merge: M,
}

impl<V, C, A, M> Aggregate<V, C> for Fold<C, A, M>
where
    C: Data,
    A: Fn(C, &V) -> C + Send + Sync + 'static,
    M: Fn(C, C) -> C + Send + Sync + 'static,
{
    fn first(&self, value: &V) -> C {
        (self.add)(self.zero.clone(), value)
    }

    fn add(&self, combined: C, value: &V) -> C {
        (self.add)(combined, value)
    }

    fn merge(&self, left: C, right: C) -> C {
        (self.merge)(left, right)
    }
}

/// Values in the order in which they came.
pub(crate) struct Group;

impl<V: Data> Aggregate<V, Vec<V>> for Group {
    fn first(&self, value: &V) -> Vec<V> {
        vec![value.clone()]
    }

    fn first_owned(&self, value: V) -> Vec<V> {
        vec![value]
    }

    fn add(&self, mut combined: Vec<V>, value: &V) -> Vec<V> {
        combined.push(value.clone());
        combined
    }

    fn add_owned(&self, mut combined: Vec<V>, value: V) -> Vec<V> {
        combined.push(value);
        combined
    }

    fn merge(&self, mut left: Vec<V>, mut right: Vec<V>) -> Vec<V> {
        left.append(&mut right);
        left
    }
}

/// Combined values by key, in the order in which keys first came.
pub(crate) struct Table<K, C> {
    /// A value is absent only while it is being combined.
    rows: IndexMap<K, Option<C>, TableHasher>,
}

impl<K: Key, C: 'static> Table<K, C> {
    pub(crate) fn new() -> Self {
        Self { rows: IndexMap::default() }
    }

    /// Adds single values.
    pub(crate) fn add<V: Data>(&mut self, batch: Batch<(K, V)>, aggregate: &impl Aggregate<V, C>) {
        match batch {
            Batch::Owned(records) => {
                for (key, value) in records {
                    self.put(
                        key,
                        value,
                        |value| aggregate.first_owned(value),
                        |combined, value| aggregate.add_owned(combined, value),
                    );
                }
            }
            Batch::Shared(_) => {
                for (key, value) in batch.as_slice() {
                    match self.rows.get_mut(key) {
                        Some(row) => {
                            *row = row.take().map(|combined| aggregate.add(combined, value));
                        }
                        None => {
                            self.rows.insert(key.clone(), Some(aggregate.first(value)));
                        }
                    }
                }
            }
        }
    }

    /// Adds values that were combined elsewhere.
    pub(crate) fn merge<V>(&mut self, batch: Batch<(K, C)>, aggregate: &impl Aggregate<V, C>)
    where
        C: Clone,
    {
        for (key, combined) in batch.into_vec() {
            self.put(key, combined, |first| first, |left, right| aggregate.merge(left, right));
        }
    }

    fn put<X>(&mut self, key: K, value: X, first: impl FnOnce(X) -> C, add: impl FnOnce(C, X) -> C) {
        match self.rows.entry(key) {
            Entry::Occupied(mut row) => {
                let row = row.get_mut();
                *row = row.take().map(|combined| add(combined, value));
            }
            Entry::Vacant(row) => {
                row.insert(Some(first(value)));
            }
        }
    }

    /// Keys and combined values, in the order in which keys first came.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = (K, C)> {
        self.rows.into_iter().filter_map(|(key, combined)| Some((key, combined?)))
    }
}

/// Combines the values of each key of one partition.
pub(crate) struct ByKey<K, V, C, A> {
    aggregate: Arc<A>,
    shuffle: Option<Arc<dyn AnyShuffle>>,
    /// Whether the map side of the shuffle combined already.
    combined: bool,
    types: PhantomData<fn(K, V) -> C>,
}

impl<K, V, C, A> ByKey<K, V, C, A> {
    /// Reads single values, from a shuffle or from a partition that holds all there is of its keys.
    pub(crate) fn of_values(aggregate: Arc<A>, shuffle: Option<Arc<dyn AnyShuffle>>) -> Self {
        Self { aggregate, shuffle, combined: false, types: PhantomData }
    }

    /// Reads what map tasks combined.
    pub(crate) fn of_combined(aggregate: Arc<A>, shuffle: Arc<dyn AnyShuffle>) -> Self {
        Self { aggregate, shuffle: Some(shuffle), combined: true, types: PhantomData }
    }
}

impl<K: Key, V: Data, C: Data, A: Aggregate<V, C>> WholeInputs for ByKey<K, V, C, A> {
    fn open(&self, _task: &Task, _partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError> {
        let mut input = inputs.into_iter().next().ok_or(TaskError::Stale)?;
        let (aggregate, combined) = (Arc::clone(&self.aggregate), self.combined);
        Ok(deferred(input.depth(), move || {
            let mut table = Table::<K, C>::new();
            if combined {
                input.for_each_batch(|batch| {
                    table.merge(batch, &*aggregate);
                    Ok(())
                })?;
            } else {
                input.for_each_batch(|batch| {
                    table.add::<V>(batch, &*aggregate);
                    Ok(())
                })?;
            }
            Ok(table.into_rows())
        }))
    }

    fn shuffle(&self, _dependency: usize) -> Option<Arc<dyn AnyShuffle>> {
        self.shuffle.clone()
    }
}

/// A distinct record needs no value.
pub(crate) struct Nothing;

impl Aggregate<(), ()> for Nothing {
    fn first(&self, (): &()) {}

    fn add(&self, (): (), (): &()) {}

    fn merge(&self, (): (), (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs() -> Vec<(String, i64)> {
        [("b", 1), ("a", 2), ("b", 3), ("c", 4), ("a", 5)].map(|(key, n)| (key.to_owned(), n)).to_vec()
    }

    #[test]
    fn a_table_keeps_the_order_in_which_keys_came_owned_or_shared() {
        for batch in [Batch::Owned(pairs()), Batch::Shared(Batch::Owned(pairs()).share())] {
            let mut table = Table::new();
            table.add(batch, &Group);
            let rows: Vec<(String, Vec<i64>)> = table.into_rows().collect();
            assert_eq!(rows, [("b".into(), vec![1, 3]), ("a".into(), vec![2, 5]), ("c".into(), vec![4])]);
        }
    }

    #[test]
    fn combined_values_merge_in_the_order_they_are_read() {
        let mut table = Table::new();
        let concat = Reduce(|left: String, right: &String| left + right);
        for batch in [vec![(1, "x".to_owned()), (2, "y".into())], vec![(2, "z".into()), (1, "w".into())]] {
            table.merge(Batch::Owned(batch), &concat);
        }
        assert_eq!(table.into_rows().collect::<Vec<_>>(), [(1, "xw".to_owned()), (2, "yz".into())]);
    }
}
