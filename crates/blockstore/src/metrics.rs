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
    /// Copies found damaged and discarded.
    corrupt,
    /// Blocks that were not stored because memory was short and the level has no disk.
    refused,
    /// Writes to disk that failed.
    disk_errors,
    /// Blocks removed on request.
    removed,
}

impl Counters {
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
