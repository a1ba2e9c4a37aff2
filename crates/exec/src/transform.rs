//! Transformations of any dataset.

use std::marker::PhantomData;
use std::sync::Arc;

use larder_blockstore::Viewed;
use larder_lineage::{Dependency, PartitionMap};

use crate::context::Context;
use crate::data::{Data, Key, Portable};
use crate::dataset::Dataset;
use crate::error::{BoxError, Error, TaskError};
use crate::node::{Compute, Concat, Node, WholeInputs};
use crate::ops::combine::{ByKey, Nothing};
use crate::ops::partitions::MapPartitions;
use crate::ops::product::Cartesian;
use crate::ops::records::{Filter, FlatMap, KeyBy, Map, MapView, TryMap};
use crate::ops::sample::Random;
use crate::ops::step::Merging;
use crate::ops::zip::Zip;
use crate::pipeline::{AnySource, Pipeline, Records, any_each, any_operator};
use crate::schema::check_view;
use crate::shuffle::{AnyShuffle, CombineByKey, RoundRobin, Shuffle};
use crate::task::Task;

impl<T: Data> Dataset<T> {
    /// One record out for each record in.
    #[must_use]
    pub fn map<U: Data>(&self, f: impl Fn(&T) -> U + Send + Sync + 'static) -> Dataset<U> {
        let f = Arc::new(f);
        self.by_records("map", None, None, move |_, _| any_each(Map(Arc::clone(&f))))
    }

    /// One record out for each record in, by a closure that may fail. When it fails as often as a task is tried,
    /// the action returns [`Error::Task`].
    #[must_use]
    pub fn try_map<U: Data, E: Into<BoxError>>(
        &self,
        f: impl Fn(&T) -> Result<U, E> + Send + Sync + 'static,
    ) -> Dataset<U> {
        let f = Arc::new(move |record: &T| f(record).map_err(TaskError::user));
        self.by_records("try_map", None, None, move |_, _| any_each(TryMap(Arc::clone(&f))))
    }

