//! Which bytes of a segment are live, which of its pages have disk space, and when that space is given back.

use std::ops::Range;

use super::extents::{Extent, ExtentAllocator, whole_pages};
use super::page_set::PageSet;
use crate::sync::Mutex;

/// How much disk space a segment takes ahead of writes, and how much of freed extents it keeps for the next ones.
///
/// System calls that take and return space cost as much as writing tens of kilobytes, and on some file systems
/// returning space waits for the disk. So neither is done for each extent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slack {
    /// The unit in which a file has space.
    pub(crate) page_bytes: u64,
    /// Taken ahead of a write: as much as is occupied, but at least and at most this.
    pub(crate) ahead_bytes: (u64, u64),
    /// Freed before any is returned: half of what is occupied, but at least and at most this.
    pub(crate) kept_bytes: (u64, u64),
    /// How long a run is to be returned. Shorter ones wait to be written again, to grow, or for a need of space.
    pub(crate) run_bytes: u64,
}

impl Slack {
    /// For a segment of 1 GiB: 64 KiB to 4 MiB ahead, 8 MiB to 64 MiB kept, runs of 1 MiB.
    pub(crate) fn of_segment(segment_bytes: u64, page_bytes: u64) -> Self {
        let part = |of: u64| (segment_bytes / of).max(page_bytes);
        let (ahead_bytes, kept_bytes) = ((part(1 << 14), part(256)), (part(128), part(16)));
        Self { page_bytes, ahead_bytes, kept_bytes, run_bytes: part(1 << 10) }
    }
}

/// The extents and pages of one segment, for any thread.
///
/// A page is *backed* when it has disk space of its own, *occupied* when an extent touches it. A page in use is both;
/// one that is backed and not occupied is *stale*: taken ahead, or left behind by extents that are gone.
///
/// Stale pages are given back without a lock, and never while someone may use them: under the lock they are
/// allocated, so that they belong to the thread that returns them as an extent belongs to its writer; only when their
/// space is returned do they become free.
///
/// Pages are noted as backed after their space was taken. Two threads may take space for the same page, and a third
/// return it in between: it is then noted as backed and has none, and the next write to it takes some. The other way
/// round, space that nobody knows of, does not happen.
#[derive(Debug)]
pub(crate) struct Space {
    slack: Slack,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    allocator: ExtentAllocator,
    backed: PageSet,
    /// Bytes of extents in the hands of callers; the allocator also counts stale pages that are being returned.
    live_bytes: u64,
    /// Stale bytes that were left when some were last returned, in short runs or refused by the file system.
    left_bytes: u64,
    /// Those that the file system refused.
    stuck_bytes: u64,
}

/// Pages that an extent needs and that are not all backed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// From the first page that is not backed.
    pub(crate) range: Range<u64>,
    /// Bytes of pages in it that are not backed.
    pub(crate) bytes: u64,
}

impl State {
    fn occupied_bytes(&self) -> u64 {
        self.allocator.capacity() - self.allocator.free_page_bytes()
    }

    fn backed_bytes(&self, page: u64) -> u64 {
        self.backed.count() * page
    }

    /// Allocates stale pages, in runs of at least `run_bytes`, so that they belong to the caller.
    fn claim_stale(&mut self, page: u64, run_bytes: u64) -> Vec<Extent> {
        let free = self.allocator.free_runs().map(|run| whole_pages(&run, page));
        let pages =
            free.filter(|run| run.end - run.start >= run_bytes).map(|run| run.start / page..run.end / page);
        let stale: Vec<_> = pages.flat_map(|pages| self.backed.runs_in(pages)).collect();
        let stale = stale.into_iter().map(|pages| pages.start * page..pages.end * page);
        let long = stale.filter(|run| run.end - run.start >= run_bytes);
        long.filter_map(|run| self.allocator.allocate_at(run)).collect()
    }
}

impl Space {
    /// All of `0..capacity` free and not backed; `capacity` is a multiple of the page.
    pub(crate) fn new(capacity: u64, slack: Slack) -> Self {
        debug_assert!(capacity.is_multiple_of(slack.page_bytes));
        let allocator = ExtentAllocator::new(capacity, slack.page_bytes);
        let backed = PageSet::new(capacity / slack.page_bytes);
        let state = State { allocator, backed, live_bytes: 0, left_bytes: 0, stuck_bytes: 0 };
        Self { slack, state: Mutex::new(state) }
    }

