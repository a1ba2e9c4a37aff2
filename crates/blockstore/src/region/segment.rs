//! A disk segment: extents of one large sparse file, written by `pwrite`, and read through a shared mapping or by
//! `pread`.
#![expect(unsafe_code, reason = "hands out slices of a mapping; each block names the invariant it rests on")]

use std::fmt;
use std::io;
use std::ops::Range;
use std::slice;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::io::Errno;

use super::budget::{DiskBudget, OverLimit};
use super::extents::Extent;
use super::segment_file::SegmentFile;
use super::space::{Slack, Space};
use crate::sync::Arc;

/// What holes are made of: the block of nearly every file system.
pub(crate) const FILE_BLOCK_BYTES: u64 = 4096;
/// What a read of one byte of a mapping maps at most, where the pages are in the page cache: Linux's `fault_around_bytes`.
const FAULT_AROUND_BYTES: usize = 64 << 10;

/// One file, and its mapping if it has one. The file stays as long as the last extent, and is gone with it.
pub(crate) struct Segment {
    file: Box<dyn SegmentFile>,
    len: u64,
    /// The whole file, read only.
    map: Option<MmapRaw>,
    space: Space,
    budget: Arc<DiskBudget>,
}

/// Why an extent was not written.
#[derive(Debug)]
pub(crate) enum Unwritten {
    /// The store's own limit.
    OverLimit(OverLimit),
    /// The file system, or the disk below.
    Io(io::Error),
}

impl From<io::Error> for Unwritten {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Segment {
    /// A segment over `file`, of which `len` bytes, a multiple of [`FILE_BLOCK_BYTES`], are there. The disk space it
    /// takes is taken from `budget` first.
    pub(crate) fn new(
        file: Box<dyn SegmentFile>,
        len: u64,
        mapped: bool,
        budget: &Arc<DiskBudget>,
    ) -> io::Result<Self> {
        debug_assert!(len.is_multiple_of(FILE_BLOCK_BYTES));
        let map_len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let map = || MmapOptions::new().len(map_len).map_raw_read_only(file.file());
        let map = mapped.then(map).transpose()?;
        let space = Space::new(len, Slack::of_segment(len, FILE_BLOCK_BYTES));
        Ok(Self { file, len, map, space, budget: Arc::clone(budget) })
    }

    /// Bytes of live extents.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.space.live_bytes()
    }

    /// Disk space taken, with what was taken ahead of writes or freed and not returned yet.
    pub(crate) fn backed_bytes(&self) -> u64 {
        self.space.backed_bytes()
    }

    /// Free bytes whose disk space the file system did not take back.
    pub(crate) fn unreclaimed_bytes(&self) -> u64 {
        self.space.stuck_bytes()
    }

    /// Returns the disk space of all that is free; the bytes that were returned.
    pub(crate) fn reclaim(&self) -> u64 {
        let returned = self.space.reclaim(|pages| self.punch(pages));
        self.budget.give_back(returned);
        returned
    }

    /// Where in this segment's map `bytes` lie, if they do.
    pub(crate) fn position(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let map = self.map.as_ref()?;
        let start = bytes.as_ptr().addr().checked_sub(map.as_ptr().addr())?;
        let end = start.checked_add(bytes.len()).filter(|end| *end <= map.len())?;
        Some(start..end)
    }

