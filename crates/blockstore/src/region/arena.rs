//! Off-heap memory: extents of one anonymous mapping.
#![expect(unsafe_code, reason = "hands out slices of a mapping; each block names the invariant it rests on")]

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::slice;

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

use super::error::RegionError;
use super::extents::{Extent, rounded};
use super::shared::{Pages, SharedExtents};
use super::warm::{WARM_BYTES_MIN, Warm};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};

/// What one touched byte makes resident at most: a huge page of x86-64, and of arm64 with 4 KiB pages.
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// Freed memory may wait for the next to come up to this part of the budget: an eighth.
const WARM_PART: u64 = 8;

/// Address space reserved a byte of budget, so that fragmentation seldom refuses what the budget allows.
const RESERVE_FACTOR: u64 = 2;

/// What `len` bytes take in an arena, and are charged: no extent is shared, and each is a multiple of 64 bytes.
pub(crate) fn arena_bytes(len: usize) -> u64 {
    if len == 0 { 0 } else { rounded(len as u64).unwrap_or(u64::MAX) }
}

/// Memory outside the heap, reserved up front and committed page by page as it is written.
///
/// The budget is kept by the memory manager, not here: the arena can hold up to twice as much, so that free bytes
/// in many small runs do not refuse a large extent. A clone is another handle to the same memory; it is unmapped
/// when the last handle, extent and `Bytes` is gone.
///
/// Freed memory goes back to the kernel, but for long extents of up to an eighth of the budget in all, which wait for
/// the next to come: they are given back as soon as live bytes and they would be more than the budget.
///
/// Resident memory is at most one huge page (2 MiB) for each huge page of the range with a live or waiting byte in
/// it, and never more than what was reserved.
#[derive(Clone, Debug)]
pub(crate) struct Arena {
    shared: Arc<Shared>,
}

struct Shared {
    map: MmapRaw,
    /// Where in the map offset 0 of the extents lies: the first huge page boundary.
    base: usize,
    extents: SharedExtents,
    warm: Mutex<Warm>,
    budget_bytes: AtomicU64,
}

impl Arena {
    /// Reserves address space for `budget_bytes`, without using memory.
    ///
    /// # Errors
    /// [`RegionError::Reserve`].
    pub(crate) fn new(budget_bytes: u64) -> Result<Self, RegionError> {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(HUGE_PAGE_BYTES);
        let pages = Pages { unit: page, fault: HUGE_PAGE_BYTES.max(page) };
        let capacity = budget_bytes.saturating_mul(RESERVE_FACTOR).max(1);
        let refused = |source| RegionError::Reserve { reserve_bytes: capacity, source };
        let too_large = || refused(io::Error::from(io::ErrorKind::OutOfMemory));
        let capacity = capacity.checked_next_multiple_of(pages.fault).ok_or_else(too_large)?;
        // One page more, so that the range can start at a boundary of huge pages.
        let map_len = capacity.checked_add(pages.fault).and_then(|len| usize::try_from(len).ok());
        let map_len = map_len.filter(|len| isize::try_from(*len).is_ok()).ok_or_else(too_large)?;
        let map = MmapOptions::new().len(map_len).no_reserve_swap().map_anon().map_err(refused)?;
        let map = MmapRaw::from(map);
        // Kernels without huge pages refuse; the arena then works with small ones.
        let _ = map.advise(Advice::HugePage);
        let fault = usize::try_from(pages.fault).map_err(|_| too_large())?;
        let base = map.as_ptr().addr().next_multiple_of(fault) - map.as_ptr().addr();
        let extents = SharedExtents::new(capacity, pages);
        let warm = Mutex::new(Warm::default());
        Ok(Self {
            shared: Arc::new(Shared { map, base, extents, warm, budget_bytes: AtomicU64::new(budget_bytes) }),
        })
    }

    /// `len` bytes of one's own, 64-byte aligned, with unspecified content. `None`: no free run is long enough.
    pub(crate) fn allocate(&self, len: usize) -> Option<ExtentMut> {
        let extent = self.shared.allocate(u64::try_from(len).ok()?)?;
        Some(ExtentMut { held: Held { arena: self.clone(), extent: Some(extent) }, len })
    }

    /// The budget is another: what waits beyond its part of it is given back.
    pub(crate) fn resize(&self, budget_bytes: u64) {
        self.shared.budget_bytes.store(budget_bytes, Ordering::Relaxed);
        self.shared.cool_to(budget_bytes / WARM_PART);
    }

    /// Bytes of live extents, each a multiple of 64.
    pub(crate) fn used_bytes(&self) -> u64 {
        let waiting = self.shared.warm.lock().bytes();
        self.shared.extents.live_bytes().saturating_sub(waiting)
    }

    /// Gives back what waits for the next to come.
    #[cfg(test)]
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) fn cool(&self) {
        self.shared.cool_to(0);
    }

    /// The most that can be resident now: the huge pages that hold a live or waiting byte.
    pub(crate) fn resident_bytes_max(&self) -> u64 {
        self.shared.extents.resident_bytes_max()
    }
}

