//! Reads one part.

use std::fmt;
use std::hash::Hasher as _;
use std::io;
use std::iter::FusedIterator;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use larder_blockstore::codec::{Codec, CodecId};
use larder_blockstore::format::{BlockHeader, Chunk, Compression, TRAILER_BYTES};
use twox_hash::XxHash3_64;

use super::Records;
use crate::error::{PartError, Place};
use crate::manifest::Part;
use crate::objects::{ObjectReader, ReadAhead};
use crate::store::Shared;
use crate::{Error, Step};

/// Read from the end of a part in one go, in the hope that all of its header is in there.
const HEADER_GUESS_BYTES: u64 = 16 << 10;

/// The least that is read at once.
const BATCH_BYTES_MIN: u64 = 256 << 10;

/// The chunks of one part, in order, each verified. Holds about 2 MiB of a file, 16 MiB of an object on a server
/// (half of it on its way), or one chunk where that is larger; [less](Self::within) if it is told to.
///
/// After an error it is at its end: what came before is right, but not all.
pub struct PartReader {
    shared: Arc<Shared>,
    object: String,
    partition: u32,
    file: Box<dyn ObjectReader>,
    header: BlockHeader,
    header_bytes: Bytes,
    /// Of the whole part, as it was written.
    checksum: u64,
    /// What is read at once, if it is more than a chunk.
    batch_bytes: u64,
    next: usize,
    /// The chunk before which it ends.
    end: usize,
    /// Where the next chunk starts.
    offset: u64,
    /// What was read, from `offset` on.
    batch: Bytes,
    /// What is read meanwhile, and from where on.
    ahead: Option<(Range<u64>, Box<dyn ReadAhead>)>,
}

