//! Record-wise operators: map, filter, flat_map and their kin.

use std::sync::Arc;

use larder_blockstore::Viewed;

use crate::batch::{BATCH_RECORDS, Batch};
use crate::data::Data;
use crate::error::TaskError;
use crate::pipeline::{EachRecord, Flow, Operator, Sight, Visit};

/// One record out for each record in, by a closure that may fail.
pub(crate) struct TryMap<F>(pub(crate) Arc<F>);

impl<T, U, F: Fn(&T) -> Result<U, TaskError>> Operator<T, U> for TryMap<F> {
    fn run(&mut self, input: Batch<T>) -> Result<Flow<Batch<U>>, TaskError> {
        let output = input.as_slice().iter().map(|record| (self.0)(record)).collect::<Result<_, _>>()?;
        Ok(Flow::Batch(Batch::Owned(output)))
    }
}

impl<T, U, F: Fn(&T) -> Result<U, TaskError>> EachRecord<T, U> for TryMap<F> {
    fn one(&self, record: &T) -> Result<U, TaskError> {
        (self.0)(record)
    }
}

/// One record out for each record in.
pub(crate) struct Map<F>(pub(crate) Arc<F>);

impl<T, U, F: Fn(&T) -> U> Operator<T, U> for Map<F> {
    fn run(&mut self, input: Batch<T>) -> Result<Flow<Batch<U>>, TaskError> {
        let output = match input {
            // Reuses the allocation where the layouts allow it.
            Batch::Owned(records) => records.into_iter().map(|record| (self.0)(&record)).collect(),
            Batch::Shared(_) => input.as_slice().iter().map(|record| (self.0)(record)).collect(),
        };
        Ok(Flow::Batch(Batch::Owned(output)))
    }
}

impl<T, U, F: Fn(&T) -> U> EachRecord<T, U> for Map<F> {
    fn one(&self, record: &T) -> Result<U, TaskError> {
        Ok((self.0)(record))
    }
}

/// One record out for the view of each record in.
pub(crate) struct MapView<F>(pub(crate) Arc<F>);

impl<T: Viewed, U, F: Fn(T::View<'_>) -> U> Operator<T, U> for MapView<F> {
    fn run(&mut self, input: Batch<T>) -> Result<Flow<Batch<U>>, TaskError> {
        let output = input.as_slice().iter().map(|record| (self.0)(record.view())).collect();
        Ok(Flow::Batch(Batch::Owned(output)))
    }
}

impl<T: Viewed, U, F: Fn(T::View<'_>) -> U> EachRecord<T, U> for MapView<F> {
    fn one(&self, record: &T) -> Result<U, TaskError> {
        Ok((self.0)(record.view()))
    }

    fn each(
        &self,
        records: &mut Visit<T>,
        records_max: usize,
        sight: &mut Sight<'_>,
        mut pass_on: impl FnMut(U),
    ) -> Result<bool, TaskError> {
        records.next_views(records_max, |view| {
            sight.of(|| {
                pass_on((self.0)(view));
                Ok(())
            });
        })
    }
}

/// The same key with another value.
pub(crate) struct MapValues<F>(pub(crate) Arc<F>);

impl<K: Clone, V, W, F: Fn(&V) -> W> Operator<(K, V), (K, W)> for MapValues<F> {
    fn run(&mut self, input: Batch<(K, V)>) -> Result<Flow<Batch<(K, W)>>, TaskError> {
        let output = match input {
            Batch::Owned(records) => {
                records.into_iter().map(|(key, value)| (key, (self.0)(&value))).collect()
            }
            Batch::Shared(_) => {
                input.as_slice().iter().map(|(key, value)| (key.clone(), (self.0)(value))).collect()
            }
        };
        Ok(Flow::Batch(Batch::Owned(output)))
    }
}

/// The record with a key before it.
pub(crate) struct KeyBy<F>(pub(crate) Arc<F>);

impl<T: Clone, K, F: Fn(&T) -> K> Operator<T, (K, T)> for KeyBy<F> {
    fn run(&mut self, input: Batch<T>) -> Result<Flow<Batch<(K, T)>>, TaskError> {
        let keyed = |record: T| ((self.0)(&record), record);
        Ok(Flow::Batch(Batch::Owned(input.into_vec().into_iter().map(keyed).collect())))
    }
}

