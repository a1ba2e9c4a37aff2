//! What codecs write into and read from.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::{Codec, CodecError};
use crate::region::ExtentMut;

/// The chunk a codec appends to.
///
/// It has room for what memory was granted for. A record that does not fit moves to an overflow of its own, until
/// the writer has sealed the chunk or been granted a larger one; a codec never sees the difference.
#[derive(Debug)]
pub struct ChunkBuffer {
    room: Room,
    capacity: usize,
    /// Bytes that are written, of which the finished records have those before `record_start`.
    len: usize,
    record_start: usize,
    records: u32,
    overflow: Vec<u8>,
    overflow_len: usize,
    overflow_max: usize,
    /// How much a window has at least.
    window_bytes: usize,
}

/// How much a window has at first.
const WINDOW_BYTES: usize = 512;
/// How many are opened at once. To zero more takes longer: it waits for memory that is not in a cache.
const WINDOWS: usize = 2;

/// Where the bytes lie.
#[derive(Debug)]
enum Room {
    /// What is behind the written bytes is a window that is open.
    Heap(Vec<u8>),
    Arena(ExtentMut),
}

impl Room {
    /// Writes bytes for which there is room.
    #[inline]
    fn write(&mut self, at: usize, more: &[u8]) {
        match self {
            Self::Heap(bytes) => {
                bytes.truncate(at);
                bytes.extend_from_slice(more);
            }
            Self::Arena(extent) => {
                if let Some(place) = extent.get_mut(at..at + more.len()) {
                    place.copy_from_slice(more);
                }
            }
        }
    }

    /// What can be written in place from `at` on: at least so many bytes, unless `capacity` ends before.
    #[inline]
    fn window(&mut self, at: usize, least: usize, capacity: usize) -> &mut [u8] {
        match self {
            Self::Heap(bytes) => {
                if bytes.len() < capacity && bytes.len() - at < least {
                    let end = at.saturating_add(least.saturating_mul(WINDOWS)).min(capacity);
                    bytes.resize(end.max(bytes.len()), 0);
                }
                bytes.get_mut(at..)
            }
            Self::Arena(extent) => extent.get_mut(at..capacity),
        }
        .unwrap_or_default()
    }

    fn get(&self, range: Range<usize>) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes.get(range),
            Self::Arena(extent) => extent.get(range),
        }
        .unwrap_or_default()
    }
}

