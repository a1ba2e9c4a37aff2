//! Sorting: ranges of the key from a sample, a shuffle into them, and a stable sort of each.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use larder_lineage::NodeId;

use crate::context::Context;
use crate::data::{Data, Portable};
use crate::dataset::Dataset;
use crate::error::{Error, TaskError};
use crate::node::{Compute, Node, WholeInputs};
use crate::ops::deferred::{Streamed, deferred};
use crate::ops::sample::Random;
use crate::partitioner::Partitioner;
use crate::pipeline::{AnySource, Pipeline};
use crate::prepared::Prepared;
use crate::shuffle::{AnyShuffle, MapSide, MapWriter, Shuffle};
use crate::spill::{Order, Sorter};
use crate::task::Task;
use crate::transform::at_least_one_partition;

/// Sampled keys for each partition of the result. Enough that no partition gets much more than its share.
const KEYS_PER_PARTITION: usize = 60;

/// The most sampled keys in all.
const KEYS_MAX: usize = 1_000_000;

impl<T: Portable> Dataset<T> {
    /// The records in the order of a key, ascending or descending, over as many partitions as there are now. Stable:
    /// records of equal keys stay in their order.
    ///
    /// # Errors
    /// As [`sort_by_with_partitions`](Self::sort_by_with_partitions).
    pub fn sort_by<K: Data + Ord>(
        &self,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
        ascending: bool,
    ) -> Result<Self, Error> {
        self.sort_by_with_partitions(self.partitions(), key, ascending)
    }

    /// As [`sort_by`](Self::sort_by), over this many partitions. The first action runs a job of its own that samples
    /// the keys. A task sorts its partition in memory, or on disk where that is refused.
    ///
    /// # Errors
    /// [`Error::Argument`] for zero partitions.
    pub fn sort_by_with_partitions<K: Data + Ord>(
        &self,
        partitions: u32,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
        ascending: bool,
    ) -> Result<Self, Error> {
        self.sorted("sort_by", partitions, key, ascending)
    }

    fn sorted<K: Data + Ord>(
        &self,
        operation: &'static str,
        partitions: u32,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
        ascending: bool,
    ) -> Result<Self, Error> {
        if self.partitions() > 0 {
            at_least_one_partition(operation, partitions)?;
        }
        let order = Arc::new(KeyOrder { key, ascending, record: PhantomData });
        let find = SampleRanges {
            parent: self.id(),
            maps: self.partitions(),
            partitions,
            order: Arc::clone(&order),
        };
        let ranges = Arc::new(Prepared::new(find));
        let map_side = ScatterByRange { ranges: Arc::clone(&ranges), order: Arc::clone(&order) };
        let store = self.context().store();
        let shuffle = Shuffle::<T, _>::new(store, operation, self.partitions(), partitions, map_side)?;
        let compute = Compute::Whole(Arc::new(Sorted { shuffle, order }));
        let partitioner = Some(Partitioner::Range { partitions });
        self.shuffled(Node::new::<T>(operation, partitions, partitioner, compute, Some(ranges)))
    }
}

impl<K: Portable + Ord, V: Portable> Dataset<(K, V)> {
    /// The pairs in the order of their keys, over as many partitions as there are now. Stable.
    ///
    /// # Errors
    /// As [`sort_by_with_partitions`](Self::sort_by_with_partitions).
    pub fn sort_by_key(&self, ascending: bool) -> Result<Self, Error> {
        self.sort_by_key_with_partitions(self.partitions(), ascending)
    }

    /// As [`sort_by_key`](Self::sort_by_key), over this many partitions.
    ///
    /// # Errors
    /// As [`sort_by_with_partitions`](Self::sort_by_with_partitions).
    pub fn sort_by_key_with_partitions(&self, partitions: u32, ascending: bool) -> Result<Self, Error> {
        self.sorted("sort_by_key", partitions, |(key, _)| key.clone(), ascending)
    }
}

/// The order of records by a key.
struct KeyOrder<T, F> {
    key: F,
    ascending: bool,
    record: PhantomData<fn(&T)>,
}

impl<T, F> KeyOrder<T, F> {
    fn key<K>(&self, record: &T) -> K
    where
        F: Fn(&T) -> K,
    {
        (self.key)(record)
    }

    fn compare<K: Ord>(&self, left: &K, right: &K) -> Ordering {
        if self.ascending { left.cmp(right) } else { right.cmp(left) }
    }
}

/// Finds the keys that part the ranges: the first key of each partition but the first is beyond one of them.
struct SampleRanges<T, F> {
    parent: NodeId,
    maps: u32,
    partitions: u32,
    order: Arc<KeyOrder<T, F>>,
}