/// The records a predicate, which may count along, is true of.
pub(crate) struct Filter<P>(pub(crate) P);

impl<T: Clone, P: FnMut(&T) -> bool> Operator<T, T> for Filter<P> {
    fn run(&mut self, input: Batch<T>) -> Result<Flow<Batch<T>>, TaskError> {
        let kept: Vec<T> = match input {
            Batch::Owned(mut records) => {
                records.retain(|record| (self.0)(record));
                records
            }
            Batch::Shared(_) => input.as_slice().iter().filter(|record| (self.0)(record)).cloned().collect(),
        };
        Ok(if kept.is_empty() { Flow::Empty } else { Flow::Batch(Batch::Owned(kept)) })
    }
}

/// Any number of records out for each record in, a bounded batch at a time.
pub(crate) struct FlatMap<T, I: IntoIterator, F> {
    f: Arc<F>,
    input: Option<Batch<T>>,
    next: usize,
    open: Option<I::IntoIter>,
}

impl<T, I: IntoIterator, F> FlatMap<T, I, F> {
    pub(crate) fn new(f: Arc<F>) -> Self {
        Self { f, input: None, next: 0, open: None }
    }
}

impl<T, I: IntoIterator, F: Fn(&T) -> I> Operator<T, I::Item> for FlatMap<T, I, F> {
    fn run(&mut self, input: Batch<T>) -> Result<Flow<Batch<I::Item>>, TaskError> {
        self.input = Some(input);
        self.next = 0;
        self.resume()
    }

    fn resume(&mut self) -> Result<Flow<Batch<I::Item>>, TaskError> {
        let mut output = Vec::new();
        let records = self.input.as_ref().map(Batch::as_slice).unwrap_or_default();
        loop {
            if let Some(open) = &mut self.open {
                output.extend(open.take(BATCH_RECORDS - output.len()));
                if output.len() >= BATCH_RECORDS {
                    return Ok(Flow::More(Batch::Owned(output)));
                }
                self.open = None;
            }
            let Some(record) = records.get(self.next) else { break };
            self.next += 1;
            self.open = Some((self.f)(record).into_iter());
        }
        self.input = None;
        Ok(if output.is_empty() { Flow::Empty } else { Flow::Batch(Batch::Owned(output)) })
    }
}

/// The record with its position in the dataset.
pub(crate) struct Number {
    pub(crate) next: u64,
}

impl<T: Data> Operator<T, (T, u64)> for Number {
    fn run(&mut self, input: Batch<T>) -> Result<Flow<Batch<(T, u64)>>, TaskError> {
        let numbered = |record| {
            let position = self.next;
            self.next += 1;
            (record, position)
        };
        Ok(Flow::Batch(Batch::Owned(input.into_vec().into_iter().map(numbered).collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned<T: Clone>(flow: Flow<Batch<T>>) -> (Vec<T>, bool) {
        match flow {
            Flow::Empty => (Vec::new(), false),
            Flow::Batch(batch) => (batch.into_vec(), false),
            Flow::More(batch) => (batch.into_vec(), true),
        }
    }

    #[test]
    fn flat_map_hands_on_bounded_batches_and_loses_nothing() {
        let mut operator = FlatMap::new(Arc::new(|n: &usize| 0..*n));
        let (mut all, mut more) = owned(operator.run(Batch::Owned(vec![3000, 0, 2, 1022, 5])).unwrap());
        let mut batches = 1;
        while more {
            let (next, again) = owned(operator.resume().unwrap());
            assert!(next.len() <= BATCH_RECORDS && batches < 10);
            all.extend(next);
            more = again;
            batches += 1;
        }
        let expected: Vec<usize> = [3000, 0, 2, 1022, 5].into_iter().flat_map(|n| 0..n).collect();
        assert_eq!(all, expected);
        let (next, more) = owned(operator.run(Batch::Owned(vec![1])).unwrap());
        assert_eq!((next, more), (vec![0], false));
    }

    #[test]
    fn map_moves_owned_records_in_place_where_layouts_agree() {
        let records: Vec<u64> = (0..100).collect();
        let address = records.as_ptr() as usize;
        let (output, _) = owned(Map(Arc::new(|n: &u64| *n as i64)).run(Batch::Owned(records)).unwrap());
        assert_eq!((output.as_ptr() as usize, output[99]), (address, 99));
    }
}