impl ChunkBuffer {
    /// A buffer on the heap that holds `capacity` bytes before it overflows.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            room: Room::Heap(Vec::with_capacity(capacity)),
            capacity,
            len: 0,
            record_start: 0,
            records: 0,
            overflow: Vec::new(),
            overflow_len: 0,
            overflow_max: usize::MAX,
            window_bytes: WINDOW_BYTES,
        }
    }

    /// Appends bytes of the current record.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.capacity - self.len && self.overflow_len == 0 {
            self.room.write(self.len, bytes);
            self.len += bytes.len();
        } else {
            self.extend_overflow(bytes);
        }
    }

    /// Room to write the rest of the current record in place; none when it has overflowed. What is written there counts
    /// once it is [kept](Self::keep).
    #[inline]
    pub(super) fn window(&mut self) -> &mut [u8] {
        if self.overflow_len > 0 {
            return &mut [];
        }
        self.room.window(self.len, self.window_bytes, self.capacity)
    }

    /// Keeps what was written at the start of the [window](Self::window).
    #[inline]
    pub(super) fn keep(&mut self, bytes: usize) {
        self.len += bytes;
    }

    /// A record of so many bytes did not fit into the window, and was written otherwise.
    pub(super) fn widen_window(&mut self, record_bytes: usize) {
        self.window_bytes = self.window_bytes.max(record_bytes);
    }

    #[cold]
    fn extend_overflow(&mut self, bytes: &[u8]) {
        if self.overflow_len == 0 {
            self.overflow.extend_from_slice(self.room.get(self.record_start..self.len));
            self.overflow_len = self.overflow.len();
            self.len = self.record_start;
        }
        self.overflow_len = self.overflow_len.saturating_add(bytes.len());
        if self.overflow_len <= self.overflow_max {
            self.overflow.extend_from_slice(bytes);
        } else {
            self.overflow = Vec::new();
        }
    }

    /// Records that do not fit are held up to so many bytes; of larger ones only the length is kept.
    pub(crate) fn limit_overflow(&mut self, bytes: usize) {
        self.overflow_max = bytes;
    }

    /// Was the current record too large to be held? Then it has to be encoded again.
    pub(crate) fn is_cut(&self) -> bool {
        self.overflow.len() < self.overflow_len
    }

    /// Bytes of the finished records.
    pub(crate) fn finished_len(&self) -> usize {
        self.record_start
    }

    /// How many records are finished.
    #[inline]
    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    /// Pretends that so many records are finished; to write real ones would take minutes.
    #[cfg(test)]
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn count_as_finished(&mut self, records: u32) {
        self.records = records;
    }

    /// Ends the current record and counts it; false when it did not fit. It then waits in the overflow, and nothing may
    /// be written behind it.
    ///
    /// For codecs that [encode many records](Codec::encode_run) in one call; otherwise the caller does it.
    #[inline]
    pub fn end_record(&mut self) -> bool {
        self.end_records(1)
    }

    /// As [`end_record`](Self::end_record), for records that were written in one piece.
    #[inline]
    pub(crate) fn end_records(&mut self, records: u32) -> bool {
        if self.overflow_len > 0 {
            return false;
        }
        let Some(records) = self.records.checked_add(records) else { return false };
        self.record_start = self.len;
        self.records = records;
        true
    }

    /// Encodes a record; of one whose encoding fails or panics nothing is left.
    #[inline(always)]
    pub(crate) fn encode<T: 'static>(&mut self, codec: &dyn Codec<T>, record: &T) -> Result<(), CodecError> {
        self.or_discard(|chunk| codec.encode(record, chunk))
    }

    /// Encodes records until one does not fit, which then waits in the overflow, or its encoding fails or panics, of
    /// which nothing is left. Those before it are [counted](Self::records).
    pub(crate) fn encode_run<T: 'static>(
        &mut self,
        codec: &dyn Codec<T>,
        records: &[T],
    ) -> Result<(), CodecError> {
        self.or_discard(|chunk| codec.encode_run(records, chunk))
    }

    /// Encodes records of known length in one piece; nothing is left when that fails or panics.
    pub(crate) fn encode_slice<T: 'static>(
        &mut self,
        codec: &dyn Codec<T>,
        records: &[T],
    ) -> Result<(), CodecError> {
        self.or_discard(|chunk| codec.encode_slice(records, chunk))
    }

    #[inline(always)]
    fn or_discard(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<(), CodecError>,
    ) -> Result<(), CodecError> {
        let unfinished = Unfinished(self);
        write(unfinished.0)?;
        std::mem::forget(unfinished);
        Ok(())
    }

    /// Forgets what the current record has written.
    pub(crate) fn discard_record(&mut self) {
        self.len = self.record_start;
        self.overflow.clear();
        self.overflow_len = 0;
    }

    /// Bytes of the record that did not fit, 0 when all do.
    pub(crate) fn overflow_len(&self) -> usize {
        self.overflow_len
    }

    /// Bytes it holds before it overflows.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The finished records' bytes.
    pub(crate) fn finished(&self) -> &[u8] {
        self.room.get(0..self.record_start)
    }

    /// Makes room on the heap for `capacity` bytes in all, which the caller was granted, and moves the overflow in
    /// unless it [was cut](Self::is_cut).
    pub(crate) fn grow(&mut self, capacity: usize) {
        self.leave_arena();
        if let Room::Heap(bytes) = &mut self.room {
            bytes.reserve_exact(capacity.saturating_sub(bytes.len()));
        }
        self.capacity = capacity.max(self.capacity);
        self.take_overflow_in();
    }

    fn take_overflow_in(&mut self) {
        if !self.is_cut() {
            let overflow = std::mem::take(&mut self.overflow);
            self.overflow_len = 0;
            self.extend_from_slice(&overflow);
        }
    }

    /// Goes on in an extent of an arena, with all it holds.
    pub(crate) fn move_into(&mut self, extent: ExtentMut) {
        let capacity = extent.len();
        let before = std::mem::replace(&mut self.room, Room::Arena(extent));
        self.room.write(0, before.get(0..self.len));
        self.capacity = capacity;
        self.take_overflow_in();
    }

    /// Does it lie in an arena?
    pub(crate) fn is_in_arena(&self) -> bool {
        matches!(self.room, Room::Arena(_))
    }

    /// Goes on on the heap, with all it holds.
    pub(crate) fn leave_arena(&mut self) {
        if let Room::Arena(extent) = &self.room {
            let mut heap = Vec::with_capacity(self.capacity);
            heap.extend_from_slice(extent.get(..self.len).unwrap_or_default());
            self.room = Room::Heap(heap);
        }
    }

    /// The finished records' bytes, without slack. The buffer goes on with no room; an overflow stays.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.leave_arena();
        let finished = self.record_start;
        self.restart();
        self.capacity = 0;
        match std::mem::replace(&mut self.room, Room::Heap(Vec::new())) {
            Room::Heap(mut bytes) => {
                bytes.truncate(finished);
                bytes.shrink_to_fit();
                bytes
            }
            Room::Arena(_) => Vec::new(),
        }
    }

    /// The finished records' bytes where they lie in the arena, if they do, without slack. The buffer goes on with no
    /// room; an overflow stays.
    pub(crate) fn freeze(&mut self, charge: impl Send + 'static) -> Option<Bytes> {
        if !self.is_in_arena() {
            return None;
        }
        let finished = self.record_start;
        self.restart();
        self.capacity = 0;
        match std::mem::replace(&mut self.room, Room::Heap(Vec::new())) {
            Room::Arena(extent) => Some(extent.freeze(finished, charge)),
            Room::Heap(_) => None,
        }
    }

    /// Forgets the finished records and keeps the room; an overflow stays.
    pub(crate) fn restart(&mut self) {
        self.len = 0;
        self.record_start = 0;
        self.records = 0;
    }
}

