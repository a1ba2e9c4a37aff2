//! `co_group`: the values of both sides by key.

use std::marker::PhantomData;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::data::{Data, Key};
use crate::error::TaskError;
use crate::node::WholeInputs;
use crate::ops::deferred::deferred;
use crate::partitioner::TableHasher;
use crate::pipeline::{AnySource, Pipeline};
use crate::shuffle::AnyShuffle;
use crate::task::Task;

/// The two inputs of an operation on pairs, each from a shuffle or from partitions that fit already.
pub(crate) struct Sides {
    pub(crate) shuffles: [Option<Arc<dyn AnyShuffle>>; 2],
}

impl Sides {
    pub(crate) fn shuffle(&self, dependency: usize) -> Option<Arc<dyn AnyShuffle>> {
        self.shuffles.get(dependency)?.clone()
    }
}

pub(crate) struct CoGroup<K, V, W> {
    sides: Sides,
    types: PhantomData<(K, V, W)>,
}

impl<K, V, W> CoGroup<K, V, W> {
    pub(crate) fn new(sides: Sides) -> Self {
        Self { sides, types: PhantomData }
    }
}

impl<K: Key, V: Data, W: Data> WholeInputs for CoGroup<K, V, W> {
    fn open(&self, _task: &Task, _partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError> {
        let [mut left, mut right] = <[_; 2]>::try_from(inputs).map_err(|_| TaskError::Stale)?;
        Ok(deferred(left.depth().max(right.depth()), move || {
            let mut groups: IndexMap<K, (Vec<V>, Vec<W>), TableHasher> = IndexMap::default();
            left.for_each_batch::<(K, V)>(|batch| {
                for (key, value) in batch.into_vec() {
                    groups.entry(key).or_default().0.push(value);
                }
                Ok(())
            })?;
            right.for_each_batch::<(K, W)>(|batch| {
                for (key, value) in batch.into_vec() {
                    groups.entry(key).or_default().1.push(value);
                }
                Ok(())
            })?;
            Ok(groups.into_iter())
        }))
    }

    fn shuffle(&self, dependency: usize) -> Option<Arc<dyn AnyShuffle>> {
        self.sides.shuffle(dependency)
    }
}
