//! Values, unrolled onto the heap.

use super::Ground;
use crate::memory::Reservation;
use crate::residence::Values;

/// Records are measured so many at a time while they are small. So the last few of a writer's are on the heap, where
/// whoever pushed them had put them, and not charged yet.
const UNMEASURED_MAX: usize = 64;
/// A record that owns more is measured before it is kept, and so is the next.
const SMALL_BYTES: u64 = 256;
/// Bytes of the first run.
const START_BYTES: usize = 4 << 10;
/// Bytes a run of values grows to.
const RUN_BYTES_MAX: usize = 1 << 20;

/// Where memory may come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// What is free.
    Free,
    /// What is free, and what others' blocks give back.
    Evicting,
}

/// The runs of a block of values that is written, and what they are charged.
pub(crate) struct ValuesUnroll<T> {
    full: Vec<Vec<T>>,
    /// The last run.
    run: Vec<T>,
    /// Records in `full`.
    full_records: u64,
    /// Records at the end of the last run that were not measured yet.
    unmeasured: usize,
    /// As many may be.
    unmeasured_max: usize,
    /// Capacity of the runs and all that their measured records own.
    used_bytes: u64,
    charge: Reservation,
}

impl<T> ValuesUnroll<T> {
    pub(crate) fn new(charge: Reservation) -> Self {
        Self {
            full: Vec::new(),
            run: Vec::new(),
            full_records: 0,
            unmeasured: 0,
            unmeasured_max: 0,
            used_bytes: 0,
            charge,
        }
    }

    /// Records so far.
    pub(crate) fn records(&self) -> u64 {
        self.full_records + self.run.len() as u64
    }

    /// Whether the next record may be kept first and measured later.
    #[inline]
    pub(crate) fn has_room_unmeasured(&self) -> bool {
        self.unmeasured < self.unmeasured_max && self.has_room()
    }

    /// Keeps a record for which there is such room. Apart from the question: a record that is handed over in an
    /// `Option` is stored and loaded in pieces of other sizes, for which the processor waits.
    #[inline]
    pub(crate) fn push_unmeasured(&mut self, record: T) {
        self.run.push(record);
        self.unmeasured += 1;
    }

    /// Keeps the record, or hands it back because memory was refused.
    pub(crate) fn push(&mut self, ground: &Ground<T>, record: T) -> Option<T> {
        let heap_bytes = (ground.facts.kind.heap_bytes)(std::slice::from_ref(&record)) as u64;
        let granted = self.measure(ground)
            && (self.has_room() || self.add_run(ground, 1, From::Evicting))
            && self.cover(ground, heap_bytes, From::Evicting);
        if !granted {
            return Some(record);
        }
        self.unmeasured_max = if heap_bytes <= SMALL_BYTES { UNMEASURED_MAX } else { 0 };
        self.run.push(record);
        None
    }

    /// Lets no further record in unmeasured.
    pub(crate) fn close(&mut self) {
        self.unmeasured_max = 0;
    }

    /// Charges what was pushed and not measured yet; false when memory was refused. The records stay all the same.
    pub(crate) fn measure(&mut self, ground: &Ground<T>) -> bool {
        let start = self.run.len() - self.unmeasured;
        let unmeasured = self.run.get(start..).unwrap_or_default();
        let heap_bytes = (ground.facts.kind.heap_bytes)(unmeasured) as u64;
        let granted = self.cover(ground, heap_bytes, From::Evicting);
        if granted {
            self.unmeasured = 0;
        }
        granted
    }

    /// Moves records off the front of `batch` while memory is granted; what is left in it was refused.
    pub(crate) fn append(&mut self, ground: &Ground<T>, batch: &mut Vec<T>) {
        if !self.measure(ground) {
            return;
        }
        let heap_bytes = (ground.facts.kind.heap_bytes)(batch) as u64;
        if !self.cover(ground, heap_bytes, From::Evicting) {
            return self.append_one_by_one(ground, batch);
        }
        // Every record of the batch is paid for; only the runs' own slots may still be refused.
        if self.run.capacity() - self.run.len() >= batch.len() {
            self.run.append(batch);
            return;
        }
        let mut rest = std::mem::take(batch).into_iter();
        while rest.len() > 0 {
            if !self.has_room() && !self.add_run(ground, rest.len(), From::Evicting) {
                self.used_bytes -= (ground.facts.kind.heap_bytes)(rest.as_slice()) as u64;
                batch.extend(rest);
                return;
            }
            let room = self.run.capacity() - self.run.len();
            self.run.extend(rest.by_ref().take(room));
        }
    }

    /// Takes a vector as the next run, records and all; false when memory was refused, and it is gone.
    pub(crate) fn adopt(&mut self, ground: &Ground<T>, run: Vec<T>) -> bool {
        let heap_bytes = (ground.facts.kind.heap_bytes)(&run) as u64;
        let bytes = heap_bytes + (run.capacity() * size_of::<T>()) as u64;
        let granted = self.measure(ground) && self.cover(ground, bytes, From::Evicting);
        if granted {
            self.follow_with(run);
        }
        granted
    }

    /// After the batch as a whole was refused: the block will not be kept in memory, so nobody is evicted for it.
    #[cold]
    fn append_one_by_one(&mut self, ground: &Ground<T>, batch: &mut Vec<T>) {
        let mut rest = std::mem::take(batch).into_iter();
        while let Some(record) = rest.next() {
            let heap_bytes = (ground.facts.kind.heap_bytes)(std::slice::from_ref(&record)) as u64;
            let granted = (self.has_room() || self.add_run(ground, 1, From::Free))
                && self.cover(ground, heap_bytes, From::Free);
            if !granted {
                batch.push(record);
                batch.extend(rest);
                return;
            }
            self.run.push(record);
        }
    }