    /// One record out for the [view](Viewed) of each record in. Where the records lie as bytes, serialized or in a checkpoint,
    /// and this is the first that is done with them, none is made: of a text, say, no copy is taken. Elsewhere it is a
    /// [`map`](Self::map) over views of records that are there.
    ///
    /// ```
    /// use larder_exec::{Context, StorageLevel};
    ///
    /// let context = Context::builder().threads(2).memory("64MiB").build()?;
    /// let sales = vec![("tea".to_owned(), 3.5), ("jam".to_owned(), 2.0), ("tea".to_owned(), 4.0)];
    /// let sales = context.parallelize(sales, 2)?.persist(StorageLevel::MEMORY_ONLY_SER)?;
    /// let tea = sales.map_view(|(product, price): (&str, f64)| if product == "tea" { price } else { 0.0 })?;
    /// assert_eq!(tea.reduce(|a, b| a + b)?, Some(7.5));
    /// # Ok::<(), larder_exec::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] when the view has not the fields of the record in their order, or the shape of either cannot be
    /// seen from its type.
    pub fn map_view<U: Data>(
        &self,
        f: impl Fn(T::View<'_>) -> U + Send + Sync + 'static,
    ) -> Result<Dataset<U>, Error>
    where
        T: Portable + Viewed,
    {
        check_view::<T>().map_err(|reason| argument("map_view", reason))?;
        let f = Arc::new(f);
        Ok(self.by_records("map_view", None, None, move |_, _| any_each::<T, U>(MapView(Arc::clone(&f)))))
    }

    /// The records of which `predicate` is true.
    #[must_use]
    pub fn filter(&self, predicate: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        let predicate = Arc::new(predicate);
        self.by_records("filter", self.partitioner().cloned(), None, move |_, _| {
            let predicate = Arc::clone(&predicate);
            any_operator(Filter(move |record: &T| predicate(record)))
        })
    }

    /// Any number of records out for each record in.
    #[must_use]
    pub fn flat_map<I>(&self, f: impl Fn(&T) -> I + Send + Sync + 'static) -> Dataset<I::Item>
    where
        I: IntoIterator<Item: Data, IntoIter: 'static> + 'static,
    {
        let f = Arc::new(f);
        self.by_records("flat_map", None, None, move |_, _| any_operator(FlatMap::new(Arc::clone(&f))))
    }

    /// All records of a partition at once, by a closure from iterator to iterator.
    #[must_use]
    pub fn map_partitions<I>(&self, f: impl Fn(Records<T>) -> I + Send + Sync + 'static) -> Dataset<I::Item>
    where
        I: IntoIterator<Item: Data, IntoIter: 'static> + 'static,
    {
        self.by_partitions("map_partitions", None, MapPartitions::new(move |_, records| f(records)))
    }

    /// As [`map_partitions`](Self::map_partitions), with the number of the partition.
    #[must_use]
    pub fn map_partitions_with_index<I>(
        &self,
        f: impl Fn(u32, Records<T>) -> I + Send + Sync + 'static,
    ) -> Dataset<I::Item>
    where
        I: IntoIterator<Item: Data, IntoIter: 'static> + 'static,
    {
        self.by_partitions("map_partitions_with_index", None, MapPartitions::new(f))
    }

    /// Each record with a key made of it.
    #[must_use]
    pub fn key_by<K: Data>(&self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Dataset<(K, T)> {
        let key = Arc::new(key);
        self.by_records("key_by", None, None, move |_, _| any_operator(KeyBy(Arc::clone(&key))))
    }

    /// Each record with probability `fraction`, drawn from `seed`: the same records every time.
    ///
    /// # Errors
    /// [`Error::Argument`] for a fraction outside 0 to 1.
    pub fn sample(&self, fraction: f64, seed: u64) -> Result<Self, Error> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(argument("sample", format!("the fraction must be from 0 to 1, not {fraction}")));
        }
        Ok(self.by_records("sample", self.partitioner().cloned(), None, move |_, partition| {
            let mut random = Random::new(seed, partition);
            any_operator(Filter(move |_: &T| random.unit() < fraction))
        }))
    }

    /// The records of this dataset and then those of `other`: the partitions of both, side by side.
    ///
    /// # Errors
    /// As [`Context::union`].
    pub fn union(&self, other: &Self) -> Result<Self, Error> {
        self.context().union([self, other])
    }

    /// Each record with the one at the same place of `other`. Both must have equally many partitions, and equally
    /// many records in each; a job that finds otherwise fails.
    ///
    /// # Errors
    /// [`Error::Argument`] for unequal numbers of partitions or another context.
    pub fn zip<U: Data>(&self, other: &Dataset<U>) -> Result<Dataset<(T, U)>, Error> {
        same_context("zip", self.context(), other.context())?;
        if self.partitions() != other.partitions() {
            let (left, right) = (self.partitions(), other.partitions());
            let problem = format!("both sides need equally many partitions, but have {left} and {right}");
            return Err(argument("zip", problem));
        }
        let compute = Compute::Whole(Arc::new(Zip::<T, U>(PhantomData)));
        let node = Node::new::<(T, U)>("zip", self.partitions(), None, compute, None);
        let dependencies = vec![Dependency::one_to_one(self.id()), Dependency::one_to_one(other.id())];
        self.context().add(node, dependencies)
    }

    /// Each record with each record of `other`: partition `i` with partition `j` becomes partition
    /// `i * other.partitions() + j`. A task holds its right partition in memory.
    ///
    /// # Errors
    /// [`Error::Argument`] for too many partitions or another context.
    pub fn cartesian<U: Data>(&self, other: &Dataset<U>) -> Result<Dataset<(T, U)>, Error> {
        same_context("cartesian", self.context(), other.context())?;
        let (left, right) = (self.partitions(), other.partitions());
        let partitions = left
            .checked_mul(right)
            .ok_or_else(|| argument("cartesian", format!("{left} times {right} partitions are too many")))?;
        let compute = Compute::Whole(Arc::new(Cartesian::<T, U>(PhantomData)));
        let node = Node::new::<(T, U)>("cartesian", partitions, None, compute, None);
        let narrow = |parent, map| Dependency::Narrow { parent, map };
        let dependencies = vec![
            narrow(self.id(), PartitionMap::Divide(right)),
            narrow(other.id(), PartitionMap::Modulo(right)),
        ];
        self.context().add(node, dependencies)
    }

    /// The same records in fewer partitions, each made of neighbours, without a shuffle. Asking for more partitions
    /// than there are changes nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] for zero partitions.
    pub fn coalesce(&self, partitions: u32) -> Result<Self, Error> {
        at_least_one_partition("coalesce", partitions)?;
        let parents = u64::from(self.partitions());
        let count = partitions.min(self.partitions());
        let bound = |group: u32| (u64::from(group) * parents / u64::from(count.max(1))) as u32;
        let groups: Arc<[Box<[u32]>]> =
            (0..count).map(|group| (bound(group)..bound(group + 1)).collect()).collect();
        let concat = Concat { parent: self.id(), groups: Arc::clone(&groups) };
        let node = Node::new::<T>("coalesce", count, None, Compute::Concat(Arc::new(concat)), None);
        let map = PartitionMap::Groups(groups);
        self.context().add(node, vec![Dependency::Narrow { parent: self.id(), map }])
    }

    pub(crate) fn shuffled<U: Data>(&self, node: Node) -> Result<Dataset<U>, Error> {
        self.context().add(node, vec![Dependency::Shuffle { parent: self.id() }])
    }
}

impl<T: Portable> Dataset<T> {
    /// The same records in this many partitions of about equal size, by a shuffle.
    ///
    /// # Errors
    /// [`Error::Argument`] for zero partitions.
    pub fn repartition(&self, partitions: u32) -> Result<Self, Error> {
        at_least_one_partition("repartition", partitions)?;
        let store = self.context().store();
        let shuffle = Shuffle::<T, _>::new(store, "repartition", self.partitions(), partitions, RoundRobin)?;
        let compute =
            Compute::Whole(Arc::new(Received(shuffle as Arc<dyn AnyShuffle>, PhantomData::<fn() -> T>)));
        self.shuffled(Node::new::<T>("repartition", partitions, None, compute, None))
    }
}

impl<T: Key> Dataset<T> {
    /// Each different record once, in as many partitions as there are now.
    ///
    /// # Errors
    /// As [`distinct_with_partitions`](Self::distinct_with_partitions).
    pub fn distinct(&self) -> Result<Self, Error> {
        self.distinct_with_partitions(self.partitions())
    }

    /// Each different record once, in this many partitions.
    ///
    /// # Errors
    /// [`Error::Argument`] for zero partitions.
    pub fn distinct_with_partitions(&self, partitions: u32) -> Result<Self, Error> {
        at_least_one_partition("distinct", partitions.max(u32::from(self.partitions() == 0)))?;
        let keyed = self.map(|record| (record.clone(), ()));
        let aggregate = Arc::new(Nothing);
        let map_side = CombineByKey::<(), (), _>::new(&aggregate);
        let store = self.context().store();
        let shuffle = Shuffle::<(T, ()), _>::new(store, "distinct", self.partitions(), partitions, map_side)?;
        let whole = ByKey::<T, (), (), Merging<(), _>>::of_combined(aggregate, shuffle);
        let compute = Compute::Whole(Arc::new(whole));
        let node = Node::new::<(T, ())>("distinct", partitions, None, compute, None);
        Ok(keyed.shuffled::<(T, ())>(node)?.keys())
    }
}

/// What a reduce task received, as it is.
struct Received<T>(Arc<dyn AnyShuffle>, PhantomData<fn() -> T>);

impl<T: Data> WholeInputs for Received<T> {
    fn open(&self, _task: &Task, _partition: u32, inputs: Vec<Pipeline>) -> Result<AnySource, TaskError> {
        Ok(crate::ops::concat::chain::<T>(inputs))
    }

    fn shuffle(&self, _dependency: usize) -> Option<Arc<dyn AnyShuffle>> {
        Some(Arc::clone(&self.0))
    }
}

impl Context {
    /// The records of all these datasets, one after the other: their partitions side by side.
    ///
    /// # Errors
    /// [`Error::Argument`] for no dataset, one of another context, or more partitions than can be numbered.
    pub fn union<'a, T: Data>(
        &self,
        datasets: impl IntoIterator<Item = &'a Dataset<T>>,
    ) -> Result<Dataset<T>, Error> {
        let mut partitions = 0_u32;
        let mut dependencies = Vec::new();
        for dataset in datasets {
            same_context("union", self, dataset.context())?;
            let len = dataset.partitions();
            let map = PartitionMap::Range { parent_start: 0, child_start: partitions, len };
            dependencies.push(Dependency::Narrow { parent: dataset.id(), map });
            partitions = partitions
                .checked_add(len)
                .ok_or_else(|| argument("union", "more than 4,294,967,295 partitions".to_owned()))?;
        }
        if dependencies.is_empty() {
            return Err(argument("union", "at least one dataset is needed".to_owned()));
        }
        self.add(Node::new::<T>("union", partitions, None, Compute::PassThrough, None), dependencies)
    }
}

pub(crate) fn argument(operation: &'static str, problem: String) -> Error {
    Error::Argument { operation, problem }
}

pub(crate) fn same_context(operation: &'static str, one: &Context, other: &Context) -> Result<(), Error> {
    if one.is(other) {
        return Ok(());
    }
    Err(argument(
        operation,
        format!("the datasets are of two contexts, `{}` and `{}`", one.name(), other.name()),
    ))
}

pub(crate) fn at_least_one_partition(operation: &'static str, partitions: u32) -> Result<(), Error> {
    if partitions > 0 {
        Ok(())
    } else {
        Err(argument(operation, "at least one partition is needed".to_owned()))
    }
}
