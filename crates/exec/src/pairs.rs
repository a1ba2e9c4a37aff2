//! Transformations of datasets of pairs.

use std::sync::Arc;

use larder_lineage::Dependency;

use crate::data::{Data, Key, Portable};
use crate::dataset::Dataset;
use crate::error::Error;
use crate::node::{Compute, Node, WholeInputs};
use crate::ops::co_group::{CoGroup, Sides};
use crate::ops::combine::{ByKey, Fold, Reduce};
use crate::ops::join::{FullOuter, Inner, Join, JoinKind, LeftOuter};
use crate::ops::records::{Map, MapValues};
use crate::ops::step::{Aggregate, Merging};
use crate::partitioner::Partitioner;
use crate::pipeline::{any_each, any_operator};
use crate::shuffle::{AnyShuffle, CombineByKey, ScatterByKey, Shuffle};
use crate::transform::{at_least_one_partition, same_context};

/// A dataset of pairs of a key and a value.
pub type Pairs<K, V> = Dataset<(K, V)>;

/// What a full outer join gives for a key: the value of at least one side.
pub type OuterPair<V, W> = (Option<V>, Option<W>);

/// What a co-group gives for a key: all values of both sides.
pub type Groups<V, W> = (Vec<V>, Vec<W>);

impl<K: Data, V: Data> Dataset<(K, V)> {
    /// The keys.
    #[must_use]
    pub fn keys(&self) -> Dataset<K> {
        let key = Arc::new(|(key, _): &(K, V)| key.clone());
        self.by_records("keys", None, None, move |_, _| any_each(Map(Arc::clone(&key))))
    }

    /// The values.
    #[must_use]
    pub fn values(&self) -> Dataset<V> {
        let value = Arc::new(|(_, value): &(K, V)| value.clone());
        self.by_records("values", None, None, move |_, _| any_each(Map(Arc::clone(&value))))
    }

    /// Another value for each key. Keys stay where they are, so that no later operation on keys shuffles again.
    #[must_use]
    pub fn map_values<W: Data>(&self, f: impl Fn(&V) -> W + Send + Sync + 'static) -> Dataset<(K, W)> {
        let f = Arc::new(f);
        let start = move |_: &_, _| any_operator::<(K, V), (K, W)>(MapValues(Arc::clone(&f)));
        self.by_records("map_values", self.partitioner().cloned(), None, start)
    }
}

/// Operations by key. Each has a `_with_partitions` form; without a number, the result has as many partitions as a
/// hash partitioner of its inputs, or else as the largest input. A partition holds its keys in the order in which
/// they first come, partition by partition of the input. Inputs that are spread by the right hash already are not
/// shuffled again.
///
/// What tasks hold for them is execution memory of the store. Where it is refused, they go to disk and give the same
/// records in the same order; without a disk, the action fails with [`Cause::MemoryRefused`](crate::Cause).
impl<K: Key, V: Portable> Dataset<(K, V)> {
    /// All values of each key, in order.
    ///
    /// # Errors
    /// As [`group_by_key_with_partitions`](Self::group_by_key_with_partitions).
    pub fn group_by_key(&self) -> Result<Dataset<(K, Vec<V>)>, Error> {
        self.group_by_key_with_partitions(self.own_partitions())
    }

    /// All values of each key, in order. A task holds the groups of its partition in memory, or on disk where that is
    /// refused; a single group must fit in memory.
    ///
    /// # Errors
    /// [`Error::Argument`] for zero partitions. So do all operations by key.
    pub fn group_by_key_with_partitions(&self, partitions: u32) -> Result<Dataset<(K, Vec<V>)>, Error> {
        let shuffle = self.scattered("group_by_key", partitions)?;
        let shuffled = shuffle.is_some();
        self.by_key("group_by_key", partitions, shuffled, ByKey::<K, V, _, _>::grouping(shuffle))
    }

    /// The values of each key, reduced to one, in order.
    ///
    /// # Errors
    /// As [`group_by_key_with_partitions`](Self::group_by_key_with_partitions).
    pub fn reduce_by_key(
        &self,
        f: impl Fn(V, &V) -> V + Send + Sync + 'static,
    ) -> Result<Dataset<(K, V)>, Error> {
        self.reduce_by_key_with_partitions(self.own_partitions(), f)
    }

    /// The values of each key, reduced to one, in order: first within each partition, then over the partitions.
    ///
    /// # Errors
    /// As [`group_by_key_with_partitions`](Self::group_by_key_with_partitions).
    pub fn reduce_by_key_with_partitions(
        &self,
        partitions: u32,
        f: impl Fn(V, &V) -> V + Send + Sync + 'static,
    ) -> Result<Dataset<(K, V)>, Error> {
        self.combined::<V>("reduce_by_key", partitions, Reduce(f))
    }

