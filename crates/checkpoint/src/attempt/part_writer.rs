//! Writes one part.

use std::fmt;
use std::hash::Hasher as _;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use larder_blockstore::codec::{Codec, CodecId};
use larder_blockstore::format::{BlockHeader, CHUNK_BYTES_MAX, Chunk, Compression};
use twox_hash::XxHash3_64;

use super::{Inner, PartState, Phase, RecordWriter};
use crate::error::{PartError, Place};
use crate::manifest::Part;
use crate::objects::ObjectWriter;
use crate::{Error, Step, layout};

/// Streams one part of an [`Attempt`](crate::Attempt): its chunks, then the header that describes them.
///
/// Chunks are handed on without a copy; up to one is held back until the next comes. One that is dropped unfinished
/// removes its file, and its partition can be written anew.
pub struct PartWriter {
    attempt: Arc<Inner>,
    partition: u32,
    object: String,
    file: File,
    checksum: Box<XxHash3_64>,
    header: BlockHeader,
    bytes: u64,
    held_bytes_max: u64,
    chunk_bytes: usize,
}

/// Chunks that are made for a part are no smaller than this because memory is short.
const CHUNK_BYTES_MIN: usize = 256 << 10;

enum File {
    Writing(Box<dyn ObjectWriter>),
    /// Not opened yet.
    Unopened,
    /// A failed one accepts nothing more. Whether it is surely gone.
    Discarded(bool),
    Closed,
}

