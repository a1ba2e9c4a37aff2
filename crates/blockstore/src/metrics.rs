//! Counters of everything that happens to blocks.

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What happened to the blocks of a dataset, or of a whole store, since it was built.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl std::ops::AddAssign for Counters {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct LiveCounters {
            $(pub(crate) $name: Counter,)*
        }

        impl LiveCounters {
            pub(crate) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Reads served from values on the heap.
    hits_values,
    /// Reads served from bytes on the heap.
    hits_heap_bytes,
    /// Reads served from an arena.
    hits_off_heap,
    /// Reads served from disk.
    hits_disk,
    /// Reads that found no copy.
    misses,
    /// Reads that waited for another writer of the same block.
    waits,
    /// Blocks stored, in whatever tier.
    stored,
    /// Blocks computed by `get_or_compute` and its kin for the first time.
    computed,
    /// Blocks computed again, because no copy was left.
    recomputed,
    /// Nanoseconds spent from the grant of a writer to its finish.
    compute_nanos,
    /// Memory copies given up to make room.
    evictions,
    /// Bytes of those copies.
    evicted_bytes,
    /// Copies written to disk, by eviction or because memory was short from the start.
    spills,
    /// Bytes of those copies.
    spilled_bytes,
    /// Evictions given up because the copy could not be encoded or written to disk. It stays in memory.
    spills_failed,
    /// Copies brought back from disk to memory.
    promotions,
    /// Bytes of those copies.
    promoted_bytes,
    /// Copies found damaged or unreadable, and discarded.
    corrupt,
    /// Blocks that were not stored because memory was short and the level has no disk.
    refused,
    /// Chunks that LZ4 made at least an eighth shorter, and that are stored compressed.
    chunks_compressed,
    /// Their bytes before.
    compressed_raw_bytes,
    /// Their bytes as stored.
    compressed_bytes,
    /// Chunks of a compressed dataset that are stored plain, because LZ4 saved less than an eighth, or because memory
    /// to compress a large one was refused.
    chunks_kept_plain,
    /// Their bytes.
    kept_plain_bytes,
    /// Writes to disk that failed.
    disk_errors,
    /// Directories that failed and were put aside, each counted once, for the dataset that met it first.
    directories_failed,
    /// Blocks removed on request.
    removed,
}

impl Counters {
    /// Bytes before compression for each byte stored, over all chunks of compressed datasets: 1 when nothing was
    /// worth compressing, or nothing was to be.
    #[must_use]
    pub fn compression_ratio(&self) -> f64 {
        let raw = self.compressed_raw_bytes + self.kept_plain_bytes;
        let stored = self.compressed_bytes + self.kept_plain_bytes;
        if stored == 0 { 1.0 } else { raw as f64 / stored as f64 }
    }

    /// Reads served from any copy.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits_values + self.hits_heap_bytes + self.hits_off_heap + self.hits_disk
    }
}

/// A count that many threads add to. Relaxed: it orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl LiveCounters {
    /// Counts what became of a chunk that was to be compressed.
    pub(crate) fn count_compression(&self, raw_len: usize, compressed_len: Option<usize>) {
        match compressed_len {
            Some(len) => {
                self.chunks_compressed.add(1);
                self.compressed_raw_bytes.add(raw_len as u64);
                self.compressed_bytes.add(len as u64);
            }
            None => {
                self.chunks_kept_plain.add(1);
                self.kept_plain_bytes.add(raw_len as u64);
            }
        }
    }
}