impl PartReader {
    /// Opens a part of a dataset that was written by this codec with this compression.
    pub(crate) fn open(
        shared: Arc<Shared>,
        dataset: &str,
        written: (CodecId, Compression),
        partition: u32,
        part: &Part,
    ) -> Result<Self, Error> {
        let object = format!("{dataset}/{}", part.path);
        let damaged = |source| {
            let at = shared.place(Step::OpenPart, &object);
            Error::Part { at, partition, source }
        };
        let opened = shared.steps.run(Step::OpenPart, &object, || {
            let found = shared.objects.len(&object)?;
            if found != part.bytes {
                return Ok(Err(PartError::Length { expected: part.bytes, found }));
            }
            let file = shared.objects.reader(&object)?;
            Ok(read_header(&*file, part)?.map(|header| (file, header)))
        });
        let (file, header_bytes) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(damage)) => return Err(damaged(damage)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged(PartError::Missing)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged(PartError::Shrunk { needed: part.bytes }));
            }
            Err(e) => return Err(Error::io(shared.place(Step::OpenPart, &object), None, e)),
        };
        let header = check_header(&header_bytes, written, part).map_err(damaged)?;
        Ok(Self {
            checksum: part.checksum,
            batch_bytes: shared.objects.batch_bytes(),
            shared,
            object,
            partition,
            file,
            end: header.chunks.len(),
            header,
            header_bytes,
            next: 0,
            offset: 0,
            batch: Bytes::new(),
            ahead: None,
        })
    }

    /// Has it hold no more than `bytes_max` of the part, or the least it can do with: 256 KiB at once, or a chunk where
    /// that is more, and as much on its way from a server. Smaller reads are more requests.
    #[must_use]
    pub fn within(self, bytes_max: u64) -> Self {
        let batch_bytes = (bytes_max / self.batches()).max(BATCH_BYTES_MIN).min(self.batch_bytes);
        Self { batch_bytes, ..self }
    }

    /// What it holds at most of the part.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        let chunks = self.header.chunks.iter();
        let chunk = chunks.map(|chunk| u64::from(chunk.stored_len)).max().unwrap_or(0);
        (self.batches() * self.batch_bytes.max(chunk)).min(self.header.stored_bytes())
    }

    /// One that is looked at, and one that is read meanwhile.
    fn batches(&self) -> u64 {
        if self.shared.objects.reads_ahead() { 2 } else { 1 }
    }

    /// Which partition it reads.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The header of the part: its codec, and what is known of each chunk.
    #[must_use]
    pub fn header(&self) -> &BlockHeader {
        &self.header
    }

    /// Decodes the records of all chunks that are left.
    ///
    /// # Errors
    /// [`Error::WrongCodec`] when they were not written by this codec.
    pub fn records<T: 'static>(self, codec: Arc<dyn Codec<T>>) -> Result<Records<T>, Error> {
        let all = self.header.records();
        Records::start(self, codec, 0, all)
    }

    /// Decodes some records of the part, counted from its first. Reads the chunks that hold them and no others; to
    /// be called before a chunk was read.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use larder_blockstore::codec::{Bincode, CodecId};
    /// # use larder_checkpoint::{CheckpointStore, Error, Spec};
    /// # let store = CheckpointStore::open("memory://range")?;
    /// # let attempt = store.begin("squares", Spec::new(1, CodecId::BINCODE))?;
    /// # let mut records = attempt.part(0)?.records::<u64>(Arc::new(Bincode))?;
    /// # (0..1000).try_for_each(|n| records.push(&(n * n)))?;
    /// # records.finish()?;
    /// # let checkpoint = attempt.commit()?;
    /// let some = checkpoint.read_part(0)?.record_range::<u64>(Arc::new(Bincode), 500..503)?;
    /// assert_eq!(some.collect::<Result<Vec<_>, _>>()?, [250_000, 251_001, 252_004]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] when the part has no such records, or was read from already; [`Error::WrongCodec`].
    pub fn record_range<T: 'static>(
        mut self,
        codec: Arc<dyn Codec<T>>,
        range: Range<u64>,
    ) -> Result<Records<T>, Error> {
        let records = self.header.records();
        if range.start > range.end || range.end > records {
            let wrong = format!("there are {records} records, not {}..{}", range.start, range.end);
            return Err(self.invalid(&wrong));
        }
        if self.next > 0 {
            return Err(self.invalid("a range of records is asked for before a chunk is read"));
        }
        let skip = self.narrow(&range);
        Records::start(self, codec, skip, range.end - range.start)
    }

    /// Leaves out the chunks that hold nothing of the range; how many records come before it in the first that is
    /// left.
    fn narrow(&mut self, range: &Range<u64>) -> u64 {
        let (mut first, mut offset, mut before) = (0, 0, 0);
        let mut chunks = self.header.chunks.iter().peekable();
        while let Some(chunk) = chunks.next_if(|chunk| before + u64::from(chunk.records) <= range.start) {
            (first, offset, before) =
                (first + 1, offset + u64::from(chunk.stored_len), before + u64::from(chunk.records));
        }
        let (mut end, mut counted) = (first, before);
        for chunk in chunks {
            if counted >= range.end {
                break;
            }
            (end, counted) = (end + 1, counted + u64::from(chunk.records));
        }
        (self.next, self.offset, self.end) = (first, offset, end);
        range.start - before
    }

    pub(super) fn next_chunk(&self) -> usize {
        self.next
    }

    pub(super) fn place(&self) -> Box<Place> {
        self.shared.place(Step::ReadPart, &self.object)
    }

    pub(super) fn expect_codec(&self, given: CodecId) -> Result<(), Error> {
        let expected = self.header.codec;
        if given == expected {
            return Ok(());
        }
        Err(Error::WrongCodec { at: self.place(), expected, given })
    }

    /// Reads the part to its end, decodes nothing, and compares everything that was recorded of it; to be called before a
    /// chunk was read.
    ///
    /// # Errors
    /// [`Error::Part`] when it is not what was written, [`Error::Invalid`] when it was read from already, [`Error::Io`].
    pub fn verify(mut self) -> Result<(), Error> {
        if self.next > 0 {
            return Err(self.invalid("a part is verified before a chunk is read"));
        }
        let expected = self.checksum;
        let mut checksum = XxHash3_64::new();
        let mut index = 0;
        while let Some(chunk) = self.next() {
            let stored = chunk?.stored();
            checksum
                .write(&stored.map_err(|source| self.damaged(PartError::Chunk { chunk: index, source }))?);
            index += 1;
        }
        checksum.write(&self.header_bytes);
        let actual = checksum.finish();
        if actual == expected {
            return Ok(());
        }
        Err(self.damaged(PartError::Checksum { what: "the file", expected, actual }))
    }

    pub(super) fn damaged(&self, source: PartError) -> Error {
        Error::Part { at: self.place(), partition: self.partition, source }
    }

    fn invalid(&self, what: &str) -> Error {
        Error::Invalid { reason: format!("{}: {what}", self.shared.address.join(&self.object)) }
    }

    fn read_chunk(&mut self, index: usize) -> Result<Option<Chunk>, Error> {
        let Some(&info) = self.header.chunks.get(index).filter(|_| index < self.end) else { return Ok(None) };
        let len = usize::try_from(info.stored_len).unwrap_or(usize::MAX);
        if self.batch.len() < len {
            self.batch = self.read_batch(index)?;
        }
        if self.batch.len() < len {
            let needed = self.offset + u64::from(info.stored_len);
            return Err(self.damaged(PartError::Shrunk { needed }));
        }
        let chunk = Chunk::found(self.batch.split_to(len), info);
        chunk.verify().map_err(|source| self.damaged(PartError::Chunk { chunk: index, source }))?;
        self.offset += u64::from(info.stored_len);
        Ok(Some(chunk))
    }

    /// Reads chunk `index` and as many of its followers as fit in a batch, and starts to read the next batch.
    fn read_batch(&mut self, index: usize) -> Result<Bytes, Error> {
        let (range, next) = self.batch_range(index, self.offset);
        let ahead = self.ahead.take().filter(|(ahead, _)| *ahead == range);
        let read = self.shared.steps.run(Step::ReadPart, &self.object, || match ahead {
            Some((_, ahead)) => ahead.wait(),
            None => self.file.read(range.clone()),
        });
        let batch = read.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(PartError::Shrunk { needed: range.end }),
            io::ErrorKind::NotFound => self.damaged(PartError::Missing),
            _ => Error::io(self.place(), None, e),
        })?;
        let (following, _) = self.batch_range(next, range.end);
        if !following.is_empty() {
            self.ahead = self.file.read_ahead(following.clone()).map(|ahead| (following, ahead));
        }
        Ok(batch)
    }

    /// The bytes of the batch that begins with chunk `index` at `offset`, and the first chunk after it.
    fn batch_range(&self, index: usize, offset: u64) -> (Range<u64>, usize) {
        let (mut end, mut next) = (offset, index);
        for info in self.header.chunks.iter().take(self.end).skip(index) {
            let chunk_end = end + u64::from(info.stored_len);
            if end > offset && chunk_end - offset > self.batch_bytes {
                break;
            }
            (end, next) = (chunk_end, next + 1);
        }
        (offset..end, next)
    }
}