impl fmt::Debug for PartWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartWriter")
            .field("object", &self.object)
            .field("chunks", &self.header.chunks.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl PartWriter {
    pub(super) fn start(attempt: &Arc<Inner>, partition: u32, bytes_max: usize) -> Result<Self, Error> {
        let leftover = attempt.claim(partition)?;
        let object = attempt.part_object(partition);
        let spec = &attempt.spec;
        let header = BlockHeader { codec: spec.codec, compression: spec.compression, chunks: Vec::new() };
        // From here on dropping it gives the claim back.
        let mut writer = Self {
            attempt: Arc::clone(attempt),
            partition,
            object,
            file: File::Unopened,
            checksum: Box::default(),
            header,
            bytes: 0,
            held_bytes_max: 0,
            // One that fills, and one that is written.
            chunk_bytes: (bytes_max / 2).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX),
        };
        let shared = &writer.attempt.shared;
        if leftover {
            shared.run(Step::DiscardPart, &writer.object, || shared.objects.remove(&writer.object))?;
        }
        let open = || shared.objects.writer(&writer.object, bytes_max);
        let opened = shared.run(Step::CreatePart, &writer.object, open);
        let file = opened?;
        writer.held_bytes_max = file.bytes_max() as u64;
        writer.file = File::Writing(file);
        Ok(writer)
    }

    /// Which partition it writes.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Of the bytes it was given, those that it holds at most right now, since they may be on their way.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.bytes.min(self.held_bytes_max)
    }

    /// How large chunks may be that are made for this part: 4 MiB, and less where its writer was asked to
    /// [hold little](crate::Attempt::part_within).
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Writes records instead of chunks: encodes them by `codec`, in chunks of up to [`chunk_bytes`](Self::chunk_bytes).
    ///
    /// # Errors
    /// [`Error::WrongCodec`] when the attempt was begun for another codec.
    pub fn records<T: 'static>(self, codec: Arc<dyn Codec<T>>) -> Result<RecordWriter<T>, Error> {
        RecordWriter::start(self, codec)
    }

    /// Appends a chunk. One pass over its bytes for its checksum and the part's, no copy.
    ///
    /// # Errors
    /// [`Error::Part`] when the chunk is not the one that was sealed: damage in memory is not made durable.
    /// [`Error::Io`] and [`Error::StorageFull`]; [`Error::Invalid`] when the attempt is over. After any of them the
    /// part has to be started again.
    pub fn write(&mut self, chunk: &Chunk) -> Result<(), Error> {
        let index = self.header.chunks.len();
        let (stored, info) = match chunk.verified(|piece| self.checksum.write(piece)) {
            Ok(verified) => verified,
            Err(source) => {
                self.discard();
                let at = self.place(Step::WriteChunk);
                let source = PartError::Chunk { chunk: index, source };
                return Err(Error::Part { at, partition: self.partition, source });
            }
        };
        self.append(Step::WriteChunk, stored)?;
        self.header.chunks.push(info);
        Ok(())
    }

    /// Writes the header, and makes the part's bytes durable.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn finish(mut self) -> Result<(), Error> {
        let header = self.header.encode();
        let header_checksum = XxHash3_64::oneshot(&header);
        self.checksum.write(&header);
        self.append(Step::WriteHeader, header.into())?;
        let closing = match &mut self.file {
            File::Writing(file) => {
                let closed = self.attempt.shared.steps.run(Step::ClosePart, &self.object, || file.close());
                closed.map_err(|e| self.failed(Step::ClosePart, e))?
            }
            _ => None,
        };
        self.file = File::Closed;
        let part = Part {
            path: layout::part(self.attempt.id, self.partition, self.attempt.spec.partitions),
            bytes: self.bytes,
            records: self.header.records(),
            checksum: self.checksum.finish(),
            header_checksum,
        };
        self.attempt.release(self.partition, PartState::Finished(part, closing.map(Arc::from)));
        Ok(())
    }

    pub(super) fn place(&self, step: Step) -> Box<Place> {
        self.attempt.shared.place(step, &self.object)
    }

    pub(super) fn compression(&self) -> Compression {
        self.header.compression
    }

    pub(super) fn expect_codec(&self, given: CodecId) -> Result<(), Error> {
        let expected = self.header.codec;
        if given == expected {
            return Ok(());
        }
        Err(Error::WrongCodec { at: self.place(Step::WriteChunk), expected, given })
    }

    fn append(&mut self, step: Step, bytes: Bytes) -> Result<(), Error> {
        let phase = self.attempt.state.lock().phase;
        if phase != Phase::Open {
            return Err(self.attempt.over(phase));
        }
        let File::Writing(file) = &mut self.file else {
            let reason = format!("part {} has failed before: start it again", self.object);
            return Err(Error::Invalid { reason });
        };
        let steps = &self.attempt.shared.steps;
        let written = steps.write(step, &self.object, bytes.len(), |len| file.write(bytes.slice(..len)));
        written.map_err(|e| self.failed(step, e))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn failed(&mut self, step: Step, error: io::Error) -> Error {
        self.discard();
        Error::io(self.place(step), Some(self.bytes), error)
    }

    /// Removes what was written, unless that was tried before; whether it is surely gone.
    fn discard(&mut self) -> bool {
        self.held_bytes_max = 0;
        let shared = &self.attempt.shared;
        let aborted = match std::mem::replace(&mut self.file, File::Discarded(false)) {
            File::Discarded(gone) => {
                self.file = File::Discarded(gone);
                return gone;
            }
            File::Writing(mut file) => file.abort(),
            File::Unopened | File::Closed => Ok(()),
        };
        // A server that does not answer is not waited for twice.
        if aborted.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::TimedOut) {
            return false;
        }
        let removed = shared.run(Step::DiscardPart, &self.object, || shared.objects.discard(&self.object));
        let gone = aborted.is_ok() && removed.is_ok();
        self.file = File::Discarded(gone);
        gone
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        if !matches!(self.file, File::Closed) {
            let state = if self.discard() { PartState::Vacant } else { PartState::Leftover };
            self.attempt.release(self.partition, state);
        }
    }
}

impl Inner {
    /// Takes a partition to write; whether a failed try may have left its file.
    fn claim(&self, partition: u32) -> Result<bool, Error> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            let phase = state.phase;
            drop(state);
            return Err(self.over(phase));
        }
        let part = usize::try_from(partition).ok().and_then(|index| state.parts.get_mut(index));
        let what = match part {
            Some(part @ (PartState::Vacant | PartState::Leftover)) => {
                let leftover = matches!(part, PartState::Leftover);
                *part = PartState::Writing;
                return Ok(leftover);
            }
            Some(PartState::Writing) => "is being written".to_owned(),
            Some(PartState::Finished(..)) => "is finished".to_owned(),
            None => format!("does not exist: there are {}", self.spec.partitions),
        };
        drop(state);
        Err(Error::Invalid { reason: format!("part {partition} of {} {what}", self.dataset) })
    }

    fn release(&self, partition: u32, part: PartState) {
        let mut state = self.state.lock();
        if let Some(slot) = usize::try_from(partition).ok().and_then(|index| state.parts.get_mut(index)) {
            *slot = part;
        }
    }
}