    /// An extent of at least `len` bytes, if one is free.
    pub(crate) fn allocate(&self, len: u64) -> Option<Extent> {
        let mut state = self.state.lock();
        let extent = state.allocator.allocate(len)?;
        state.live_bytes += extent.len();
        Some(extent)
    }

    /// What has to be backed before the extent can be written; with `ahead`, some more for those to come.
    pub(crate) fn missing(&self, extent: &Extent, ahead: bool) -> Option<Missing> {
        let page = self.slack.page_bytes;
        let range = extent.range();
        let state = self.state.lock();
        let first = state.backed.next_out(range.start / page);
        let own_end = range.end.div_ceil(page);
        if first >= own_end {
            return None;
        }
        let backed: u64 = state.backed.runs_in(first..own_end).map(|run| run.end - run.start).sum();
        let mut end = own_end;
        if ahead {
            let (least, most) = self.slack.ahead_bytes;
            let more = state.occupied_bytes().clamp(least, most) / page;
            end = (own_end + more).min(state.backed.next_in(own_end));
        }
        Some(Missing { range: first * page..end * page, bytes: (end - first - backed) * page })
    }

    /// Notes that whole pages are backed now; the bytes of those that were not.
    pub(crate) fn back(&self, range: &Range<u64>) -> u64 {
        let page = self.slack.page_bytes;
        self.state.lock().backed.insert(range.start / page..range.end / page) * page
    }

    /// Takes an extent back. `punch` is called for stale pages that belong to this call alone, when there are too
    /// many of them; it says whether their space was returned. Gives the bytes that were.
    pub(crate) fn free(&self, extent: Extent, punch: impl Fn(Range<u64>) -> bool) -> u64 {
        let page = self.slack.page_bytes;
        let mut state = self.state.lock();
        state.live_bytes -= extent.len();
        state.allocator.free(extent);
        let occupied = state.occupied_bytes();
        let stale = state.backed_bytes(page).saturating_sub(occupied);
        let (least, most) = self.slack.kept_bytes;
        state.left_bytes = state.left_bytes.min(stale);
        if stale - state.left_bytes <= (occupied / 2).clamp(least, most) {
            return 0;
        }
        let claimed = state.claim_stale(page, self.slack.run_bytes);
        let claimed_bytes: u64 = claimed.iter().map(Extent::len).sum();
        state.left_bytes = stale.saturating_sub(claimed_bytes);
        drop(state);
        self.give_back(claimed, punch)
    }

    /// Returns the space of all stale pages; the bytes that were returned.
    pub(crate) fn reclaim(&self, punch: impl Fn(Range<u64>) -> bool) -> u64 {
        let claimed = self.state.lock().claim_stale(self.slack.page_bytes, 0);
        self.give_back(claimed, punch)
    }

    fn give_back(&self, claimed: Vec<Extent>, punch: impl Fn(Range<u64>) -> bool) -> u64 {
        if claimed.is_empty() {
            return 0;
        }
        let page = self.slack.page_bytes;
        let punched: Vec<_> = claimed.iter().map(|extent| punch(extent.range())).collect();
        let mut state = self.state.lock();
        let (mut returned, mut stuck) = (0, 0);
        for (extent, punched) in claimed.into_iter().zip(punched) {
            if punched {
                let range = extent.range();
                returned += state.backed.remove(range.start / page..range.end / page) * page;
            } else {
                stuck += extent.len();
            }
            state.allocator.free(extent);
        }
        state.left_bytes += stuck;
        state.stuck_bytes = stuck;
        returned
    }

    /// Bytes of live extents.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.state.lock().live_bytes
    }

    /// Bytes of backed pages.
    pub(crate) fn backed_bytes(&self) -> u64 {
        self.state.lock().backed_bytes(self.slack.page_bytes)
    }

    /// Bytes that are free and that the file system would not take back.
    pub(crate) fn stuck_bytes(&self) -> u64 {
        self.state.lock().stuck_bytes
    }

    #[cfg(test)]
    pub(crate) fn validate(&self) {
        let state = self.state.lock();
        state.allocator.validate().unwrap();
        assert!(state.live_bytes <= state.allocator.used());
    }
}
