//! Extent free against handle drop: threads that allocate, use and free extents never touch each other's bytes,
//! no page is given back while someone may use it, and every page is given back once nobody does.
//!
//! Budget: two threads beside the main one, up to five locks each, preemption unbounded: seconds.

use std::ops::Range;

use loom::cell::UnsafeCell;
use loom::model;

use super::extents::{ALIGN, Extent};
use super::shared::{Pages, SharedExtents};
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