impl Shared {
    /// Where the extent bytes from `offset` on lie.
    ///
    /// Extents and pages lie in `0..capacity`, and the map holds `base + capacity` bytes at least, so neither the
    /// sum nor the pointer can leave the map.
    fn address(&self, offset: u64) -> *mut u8 {
        let at = self.base + offset as usize;
        debug_assert!(at <= self.map.len());
        self.map.as_mut_ptr().wrapping_add(at)
    }

    fn budget_bytes(&self) -> u64 {
        self.budget_bytes.load(Ordering::Relaxed)
    }

    fn allocate(&self, len: u64) -> Option<Extent> {
        let len = rounded(len)?;
        let warm = if len < WARM_BYTES_MIN { None } else { self.warm.lock().take(len) };
        if let Some(mut extent) = warm {
            if let Some(tail) = extent.trim(len) {
                self.give_back(tail);
            }
            return Some(extent);
        }
        let waiting = self.warm.lock().bytes();
        if waiting > 0 {
            let excess = (self.extents.live_bytes() + len).saturating_sub(self.budget_bytes());
            self.cool_to(waiting.saturating_sub(excess));
        }
        self.extents.allocate(len).or_else(|| {
            self.cool_to(0);
            self.extents.allocate(len)
        })
    }

    /// Takes back an extent that was written to; it may wait for the next to come.
    fn free(&self, extent: Extent) {
        let mut warm = self.warm.lock();
        let keep =
            extent.len() >= WARM_BYTES_MIN && warm.bytes() + extent.len() <= self.budget_bytes() / WARM_PART;
        if keep {
            warm.put(extent);
        } else {
            drop(warm);
            self.give_back(extent);
        }
    }

    fn give_back(&self, extent: Extent) {
        self.extents.free(extent, |pages| self.discard(pages));
    }

    /// Gives waiting extents back until they are at most so many bytes.
    fn cool_to(&self, bytes: u64) {
        loop {
            let mut warm = self.warm.lock();
            if warm.bytes() <= bytes {
                return;
            }
            let longest = warm.take_longest();
            drop(warm);
            match longest {
                Some(extent) => self.give_back(extent),
                None => return,
            }
        }
    }

    /// Gives whole pages back to the kernel; they read as zeros afterwards.
    fn discard(&self, pages: Range<u64>) {
        let (at, len) = (self.base + pages.start as usize, (pages.end - pages.start) as usize);
        // SAFETY: this changes the content of `pages`. `SharedExtents::free` calls with whole pages that belong to
        // this call alone (its steps 1 and 3): no slice into them exists, and none is made before it returns.
        // `base` and `pages` are multiples of the page size, so that the kernel rounds nothing.
        let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, at, len) };
        // Only pages locked by `mlockall` are refused. They stay resident, as whoever locked them wants.
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("map_bytes", &self.map.len()).finish_non_exhaustive()
    }
}

/// A live extent; dropping it frees it.
#[derive(Debug)]
struct Held {
    arena: Arena,
    /// `None` only while it drops.
    extent: Option<Extent>,
}

impl Held {
    fn address(&self) -> *mut u8 {
        self.arena.shared.address(self.extent.as_ref().map_or(0, Extent::offset))
    }

    /// Keeps the first `len` bytes, rounded up to 64, and frees the rest.
    fn trim(&mut self, len: usize) {
        if let Some(tail) = self.extent.as_mut().and_then(|extent| extent.trim(len as u64)) {
            self.arena.shared.give_back(tail);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(extent) = self.extent.take() {
            self.arena.shared.free(extent);
        }
    }
}

/// An extent being written. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct ExtentMut {
    held: Held,
    /// What was asked for; at most the length of the extent.
    len: usize,
}

impl ExtentMut {
    /// Makes the first `len` bytes (at most all of them) an immutable handle, and frees the rest.
    ///
    /// When the last clone drops, the bytes are given back, and then `charge` drops: memory is returned before
    /// what was charged for it. With `len` 0 that happens at once.
    pub(crate) fn freeze(self, len: usize, charge: impl Send + 'static) -> Bytes {
        debug_assert!(len <= self.len, "froze {len} bytes of an extent of {}", self.len);
        let Self { mut held, len: asked } = self;
        let len = len.min(asked);
        if len == 0 {
            drop(held);
            return Bytes::new();
        }
        held.trim(len);
        Bytes::from_owner(Frozen { held, len, _charge: charge })
    }
}

impl Deref for ExtentMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: live extents never overlap, so these bytes are reached through `self` alone. The extent holds at
        // least `len` bytes of the map, which `held` keeps mapped. They are initialised: the kernel's zeros, or
        // what was written before.
        unsafe { slice::from_raw_parts(self.held.address(), self.len) }
    }
}

impl DerefMut for ExtentMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(self.held.address(), self.len) }
    }
}

/// What a `Bytes` into an arena owns. The order of the fields is the order in which they drop.
struct Frozen<C> {
    held: Held,
    len: usize,
    _charge: C,
}

impl<C> AsRef<[u8]> for Frozen<C> {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as in `ExtentMut::deref`. Nobody writes to a frozen extent: its `ExtentMut` is gone, and it is
        // neither discarded nor allocated again before `held` drops.
        unsafe { slice::from_raw_parts(self.held.address(), self.len) }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
