//! An extent allocator that threads share, and how freed pages are given back without a race.

use std::ops::Range;

use super::extents::{Extent, ExtentAllocator, whole_pages};
use crate::sync::Mutex;

/// The sizes in which freed bytes are given back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages {
    /// The unit that can be given back: a page of memory, a block of a file.
    pub(crate) unit: u64,
    /// The unit that touching one byte may bring in: a huge page. A multiple of `unit`.
    pub(crate) fault: u64,
}

/// Extents of one range, handed out to any thread.
///
/// Freed pages are given back (to the kernel, to the file system) with no lock held, and never while someone else
/// may use them. The argument, in the order of [`free`](Self::free):
///
/// 1. The units wholly inside the extent belong to its owner alone, who is giving it up. The allocator does not
///    know yet, so nobody else can get them: they are given back first.
/// 2. Under the lock the extent becomes free. What is left are the fault pages at its two edges, which it may have
///    shared with neighbours. If one of them is now wholly free, it is allocated again at once, under the same
///    lock. Whoever frees the last extent of a page sees it wholly free, and only that thread does: a page is
///    given back exactly when its last extent goes.
/// 3. Those at most two pages now belong to this thread, as an extent does: they are given back without the lock,
///    and freed. They begin and end at page boundaries, so nothing is left at their edges.
///
/// So a fault page is either wholly free and given back, or in step 2 to 3 of some thread, or holds at least one
/// live byte: resident memory is at most [`resident_bytes_max`](Self::resident_bytes_max).
#[derive(Debug)]
pub(crate) struct SharedExtents {
    pages: Pages,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    allocator: ExtentAllocator,
    /// Bytes of extents in the hands of callers; the allocator also counts pages that are in step 3.
    live_bytes: u64,
}

impl SharedExtents {
    /// All of `0..capacity` free and given back; `capacity` is a multiple of `pages.fault`.
    pub(crate) fn new(capacity: u64, pages: Pages) -> Self {
        debug_assert!(capacity.is_multiple_of(pages.fault) && pages.fault.is_multiple_of(pages.unit));
        let allocator = ExtentAllocator::new(capacity, pages.fault);
        Self { pages, state: Mutex::new(State { allocator, live_bytes: 0 }) }
    }

    /// An extent of at least `len` bytes, if one is free.
    pub(crate) fn allocate(&self, len: u64) -> Option<Extent> {
        let mut state = self.state.lock();
        let extent = state.allocator.allocate(len)?;
        state.live_bytes += extent.len();
        Some(extent)
    }

    /// Takes an extent back; `give_back` is called for ranges of whole units that belong to this call alone.
    pub(crate) fn free(&self, extent: Extent, give_back: impl Fn(Range<u64>)) {
        let range = extent.range();
        let inside = whole_pages(&range, self.pages.unit);
        if !inside.is_empty() {
            give_back(inside.clone());
        }
        let edges = self.free_and_take_edges(extent, &range, &inside);
        if edges.iter().all(Option::is_none) {
            return;
        }
        for edge in edges.iter().flatten() {
            give_back(edge.range());
        }
        let mut state = self.state.lock();
        for edge in edges.into_iter().flatten() {
            state.allocator.free(edge);
        }
    }

    /// Step 2: the pages at the edges of `range` that were not given back `inside`, where they are now wholly free.
    fn free_and_take_edges(
        &self,
        extent: Extent,
        range: &Range<u64>,
        inside: &Range<u64>,
    ) -> [Option<Extent>; 2] {
        let fault = self.pages.fault;
        let page_of = |byte: u64| byte / fault * fault..byte / fault * fault + fault;
        let (first, last) = (page_of(range.start), page_of(range.end - 1));

        let mut state = self.state.lock();
        state.live_bytes -= extent.len();
        let run = state.allocator.free(extent);
        let mut take = |page: Range<u64>| {
            let given_back = inside.start <= page.start && page.end <= inside.end;
            let free = run.start <= page.start && page.end <= run.end;
            if given_back || !free { None } else { state.allocator.allocate_at(page) }
        };
        [take(first.clone()), if last == first { None } else { take(last) }]
    }

    /// Bytes of live extents.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.state.lock().live_bytes
    }

    /// Bytes of fault pages that are not wholly free: no more than these can be resident.
    pub(crate) fn resident_bytes_max(&self) -> u64 {
        let state = self.state.lock();
        state.allocator.capacity() - state.allocator.free_page_bytes()
    }

    #[cfg(test)]
    pub(crate) fn validate(&self) {
        let state = self.state.lock();
        state.allocator.validate().unwrap();
        assert!(state.live_bytes <= state.allocator.used());
    }
}
