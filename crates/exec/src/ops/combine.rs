//! Combining the values of each key: what is behind `reduce_by_key`, `group_by_key` and their kin.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use crate::data::{Data, Key, Portable};
use crate::error::TaskError;
use crate::node::WholeInputs;
use crate::ops::deferred::{Streamed, deferred};
use crate::ops::step::{Adding, Aggregate, Grouping, Merging, Step};
use crate::ops::table::Table;
use crate::pipeline::{AnySource, Pipeline};
use crate::shuffle::AnyShuffle;
use crate::task::Task;

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

/// A distinct record needs no value.
pub(crate) struct Nothing;

impl Aggregate<(), ()> for Nothing {
    fn first(&self, (): &()) {}

    fn add(&self, (): (), (): &()) {}

    fn merge(&self, (): (), (): ()) {}
}

/// Combines the values of each key of one partition.
pub(crate) struct ByKey<K, X, C, S> {
    step: Arc<S>,
    shuffle: Option<Arc<dyn AnyShuffle>>,
    types: PhantomData<fn(K, X) -> C>,
}

impl<K, X, C, S> ByKey<K, X, C, S> {
    /// Reads inputs from a shuffle, or from a partition that holds all there is of its keys.
    fn new(step: S, shuffle: Option<Arc<dyn AnyShuffle>>) -> Self {
        Self { step: Arc::new(step), shuffle, types: PhantomData }
    }
}

impl<K, V> ByKey<K, V, Vec<V>, Grouping> {
    pub(crate) fn grouping(shuffle: Option<Arc<dyn AnyShuffle>>) -> Self {
        Self::new(Grouping, shuffle)
    }
}

impl<K, V, C, A> ByKey<K, V, C, Adding<A>> {
    /// Reads single values.
    pub(crate) fn of_values(aggregate: Arc<A>) -> Self {
        Self::new(Adding(aggregate), None)
    }
}

impl<K, V, C, A> ByKey<K, C, C, Merging<V, A>> {
    /// Reads what map tasks combined.
    pub(crate) fn of_combined(aggregate: Arc<A>, shuffle: Arc<dyn AnyShuffle>) -> Self {
        Self::new(Merging(aggregate, PhantomData), Some(shuffle))
    }
}

impl<K: Key, X: Portable, C: Portable, S: Step<X, C> + Send + Sync> WholeInputs for ByKey<K, X, C, S> {
    fn open(&self, task: &Task, _partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError> {
        let mut input = inputs.into_iter().next().ok_or(TaskError::Stale)?;
        let (task, step) = (Rc::clone(task), Arc::clone(&self.step));
        Ok(deferred(input.depth(), move || {
            let mut table = Table::<K, X, C, S>::new(&task, step)?;
            input.for_each_batch(|batch| table.add(batch))?;
            drop(input);
            Ok(Streamed(table.into_rows()))
        }))
    }

    fn shuffle(&self, _dependency: usize) -> Option<Arc<dyn AnyShuffle>> {
        self.shuffle.clone()
    }
}
