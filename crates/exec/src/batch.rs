//! Batches: the slices of records that operators hand on.

use std::any::Any;
use std::ops::Range;
use std::rc::Rc;

/// How many records operators aim to hand on at once.
pub(crate) const BATCH_RECORDS: usize = 1024;

/// After how many records of a shared batch its consumer looks whether the job is over: few enough for closures that are
/// slow, and too many to be felt by a sum.
pub(crate) const PIECE_RECORDS: usize = 8 * BATCH_RECORDS;

/// A [`Batch`] of a type that only its producer and its consumer know.
pub(crate) type AnyBatch = Box<dyn Any>;

/// Something that keeps slices of records readable: a pinned block, a collection.
pub(crate) trait Slices<T> {
    /// The slice of this index, empty if there is none.
    fn slice(&self, index: usize) -> &[T];
}

impl<T> Slices<T> for Vec<T> {
    fn slice(&self, index: usize) -> &[T] {
        if index == 0 { self } else { &[] }
    }
}

/// A range of records that somebody else owns.
pub(crate) struct SharedBatch<T> {
    pub(crate) owner: Rc<dyn Slices<T>>,
    pub(crate) slice: usize,
    pub(crate) range: Range<usize>,
}

impl<T> Clone for SharedBatch<T> {
    fn clone(&self) -> Self {
        Self { owner: Rc::clone(&self.owner), slice: self.slice, range: self.range.clone() }
    }
}

impl<T> SharedBatch<T> {
    /// The same records, at most `records_max` at a time.
    pub(crate) fn pieces(&self, records_max: usize) -> impl Iterator<Item = Self> {
        let end = self.range.end;
        self.range.clone().step_by(records_max).map(move |start| {
            let range = start..end.min(start.saturating_add(records_max));
            Self { range, ..self.clone() }
        })
    }
}

/// Consecutive records of one partition, never none.
pub(crate) enum Batch<T> {
    /// Records that the consumer may move out.
    Owned(Vec<T>),
    /// Records to be read in place.
    Shared(SharedBatch<T>),
}

impl<T> Batch<T> {
    pub(crate) fn as_slice(&self) -> &[T] {
        match self {
            Self::Owned(records) => records,
            Self::Shared(shared) => {
                shared.owner.slice(shared.slice).get(shared.range.clone()).unwrap_or_default()
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }
}

impl<T: Clone> Batch<T> {
    /// The records themselves; shared ones are cloned.
    pub(crate) fn into_vec(self) -> Vec<T> {
        match self {
            Self::Owned(records) => records,
            Self::Shared(_) => self.as_slice().to_vec(),
        }
    }

    /// Hands on the records one by one. Shared ones are cloned when it is their turn: there may be megabytes of them.
    pub(crate) fn try_for_each<E>(self, take: impl FnMut(T) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Owned(records) => records.into_iter().try_for_each(take),
            Self::Shared(_) => self.as_slice().iter().cloned().try_for_each(take),
        }
    }
}

impl<T: 'static> Batch<T> {
    /// A batch that clones in constant time.
    pub(crate) fn share(self) -> SharedBatch<T> {
        match self {
            Self::Owned(records) => {
                let range = 0..records.len();
                SharedBatch { owner: Rc::new(records), slice: 0, range }
            }
            Self::Shared(shared) => shared,
        }
    }
}

/// Walks over the slices of one owner in bounded steps, without copying.
pub(crate) struct SharedCursor<T> {
    owner: Rc<dyn Slices<T>>,
    slice: usize,
    slices: usize,
    start: usize,
}

impl<T: 'static> SharedCursor<T> {
    pub(crate) fn new(owner: Rc<dyn Slices<T>>, slices: usize) -> Self {
        Self { owner, slice: 0, slices, start: 0 }
    }

    /// The next records, at most `max` of them.
    pub(crate) fn next(&mut self, max: usize) -> Option<Batch<T>> {
        while self.slice < self.slices {
            let len = self.owner.slice(self.slice).len();
            if self.start < len {
                let end = len.min(self.start.saturating_add(max));
                let range = self.start..end;
                self.start = end;
                let (owner, slice) = (Rc::clone(&self.owner), self.slice);
                return Some(Batch::Shared(SharedBatch { owner, slice, range }));
            }
            self.slice += 1;
            self.start = 0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Chunks(Vec<Vec<i32>>);

    impl Slices<i32> for Chunks {
        fn slice(&self, index: usize) -> &[i32] {
            &self.0[index]
        }
    }

    #[test]
    fn a_cursor_hands_on_every_record_in_bounded_slices() {
        let chunks = Chunks(vec![vec![1, 2, 3], vec![], vec![4]]);
        let mut cursor = SharedCursor::new(Rc::new(chunks), 3);
        let mut batches = Vec::new();
        while let Some(batch) = cursor.next(2) {
            batches.push(batch.as_slice().to_vec());
        }
        assert_eq!(batches, [vec![1, 2], vec![3], vec![4]]);
    }

    #[test]
    fn the_pieces_of_a_shared_batch_are_all_of_it() {
        let all = Batch::Owned((0..10).collect()).share();
        let batch = SharedBatch { range: 1..9, ..all };
        for (records_max, lengths) in [(3, vec![3, 3, 2]), (4, vec![4, 4]), (100, vec![8])] {
            let pieces: Vec<Batch<i32>> = batch.pieces(records_max).map(Batch::Shared).collect();
            assert_eq!(pieces.iter().map(Batch::len).collect::<Vec<_>>(), lengths);
            let records: Vec<i32> = pieces.iter().flat_map(Batch::as_slice).copied().collect();
            assert_eq!(records, (1..9).collect::<Vec<_>>());
        }
    }

    #[test]
    fn shared_records_are_cloned_one_at_a_time() {
        let record = Rc::new(());
        let batch = Batch::Shared(Batch::Owned(vec![Rc::clone(&record); 3]).share());
        let mut taken = 0;
        let done: Result<(), ()> = batch.try_for_each(|copy| {
            taken += 1;
            assert_eq!(Rc::strong_count(&copy), 1 + 3 + 1);
            Ok(())
        });
        assert_eq!((done, taken), (Ok(()), 3));
    }

    #[test]
    fn an_owned_batch_is_moved_and_a_shared_one_stays() {
        let records = vec![1, 2, 3];
        let address = records.as_ptr();
        let batch = Batch::Owned(records);
        assert_eq!(batch.as_slice().as_ptr(), address);
        let shared = batch.share();
        let copy = Batch::Shared(shared.clone()).into_vec();
        assert_ne!(copy.as_ptr(), address);
        assert_eq!(Batch::Shared(shared).as_slice(), [1, 2, 3]);
    }
}
