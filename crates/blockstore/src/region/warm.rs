//! Freed extents that keep their pages for the next to come.

use std::collections::BTreeMap;

use super::extents::Extent;

/// Shorter extents are not kept: bringing in their pages costs less than remembering them.
pub(super) const WARM_BYTES_MIN: u64 = 256 << 10;
/// An extent serves requests for at least this part of it: nine tenths.
const FIT: (u64, u64) = (9, 10);

/// Extents that nobody uses and whose pages are still there, by length.
///
/// The kernel clears every page it hands out, at about the speed of a copy: memory that was just given back and is
/// needed again costs as much once more as writing to it.
#[derive(Debug, Default)]
pub(super) struct Warm {
    by_len: BTreeMap<u64, Vec<Extent>>,
    bytes: u64,
}

impl Warm {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn put(&mut self, extent: Extent) {
        self.bytes += extent.len();
        self.by_len.entry(extent.len()).or_default().push(extent);
    }

    /// An extent of at least `len` bytes and little more, if there is one.
    pub(super) fn take(&mut self, len: u64) -> Option<Extent> {
        let (kept, most) = FIT;
        let fitting = *self.by_len.range(len..=len.saturating_mul(most) / kept).next()?.0;
        self.take_of_len(fitting)
    }

    /// One of the longest.
    pub(super) fn take_longest(&mut self) -> Option<Extent> {
        let longest = *self.by_len.last_key_value()?.0;
        self.take_of_len(longest)
    }

    fn take_of_len(&mut self, len: u64) -> Option<Extent> {
        let extents = self.by_len.get_mut(&len)?;
        let extent = extents.pop();
        if extents.is_empty() {
            self.by_len.remove(&len);
        }
        self.bytes -= extent.as_ref().map_or(0, Extent::len);
        extent
    }
}
