//! Actions: what runs a job and gives a result.

use std::cmp::Ordering;

use indexmap::IndexMap;

use crate::batch::{BATCH_RECORDS, Batch};
use crate::data::{Data, Key};
use crate::dataset::Dataset;
use crate::error::{BoxError, Cause, Error, TaskError};
use crate::partitioner::TableHasher;
use crate::pipeline::{Pipeline, Records, met};

/// By how much `take` widens its search when it did not find enough.
const TAKE_SCALE_UP: usize = 4;

impl<T: Data> Dataset<T> {
    /// All records, in order.
    ///
    /// # Errors
    /// [`Error::Task`] when a task fails as often as it may, [`Error::Merge`] when a closure panics while results of
    /// partitions are merged, [`Error::Cancelled`], [`Error::LostTooOften`]. So do all actions.
    pub fn collect(&self) -> Result<Vec<T>, Error> {
        let parts = self.run(&|_, mut pipeline| {
            let mut records = Vec::new();
            pipeline.for_each_batch::<T>(|batch| {
                match batch {
                    Batch::Owned(batch) if records.is_empty() => records = batch,
                    Batch::Owned(mut batch) => records.append(&mut batch),
                    Batch::Shared(_) => records.extend_from_slice(batch.as_slice()),
                }
                Ok(())
            })?;
            Ok(records)
        })?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// How many records there are.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn count(&self) -> Result<u64, Error> {
        let counts = self.run(&|_, pipeline| pipeline.count::<T>())?;
        Ok(counts.into_iter().sum())
    }

    /// Folds the records of each partition into a copy of `zero`, and then the results of the partitions, in order,
    /// into another. So `zero` must change nothing: 0 for a sum.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn fold(&self, zero: T, f: impl Fn(T, &T) -> T + Send + Sync) -> Result<T, Error> {
        self.aggregate(zero, &f, |left, right| f(left, &right))
    }

    /// As [`fold`](Self::fold), into another type: `add` takes a record in, `merge` two results.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn aggregate<A: Data>(
        &self,
        zero: A,
        add: impl Fn(A, &T) -> A + Send + Sync,
        merge: impl Fn(A, A) -> A,
    ) -> Result<A, Error> {
        let parts = self.run(&|_, mut pipeline| {
            let mut folded = Some(zero.clone());
            pipeline.visit::<T>(|records| {
                folded = folded.take().map(|folded| records.iter().fold(folded, &add));
            })?;
            Ok(folded.ok_or(Cause::Internal)?)
        })?;
        self.context().merge(self.id(), || parts.into_iter().fold(zero, merge))
    }

    /// Reduces all records to one, in order; none if there is no record.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn reduce(&self, f: impl Fn(T, &T) -> T + Send + Sync) -> Result<Option<T>, Error> {
        let parts = self.run(&|_, mut pipeline| {
            let mut reduced: Option<T> = None;
            pipeline.visit::<T>(|records| {
                let mut records = records.iter();
                let first = reduced.take().or_else(|| records.next().cloned());
                reduced = first.map(|first| records.fold(first, &f));
            })?;
            Ok(reduced)
        })?;
        self.context().merge(self.id(), || parts.into_iter().flatten().reduce(|left, right| f(left, &right)))
    }

    /// The first `n` records. Looks at one partition first and at more only if there were not enough.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn take(&self, n: usize) -> Result<Vec<T>, Error> {
        let partitions = self.all_partitions();
        let mut unseen = partitions.as_slice();
        let mut width = 1;
        let mut taken: Vec<T> = Vec::new();
        while taken.len() < n && !unseen.is_empty() {
            let (now, later) = unseen.split_at(width.min(unseen.len()));
            let wanted = n - taken.len();
            let parts = self.context().run_job(self.id(), now, &|_, _, mut pipeline| {
                let mut records: Vec<T> = Vec::new();
                while records.len() < wanted
                    && let Some(batch) = pipeline.next::<T>((wanted - records.len()).min(BATCH_RECORDS))?
                {
                    records.extend(batch.as_slice().iter().take(wanted - records.len()).cloned());
                }
                Ok(records)
            })?;
            taken.extend(parts.into_iter().flatten().take(wanted));
            unseen = later;
            width = width.saturating_mul(TAKE_SCALE_UP);
        }
        Ok(taken)
    }

    /// The first record, if there is one.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn first(&self) -> Result<Option<T>, Error> {
        Ok(self.take(1)?.into_iter().next())
    }

    /// The `n` greatest records, the greatest first; of equal ones those that come first.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn top(&self, n: usize) -> Result<Vec<T>, Error>
    where
        T: Ord,
    {
        self.top_by(n, T::cmp)
    }

    /// As [`top`](Self::top), by an order of one's own.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn top_by(
        &self,
        n: usize,
        compare: impl Fn(&T, &T) -> Ordering + Send + Sync,
    ) -> Result<Vec<T>, Error> {
        let parts = self.run(&|_, mut pipeline| {
            let mut best = Best { n, compare: &compare, records: Vec::new(), least: None };
            pipeline.visit::<T>(|records| records.iter().for_each(|record| best.offer(record)))?;
            Ok(best.finish())
        })?;
        self.context().merge(self.id(), || {
            let mut best = Best { n, compare: &compare, records: Vec::new(), least: None };
            parts.iter().flatten().for_each(|record| best.offer(record));
            best.finish()
        })
    }

    /// Calls `f` with the number and the records of each partition, in tasks. A task that fails is tried again, so
    /// `f` may be called more than once for a partition.
    ///
    /// # Errors
    /// As [`collect`](Self::collect); an error that `f` returns counts as a failure of its task.
    pub fn for_each_partition<E: Into<BoxError>>(
        &self,
        f: impl Fn(u32, Records<T>) -> Result<(), E> + Send + Sync,
    ) -> Result<(), Error> {
        self.run(&|partition, pipeline| {
            let (records, failure) = Records::new(pipeline);
            let done = f(partition, records);
            met(&failure)?;
            done.map_err(TaskError::user)
        })?;
        Ok(())
    }

    /// Runs `work` over all partitions.
    pub(crate) fn run<R: Send>(
        &self,
        work: &(dyn Fn(u32, Pipeline) -> Result<R, TaskError> + Sync),
    ) -> Result<Vec<R>, Error> {
        let work = |_: &_, partition, pipeline| work(partition, pipeline);
        self.context().run_job(self.id(), &self.all_partitions(), &work)
    }
}

