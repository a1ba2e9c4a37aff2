//! Bytes, unrolled onto the heap, into an arena or onto disk.

use bytes::Bytes;

use super::{Ground, HeapChunk};
use crate::codec::{ChunkBuffer, CodecError, RECORD_BYTES_MAX};
use crate::error::Error;
use crate::format::{Chunk, Compression, checksum_of, compress_into};
use crate::mark::{MARKED_CHUNK_BYTES, Mark};
use crate::memory::{MemoryMode, Reservation, Scratch};
use crate::region::{StoredBytes, arena_bytes};
use crate::serialized::SerializedBlock;

/// Bytes of the first buffer.
const START_BYTES: usize = 4 << 10;
/// Up to here a chunk for an arena is collected on the heap, and copied once its length is known. A longer one is
/// written where it stays.
const STAGED_BYTES_MAX: usize = 64 << 10;

/// Records that are encoded at once.
const RUN_RECORDS_MAX: usize = 1 << 16;

/// Where serialized chunks go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Memory(MemoryMode),
    Disk,
}

impl Place {
    /// What `len` bytes are charged here.
    fn charge(self, len: usize) -> u64 {
        if self == Self::Memory(MemoryMode::OffHeap) { arena_bytes(len) } else { len as u64 }
    }
}

/// The chunks of a block that is written, and the buffer of the next one.
pub(crate) struct BytesUnroll {
    place: Place,
    buffer: ChunkBuffer,
    sealed_records: u64,
    chunks: Vec<Chunk>,
    /// Covers the buffer while chunks go to memory.
    charge: Option<Reservation>,
    /// Covers the buffer while it is not part of the block: fixed overhead, one chunk a writer.
    scratch: Option<Scratch>,
    /// Whether the chunk that is sealed next is copied out of the buffer, which has more room than it needs.
    copies_next: bool,
    /// Where chunks are compressed.
    compressing: Vec<u8>,
}

impl BytesUnroll {
    pub(crate) fn in_memory(charge: Reservation) -> Self {
        Self { place: Place::Memory(charge.mode()), charge: Some(charge), ..Self::on_disk() }
    }

    pub(crate) fn on_disk() -> Self {
        Self {
            place: Place::Disk,
            buffer: ChunkBuffer::with_capacity(0),
            sealed_records: 0,
            chunks: Vec::new(),
            charge: None,
            scratch: None,
            copies_next: false,
            compressing: Vec::new(),
        }
    }

    /// Pretends that so many records are in the buffer; real ones would take minutes to push.
    #[cfg(test)]
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn count_as_buffered(&mut self, records: u32) {
        self.buffer.count_as_finished(records);
    }

    pub(crate) fn mode(&self) -> Option<MemoryMode> {
        match self.place {
            Place::Memory(mode) => Some(mode),
            Place::Disk => None,
        }
    }

    /// Records so far.
    pub(crate) fn records(&self) -> u64 {
        self.sealed_records + u64::from(self.buffer.records())
    }

    /// Where the next record begins. A chunk long enough is closed there, if it has a place.
    pub(crate) fn mark<T>(&mut self, ground: &Ground<T>) -> Result<Mark, Error> {
        if self.buffer.finished_len() >= MARKED_CHUNK_BYTES.min(ground.core.chunk_bytes()) {
            self.copies_next = true;
            let sealed = self.seal(ground);
            self.copies_next = false;
            sealed?;
        }
        Ok(Mark::of_bytes(self.records(), self.chunks.len(), self.buffer.finished_len()))
    }

