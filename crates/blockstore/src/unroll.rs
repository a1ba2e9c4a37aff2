//! Unrolling: a block on its way into the store, with a reservation that grows with it.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{ChunkBuffer, CodecError, RECORD_BYTES_MAX};
use crate::dataset::DatasetFacts;
use crate::error::Error;
use crate::format::{Chunk, compress};
use crate::id::BlockId;
use crate::memory::{MemoryMode, Reservation, Scratch};
use crate::residence::Values;
use crate::serialized::SerializedBlock;
use crate::store::Core;

/// What a writer may touch while it unrolls.
pub(crate) struct Ground<T> {
    pub(crate) core: Arc<Core>,
    pub(crate) facts: Arc<DatasetFacts<T>>,
    pub(crate) block: BlockId,
}

impl<T> Ground<T> {
    pub(crate) fn encode_error(&self, source: CodecError) -> Error {
        Error::Encode { block: self.block, name: self.facts.name.to_string(), source }
    }

    pub(crate) fn write_to_disk(&self, stored: &[u8]) -> Result<Bytes, Error> {
        self.core.write_to_disk(self.block, &self.facts.name, &self.facts.counters, stored)
    }
}

/// Bytes of the first run of values and of the first buffer.
const START_BYTES: usize = 4 << 10;
/// Bytes a run of values grows to.
const RUN_BYTES_MAX: usize = 1 << 20;

/// Values, unrolled onto the heap.
pub(crate) struct ValuesUnroll<T> {
    runs: Vec<Vec<T>>,
    records: u64,
    /// Capacity of the runs and all that their records own.
    used_bytes: u64,
    charge: Reservation,
}

impl<T> ValuesUnroll<T> {
    pub(crate) fn new(charge: Reservation) -> Self {
        Self { runs: Vec::new(), records: 0, used_bytes: 0, charge }
    }

    /// Keeps the record, or hands it back because memory was refused.
    #[inline]
    pub(crate) fn push(&mut self, ground: &Ground<T>, record: T) -> Option<T> {
        let heap_bytes = (ground.facts.kind.heap_bytes)(std::slice::from_ref(&record)) as u64;
        if !self.has_room() && !self.add_run(ground, 1) {
            return Some(record);
        }
        if !self.cover(ground, heap_bytes) {
            return Some(record);
        }
        match self.runs.last_mut() {
            Some(run) => {
                run.push(record);
                self.records += 1;
                None
            }
            None => Some(record),
        }
    }

    /// Moves records off the front of `batch` while memory is granted; what is left in it was refused.
    pub(crate) fn append(&mut self, ground: &Ground<T>, batch: &mut Vec<T>) {
        let heap_bytes = (ground.facts.kind.heap_bytes)(batch) as u64;
        let fits = self.cover(ground, heap_bytes);
        if !fits {
            return self.append_one_by_one(ground, batch);
        }
        // Every record of the batch is paid for; only the runs' own slots may still be refused.
        while !batch.is_empty() {
            if !self.has_room() && !self.add_run(ground, batch.len()) {
                self.used_bytes -= (ground.facts.kind.heap_bytes)(batch) as u64;
                return;
            }
            let Some(run) = self.runs.last_mut() else { return };
            let moved = batch.len().min(run.capacity() - run.len());
            if moved == batch.len() {
                run.append(batch);
            } else {
                run.extend(batch.drain(..moved));
            }
            self.records += moved as u64;
        }
    }

    fn append_one_by_one(&mut self, ground: &Ground<T>, batch: &mut Vec<T>) {
        let mut rest = std::mem::take(batch).into_iter();
        while let Some(record) = rest.next() {
            if let Some(refused) = self.push(ground, record) {
                batch.push(refused);
                batch.extend(rest);
                return;
            }
        }
    }

    fn has_room(&self) -> bool {
        self.runs.last().is_some_and(|run| run.len() < run.capacity())
    }

    /// Counts `bytes` as used and makes sure that they are charged; counts nothing when they are refused.
    #[inline]
    fn cover(&mut self, ground: &Ground<T>, bytes: u64) -> bool {
        if self.used_bytes + bytes > self.charge.bytes() && !self.charge_for(ground, bytes) {
            return false;
        }
        self.used_bytes += bytes;
        true
    }

