//! A single-threaded allocator of extents in a range of bytes it never touches.
//!
//! Best fit, coalescing, deterministic. It remembers free runs alone: a live [`Extent`] is known by its holder.
//! Two ordered sets make every operation O(log runs), at about 100 bytes of heap a free run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Extents start at multiples of this and are multiples of it long, in bytes: a cache line, and enough for any
/// plain-old-data record to be viewed in place.
pub(crate) const ALIGN: u64 = 64;

/// Bytes of a range that belong to whoever holds this.
///
/// Neither `Copy` nor constructible elsewhere, so that an extent is freed once, by its owner.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an extent that is not freed is lost"]
pub(crate) struct Extent {
    start: u64,
    end: u64,
}

impl Extent {
    /// The first byte, a multiple of [`ALIGN`].
    pub(crate) fn offset(&self) -> u64 {
        self.start
    }

    /// Bytes, a multiple of [`ALIGN`] above 0.
    pub(crate) fn len(&self) -> u64 {
        self.end - self.start
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.start..self.end
    }

    /// Keeps the first `len` bytes, rounded up and at least [`ALIGN`], and splits off the rest, to be freed.
    pub(crate) fn trim(&mut self, len: u64) -> Option<Extent> {
        let kept = rounded(len).filter(|kept| *kept < self.len())?;
        let tail = Extent { start: self.start + kept, end: self.end };
        self.end = tail.start;
        Some(tail)
    }
}

/// The bytes an extent of `len` bytes takes, or `None` where that overflows.
pub(crate) fn rounded(len: u64) -> Option<u64> {
    len.max(1).checked_next_multiple_of(ALIGN)
}

