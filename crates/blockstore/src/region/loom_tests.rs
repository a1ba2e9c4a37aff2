//! Extent free against handle drop: threads that allocate, use and free extents never touch each other's bytes,
//! no page is given back while someone may use it, and every page is given back once nobody does.
//!
//! Budget: two threads beside the main one, up to six locks each, preemption unbounded: seconds.

use std::ops::Range;

use loom::cell::UnsafeCell;
use loom::model;

use super::extents::{ALIGN, Extent};
use super::shared::{Pages, SharedExtents};
use super::space::{Slack, Space};
use crate::sync::{Arc, thread};

/// A region whose memory is one cell a unit: loom reports two unordered accesses to a cell.
struct Region {
    extents: SharedExtents,
    units: Vec<UnsafeCell<()>>,
    /// Which units were touched since they were last given back.
    resident: Vec<std::sync::atomic::AtomicBool>,
}

impl Region {
    fn new(units: u64, pages: Pages) -> Arc<Self> {
        Arc::new(Self {
            extents: SharedExtents::new(units * ALIGN, pages),
            units: (0..units).map(|_| UnsafeCell::new(())).collect(),
            resident: (0..units).map(|_| false.into()).collect(),
        })
    }

    fn set_resident(&self, range: Range<u64>, resident: bool) {
        for unit in (range.start / ALIGN) as usize..(range.end / ALIGN) as usize {
            self.units[unit]
                .with_mut(|_| self.resident[unit].store(resident, std::sync::atomic::Ordering::Relaxed));
        }
    }

    /// As a writer does who got the extent.
    fn allocate(&self, len: u64) -> Option<Extent> {
        let extent = self.extents.allocate(len)?;
        self.set_resident(extent.range(), true);
        Some(extent)
    }

    /// As the last handle does when it drops; the handle was read until then.
    fn free(&self, extent: Extent) {
        self.set_resident(extent.range(), true);
        self.extents.free(extent, |pages| self.set_resident(pages, false));
    }

    fn assert_all_given_back(&self) {
        self.extents.validate();
        assert_eq!((self.extents.live_bytes(), self.extents.resident_bytes_max()), (0, 0));
        assert!(self.resident.iter().all(|unit| !unit.load(std::sync::atomic::Ordering::Relaxed)));
    }
}

