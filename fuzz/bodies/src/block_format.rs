//! Headers and chunks from arbitrary bytes, and their round trips.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use larder_blockstore::codec::{Bincode, ChunkReader, Codec, CodecId};
use larder_blockstore::format::{BlockHeader, Chunk, ChunkEncoder, ChunkInfo, Compression, TRAILER_BYTES};

/// Arbitrary bytes are refused without harm; what was written reads back; a flipped bit is found.
pub fn block_format(data: &[u8]) {
    let _ = BlockHeader::len_from_trailer(data);
    if let Ok(header) = BlockHeader::decode(data) {
        assert!(BlockHeader::encoded_len(header.chunks.len()) <= data.len());
    }
    // Running out of bytes ends the sequence.
    let _ = run(&mut Unstructured::new(data));
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    match input.int_in_range(0..=3_u8)? {
        0 => header(input),
        1 => sealed_chunk(input),
        2 => found_chunk(input),
        _ => encoded_records(input),
    }
}

fn compression(input: &mut Unstructured<'_>) -> Result<Compression> {
    Ok(if input.arbitrary()? { Compression::Lz4 } else { Compression::None })
}

fn chunk_info(input: &mut Unstructured<'_>) -> Result<ChunkInfo> {
    Ok(ChunkInfo {
        stored_len: input.arbitrary()?,
        raw_len: input.arbitrary()?,
        records: input.arbitrary()?,
        checksum: input.arbitrary()?,
    })
}

fn header(input: &mut Unstructured<'_>) -> Result<()> {
    let codec = CodecId { id: input.arbitrary()?, version: input.arbitrary()? };
    let compression = compression(input)?;
    let chunks = (0..input.int_in_range(0..=20)?).map(|_| chunk_info(input)).collect::<Result<Vec<_>>>()?;
    let header = BlockHeader { codec, compression, chunks };

    let mut file = input.bytes(input.len().min(50))?.to_vec();
    let start = file.len();
    file.extend(header.encode());
    assert_eq!(BlockHeader::decode(&file), Ok(header.clone()));
    assert_eq!(BlockHeader::len_from_trailer(&file), Ok((file.len() - start) as u64));
    assert_eq!(file.len() - start, BlockHeader::encoded_len(header.chunks.len()));
    let mut end = 0;
    for index in 0..header.chunks.len() {
        let range = header.chunk_range(index).expect("the chunk is there");
        assert_eq!(range.start, end);
        end = range.end;
    }
    assert_eq!((header.stored_bytes(), header.chunk_range(header.chunks.len())), (end, None));

    let at = start + file.len().wrapping_mul(31) % (file.len() - start);
    let bit = input.int_in_range(0..=7_u8).unwrap_or(0);
    file[at] ^= 1 << bit;
    assert!(BlockHeader::decode(&file).is_err(), "bit {bit} of byte {at}");
    file[at] ^= 1 << bit;
    let cut = start + (file.len() - start) / 2;
    assert!(BlockHeader::decode(&file[..cut]).is_err());
    assert!(BlockHeader::decode(&file[file.len() - TRAILER_BYTES..]).is_ok() == header.chunks.is_empty());
    Ok(())
}

fn sealed_chunk(input: &mut Unstructured<'_>) -> Result<()> {
    let (records, compression, repeat) =
        (input.arbitrary()?, compression(input)?, input.int_in_range(1..=64_usize)?);
    let bit = input.arbitrary::<usize>()?;
    let raw = input.bytes(input.len())?.repeat(repeat);
    let chunk = Chunk::seal(raw.clone(), records, compression);
    assert_eq!((chunk.records(), chunk.raw_len() as usize), (records, raw.len()));
    assert!(chunk.stored_len() <= raw.len());
    chunk.verify().expect("as it was written");
    assert_eq!(chunk.raw().expect("as it was written"), raw);

    let read = Chunk::found(chunk.stored().expect("it is in memory"), chunk.info());
    assert_eq!(read.raw().expect("as it was written"), raw);
    let mut damaged = chunk.stored().expect("it is in memory").to_vec();
    if !damaged.is_empty() {
        let bit = bit % (damaged.len() * 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
        let damaged = Chunk::found(damaged.into(), chunk.info());
        assert!(damaged.verify().is_err(), "bit {bit}");
        let _ = damaged.raw();
    }
    Ok(())
}

/// Nobody verified these: whatever they say, the answer is an error or some bytes.
fn found_chunk(input: &mut Unstructured<'_>) -> Result<()> {
    let mut info = chunk_info(input)?;
    if input.arbitrary()? {
        info.raw_len %= 1 << 16;
    }
    let stored = input.bytes(input.len())?.to_vec();
    let chunk = Chunk::found(stored.into(), info);
    let _ = chunk.verify();
    if let Ok(raw) = chunk.raw() {
        assert_eq!(raw.len(), info.raw_len as usize);
    }
    Ok(())
}

fn encoded_records(input: &mut Unstructured<'_>) -> Result<()> {
    let (chunk_bytes, compression) = (input.int_in_range(0..=300)?, compression(input)?);
    let records: Vec<Vec<u8>> = input.arbitrary()?;
    let mut encoder = ChunkEncoder::<Vec<u8>>::new(Arc::new(Bincode), compression, chunk_bytes);
    let mut chunks = Vec::new();
    for record in &records {
        chunks.extend(encoder.push(record).expect("bytes can be encoded"));
    }
    chunks.extend(encoder.finish());
    assert!(encoder.finish().is_none());

    let mut read: Vec<Vec<u8>> = Vec::new();
    for chunk in &chunks {
        assert!(chunk.records() == 1 || chunk.raw_len() as usize <= chunk_bytes.max(1));
        let raw = chunk.raw().expect("as it was written");
        let mut reader = ChunkReader::at(&raw, 0);
        Bincode.decode_into(&mut reader, chunk.records() as usize, &mut read).expect("as it was written");
        assert!(reader.is_empty());
    }
    assert_eq!(read, records);
    Ok(())
}
