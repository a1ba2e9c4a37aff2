//! The records of a round, until it ends.

use std::ops::Range;

use crate::batch::{Batch, SharedBatch};

/// Records as they came, each with its reduce partition. Those that were handed over are owned, others stay where they
/// lie.
pub(super) struct Held<W> {
    /// The reduce partition of each record.
    targets: Vec<u32>,
    pieces: Vec<Piece<W>>,
    owned: Vec<W>,
}

/// Records that came together.
enum Piece<W> {
    /// These of the owned ones.
    Owned(Range<usize>),
    Shared(Batch<W>),
}

impl<W> Held<W> {
    /// A record, its target, and its place in the order.
    pub(super) const SLOT_BYTES: usize = size_of::<W>() + size_of::<u32>() + size_of::<&W>();

    pub(super) fn new() -> Self {
        Self { targets: Vec::new(), pieces: Vec::new(), owned: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.targets.len()
    }

    /// Makes room for so many records in all, of which those to come may be owned.
    pub(super) fn reserve(&mut self, slots: usize) {
        self.targets.reserve_exact(slots.saturating_sub(self.targets.len()));
    }

    /// Takes a record, one of at most `slots` in all.
    #[inline]
    pub(super) fn push(&mut self, target: u32, record: W, slots: usize) {
        if self.owned.len() == self.owned.capacity() {
            self.owned.reserve_exact(slots.saturating_sub(self.targets.len()).max(1));
        }
        self.targets.push(target);
        self.owned.push(record);
        match self.pieces.last_mut() {
            Some(Piece::Owned(range)) => range.end += 1,
            _ => self.pieces.push(Piece::Owned(self.owned.len() - 1..self.owned.len())),
        }
    }

    /// Notes the target of a record that [`hold`](Self::hold) takes later.
    #[inline]
    pub(super) fn push_target(&mut self, target: u32) {
        self.targets.push(target);
    }

    /// Takes these records of a batch, whose targets were noted.
    pub(super) fn hold(&mut self, batch: &SharedBatch<W>, records: Range<usize>) {
        if !records.is_empty() {
            let first = batch.range.start;
            let range = first + records.start..first + records.end;
            self.pieces.push(Piece::Shared(Batch::Shared(SharedBatch { range, ..batch.clone() })));
        }
    }

    /// The records by their targets, and those of one target as they came; `ends` is to say where those of each
    /// target end. None if a target is none of theirs.
    pub(super) fn order(&self, ends: &mut [u32]) -> Option<Vec<&W>> {
        ends.fill(0);
        for target in &self.targets {
            *ends.get_mut(*target as usize)? += 1;
        }
        let mut next = 0;
        for end in ends.iter_mut() {
            let count = std::mem::replace(end, next);
            next += count;
        }
        let records = || {
            self.pieces.iter().flat_map(|piece| match piece {
                Piece::Owned(range) => self.owned.get(range.clone()).unwrap_or_default(),
                Piece::Shared(batch) => batch.as_slice(),
            })
        };
        let mut order = vec![records().next()?; self.targets.len()];
        for (record, target) in records().zip(&self.targets) {
            let end = ends.get_mut(*target as usize)?;
            *order.get_mut(*end as usize)? = record;
            *end += 1;
        }
        Some(order)
    }

    /// Lets go of all records.
    pub(super) fn clear(&mut self) {
        self.targets.clear();
        self.pieces.clear();
        self.owned.clear();
    }
}