    /// The values of each key, folded into a copy of `zero` within each partition, and those results merged.
    ///
    /// # Errors
    /// As [`group_by_key_with_partitions`](Self::group_by_key_with_partitions).
    pub fn aggregate_by_key<C: Portable>(
        &self,
        zero: C,
        add: impl Fn(C, &V) -> C + Send + Sync + 'static,
        merge: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> Result<Dataset<(K, C)>, Error> {
        self.aggregate_by_key_with_partitions(self.own_partitions(), zero, add, merge)
    }

    /// As [`aggregate_by_key`](Self::aggregate_by_key), in this many partitions.
    ///
    /// # Errors
    /// As [`group_by_key_with_partitions`](Self::group_by_key_with_partitions).
    pub fn aggregate_by_key_with_partitions<C: Portable>(
        &self,
        partitions: u32,
        zero: C,
        add: impl Fn(C, &V) -> C + Send + Sync + 'static,
        merge: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> Result<Dataset<(K, C)>, Error> {
        self.combined("aggregate_by_key", partitions, Fold { zero, add, merge })
    }

    /// As [`aggregate_by_key`](Self::aggregate_by_key), where values and results are of one type. `zero` is folded
    /// in once for each partition that has the key, so it must change nothing.
    ///
    /// # Errors
    /// As [`group_by_key_with_partitions`](Self::group_by_key_with_partitions).
    pub fn fold_by_key(
        &self,
        zero: V,
        f: impl Fn(V, &V) -> V + Send + Sync + 'static,
    ) -> Result<Dataset<(K, V)>, Error> {
        self.fold_by_key_with_partitions(self.own_partitions(), zero, f)
    }

    /// As [`fold_by_key`](Self::fold_by_key), in this many partitions.
    ///
    /// # Errors
    /// As [`group_by_key_with_partitions`](Self::group_by_key_with_partitions).
    pub fn fold_by_key_with_partitions(
        &self,
        partitions: u32,
        zero: V,
        f: impl Fn(V, &V) -> V + Send + Sync + 'static,
    ) -> Result<Dataset<(K, V)>, Error> {
        let f = Arc::new(f);
        let add = Arc::clone(&f);
        let add = move |folded, value: &V| add(folded, value);
        let merge = move |left, right: V| f(left, &right);
        self.combined("fold_by_key", partitions, Fold { zero, add, merge })
    }

    /// Each value with each value of the same key in `other`, in the order of this dataset.
    ///
    /// # Errors
    /// As [`group_by_key_with_partitions`](Self::group_by_key_with_partitions), and for another context.
    pub fn join<W: Portable>(&self, other: &Dataset<(K, W)>) -> Result<Pairs<K, (V, W)>, Error> {
        self.join_with_partitions(self.partitions_with(other), other)
    }

    /// As [`join`](Self::join), in this many partitions. A task holds its partition of `other` in memory; where
    /// that is refused, it sorts both sides on disk.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn join_with_partitions<W: Portable>(
        &self,
        partitions: u32,
        other: &Dataset<(K, W)>,
    ) -> Result<Pairs<K, (V, W)>, Error> {
        self.joined::<W, Inner>("join", partitions, other)
    }

    /// As [`join`](Self::join), and each value whose key `other` lacks with nothing.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn left_outer_join<W: Portable>(
        &self,
        other: &Dataset<(K, W)>,
    ) -> Result<Pairs<K, (V, Option<W>)>, Error> {
        self.left_outer_join_with_partitions(self.partitions_with(other), other)
    }

