//! The limit of a store's disk space.

use crate::sync::atomic::{AtomicU64, Ordering};

/// Disk space taken by all segments of a store, and the most it may be.
#[derive(Debug)]
pub(crate) struct DiskBudget {
    limit_bytes: u64,
    taken_bytes: AtomicU64,
}

/// A request that would have exceeded the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverLimit {
    pub(crate) limit_bytes: u64,
    pub(crate) taken_bytes: u64,
}

impl DiskBudget {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, taken_bytes: AtomicU64::new(0) }
    }

    pub(crate) fn take(&self, bytes: u64) -> Result<(), OverLimit> {
        let limit_bytes = self.limit_bytes;
        let grow = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= limit_bytes);
        match self.taken_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, grow) {
            Ok(_) => Ok(()),
            Err(taken_bytes) => Err(OverLimit { limit_bytes, taken_bytes }),
        }
    }

    pub(crate) fn give_back(&self, bytes: u64) {
        self.taken_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    pub(crate) fn taken_bytes(&self) -> u64 {
        self.taken_bytes.load(Ordering::Acquire)
    }
}
