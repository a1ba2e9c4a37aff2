//! Record batches as Arrow IPC streams, read in place.

use std::error::Error;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamWriter;
use larder_blockstore::codec::{ChunkBuffer, ChunkReader, Codec, CodecError, CodecId};

/// Writes each batch as one Arrow IPC stream, a multiple of 64 bytes long, after 64 bytes with its length. So every
/// column starts 64-byte aligned in its chunk, and a batch that is read shares the chunk's memory: heap, arena or
/// mapped file.
#[derive(Debug)]
pub(crate) struct ArrowIpc;

const ALIGNMENT: usize = 64;

impl Codec<RecordBatch> for ArrowIpc {
    fn id(&self) -> CodecId {
        CodecId::ARROW_IPC
    }

    fn encode(&self, batch: &RecordBatch, out: &mut ChunkBuffer) -> Result<(), CodecError> {
        let failed =
            |e: Box<dyn Error + Send + Sync>| CodecError::Encode { codec: CodecId::ARROW_IPC, source: e };
        let mut stream = Vec::new();
        let mut writer = StreamWriter::try_new(&mut stream, &batch.schema()).map_err(|e| failed(e.into()))?;
        writer.write(batch).and_then(|()| writer.finish()).map_err(|e| failed(e.into()))?;
        let padded = stream.len().next_multiple_of(ALIGNMENT);
        let mut prefix = [0; ALIGNMENT];
        prefix[..8].copy_from_slice(&(padded as u64).to_le_bytes());
        stream.resize(padded, 0);
        out.extend_from_slice(&prefix);
        out.extend_from_slice(&stream);
        Ok(())
    }

    fn decode(&self, input: &mut ChunkReader<'_>) -> Result<RecordBatch, CodecError> {
        let offset = input.offset();
        let failed = |e: Box<dyn Error + Send + Sync>| CodecError::Decode {
            codec: CodecId::ARROW_IPC,
            offset,
            source: e,
        };
        let prefix = input.take(ALIGNMENT)?;
        let len = prefix.first_chunk().map_or(0, |len| u64::from_le_bytes(*len));
        let len = usize::try_from(len).map_err(|e| failed(e.into()))?;
        // From here on the batch refers to the chunk, and keeps it alive.
        let mut stream = Buffer::from(input.take_shared(len)?);
        let batch = StreamDecoder::new().decode(&mut stream).map_err(|e| failed(e.into()))?;
        batch.ok_or_else(|| failed("the stream has no record batch".into()))
    }
}