    /// As [`left_outer_join`](Self::left_outer_join), in this many partitions.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn left_outer_join_with_partitions<W: Portable>(
        &self,
        partitions: u32,
        other: &Dataset<(K, W)>,
    ) -> Result<Pairs<K, (V, Option<W>)>, Error> {
        self.joined::<W, LeftOuter>("left_outer_join", partitions, other)
    }

    /// As [`left_outer_join`](Self::left_outer_join); after them, the values of `other` whose key this dataset
    /// lacks.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn full_outer_join<W: Portable>(
        &self,
        other: &Dataset<(K, W)>,
    ) -> Result<Pairs<K, OuterPair<V, W>>, Error> {
        self.full_outer_join_with_partitions(self.partitions_with(other), other)
    }

    /// As [`full_outer_join`](Self::full_outer_join), in this many partitions.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn full_outer_join_with_partitions<W: Portable>(
        &self,
        partitions: u32,
        other: &Dataset<(K, W)>,
    ) -> Result<Pairs<K, OuterPair<V, W>>, Error> {
        self.joined::<W, FullOuter>("full_outer_join", partitions, other)
    }

    /// All values of each key on both sides; keys of this dataset first.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn co_group<W: Portable>(&self, other: &Dataset<(K, W)>) -> Result<Pairs<K, Groups<V, W>>, Error> {
        self.co_group_with_partitions(self.partitions_with(other), other)
    }

    /// As [`co_group`](Self::co_group), in this many partitions. A task holds its groups in memory, or on disk where
    /// that is refused; a single group must fit in memory.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn co_group_with_partitions<W: Portable>(
        &self,
        partitions: u32,
        other: &Dataset<(K, W)>,
    ) -> Result<Pairs<K, Groups<V, W>>, Error> {
        self.with_other("co_group", partitions, other, CoGroup::<K, V, W>::new)
    }

    fn joined<W: Portable, J: JoinKind<V, W>>(
        &self,
        operation: &'static str,
        partitions: u32,
        other: &Dataset<(K, W)>,
    ) -> Result<Dataset<(K, J::Pair)>, Error> {
        self.with_other(operation, partitions, other, Join::<K, V, W, J>::new)
    }

    fn with_other<W: Portable, O: Data, X: WholeInputs + 'static>(
        &self,
        operation: &'static str,
        partitions: u32,
        other: &Dataset<(K, W)>,
        whole: impl FnOnce(Sides) -> X,
    ) -> Result<Dataset<(K, O)>, Error> {
        same_context(operation, self.context(), other.context())?;
        let shuffles = [self.scattered(operation, partitions)?, other.scattered(operation, partitions)?];
        let [left, right] = &shuffles;
        let dependencies = vec![self.dependency(left.is_some()), other.dependency(right.is_some())];
        let compute = Compute::Whole(Arc::new(whole(Sides { shuffles })));
        let partitioner = Some(Partitioner::Hash { partitions });
        self.context()
            .add(Node::new::<(K, O)>(operation, partitions, partitioner, compute, None), dependencies)
    }

    /// A shuffle that spreads the pairs by key; none if they are spread so already.
    fn scattered(
        &self,
        operation: &'static str,
        partitions: u32,
    ) -> Result<Option<Arc<dyn AnyShuffle>>, Error> {
        self.check_partitions(operation, partitions)?;
        if Partitioner::is_hash_of(self.partitioner(), partitions) {
            return Ok(None);
        }
        let store = self.context().store();
        let shuffle =
            Shuffle::<(K, V), _>::new(store, operation, self.partitions(), partitions, ScatterByKey)?;
        Ok(Some(shuffle))
    }

    fn combined<C: Portable>(
        &self,
        operation: &'static str,
        partitions: u32,
        aggregate: impl Aggregate<V, C>,
    ) -> Result<Dataset<(K, C)>, Error> {
        self.check_partitions(operation, partitions)?;
        let aggregate = Arc::new(aggregate);
        if Partitioner::is_hash_of(self.partitioner(), partitions) {
            let whole = ByKey::<K, V, C, _>::of_values(aggregate);
            return self.by_key(operation, partitions, false, whole);
        }
        let map_side = CombineByKey::<V, C, _>::new(&aggregate);
        let store = self.context().store();
        let shuffle = Shuffle::<(K, C), _>::new(store, operation, self.partitions(), partitions, map_side)?;
        let whole = ByKey::<K, C, C, Merging<V, _>>::of_combined(aggregate, shuffle);
        self.by_key(operation, partitions, true, whole)
    }

    fn by_key<C: Data>(
        &self,
        operation: &'static str,
        partitions: u32,
        shuffled: bool,
        whole: impl WholeInputs + 'static,
    ) -> Result<Dataset<(K, C)>, Error> {
        let partitioner = Some(Partitioner::Hash { partitions });
        let compute = Compute::Whole(Arc::new(whole));
        let node = Node::new::<(K, C)>(operation, partitions, partitioner, compute, None);
        self.context().add(node, vec![self.dependency(shuffled)])
    }

    fn dependency(&self, shuffled: bool) -> Dependency {
        if shuffled { Dependency::Shuffle { parent: self.id() } } else { Dependency::one_to_one(self.id()) }
    }

    /// Nothing may be spread over no partitions, unless there is nothing.
    fn check_partitions(&self, operation: &'static str, partitions: u32) -> Result<(), Error> {
        if self.partitions() == 0 { Ok(()) } else { at_least_one_partition(operation, partitions) }
    }

    /// Over how many partitions the keys are spread by hash. Over none, there are no keys to keep in their places.
    fn hash_partitions(&self) -> Option<u32> {
        match self.partitioner() {
            Some(Partitioner::Hash { partitions }) if *partitions > 0 => Some(*partitions),
            _ => None,
        }
    }

    fn own_partitions(&self) -> u32 {
        self.hash_partitions().unwrap_or(self.partitions())
    }

    fn partitions_with<W: Portable>(&self, other: &Dataset<(K, W)>) -> u32 {
        let hashed = self.hash_partitions().max(other.hash_partitions());
        hashed.unwrap_or(self.partitions().max(other.partitions()))
    }
}