/// Discards the current record unless it is forgotten.
struct Unfinished<'a>(&'a mut ChunkBuffer);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.discard_record();
    }
}

impl io::Write for ChunkBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An uncompressed chunk that a codec reads from the front.
#[derive(Debug)]
pub struct ChunkReader<'a> {
    chunk: &'a Bytes,
    offset: usize,
}

impl<'a> ChunkReader<'a> {
    /// Reads `chunk` from byte `offset` on.
    #[must_use]
    pub fn at(chunk: &'a Bytes, offset: usize) -> Self {
        Self { chunk, offset: offset.min(chunk.len()) }
    }

    /// Bytes read so far.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Is everything read?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offset == self.chunk.len()
    }

    /// What is not read yet.
    #[must_use]
    #[inline]
    pub fn remaining(&self) -> &'a [u8] {
        self.chunk.get(self.offset..).unwrap_or_default()
    }

    /// Skips `bytes`, or all that is left when that is less.
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        self.offset = self.offset.saturating_add(bytes).min(self.chunk.len());
    }

    /// Reads the next `len` bytes, borrowed.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] when fewer are left.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        match self.remaining().get(..len) {
            Some(bytes) => {
                self.offset += len;
                Ok(bytes)
            }
            None => {
                let missing = len - self.remaining().len();
                Err(CodecError::Truncated { offset: self.offset, missing })
            }
        }
    }

    /// Reads the next `len` bytes as a handle of their own, which keeps the chunk alive and copies nothing.
    ///
    /// # Errors
    /// [`CodecError::Truncated`] when fewer are left.
    pub fn take_shared(&mut self, len: usize) -> Result<Bytes, CodecError> {
        let start = self.offset;
        self.take(len)?;
        Ok(self.chunk.slice(start..start + len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_does_not_fit_waits_whole_in_the_overflow() {
        let mut buffer = ChunkBuffer::with_capacity(8);
        buffer.extend_from_slice(b"first");
        assert!(buffer.end_record());
        buffer.extend_from_slice(b"se");
        buffer.extend_from_slice(b"cond");
        assert!(!buffer.end_record());
        assert_eq!((buffer.finished_len(), buffer.overflow_len()), (5, 6));
        assert_eq!(buffer.take(), b"first");
        buffer.grow(6);
        assert!(buffer.end_record());
        assert_eq!(buffer.finished(), b"second");
    }

    #[test]
    fn growing_brings_the_overflow_back_and_discarding_forgets_it() {
        let mut buffer = ChunkBuffer::with_capacity(4);
        buffer.extend_from_slice(b"abc");
        assert!(buffer.end_record());
        buffer.extend_from_slice(b"def");
        assert!(!buffer.end_record());
        buffer.grow(6);
        assert!(buffer.end_record());
        buffer.extend_from_slice(b"g");
        buffer.discard_record();
        assert_eq!((buffer.finished_len(), buffer.overflow_len()), (6, 0));
        assert_eq!(buffer.take(), b"abcdef");
    }

    #[test]
    fn of_a_record_over_the_limit_only_the_length_is_kept() {
        let mut buffer = ChunkBuffer::with_capacity(4);
        buffer.limit_overflow(8);
        buffer.extend_from_slice(b"ab");
        assert!(buffer.end_record());
        (0..100).for_each(|_| buffer.extend_from_slice(b"0123456789"));
        assert!(!buffer.end_record());
        assert_eq!((buffer.overflow_len(), buffer.is_cut()), (1_000, true));
        buffer.grow(1_002);
        assert_eq!((buffer.finished(), buffer.is_cut()), (&b"ab"[..], true));
        buffer.discard_record();
        (0..100).for_each(|_| buffer.extend_from_slice(b"0123456789"));
        assert!(buffer.end_record());
        assert_eq!(buffer.take().len(), 1_002);
    }

    #[test]
    fn reading_past_the_end_says_how_much_is_missing() {
        let chunk = Bytes::from_static(b"abc");
        let mut reader = ChunkReader::at(&chunk, 1);
        assert!(matches!(reader.take(5), Err(CodecError::Truncated { offset: 1, missing: 3 })));
        assert_eq!(reader.take_shared(2).unwrap(), "bc");
        assert!(reader.is_empty());
    }
}
