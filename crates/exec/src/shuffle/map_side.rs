//! What map tasks do with their records.

use std::sync::Arc;

use super::{MapSide, MapWriter};
use crate::data::{Key, Portable};
use crate::error::TaskError;
use crate::ops::deferred::Stream;
use crate::ops::step::{Adding, Aggregate};
use crate::ops::table::Table;
use crate::partitioner::hash_partition;
use crate::pipeline::Pipeline;
use crate::task::Task;

/// Pairs by the hash of their key, as they are.
pub(crate) struct ScatterByKey;

impl<K: Key, V: Portable> MapSide<(K, V)> for ScatterByKey {
    fn run(&self, _task: &Task, mut input: Pipeline, out: &mut MapWriter<(K, V)>) -> Result<(), TaskError> {
        let reduces = out.reduces();
        input.for_each_batch::<(K, V)>(|batch| out.push_batch(batch, |(key, _)| hash_partition(key, reduces)))
    }
}

/// Pairs by the hash of their key, the values of each key combined first.
pub(crate) struct CombineByKey<V, C, A> {
    step: Arc<Adding<A>>,
    types: std::marker::PhantomData<fn(V) -> C>,
}

impl<V, C, A> CombineByKey<V, C, A> {
    pub(crate) fn new(aggregate: &Arc<A>) -> Self {
        Self { step: Arc::new(Adding(Arc::clone(aggregate))), types: std::marker::PhantomData }
    }
}

impl<K: Key, V: Portable, C: Portable, A: Aggregate<V, C>> MapSide<(K, C)> for CombineByKey<V, C, A> {
    fn run(&self, task: &Task, mut input: Pipeline, out: &mut MapWriter<(K, C)>) -> Result<(), TaskError> {
        let reduces = out.reduces();
        let mut table = Table::<K, V, C, _>::new(task, Arc::clone(&self.step))?;
        input.for_each_batch::<(K, V)>(|batch| table.add(batch))?;
        drop(input);
        let mut rows = table.into_rows();
        while let Some(row) = rows.next()? {
            out.push(hash_partition(&row.0, reduces), row)?;
        }
        Ok(())
    }
}

/// Records one after the other to the next reduce partition, so that all become about equally large.
pub(crate) struct RoundRobin;

impl<T: Portable> MapSide<T> for RoundRobin {
    fn run(&self, _task: &Task, mut input: Pipeline, out: &mut MapWriter<T>) -> Result<(), TaskError> {
        let reduces = out.reduces();
        // Each map task begins elsewhere, or many small ones would all fill the first partition.
        let mut next = hash_partition(&out.map_partition(), reduces);
        input.for_each_batch::<T>(|batch| {
            out.push_batch(batch, |_| {
                let after = if next + 1 < reduces { next + 1 } else { 0 };
                std::mem::replace(&mut next, after)
            })
        })
    }
}
