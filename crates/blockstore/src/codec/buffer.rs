//! What codecs write into and read from.

use std::io;

use bytes::Bytes;

use super::CodecError;

/// The chunk a codec appends to.
///
/// It has room for what memory was granted for. A record that does not fit moves to an overflow of its own, until
/// the writer has sealed the chunk or been granted a larger one; a codec never sees the difference.
#[derive(Debug)]
pub struct ChunkBuffer {
    bytes: Vec<u8>,
    capacity: usize,
    record_start: usize,
    overflow: Vec<u8>,
}

impl ChunkBuffer {
    /// A buffer on the heap that holds `capacity` bytes before it overflows.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), capacity, record_start: 0, overflow: Vec::new() }
    }

    /// Appends bytes of the current record.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        if bytes.len() <= self.capacity - self.bytes.len() && self.overflow.is_empty() {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.extend_overflow(bytes);
        }
    }

    #[cold]
    fn extend_overflow(&mut self, bytes: &[u8]) {
        if self.overflow.is_empty() {
            self.overflow.extend(self.bytes.drain(self.record_start..));
        }
        self.overflow.extend_from_slice(bytes);
    }

    /// Bytes of the finished records.
    pub(crate) fn finished_len(&self) -> usize {
        self.record_start
    }

    /// Ends the current record; whether it fitted. One that did not waits in the overflow.
    #[inline]
    pub(crate) fn end_record(&mut self) -> bool {
        self.record_start = self.bytes.len();
        self.overflow.is_empty()
    }

    /// Forgets what the current record has written.
    pub(crate) fn discard_record(&mut self) {
        self.bytes.truncate(self.record_start);
        self.overflow.clear();
    }

    /// Bytes of the record that did not fit, 0 when all do.
    pub(crate) fn overflow_len(&self) -> usize {
        self.overflow.len()
    }

    /// Bytes it holds before it overflows.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The finished records' bytes.
    pub(crate) fn finished(&self) -> &[u8] {
        self.bytes.get(..self.record_start).unwrap_or_default()
    }

    /// Makes room for `capacity` bytes in all, which the caller was granted, and moves the overflow in.
    pub(crate) fn grow(&mut self, capacity: usize) {
        self.bytes.reserve_exact(capacity.saturating_sub(self.bytes.len()));
        self.capacity = capacity.max(self.capacity);
        let overflow = std::mem::take(&mut self.overflow);
        self.extend_from_slice(&overflow);
    }

    /// The finished records' bytes, without slack. The buffer goes on with no room; an overflow stays.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut taken = std::mem::take(&mut self.bytes);
        taken.truncate(self.record_start);
        taken.shrink_to_fit();
        self.record_start = 0;
        self.capacity = 0;
        taken
    }

    /// Forgets the finished records and keeps the room; an overflow stays.
    pub(crate) fn restart(&mut self) {
        self.bytes.clear();
        self.record_start = 0;
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
    fn reading_past_the_end_says_how_much_is_missing() {
        let chunk = Bytes::from_static(b"abc");
        let mut reader = ChunkReader::at(&chunk, 1);
        assert!(matches!(reader.take(5), Err(CodecError::Truncated { offset: 1, missing: 3 })));
        assert_eq!(reader.take_shared(2).unwrap(), "bc");
        assert!(reader.is_empty());
    }
}