    /// Fills `bytes` with what lies from `offset` on.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset as u64)
    }

    /// Reads the pages of `range` in; what would be a SIGBUS on access is an error here.
    pub(crate) fn populate(&self, range: Range<usize>) -> io::Result<()> {
        let Some(map) = &self.map else { return Ok(()) };
        let Err(error) = map.advise_range(Advice::PopulateRead, range.start, range.len()) else {
            return Ok(());
        };
        match Errno::from_io_error(&error) {
            // The kernel says "bad address" where an access would be a SIGBUS.
            Some(Errno::FAULT | Errno::HWPOISON | Errno::IO) => Err(Errno::IO.into()),
            // Before Linux 5.14, or short of memory: the pages come in as they are touched.
            _ => Ok(()),
        }
    }

    /// Takes the pages of `range` out of the process, with those that the kernel mapped around them; they stay in the
    /// page cache.
    pub(crate) fn unmap_pages(&self, range: Range<usize>) {
        let Some(map) = &self.map else { return };
        let end = range.end.next_multiple_of(FAULT_AROUND_BYTES).min(map.len());
        let range = range.start / FAULT_AROUND_BYTES * FAULT_AROUND_BYTES..end;
        // SAFETY: the mapping is shared and backed by the file alone, so that a page read again has the content it
        // had; pages around the range that are rounded in lose nothing either. No slice changes or moves.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    }

    /// Takes all its pages out of the process.
    pub(crate) fn unmap_all(&self) {
        self.unmap_pages(0..self.map.as_ref().map_or(0, MmapRaw::len));
    }

    fn punch(&self, pages: Range<u64>) -> bool {
        self.file.punch(pages).is_ok()
    }

    /// Takes disk space for an extent; with `ahead`, for some to come as well.
    fn back(&self, extent: &Extent, ahead: bool) -> Result<(), Unwritten> {
        let Some(missing) = self.space.missing(extent, ahead) else { return Ok(()) };
        self.budget.take(missing.bytes).map_err(Unwritten::OverLimit)?;
        let taken = self.file.preallocate(missing.range.clone());
        // Also after an error, which may come with a part of the space: it is returned like any that is not in use.
        let newly_backed = self.space.back(&missing.range);
        // Another thread may have backed some of the pages meanwhile.
        self.budget.give_back(missing.bytes - newly_backed);
        Ok(taken?)
    }

    fn free(&self, extent: Extent) {
        let returned = self.space.free(extent, |pages| self.punch(pages));
        self.budget.give_back(returned);
    }

    #[cfg(test)]
    #[cfg(not(loom))]
    pub(crate) fn disk_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.space.validate();
        self.file.file().metadata().unwrap().blocks() * 512
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.budget.give_back(self.space.backed_bytes());
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("bytes", &self.len).finish_non_exhaustive()
    }
}

/// A live extent of a segment. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct SegmentExtent {
    segment: Arc<Segment>,
    /// `None` only while it drops.
    extent: Option<Extent>,
    /// Bytes written; at most the length of the extent.
    len: usize,
}

impl SegmentExtent {
    /// Room for `len` bytes. `None`: no free run of the segment is long enough.
    pub(crate) fn allocate(segment: &Arc<Segment>, len: u64) -> Option<Self> {
        let extent = segment.space.allocate(len)?;
        Some(Self { segment: Arc::clone(segment), extent: Some(extent), len: 0 })
    }

    /// Takes disk space for the extent, and then writes `bytes`, at most as many as were allocated. With `ahead`, takes
    /// space for the writes after it as well, so that most of them need no system call but their own.
    pub(crate) fn write(&mut self, bytes: &[u8], ahead: bool) -> Result<(), Unwritten> {
        let Some(extent) = self.extent.as_ref().filter(|extent| bytes.len() as u64 <= extent.len()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        };
        self.segment.back(extent, ahead)?;
        self.segment.file.write_all_at(bytes, extent.offset())?;
        self.len = bytes.len();
        Ok(())
    }

    /// Fills `bytes` with what was written, at most as many.
    pub(crate) fn read(&self, bytes: &mut [u8]) -> io::Result<()> {
        if bytes.len() > self.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.segment.file.read_exact_at(bytes, self.extent.as_ref().map_or(0, Extent::offset))
    }

    /// What was written, in the mapping; nothing where there is none.
    pub(crate) fn bytes(&self) -> &[u8] {
        let Some(map) = &self.segment.map else { return &[] };
        let offset = self.extent.as_ref().map_or(0, Extent::offset) as usize;
        // SAFETY: live extents never overlap, so the file's bytes here change by `write` (which needs `&mut self`)
        // or by `punch` (called for pages that `Space` holds as an extent of their own) alone; nobody else can open the file,
        // which has no name, to write or truncate it. The extent lies in the file, all of which is mapped, and
        // `segment` keeps it mapped; `len` bytes of it were written.
        unsafe { slice::from_raw_parts(map.as_ptr().wrapping_add(offset), self.len) }
    }

    /// The segment it lies in.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }
}

impl Drop for SegmentExtent {
    fn drop(&mut self) {
        if let Some(extent) = self.extent.take() {
            self.segment.free(extent);
        }
    }
}