    /// Copies of records that lie elsewhere, made once they are paid for; none when memory was refused.
    pub(crate) fn paid_copies(&mut self, ground: &Ground<T>, records: &[T]) -> Option<Vec<T>>
    where
        T: Clone,
    {
        let heap_bytes = (ground.facts.kind.heap_bytes)(records) as u64;
        (self.measure(ground) && self.cover(ground, heap_bytes, From::Evicting)).then(|| {
            // Charged still, and counted again as what the copies turn out to own.
            self.used_bytes -= heap_bytes;
            records.to_vec()
        })
    }

    /// As [`paid_copies`](Self::paid_copies), one by one and from free memory, after all together were refused; how
    /// many were kept.
    #[cold]
    pub(crate) fn copy_one_by_one(&mut self, ground: &Ground<T>, records: &[T]) -> usize
    where
        T: Clone,
    {
        for (kept, record) in records.iter().enumerate() {
            let heap_bytes = |record: &T| (ground.facts.kind.heap_bytes)(std::slice::from_ref(record)) as u64;
            let of_original = heap_bytes(record);
            let granted = (self.has_room() || self.add_run(ground, 1, From::Free))
                && self.cover(ground, of_original, From::Free);
            if !granted {
                return kept;
            }
            let copy = record.clone();
            self.used_bytes -= of_original.saturating_sub(heap_bytes(&copy));
            self.run.push(copy);
        }
        records.len()
    }

    fn has_room(&self) -> bool {
        self.run.len() < self.run.capacity()
    }

    /// Counts `bytes` as used and makes sure that they are charged; counts nothing when they are refused.
    #[inline]
    fn cover(&mut self, ground: &Ground<T>, bytes: u64, from: From) -> bool {
        if self.used_bytes + bytes > self.charge.bytes() && !self.charge_for(ground, bytes, from) {
            return false;
        }
        self.used_bytes += bytes;
        true
    }

    /// Grows the charge so that it covers `bytes` more: from free memory, some ahead; else by exactly what is
    /// missing once the last run has given up its empty slots, if need be by evicting others' blocks.
    #[cold]
    fn charge_for(&mut self, ground: &Ground<T>, bytes: u64, from: From) -> bool {
        let need = self.used_bytes + bytes - self.charge.bytes();
        let ahead = ((self.used_bytes + bytes) / 8).min(RUN_BYTES_MAX as u64);
        if self.charge.try_grow(need.max(ahead)).is_ok() || self.charge.try_grow(need).is_ok() {
            return true;
        }
        let before = self.run.capacity();
        self.run.shrink_to(self.run.len() + 1);
        self.used_bytes -= ((before - self.run.capacity()) * size_of::<T>()) as u64;
        let need = (self.used_bytes + bytes).saturating_sub(self.charge.bytes());
        self.grow_charge(ground, need, from)
    }

    fn grow_charge(&mut self, ground: &Ground<T>, bytes: u64, from: From) -> bool {
        match from {
            From::Free => self.charge.try_grow(bytes).is_ok(),
            From::Evicting => self.charge.grow(bytes, ground.facts.requester()).is_ok(),
        }
    }

    /// Opens another run, as large as all before it together and as the records that are `expected`, or smaller where
    /// memory is short.
    #[cold]
    fn add_run(&mut self, ground: &Ground<T>, expected: usize, from: From) -> bool {
        let size = size_of::<T>().max(1);
        let most = (RUN_BYTES_MAX / size).max(1);
        let start = (START_BYTES / size).max(1);
        let total = usize::try_from(self.records()).unwrap_or(usize::MAX);
        // What is known to come is worth an eviction, what might come is not.
        let known = expected.clamp(1, most);
        let mut capacity = total.max(start).max(known).min(most);
        loop {
            let bytes = (capacity * size_of::<T>()) as u64;
            let uncharged = (self.used_bytes + bytes).saturating_sub(self.charge.bytes());
            let granted = self.charge.try_grow(uncharged).is_ok()
                || ((capacity == known || capacity == 1) && self.grow_charge(ground, uncharged, from));
            if granted {
                let mut run = Vec::new();
                run.reserve_exact(capacity);
                self.used_bytes += ((run.capacity() * size_of::<T>()) as u64).min(bytes);
                self.follow_with(run);
                return true;
            }
            if capacity == 1 {
                return false;
            }
            let smaller = (capacity / 4).max(1);
            capacity = if capacity > known { smaller.max(known) } else { smaller };
        }
    }

    fn follow_with(&mut self, run: Vec<T>) {
        let full = std::mem::replace(&mut self.run, run);
        self.full_records += full.len() as u64;
        if full.capacity() > 0 {
            self.full.push(full);
        }
    }

    /// All that was kept, in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &[T]> {
        self.full.iter().chain([&self.run]).map(Vec::as_slice)
    }

    /// Capacity of the runs and all that their records own.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// All that was kept, with what it is charged; what was charged and not used is given back.
    pub(crate) fn finish(mut self) -> Values<T> {
        let records = self.records();
        let slack = self.run.capacity() - self.run.len();
        self.run.shrink_to_fit();
        let slack = slack - (self.run.capacity() - self.run.len()).min(slack);
        self.used_bytes -= (slack * size_of::<T>()) as u64;
        let surplus = self.charge.bytes().saturating_sub(self.used_bytes);
        self.charge.shrink(surplus);
        let mut runs = self.full;
        if !self.run.is_empty() {
            runs.push(self.run);
        }
        Values { runs, records, charge: Some(self.charge) }
    }
}