/// The multiples of `page` wholly inside `range`, as a range that may be empty.
pub(crate) fn whole_pages(range: &Range<u64>, page: u64) -> Range<u64> {
    let end = range.end / page * page;
    // `end` is an upper bound, so that the rounding up below cannot overflow.
    if range.start >= end { end..end } else { range.start.next_multiple_of(page)..end }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct ExtentAllocator {
    capacity: u64,
    page: u64,
    /// Free runs, start to end: never empty, never overlapping, never touching.
    by_start: BTreeMap<u64, u64>,
    /// The same runs as (length, start).
    by_len: BTreeSet<(u64, u64)>,
    free_bytes: u64,
    free_page_bytes: u64,
}

impl ExtentAllocator {
    /// All of `0..capacity` free; `capacity` is rounded down to [`ALIGN`]. `page` is what
    /// [`free_page_bytes`](Self::free_page_bytes) counts in.
    pub(crate) fn new(capacity: u64, page: u64) -> Self {
        let mut allocator = Self {
            capacity: capacity / ALIGN * ALIGN,
            page: page.max(1),
            by_start: BTreeMap::new(),
            by_len: BTreeSet::new(),
            free_bytes: 0,
            free_page_bytes: 0,
        };
        if allocator.capacity > 0 {
            allocator.insert_run(0..allocator.capacity);
        }
        allocator
    }

    /// `len` bytes at the start of the smallest free run that holds them; of several, the one at the lowest offset.
    ///
    /// An extent that nearly fills whole pages starts at a page where it can: it then shares no page with a
    /// neighbour, and is brought in and given back at once.
    pub(crate) fn allocate(&mut self, len: u64) -> Option<Extent> {
        let len = rounded(len)?;
        let smallest = self.smallest_run(len)?;
        let start = if self.nearly_fills_pages(len) {
            let roomy = || self.smallest_run(len.checked_add(self.page)?);
            page_start(&smallest, len, self.page).or_else(|| page_start(&roomy()?, len, self.page))
        } else {
            None
        };
        let start = start.unwrap_or(smallest.start);
        self.allocate_at(start..start + len)
    }

    /// Would starting at a page leave at most a sixteenth of it unused at its end?
    fn nearly_fills_pages(&self, len: u64) -> bool {
        len.checked_next_multiple_of(self.page).is_some_and(|pages| pages - len <= len / 16)
    }

    fn smallest_run(&self, len: u64) -> Option<Range<u64>> {
        self.by_len.range((len, 0)..).next().map(|&(len, start)| start..start + len)
    }

    /// Exactly these bytes, if all of them are free; both ends are multiples of [`ALIGN`].
    pub(crate) fn allocate_at(&mut self, range: Range<u64>) -> Option<Extent> {
        debug_assert!(
            range.start.is_multiple_of(ALIGN) && range.end.is_multiple_of(ALIGN),
            "unaligned {range:?}"
        );
        let run = self.run_at(range.start)?;
        if range.is_empty() || run.end < range.end {
            return None;
        }
        self.remove_run(run.clone());
        self.insert_run(run.start..range.start);
        self.insert_run(range.end..run.end);
        Some(Extent { start: range.start, end: range.end })
    }

    /// Takes an extent back and returns the coalesced free run it is now part of.
    ///
    /// An extent of another allocator that does not fit this one's live bytes is ignored, and the run is empty.
    pub(crate) fn free(&mut self, extent: Extent) -> Range<u64> {
        let Extent { start, end } = extent;
        let before = self.by_start.range(..end).next_back().map(|(&start, &end)| start..end);
        let overlaps = before.as_ref().is_some_and(|run| run.end > start);
        if overlaps || end > self.capacity {
            debug_assert!(false, "freed {start}..{end}, which is not allocated");
            return 0..0;
        }
        let before = before.filter(|run| run.end == start);
        let after = self.by_start.get(&end).map(|&after_end| end..after_end);
        for run in [&before, &after].into_iter().flatten() {
            self.remove_run(run.clone());
        }
        let run = before.map_or(start, |run| run.start)..after.map_or(end, |run| run.end);
        self.insert_run(run.clone());
        run
    }

    /// Bytes that are not free.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.capacity - self.free_bytes
    }

    /// Bytes of pages that are wholly free.
    pub(crate) fn free_page_bytes(&self) -> u64 {
        self.free_page_bytes
    }

    /// The longest extent that [`allocate`](Self::allocate) would grant.
    #[cfg(test)]
    pub(crate) fn largest_free(&self) -> u64 {
        self.by_len.last().map_or(0, |&(len, _)| len)
    }

    /// The free runs, in the order of their offsets.
    pub(crate) fn free_runs(&self) -> impl Iterator<Item = Range<u64>> {
        self.by_start.iter().map(|(&start, &end)| start..end)
    }

    /// Bytes of the whole range.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The free run that holds the byte at `offset`.
    fn run_at(&self, offset: u64) -> Option<Range<u64>> {
        let (&start, &end) = self.by_start.range(..=offset).next_back()?;
        (offset < end).then_some(start..end)
    }

    fn insert_run(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        let len = run.end - run.start;
        self.free_bytes += len;
        self.free_page_bytes += page_bytes(&run, self.page);
        self.by_len.insert((len, run.start));
        self.by_start.insert(run.start, run.end);
    }

    fn remove_run(&mut self, run: Range<u64>) {
        let len = run.end - run.start;
        self.free_bytes -= len;
        self.free_page_bytes -= page_bytes(&run, self.page);
        self.by_len.remove(&(len, run.start));
        self.by_start.remove(&run.start);
    }

    /// Walks everything; the message names the first invariant that does not hold.
    #[cfg(test)]
    pub(crate) fn validate(&self) -> Result<(), String> {
        let (mut free, mut free_pages, mut last_end) = (0, 0, None);
        for (&start, &end) in &self.by_start {
            if start >= end
                || !start.is_multiple_of(ALIGN)
                || !end.is_multiple_of(ALIGN)
                || end > self.capacity
            {
                return Err(format!("bad run {start}..{end}"));
            }
            if last_end.is_some_and(|last| last >= start) {
                return Err(format!("run {start}..{end} overlaps or touches the one before it"));
            }
            if !self.by_len.contains(&(end - start, start)) {
                return Err(format!("run {start}..{end} is not indexed by its length"));
            }
            free += end - start;
            free_pages += page_bytes(&(start..end), self.page);
            last_end = Some(end);
        }
        if self.by_len.len() != self.by_start.len() {
            return Err(format!("{} runs by length, {} by start", self.by_len.len(), self.by_start.len()));
        }
        if (free, free_pages) != (self.free_bytes, self.free_page_bytes) {
            return Err(format!("{free} bytes are free, counted {}", self.free_bytes));
        }
        Ok(())
    }
}

/// The first page of `run` from which `len` bytes fit.
fn page_start(run: &Range<u64>, len: u64, page: u64) -> Option<u64> {
    let start = run.start.checked_next_multiple_of(page)?;
    (start.checked_add(len)? <= run.end).then_some(start)
}