    /// Grows the charge so that it covers `bytes` more: from free memory, some ahead; else by exactly what is
    /// missing once the last run has given up its empty slots, if need be by evicting others' blocks.
    #[cold]
    fn charge_for(&mut self, ground: &Ground<T>, bytes: u64) -> bool {
        let need = self.used_bytes + bytes - self.charge.bytes();
        let ahead = ((self.used_bytes + bytes) / 8).min(RUN_BYTES_MAX as u64);
        if self.charge.try_grow(need.max(ahead)).is_ok() || self.charge.try_grow(need).is_ok() {
            return true;
        }
        if let Some(run) = self.runs.last_mut() {
            let before = run.capacity();
            run.shrink_to(run.len() + 1);
            self.used_bytes -= ((before - run.capacity()) * size_of::<T>()) as u64;
        }
        let need = (self.used_bytes + bytes).saturating_sub(self.charge.bytes());
        self.charge.grow(need, Some(ground.block.dataset)).is_ok()
    }

    /// Opens another run, as large as all before it together, or smaller where memory is short.
    #[cold]
    fn add_run(&mut self, ground: &Ground<T>, expected: usize) -> bool {
        let size = size_of::<T>().max(1);
        let most = (RUN_BYTES_MAX / size).max(1);
        let start = (START_BYTES / size).max(1);
        let total = usize::try_from(self.records).unwrap_or(usize::MAX);
        let mut capacity = total.max(start).max(expected).min(most);
        loop {
            let bytes = (capacity * size_of::<T>()) as u64;
            let uncharged = (self.used_bytes + bytes).saturating_sub(self.charge.bytes());
            let granted = self.charge.try_grow(uncharged).is_ok()
                || (capacity == 1 && self.charge.grow(uncharged, Some(ground.block.dataset)).is_ok());
            if granted {
                let mut run = Vec::new();
                run.reserve_exact(capacity);
                self.used_bytes += ((run.capacity() * size_of::<T>()) as u64).min(bytes);
                self.runs.push(run);
                return true;
            }
            if capacity == 1 {
                return false;
            }
            capacity = (capacity / 4).max(1);
        }
    }

    pub(crate) fn runs(&self) -> &[Vec<T>] {
        &self.runs
    }

    /// Capacity of the runs and all that their records own.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Gives back what was charged and not used.
    pub(crate) fn finish(mut self) -> Values<T> {
        if let Some(run) = self.runs.last_mut() {
            let slack = run.capacity() - run.len();
            run.shrink_to_fit();
            let slack = slack - (run.capacity() - run.len()).min(slack);
            self.used_bytes -= (slack * size_of::<T>()) as u64;
        }
        let surplus = self.charge.bytes().saturating_sub(self.used_bytes);
        self.charge.shrink(surplus);
        Values { runs: self.runs, records: self.records, charge: Some(self.charge) }
    }
}

/// Where serialized chunks go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Memory(MemoryMode),
    Disk,
}

/// Bytes, unrolled onto the heap, into an arena or onto disk.
pub(crate) struct BytesUnroll {
    place: Place,
    buffer: ChunkBuffer,
    buffered_records: u32,
    chunks: Vec<Chunk>,
    /// Covers the buffer while chunks go to memory.
    charge: Option<Reservation>,
    /// Covers the buffer while it is not part of the block: fixed overhead, one chunk a writer.
    scratch: Option<Scratch>,
}

impl BytesUnroll {
    pub(crate) fn in_memory(charge: Reservation) -> Self {
        Self { place: Place::Memory(charge.mode()), charge: Some(charge), ..Self::on_disk() }
    }

    pub(crate) fn on_disk() -> Self {
        Self {
            place: Place::Disk,
            buffer: ChunkBuffer::with_capacity(0),
            buffered_records: 0,
            chunks: Vec::new(),
            charge: None,
            scratch: None,
        }
    }

    /// Pretends that so many records are in the buffer; real ones would take minutes to push.
    #[cfg(test)]
    pub(crate) fn count_as_buffered(&mut self, records: u32) {
        self.buffered_records = records;
    }

    pub(crate) fn mode(&self) -> Option<MemoryMode> {
        match self.place {
            Place::Memory(mode) => Some(mode),
            Place::Disk => None,
        }
    }

