//! What is written: plain old data, in 16 parts.

use std::sync::atomic::{AtomicU32, Ordering};

use larder_blockstore::format::{Chunk, Compression};

pub(crate) const PARTS: u32 = 16;
const THREADS: u32 = 2;
pub(crate) const CHUNK_BYTES: usize = 4 << 20;

/// The same chunk over and over: it lies in memory, as the blocks of a dataset would.
pub(crate) struct Parts {
    pub(crate) chunk: Chunk,
    pub(crate) chunks_a_part: usize,
}

impl Parts {
    pub(crate) fn of_bytes(bytes: usize) -> Self {
        let number = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let raw: Vec<u8> = (0..CHUNK_BYTES as u64 / 8).flat_map(|i| number(i).to_le_bytes()).collect();
        let records = u32::try_from(CHUNK_BYTES / 8).expect("a small number");
        let chunk = Chunk::seal(raw, records, Compression::None);
        Self { chunk, chunks_a_part: bytes / CHUNK_BYTES / PARTS as usize }
    }

    pub(crate) fn sum(&self) -> u64 {
        let chunk = sum(&self.chunk.stored().expect("a chunk in memory"));
        chunk.wrapping_mul(u64::from(PARTS) * self.chunks_a_part as u64)
    }
}

/// Of the numbers in `bytes`, modulo 2^64. One function for both sides: as part of their loops it is unrolled in one and
/// not in the other.
#[inline(never)]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (rows, rest) = bytes.as_chunks::<128>();
    let mut lanes = [0_u64; 16];
    for row in rows {
        for (lane, number) in lanes.iter_mut().zip(row.as_chunks::<8>().0) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*number));
        }
    }
    let rest = rest.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number));
    rest.chain(lanes).fold(0, u64::wrapping_add)
}

/// Does `work` for every part, on two threads; the sum of what it gave.
pub(crate) fn for_each_part(work: impl Fn(u32) -> u64 + Sync) -> u64 {
    let (work, next) = (&work, &AtomicU32::new(0));
    let take = move || {
        let parts = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        parts.take_while(|part| *part < PARTS).map(work).fold(0, u64::wrapping_add)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|it| it.join().expect("no panic")).fold(0, u64::wrapping_add)
    })
}