impl<T: Data, K: Data + Ord, F: Fn(&T) -> K + Send + Sync> crate::prepared::Find<Vec<K>>
    for SampleRanges<T, F>
{
    fn find(&self, context: &Context) -> Result<Vec<K>, Error> {
        if self.partitions < 2 || self.maps == 0 {
            return Ok(Vec::new());
        }
        let keys = KEYS_PER_PARTITION.saturating_mul(self.partitions as usize).min(KEYS_MAX);
        let each = keys.div_ceil(self.maps as usize);
        let maps: Vec<u32> = (0..self.maps).collect();
        let samples = context.run_job(self.parent, &maps, &|_, partition, pipeline| {
            Sample::<K>::draw(each, partition, pipeline, |record| self.order.key(record))
        })?;
        Ok(self.ranges(samples))
    }
}

impl<T, F> SampleRanges<T, F> {
    /// Parts the sampled keys, each of which stands for as many records as its partition has for each sampled one.
    fn ranges<K: Ord + Clone>(&self, samples: Vec<Sample<K>>) -> Vec<K> {
        let mut weighted: Vec<(K, f64)> = Vec::new();
        for sample in samples {
            let weight = sample.seen as f64 / sample.keys.len().max(1) as f64;
            weighted.extend(sample.keys.into_iter().map(|key| (key, weight)));
        }
        weighted.sort_by(|(left, _), (right, _)| self.order.compare(left, right));
        let step = weighted.iter().map(|(_, weight)| weight).sum::<f64>() / f64::from(self.partitions);
        let (mut sum, mut target) = (0.0, step);
        let mut ranges: Vec<K> = Vec::new();
        for (key, weight) in weighted {
            sum += weight;
            if sum >= target && ranges.len() + 1 < self.partitions as usize && ranges.last() != Some(&key) {
                ranges.push(key);
                target += step;
            }
        }
        ranges
    }
}

/// An even sample of the keys of one partition.
struct Sample<K> {
    seen: u64,
    keys: Vec<K>,
}

impl<K> Sample<K> {
    fn draw<T: 'static>(
        size: usize,
        partition: u32,
        mut pipeline: Pipeline,
        key: impl Fn(&T) -> K,
    ) -> Result<Self, TaskError> {
        let mut sample = Self { seen: 0, keys: Vec::new() };
        let mut random = Random::new(0, partition);
        pipeline.for_each_batch::<T>(|batch| {
            for record in batch.as_slice() {
                sample.seen += 1;
                if sample.keys.len() < size {
                    sample.keys.push(key(record));
                } else if let Some(replaced) = sample.keys.get_mut(random.below(sample.seen) as usize) {
                    *replaced = key(record);
                }
            }
            Ok(())
        })?;
        Ok(sample)
    }
}

/// Records by the range of their key.
struct ScatterByRange<T, K, F> {
    ranges: Arc<Prepared<Vec<K>, SampleRanges<T, F>>>,
    order: Arc<KeyOrder<T, F>>,
}

impl<T, K, F> MapSide<T> for ScatterByRange<T, K, F>
where
    T: Portable,
    K: Data + Ord,
    F: Fn(&T) -> K + Send + Sync + 'static,
{
    fn run(&self, task: &Task, mut input: Pipeline, out: &mut MapWriter<T>) -> Result<(), TaskError> {
        let ranges = self.ranges.get(task.context())?;
        let range_of = |record: &T| {
            let key = self.order.key(record);
            ranges.partition_point(|bound| self.order.compare(bound, &key) == Ordering::Less) as u32
        };
        input.for_each_batch::<T>(|batch| out.push_batch(batch, range_of))
    }
}

struct Sorted<T, F> {
    shuffle: Arc<dyn AnyShuffle>,
    order: Arc<KeyOrder<T, F>>,
}

impl<T: Portable, K: Data + Ord, F: Fn(&T) -> K + Send + Sync + 'static> WholeInputs for Sorted<T, F> {
    fn open(&self, task: &Task, _partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError> {
        let mut input = inputs.into_iter().next().ok_or(TaskError::Stale)?;
        let (task, order) = (Rc::clone(task), Arc::clone(&self.order));
        Ok(deferred(input.depth(), move || {
            let mut sorter = Sorter::new(&task, ByKeyOrder(order, PhantomData))?;
            input.for_each_batch::<T>(|batch| batch.try_for_each(|record| sorter.push(record)))?;
            drop(input);
            Ok(Streamed(sorter.finish()?))
        }))
    }

    fn shuffle(&self, _dependency: usize) -> Option<Arc<dyn AnyShuffle>> {
        Some(Arc::clone(&self.shuffle))
    }
}

/// The order of a sort, for the sorter.
struct ByKeyOrder<T, K, F>(Arc<KeyOrder<T, F>>, PhantomData<fn() -> K>);

impl<T: 'static, K: Ord + 'static, F: Fn(&T) -> K + 'static> Order<T> for ByKeyOrder<T, K, F> {
    type Key = K;

    fn key(&self, record: &T) -> K {
        self.0.key(record)
    }

    fn compare(&self, left: &K, right: &K) -> Ordering {
        self.0.compare(left, right)
    }
}