impl Iterator for PartReader {
    type Item = Result<Chunk, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.read_chunk(self.next) {
            Ok(chunk) => {
                self.next += usize::from(chunk.is_some());
                chunk.map(Ok)
            }
            Err(e) => {
                self.next = self.end;
                Some(Err(e))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error takes the place of all that would follow.
        let left = self.end.saturating_sub(self.next);
        (usize::from(left > 0), Some(left))
    }
}

impl FusedIterator for PartReader {}

impl fmt::Debug for PartReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartReader")
            .field("object", &self.object)
            .field("chunks", &self.header.chunks.len())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// The bytes of the header at the end of a part, whose length was found right.
fn read_header(file: &dyn ObjectReader, part: &Part) -> io::Result<Result<Bytes, PartError>> {
    let tail = file.read(part.bytes.saturating_sub(HEADER_GUESS_BYTES)..part.bytes)?;
    let header_len = match BlockHeader::len_from_trailer(&tail) {
        Ok(len) => len,
        Err(e) => return Ok(Err(e.into())),
    };
    // A length beyond the file would be a demand for memory that nothing justifies.
    let Some(start) = part.bytes.checked_sub(header_len) else {
        let needed = usize::try_from(header_len).unwrap_or(usize::MAX);
        let found = usize::try_from(part.bytes).unwrap_or(usize::MAX);
        return Ok(Err(larder_blockstore::format::HeaderError::Truncated { found, needed }.into()));
    };
    let tail_start = part.bytes - tail.len() as u64;
    match start.checked_sub(tail_start).and_then(|skip| usize::try_from(skip).ok()) {
        Some(skip) => Ok(Ok(tail.slice(skip..))),
        None => file.read(start..part.bytes).map(Ok),
    }
}

/// Parses a header that the manifest vouches for.
fn check_header(
    bytes: &[u8],
    (codec, compression): (CodecId, Compression),
    part: &Part,
) -> Result<BlockHeader, PartError> {
    let (expected, actual) = (part.header_checksum, XxHash3_64::oneshot(bytes));
    if actual != expected {
        return Err(PartError::Checksum { what: "its header", expected, actual });
    }
    let header = BlockHeader::decode(bytes)?;
    let in_header = (header.codec, header.compression, header.records(), header.stored_bytes());
    let header_len = bytes.len().max(TRAILER_BYTES) as u64;
    let in_manifest = (codec, compression, part.records, part.bytes.saturating_sub(header_len));
    if in_header == in_manifest {
        return Ok(header);
    }
    let words = |(codec, compression, records, bytes): (CodecId, _, u64, u64)| {
        format!("{codec}, compression {compression}, {records} records in {bytes} bytes")
    };
    Err(PartError::Contradiction { found: words(in_header), expected: words(in_manifest) })
}