    /// Encodes the record; false when memory was refused, the level has no disk, and the record was left out.
    #[inline(always)]
    pub(crate) fn push<T: 'static>(&mut self, ground: &Ground<T>, record: &T) -> Result<bool, Error> {
        if self.buffer.capacity() > 0
            && self.buffer.encode(&*ground.facts.kind.codec, record).is_ok()
            && self.buffer.end_record()
        {
            return Ok(true);
        }
        self.push_further(ground, record)
    }

    /// A record for which there was no room yet, or that the codec refused.
    #[cold]
    fn push_further<T: 'static>(&mut self, ground: &Ground<T>, record: &T) -> Result<bool, Error> {
        if self.buffer.overflow_len() == 0 && self.buffer.records() < u32::MAX {
            if self.buffer.capacity() == 0 && !self.make_room(ground, 0, 0)? {
                return Ok(false);
            }
            self.encode(ground, record)?;
            if self.buffer.end_record() {
                return Ok(true);
            }
        }
        self.fit_overflow(ground, record)
    }

    fn encode<T: 'static>(&mut self, ground: &Ground<T>, record: &T) -> Result<(), Error> {
        self.buffer.encode(&*ground.facts.kind.codec, record).map_err(|e| ground.encode_error(e))
    }

    #[cold]
    fn discard<T>(&mut self, ground: &Ground<T>, error: CodecError) -> Error {
        self.buffer.discard_record();
        ground.encode_error(error)
    }

    /// Encodes records in order, until memory is refused. [`records`](Self::records) says how many were kept, whatever
    /// failed or panicked.
    pub(crate) fn push_all<T: 'static>(&mut self, ground: &Ground<T>, records: &[T]) -> Result<(), Error> {
        match ground.facts.kind.codec.record_bytes() {
            Some(record_bytes) => self.push_sized(ground, record_bytes, records),
            None => self.push_each(ground, records),
        }
    }

    fn push_each<T: 'static>(&mut self, ground: &Ground<T>, records: &[T]) -> Result<(), Error> {
        let mut rest = records;
        while !rest.is_empty() {
            if self.buffer.capacity() > 0 && self.buffer.records() <= u32::MAX / 2 {
                let run = rest.get(..rest.len().min(RUN_RECORDS_MAX)).unwrap_or_default();
                let before = self.buffer.records();
                let encoded = self.buffer.encode_run(&*ground.facts.kind.codec, run);
                let fitting = (self.buffer.records() - before) as usize;
                rest = rest.get(fitting..).unwrap_or_default();
                if encoded.is_ok() && fitting == run.len() {
                    continue;
                }
            }
            let Some((next, after)) = rest.split_first() else { break };
            if !self.push_further(ground, next)? {
                break;
            }
            rest = after;
        }
        Ok(())
    }

    fn push_sized<T: 'static>(
        &mut self,
        ground: &Ground<T>,
        record_bytes: usize,
        records: &[T],
    ) -> Result<(), Error> {
        let expected = record_bytes.saturating_mul(records.len());
        if self.buffer.capacity() == 0 && expected > 0 && !self.make_room(ground, 0, expected)? {
            return Ok(());
        }
        let mut rest = records;
        while let Some((first, after)) = rest.split_first() {
            let room = (self.buffer.capacity() - self.buffer.finished_len()) / record_bytes.max(1);
            let (run, after_run) = rest.split_at(room.min(rest.len()));
            if run.is_empty() || self.buffer.records() > u32::MAX / 2 {
                if !self.push(ground, first)? {
                    break;
                }
                rest = after;
                continue;
            }
            let encoded = self.buffer.encode_slice(&*ground.facts.kind.codec, run);
            encoded.map_err(|e| ground.encode_error(e))?;
            if !self.buffer.end_records(u32::try_from(run.len()).unwrap_or(u32::MAX)) {
                return Err(self.discard(ground, CodecError::RecordSize { said: record_bytes }));
            }
            rest = after_run;
        }
        Ok(())
    }

    /// The last record did not fit: makes room for it, behind the finished ones or in a chunk of its own.
    fn fit_overflow<T: 'static>(&mut self, ground: &Ground<T>, record: &T) -> Result<bool, Error> {
        let overflow = self.buffer.overflow_len();
        if overflow > RECORD_BYTES_MAX {
            let error = CodecError::RecordTooLarge { bytes: overflow, limit: RECORD_BYTES_MAX };
            return Err(self.discard(ground, error));
        }
        // Records of no size never fill a chunk's bytes, only its count. An extent of the arena does not grow.
        let chunk_is_full = self.buffer.records() == u32::MAX
            || self.buffer.is_in_arena()
            || self.buffer.finished_len() + overflow > ground.core.chunk_bytes();
        let room = if chunk_is_full && self.buffer.records() > 0 { self.seal(ground) } else { Ok(true) }
            .and_then(|sealed| Ok(sealed && self.make_room(ground, overflow, 0)?));
        if !matches!(room, Ok(true)) {
            self.buffer.discard_record();
            return room;
        }
        if self.buffer.is_cut() || overflow == 0 {
            // Only its length is known, if that: no more than a chunk was held before memory was granted.
            self.buffer.discard_record();
            self.encode(ground, record)?;
        }
        if !self.buffer.end_record() {
            return Err(self.discard(ground, CodecError::RecordSize { said: overflow }));
        }
        Ok(true)
    }

    /// Grows the buffer so that `overflow` more bytes fit; false when memory was refused and there is no disk.
    /// `known` is how much it will hold at least: what is known to come is worth an eviction, what might come is not.
    fn make_room<T: 'static>(
        &mut self,
        ground: &Ground<T>,
        overflow: usize,
        known: usize,
    ) -> Result<bool, Error> {
        let capacity = self.buffer.capacity();
        let chunk_bytes = ground.core.chunk_bytes();
        self.buffer.limit_overflow(chunk_bytes);
        let least = self.buffer.finished_len() + overflow.max(1);
        if least <= capacity {
            self.buffer.grow(capacity);
            return Ok(true);
        }
        let doubled = capacity.saturating_mul(2).max(known).min(chunk_bytes).max(least);
        let first = doubled.max(START_BYTES.min(chunk_bytes));
        let ample = if self.chunks.is_empty() { first } else { chunk_bytes.max(least) };
        let Place::Memory(mode) = self.place else {
            self.stage(ground, ample);
            return Ok(true);
        };
        let has_room = match self.charge_buffer(ground, [ample, doubled, least]) {
            None => false,
            Some(granted) if mode == MemoryMode::Heap => {
                self.buffer.grow(granted);
                true
            }
            Some(granted) => self.make_room_off_heap(ground, granted, least),
        };
        if has_room || !ground.facts.level.uses_disk() {
            return Ok(has_room);
        }
        self.move_to_disk(ground)?;
        self.make_room(ground, overflow, known)
    }

    /// Charges for a buffer of the first of these sizes if it is free, else, by evicting others' blocks, for one of
    /// the others. Gives the size; nothing when all are refused.
    fn charge_buffer<T>(&mut self, ground: &Ground<T>, sizes: [usize; 3]) -> Option<usize> {
        let (place, [ample, doubled, least]) = (self.place, sizes);
        let charge = self.charge.as_mut()?;
        if charge.try_grow(place.charge(ample).saturating_sub(charge.bytes())).is_ok() {
            return Some(ample);
        }
        let mut evicting = |size: usize| {
            let missing = place.charge(size).saturating_sub(charge.bytes());
            charge.grow(missing, ground.facts.requester()).is_ok().then_some(size)
        };
        let of_doubled = if doubled > least { evicting(doubled) } else { None };
        of_doubled.or_else(|| evicting(least))
    }

    /// On the heap while it is small or still to be compressed, else in an extent of the arena; false when the arena
    /// has none of even `least` bytes.
    fn make_room_off_heap<T>(&mut self, ground: &Ground<T>, granted: usize, least: usize) -> bool {
        if granted <= STAGED_BYTES_MAX || ground.facts.compression != Compression::None {
            self.stage(ground, granted);
            return true;
        }
        let Some(extent) = ground.core.arena_extent(ground.facts.requester(), granted, least) else {
            return false;
        };
        self.buffer.move_into(extent);
        self.scratch = None;
        true
    }

    fn stage<T>(&mut self, ground: &Ground<T>, bytes: usize) {
        self.scratch = Some(ground.core.memory().scratch(bytes as u64));
        self.buffer.grow(bytes);
    }

    /// Memory was refused for good: what is sealed moves to disk, and the rest will follow it.
    fn move_to_disk<T>(&mut self, ground: &Ground<T>) -> Result<(), Error> {
        self.chunks = ground.moved_to_disk(&self.chunks)?;
        self.scratch = Some(ground.core.memory().scratch(self.buffer.capacity() as u64));
        self.buffer.leave_arena();
        self.place = Place::Disk;
        self.charge = None;
        Ok(())
    }

    /// Closes the chunk in the buffer and puts it where chunks go; false when there is no such place.
    fn seal<T>(&mut self, ground: &Ground<T>) -> Result<bool, Error> {
        let raw_len = u32::try_from(self.buffer.finished_len()).unwrap_or(u32::MAX);
        let records = self.buffer.records();
        let mut compressing = std::mem::take(&mut self.compressing);
        let compressed = self.compressed(ground, &mut compressing);
        let compressed_len = compressed.map(<[u8]>::len);
        let bytes = compressed.unwrap_or(self.buffer.finished());
        let mut checksum = ground.core.verifies_memory().then(|| checksum_of(bytes));
        let mut stored = match self.mode() {
            Some(mode) => self.place_in_memory(ground, mode, compressed).map(StoredBytes::from),
            None => None,
        };
        if stored.is_none() {
            if self.mode().is_some() {
                if !ground.facts.level.uses_disk() {
                    return Ok(false);
                }
                self.move_to_disk(ground)?;
            }
            let bytes = compressed.unwrap_or(self.buffer.finished());
            checksum = Some(checksum_of(bytes));
            stored = Some(ground.write_to_disk(self.chunks.len(), bytes)?);
        }
        if ground.facts.compression != Compression::None {
            ground.facts.counters.count_compression(raw_len as usize, compressed_len);
        }
        self.sealed_records += u64::from(records);
        self.chunks.extend(stored.map(|stored| Chunk::placed(stored, raw_len, records, checksum)));
        self.buffer.restart();
        self.keep_buffer(ground);
        if raw_len as usize <= ground.core.chunk_bytes() {
            self.compressing = compressing;
        }
        Ok(true)
    }

    /// The chunk in the buffer, where it stays in memory; none when the arena has no place for it.
    fn place_in_memory<T>(
        &mut self,
        ground: &Ground<T>,
        mode: MemoryMode,
        compressed: Option<&[u8]>,
    ) -> Option<Bytes> {
        let charge = self.charge.as_mut()?;
        match (mode, compressed) {
            (MemoryMode::Heap, compressed) => {
                let finished = self.buffer.finished();
                let copied = compressed.or_else(|| {
                    let copies = self.copies_next && charge.try_grow(finished.len() as u64).is_ok();
                    copies.then_some(finished)
                });
                let copied = copied.map(<[u8]>::to_vec);
                let bytes = copied.unwrap_or_else(|| self.buffer.take());
                let charge = charge.split(bytes.len() as u64);
                Some(Bytes::from_owner(HeapChunk { bytes, _charge: charge }))
            }
            (MemoryMode::OffHeap, None) if self.buffer.is_in_arena() => {
                let charge = charge.split(arena_bytes(self.buffer.finished_len()));
                self.buffer.freeze(charge)
            }
            (MemoryMode::OffHeap, compressed) => {
                let bytes = compressed.unwrap_or(self.buffer.finished());
                ground.core.write_to_arena(ground.facts.requester(), bytes, charge)
            }
        }
    }

    /// The chunk in the buffer compressed, where that pays. One that a large record made larger than others is
    /// compressed only where memory for that is granted.
    fn compressed<'a, T>(&self, ground: &Ground<T>, room: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        let raw = self.buffer.finished();
        let compression = ground.facts.compression;
        if compression == Compression::None || raw.len() <= ground.core.chunk_bytes() {
            return compress_into(raw, compression, room);
        }
        let _room = ground.core.memory().try_reserve_storage(MemoryMode::Heap, raw.len() as u64).ok()?;
        compress_into(raw, compression, room)
    }

    /// After a chunk was sealed: the buffer is used again if it is no longer than a chunk and can be charged.
    fn keep_buffer<T>(&mut self, ground: &Ground<T>) {
        let capacity = self.buffer.capacity();
        let place = self.place;
        let is_charged = self.charge.as_mut().is_none_or(|charge| {
            charge.try_grow(place.charge(capacity).saturating_sub(charge.bytes())).is_ok()
        });
        if capacity > ground.core.chunk_bytes() || !is_charged {
            self.buffer.take();
            self.scratch = None;
        }
    }

    /// Seals what is left; the whole block, and the memory it lies in if it is in memory. None when the last chunk
    /// found no place.
    pub(crate) fn finish<T: 'static>(
        &mut self,
        ground: &Ground<T>,
    ) -> Result<Option<SerializedBlock>, Error> {
        if self.buffer.records() > 0 && !self.seal(ground)? {
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
        let records = self.buffer.records();
        if records > 0 {
            let raw_len = u32::try_from(self.buffer.finished_len()).unwrap_or(u32::MAX);
            let held = (self.charge.take(), self.scratch.take());
            let bytes = if self.buffer.is_in_arena() {
                self.buffer.freeze(held).unwrap_or_default()
            } else {
                Bytes::from_owner(HeapChunk { bytes: self.buffer.take(), _charge: held })
            };
            self.chunks.push(Chunk::placed(bytes.into(), raw_len, records, None));
        }
        SerializedBlock::new(ground.facts.kind.codec.id(), ground.facts.compression, self.chunks)
    }
}
