//! `co_group`: the values of both sides by key.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::{Key, Portable};
use crate::error::TaskError;
use crate::node::WholeInputs;
use crate::ops::deferred::{Streamed, deferred};
use crate::ops::step::{Part, Step, group_bytes, push_bytes};
use crate::ops::table::Table;
use crate::pairs::Groups;
use crate::pipeline::{AnySource, Pipeline};
use crate::shuffle::AnyShuffle;
use crate::spill::heap_bytes;
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

impl<K: Key, V: Portable, W: Portable> WholeInputs for CoGroup<K, V, W> {
    fn open(&self, task: &Task, _partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError> {
        let [mut left, mut right] = <[_; 2]>::try_from(inputs).map_err(|_| TaskError::Stale)?;
        let task = Rc::clone(task);
        Ok(deferred(left.depth().max(right.depth()), move || {
            let mut table = Table::<K, Side<V, W>, Groups<V, W>, _>::new(&task, Arc::new(BothSides))?;
            left.for_each_batch::<(K, V)>(|batch| {
                batch.try_for_each(|(key, value)| table.put(key, Side::Left(value)))
            })?;
            drop(left);
            right.for_each_batch::<(K, W)>(|batch| {
                batch.try_for_each(|(key, value)| table.put(key, Side::Right(value)))
            })?;
            drop(right);
            Ok(Streamed(table.into_rows()))
        }))
    }

    fn shuffle(&self, dependency: usize) -> Option<Arc<dyn AnyShuffle>> {
        self.sides.shuffle(dependency)
    }
}

/// A value of one of the sides. All left ones come first.
#[derive(Clone, Serialize, Deserialize)]
enum Side<V, W> {
    Left(V),
    Right(W),
}

/// Keeps the values of each side in the order in which they come.
struct BothSides;

impl<V: Portable, W: Portable> Step<Side<V, W>, Groups<V, W>> for BothSides {
    fn first(&self, value: Side<V, W>) -> Groups<V, W> {
        match value {
            Side::Left(value) => (vec![value], Vec::new()),
            Side::Right(value) => (Vec::new(), vec![value]),
        }
    }

    fn add(&self, mut groups: Groups<V, W>, value: Side<V, W>) -> Groups<V, W> {
        match value {
            Side::Left(value) => groups.0.push(value),
            Side::Right(value) => groups.1.push(value),
        }
        groups
    }

    fn heap_bytes(&self, (left, right): &Groups<V, W>) -> usize {
        group_bytes(left) + group_bytes(right)
    }

    fn growth(&self, (left, right): &Groups<V, W>, value: &Side<V, W>) -> usize {
        match value {
            Side::Left(value) => push_bytes(left) + heap_bytes(value),
            Side::Right(value) => push_bytes(right) + heap_bytes(value),
        }
    }

    fn parts(&self, (left, right): &Groups<V, W>) -> u64 {
        (left.len() + right.len()) as u64
    }

    fn take_apart(
        &self,
        (left, right): Groups<V, W>,
        part: &mut dyn FnMut(Part<Side<V, W>, Groups<V, W>>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        left.into_iter().try_for_each(|value| part(Part::Input(Side::Left(value))))?;
        right.into_iter().try_for_each(|value| part(Part::Input(Side::Right(value))))
    }
}