impl<K: Key, V: Data> Dataset<(K, V)> {
    /// How many records each key has, in the order in which the keys first come. The result, which is the
    /// caller's, is in memory, and so are the keys of each partition on the way; they are not charged.
    ///
    /// # Errors
    /// As [`collect`](Self::collect).
    pub fn count_by_key(&self) -> Result<Vec<(K, u64)>, Error> {
        type Counts<K> = IndexMap<K, u64, TableHasher>;
        let parts = self.run(&|_, mut pipeline| {
            let mut counts: Counts<K> = IndexMap::default();
            pipeline.visit::<(K, V)>(|records| {
                for (key, _) in records {
                    match counts.get_mut(key) {
                        Some(count) => *count += 1,
                        None => drop(counts.insert(key.clone(), 1)),
                    }
                }
            })?;
            Ok(counts)
        })?;
        self.context().merge(self.id(), || {
            let mut counts: Counts<K> = IndexMap::default();
            for (key, count) in parts.into_iter().flatten() {
                *counts.entry(key).or_default() += count;
            }
            counts.into_iter().collect()
        })
    }
}

/// The greatest `n` records seen so far.
struct Best<'a, T, C> {
    n: usize,
    compare: &'a C,
    /// Those and up to as many again that may be dropped.
    records: Vec<T>,
    /// What a record must exceed once `n` are known.
    least: Option<T>,
}

impl<T: Clone, C: Fn(&T, &T) -> Ordering> Best<'_, T, C> {
    fn offer(&mut self, record: &T) {
        if self.least.as_ref().is_some_and(|least| (self.compare)(record, least) != Ordering::Greater) {
            return;
        }
        self.records.push(record.clone());
        if self.records.len() >= self.n.saturating_mul(2).max(BATCH_RECORDS) {
            self.prune();
        }
    }

    fn prune(&mut self) {
        // Stable: of equal records the earlier ones stay.
        self.records.sort_by(|a, b| (self.compare)(b, a));
        self.records.truncate(self.n);
        if self.records.len() == self.n {
            self.least = self.records.last().cloned();
        }
    }

    fn finish(mut self) -> Vec<T> {
        self.prune();
        self.records
    }
}