    /// Encodes the record; false when memory was refused, the level has no disk, and the record was left out.
    #[inline]
    pub(crate) fn push<T: 'static>(&mut self, ground: &Ground<T>, record: &T) -> Result<bool, Error> {
        if self.buffer.capacity() == 0 && !self.make_room(ground, 0)? {
            return Ok(false);
        }
        if let Err(e) = ground.facts.kind.codec.encode(record, &mut self.buffer) {
            self.buffer.discard_record();
            return Err(ground.encode_error(e));
        }
        if self.buffer.end_record() && self.buffered_records < u32::MAX {
            self.buffered_records += 1;
            return Ok(true);
        }
        self.fit_overflow(ground)
    }

    /// Encodes records in order; how many were kept before memory was refused or something failed.
    pub(crate) fn push_all<T: 'static>(
        &mut self,
        ground: &Ground<T>,
        records: &[T],
    ) -> (usize, Result<(), Error>) {
        let mut kept = 0;
        let done = match ground.facts.kind.codec.record_bytes() {
            Some(record_bytes) => self.push_sized(ground, record_bytes, records, &mut kept),
            None => self.push_each(ground, records, &mut kept),
        };
        (kept, done)
    }

    fn push_each<T: 'static>(
        &mut self,
        ground: &Ground<T>,
        records: &[T],
        kept: &mut usize,
    ) -> Result<(), Error> {
        for record in records {
            if !self.push(ground, record)? {
                break;
            }
            *kept += 1;
        }
        Ok(())
    }

    fn push_sized<T: 'static>(
        &mut self,
        ground: &Ground<T>,
        record_bytes: usize,
        records: &[T],
        kept: &mut usize,
    ) -> Result<(), Error> {
        while let Some(rest) = records.get(*kept..).filter(|rest| !rest.is_empty()) {
            let room = (self.buffer.capacity() - self.buffer.finished_len()) / record_bytes.max(1);
            let run = rest.get(..room.min(rest.len())).unwrap_or_default();
            let Some((first, _)) = rest.split_first() else { break };
            if run.is_empty() || self.buffered_records > u32::MAX / 2 {
                if !self.push(ground, first)? {
                    break;
                }
                *kept += 1;
                continue;
            }
            if let Err(e) = ground.facts.kind.codec.encode_slice(run, &mut self.buffer) {
                self.buffer.discard_record();
                return Err(ground.encode_error(e));
            }
            self.buffer.end_record();
            self.buffered_records += u32::try_from(run.len()).unwrap_or(u32::MAX);
            *kept += run.len();
        }
        Ok(())
    }

    /// The last record did not fit: makes room for it, behind the finished ones or in a chunk of its own.
    #[cold]
    fn fit_overflow<T: 'static>(&mut self, ground: &Ground<T>) -> Result<bool, Error> {
        let overflow = self.buffer.overflow_len();
        if overflow > RECORD_BYTES_MAX {
            self.buffer.discard_record();
            let error = CodecError::RecordTooLarge { bytes: overflow, limit: RECORD_BYTES_MAX };
            return Err(ground.encode_error(error));
        }
        // Records of no size never fill a chunk's bytes, only its count.
        let chunk_is_full = self.buffered_records == u32::MAX
            || self.buffer.finished_len() + overflow > ground.core.chunk_bytes();
        let room = if chunk_is_full && self.buffered_records > 0 { self.seal(ground) } else { Ok(true) }
            .and_then(|sealed| Ok(sealed && self.make_room(ground, overflow)?));
        if !matches!(room, Ok(true)) {
            self.buffer.discard_record();
            return room;
        }
        self.buffer.end_record();
        self.buffered_records += 1;
        Ok(true)
    }

    /// Grows the buffer so that `overflow` more bytes fit; false when memory was refused and there is no disk.
    fn make_room<T: 'static>(&mut self, ground: &Ground<T>, overflow: usize) -> Result<bool, Error> {
        let capacity = self.buffer.capacity();
        let chunk_bytes = ground.core.chunk_bytes();
        let least = self.buffer.finished_len() + overflow.max(1);
        if least <= capacity {
            self.buffer.grow(capacity);
            return Ok(true);
        }
        let doubled = capacity.saturating_mul(2).max(START_BYTES.min(chunk_bytes));
        let ample = if self.chunks.is_empty() { doubled.min(chunk_bytes) } else { chunk_bytes }.max(least);
        let granted = match &mut self.charge {
            None => Some(ample),
            Some(charge) => {
                let short = |capacity: usize| (capacity as u64).saturating_sub(charge.bytes());
                let (want, need) = (short(ample), short(least));
                if want > need && charge.try_grow(want).is_ok() {
                    Some(ample)
                } else {
                    charge.grow(need, Some(ground.block.dataset)).ok().map(|()| least)
                }
            }
        };
        let Some(granted) = granted else {
            if !ground.facts.level.uses_disk() {
                return Ok(false);
            }
            self.move_to_disk(ground)?;
            return self.make_room(ground, overflow);
        };
        if self.place != Place::Memory(MemoryMode::Heap) {
            self.scratch = Some(ground.core.memory().scratch(granted as u64));
        }
        self.buffer.grow(granted);
        Ok(true)
    }

    /// Memory was refused for good: what is sealed moves to disk, and the rest will follow it.
    fn move_to_disk<T>(&mut self, ground: &Ground<T>) -> Result<(), Error> {
        let moved = self.chunks.iter().map(|chunk| Ok(chunk.moved_to(ground.write_to_disk(chunk.stored())?)));
        self.chunks = moved.collect::<Result<_, Error>>()?;
        self.place = Place::Disk;
        self.charge = None;
        self.scratch = Some(ground.core.memory().scratch(self.buffer.capacity() as u64));
        Ok(())
    }

    /// Closes the chunk in the buffer and puts it where chunks go; false when there is no such place.
    fn seal<T>(&mut self, ground: &Ground<T>) -> Result<bool, Error> {
        let raw_len = u32::try_from(self.buffer.finished_len()).unwrap_or(u32::MAX);
        let compressed = compress(self.buffer.finished(), ground.facts.compression);
        let stored = loop {
            let bytes = compressed.as_deref().unwrap_or(self.buffer.finished());
            let len = bytes.len() as u64;
            match (self.place, &mut self.charge) {
                (Place::Memory(MemoryMode::Heap), Some(charge)) => {
                    let charge = charge.split(len);
                    let bytes = compressed.unwrap_or_else(|| self.buffer.take());
                    break Bytes::from_owner(HeapChunk { bytes, _charge: charge });
                }
                (Place::Memory(MemoryMode::OffHeap), Some(charge)) => {
                    if let Some(stored) = ground.core.write_to_arena(bytes, charge) {
                        break stored;
                    }
                    if !ground.facts.level.uses_disk() {
                        return Ok(false);
                    }
                    self.move_to_disk(ground)?;
                }
                _ => break ground.write_to_disk(bytes)?,
            }
        };
        self.chunks.push(Chunk::from_parts(stored, raw_len, std::mem::take(&mut self.buffered_records)));
        self.buffer.restart();
        if let Some(charge) = &mut self.charge {
            let uncovered = (self.buffer.capacity() as u64).saturating_sub(charge.bytes());
            if charge.try_grow(uncovered).is_err() {
                self.buffer.take();
            }
        }
        Ok(true)
    }

    /// Seals what is left; the whole block, and the memory it lies in if it is in memory. None when the last chunk
    /// found no place.
    pub(crate) fn finish<T: 'static>(
        &mut self,
        ground: &Ground<T>,
    ) -> Result<Option<SerializedBlock>, Error> {
        if self.buffered_records > 0 && !self.seal(ground)? {
            return Ok(None);
        }
        let chunks = std::mem::take(&mut self.chunks);
        self.charge = None;
        self.scratch = None;
        Ok(Some(SerializedBlock::new(ground.facts.kind.codec.id(), ground.facts.compression, chunks)))
    }

    /// As [`finish`](Self::finish), for a block that was on its way to disk from the start.
    pub(crate) fn finish_on_disk<T: 'static>(
        &mut self,
        ground: &Ground<T>,
    ) -> Result<SerializedBlock, Error> {
        let finished = self.finish(ground)?;
        let empty =
            || SerializedBlock::new(ground.facts.kind.codec.id(), ground.facts.compression, Vec::new());
        Ok(finished.unwrap_or_else(empty))
    }

    /// What was kept so far, as a block of its own whose last chunk is still in the buffer's memory.
    pub(crate) fn into_kept<T: 'static>(mut self, ground: &Ground<T>) -> SerializedBlock {
        if self.buffered_records > 0 {
            let charge = self.charge.take();
            let bytes = Bytes::from_owner(HeapChunk { bytes: self.buffer.take(), _charge: charge });
            let raw_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.chunks.push(Chunk::from_parts(bytes, raw_len, self.buffered_records));
        }
        SerializedBlock::new(ground.facts.kind.codec.id(), ground.facts.compression, self.chunks)
    }
}

/// A chunk on the heap with what it is charged, given back after it.
pub(crate) struct HeapChunk<C> {
    pub(crate) bytes: Vec<u8>,
    pub(crate) _charge: C,
}

impl<C> AsRef<[u8]> for HeapChunk<C> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