#[test]
fn two_handles_of_one_page_drop() {
    model(|| {
        let region = Region::new(2, Pages { unit: 2 * ALIGN, fault: 2 * ALIGN });
        let handles = [region.allocate(ALIGN), region.allocate(ALIGN)].map(Option::unwrap);
        let threads = handles.map(|handle| {
            let region = Arc::clone(&region);
            thread::spawn(move || region.free(handle))
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        region.assert_all_given_back();
    });
}

#[test]
fn a_handle_drops_while_its_neighbour_allocates_in_the_same_page() {
    model(|| {
        let region = Region::new(4, Pages { unit: ALIGN, fault: 2 * ALIGN });
        let handle = region.allocate(ALIGN).unwrap();
        let other = {
            let region = Arc::clone(&region);
            thread::spawn(move || {
                let extents = [region.allocate(ALIGN), region.allocate(2 * ALIGN)];
                extents.into_iter().flatten().for_each(|extent| region.free(extent));
            })
        };
        region.free(handle);
        other.join().unwrap();
        region.assert_all_given_back();
    });
}

#[test]
fn an_extent_across_two_pages_drops_between_neighbours_on_both() {
    model(|| {
        let region = Region::new(4, Pages { unit: 2 * ALIGN, fault: 2 * ALIGN });
        let left = region.allocate(ALIGN).unwrap();
        let middle = region.allocate(2 * ALIGN).unwrap();
        let right = region.allocate(ALIGN).unwrap();
        let other = {
            let region = Arc::clone(&region);
            thread::spawn(move || {
                region.free(left);
                region.free(right);
            })
        };
        region.free(middle);
        other.join().unwrap();
        region.assert_all_given_back();
    });
}

#[test]
fn writers_trim_and_free_in_a_full_region() {
    model(|| {
        let region = Region::new(4, Pages { unit: ALIGN, fault: 2 * ALIGN });
        let threads = [0, 1].map(|_| {
            let region = Arc::clone(&region);
            thread::spawn(move || {
                let Some(mut extent) = region.allocate(3 * ALIGN) else { return };
                let tail = extent.trim(ALIGN).unwrap();
                region.free(tail);
                region.free(extent);
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        region.assert_all_given_back();
    });
}

/// A segment whose bytes are one cell a unit, and which returns every stale page at once.
struct File {
    space: Space,
    units: Vec<UnsafeCell<()>>,
    /// Which pages have disk space.
    backed: Vec<std::sync::atomic::AtomicBool>,
}

const PAGE: u64 = 2 * ALIGN;

impl File {
    fn new(pages: u64) -> Arc<Self> {
        let slack = Slack { page_bytes: PAGE, ahead_bytes: (PAGE, PAGE), kept_bytes: (0, 0), run_bytes: 0 };
        Arc::new(Self {
            space: Space::new(pages * PAGE, slack),
            units: (0..pages * PAGE / ALIGN).map(|_| UnsafeCell::new(())).collect(),
            backed: (0..pages).map(|_| false.into()).collect(),
        })
    }

    fn set_backed(&self, range: &Range<u64>, backed: bool) {
        for page in range.start / PAGE..range.end / PAGE {
            self.backed[page as usize].store(backed, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Nobody else may use these bytes now.
    fn touch(&self, range: &Range<u64>) {
        for unit in range.start / ALIGN..range.end / ALIGN {
            self.units[unit as usize].with_mut(|_| ());
        }
    }

    fn is_backed(&self, range: &Range<u64>) -> bool {
        let mut pages = range.start / PAGE..range.end.div_ceil(PAGE);
        pages.all(|page| self.backed[page as usize].load(std::sync::atomic::Ordering::Relaxed))
    }

    fn write(&self, len: u64) -> Option<Extent> {
        let extent = self.space.allocate(len)?;
        if let Some(missing) = self.space.missing(&extent, true) {
            self.set_backed(&missing.range, true);
            self.space.back(&missing.range);
        }
        self.touch(&extent.range());
        self.set_backed(
            &(extent.range().start / PAGE * PAGE..extent.range().end.next_multiple_of(PAGE)),
            true,
        );
        Some(extent)
    }

    fn free(&self, extent: Extent) {
        self.touch(&extent.range());
        assert!(self.is_backed(&extent.range()), "space was returned under a live extent");
        self.space.free(extent, |pages| self.punch(&pages));
    }

    fn punch(&self, pages: &Range<u64>) -> bool {
        self.touch(pages);
        self.set_backed(pages, false);
        true
    }

    fn assert_all_returned(&self) {
        self.space.reclaim(|pages| self.punch(&pages));
        self.space.validate();
        assert_eq!((self.space.live_bytes(), self.space.backed_bytes()), (0, 0));
        assert!(self.backed.iter().all(|page| !page.load(std::sync::atomic::Ordering::Relaxed)));
    }
}

#[test]
fn extents_of_a_file_are_written_and_dropped_while_another_returns_space() {
    model(|| {
        let file = File::new(3);
        let kept = file.write(ALIGN).unwrap();
        let other = {
            let file = Arc::clone(&file);
            thread::spawn(move || {
                let extent = file.write(2 * ALIGN);
                extent.into_iter().for_each(|extent| file.free(extent));
            })
        };
        file.free(kept);
        let again = file.write(ALIGN);
        other.join().unwrap();
        again.into_iter().for_each(|extent| file.free(extent));
        file.assert_all_returned();
    });
}

#[test]
fn two_writers_back_the_same_pages_of_a_file() {
    model(|| {
        let file = File::new(2);
        let threads = [0, 1].map(|_| {
            let file = Arc::clone(&file);
            thread::spawn(move || {
                // No room: the other one is returning its page's space.
                let Some(extent) = file.write(ALIGN) else { return };
                file.free(extent);
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        file.assert_all_returned();
    });
}