fn page_bytes(run: &Range<u64>, page: u64) -> u64 {
    let pages = whole_pages(run, page);
    pages.end - pages.start
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::random::Random;

    const PAGE: u64 = 4 * ALIGN;

    /// One flag a unit of [`ALIGN`] bytes, and the slowest search there is.
    struct Model(Vec<bool>);

    impl Model {
        fn units(range: Range<u64>) -> Range<usize> {
            (range.start / ALIGN) as usize..(range.end / ALIGN) as usize
        }

        fn runs(&self) -> Vec<Range<u64>> {
            let mut runs: Vec<Range<u64>> = Vec::new();
            for at in (0..self.0.len()).filter(|&at| !self.0[at]).map(|at| at as u64 * ALIGN) {
                match runs.last_mut() {
                    Some(run) if run.end == at => run.end += ALIGN,
                    _ => runs.push(at..at + ALIGN),
                }
            }
            runs
        }

        fn best_fit(&self, len: u64) -> Option<u64> {
            let len = len.max(1).div_ceil(ALIGN) * ALIGN;
            let smallest = |len| {
                let fitting = self.runs().into_iter().filter(move |run| run.end - run.start >= len);
                fitting.min_by_key(|run| (run.end - run.start, run.start))
            };
            let nearly_fills_pages = (len.div_ceil(PAGE) * PAGE - len) * 16 <= len;
            let runs = [smallest(len)?, smallest(len + PAGE).unwrap_or_default()];
            let mut at_page = runs.iter().filter_map(|run| {
                (run.start..run.end).step_by(ALIGN as usize).find(|at| at % PAGE == 0 && at + len <= run.end)
            });
            at_page.next().filter(|_| nearly_fills_pages).or(Some(runs[0].start))
        }

        fn run_at(&self, offset: u64) -> Option<Range<u64>> {
            self.runs().into_iter().find(|run| run.contains(&offset))
        }

        fn set(&mut self, range: Range<u64>, live: bool) {
            for unit in &mut self.0[Self::units(range)] {
                assert_ne!(*unit, live, "overlapping extents, or a double free");
                *unit = live;
            }
        }
    }

    #[test]
    fn random_operations_agree_with_a_naive_model() {
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let capacity = (20 + random.below(200)) * ALIGN;
            let mut allocator = ExtentAllocator::new(capacity + random.below(ALIGN), PAGE);
            let mut model = Model(vec![false; (capacity / ALIGN) as usize]);
            let mut live: Vec<Extent> = Vec::new();
            for _ in 0..2_000 {
                match random.below(8) {
                    0..4 => {
                        let len = random.below(20 * ALIGN);
                        let expected = model.best_fit(len);
                        let extent = allocator.allocate(len);
                        assert_eq!(extent.as_ref().map(Extent::offset), expected);
                        live.extend(extent.inspect(|extent| model.set(extent.range(), true)));
                    }
                    4 => {
                        let start = random.below(capacity / ALIGN) * ALIGN;
                        let range = start..start + random.below(4) * ALIGN;
                        let free = model.run_at(start).is_some_and(|run| run.end >= range.end);
                        let extent = allocator.allocate_at(range.clone());
                        assert_eq!(extent.is_some(), free && !range.is_empty());
                        live.extend(extent.inspect(|extent| model.set(extent.range(), true)));
                    }
                    5 if !live.is_empty() => {
                        let at = random.index(live.len());
                        let tail = live[at].trim(random.below(12 * ALIGN));
                        live.extend(tail);
                    }
                    _ if !live.is_empty() => {
                        let extent = live.swap_remove(random.index(live.len()));
                        let offset = extent.offset();
                        model.set(extent.range(), false);
                        assert_eq!(Some(allocator.free(extent)), model.run_at(offset));
                    }
                    _ => {}
                }
                allocator.validate().unwrap();
                let used = model.0.iter().filter(|unit| **unit).count() as u64 * ALIGN;
                assert_eq!(allocator.used(), used);
                let longest = model.runs().iter().map(|run| run.end - run.start).max().unwrap_or(0);
                assert_eq!(allocator.largest_free(), longest);
                let pages = model.0.chunks_exact(4).filter(|page| page.iter().all(|unit| !unit)).count();
                assert_eq!(allocator.free_page_bytes(), pages as u64 * PAGE);
            }
            for extent in live {
                allocator.free(extent);
            }
            allocator.validate().unwrap();
            assert_eq!((allocator.used(), allocator.largest_free()), (0, allocator.capacity()));
        }
    }

    #[test]
    fn lengths_at_the_edge_of_what_a_number_holds_are_refused() {
        let mut allocator = ExtentAllocator::new(1 << 20, 4096);
        assert_eq!(allocator.allocate(u64::MAX), None);
        assert_eq!(allocator.allocate((1 << 20) + 1), None);
        let whole = allocator.allocate(1 << 20).unwrap();
        assert_eq!(allocator.allocate(0), None);
        assert_eq!(allocator.free(whole), 0..1 << 20);
        assert_eq!(ExtentAllocator::new(63, 4096).allocate(0), None);
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "not allocated"))]
    fn an_extent_that_is_not_live_here_cannot_be_freed() {
        let mut allocator = ExtentAllocator::new(1024, 64);
        let mut other = ExtentAllocator::new(1024, 64);
        let _kept = allocator.allocate(128);
        let foreign = other.allocate(256).unwrap();
        assert_eq!(allocator.free(foreign), 0..0);
        assert_eq!(allocator.used(), 128);
        allocator.validate().unwrap();
    }
}
