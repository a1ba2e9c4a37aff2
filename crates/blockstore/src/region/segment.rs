//! A disk segment: extents of one large sparse file, written by `pwrite` and read through a shared mapping.
#![expect(unsafe_code, reason = "hands out slices of a mapping; each block names the invariant it rests on")]

use std::fmt;
use std::io;
use std::ops::Range;
use std::slice;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use rustix::io::Errno;

use super::extents::Extent;
use super::segment_file::SegmentFile;
use super::shared::{Pages, SharedExtents};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// What holes are made of: the block of nearly every file system.
pub(crate) const FILE_BLOCK_BYTES: u64 = 4096;

/// One file and its mapping. The file stays as long as the last extent, and is gone with it.
pub(crate) struct Segment {
    file: Box<dyn SegmentFile>,
    /// The whole file, read only.
    map: MmapRaw,
    extents: SharedExtents,
    unreclaimed_bytes: AtomicU64,
}

impl Segment {
    /// Maps `file`, of which `len` bytes, a multiple of [`FILE_BLOCK_BYTES`], are there.
    pub(crate) fn new(file: Box<dyn SegmentFile>, len: u64) -> io::Result<Self> {
        debug_assert!(len.is_multiple_of(FILE_BLOCK_BYTES));
        let map_len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let map = MmapOptions::new().len(map_len).map_raw_read_only(file.file())?;
        let pages = Pages { unit: FILE_BLOCK_BYTES, fault: FILE_BLOCK_BYTES };
        let extents = SharedExtents::new(len, pages);
        Ok(Self { file, map, extents, unreclaimed_bytes: AtomicU64::new(0) })
    }

    /// Bytes of live extents.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.extents.live_bytes()
    }

    /// Bytes, counted each time, whose disk space the file system did not take back when they were freed.
    pub(crate) fn unreclaimed_bytes(&self) -> u64 {
        self.unreclaimed_bytes.load(Ordering::Relaxed)
    }

    /// Where in this segment's map `bytes` lie, if they do.
    pub(crate) fn position(&self, bytes: &[u8]) -> Option<Range<usize>> {
        let start = bytes.as_ptr().addr().checked_sub(self.map.as_ptr().addr())?;
        let end = start.checked_add(bytes.len()).filter(|end| *end <= self.map.len())?;
        Some(start..end)
    }

    /// Reads the pages of `range` in; what would be a SIGBUS on access is an error here.
    pub(crate) fn populate(&self, range: Range<usize>) -> io::Result<()> {
        let Err(error) = self.map.advise_range(Advice::PopulateRead, range.start, range.len()) else {
            return Ok(());
        };
        match Errno::from_io_error(&error) {
            // The kernel says "bad address" where an access would be a SIGBUS.
            Some(Errno::FAULT | Errno::HWPOISON | Errno::IO) => Err(Errno::IO.into()),
            // Before Linux 5.14, or short of memory: the pages come in as they are touched.
            _ => Ok(()),
        }
    }

    /// Takes the pages of `range` out of the process; they stay in the page cache.
    pub(crate) fn unmap_pages(&self, range: Range<usize>) {
        // SAFETY: the mapping is shared and backed by the file alone, so that a page read again has the content it
        // had; pages around the range that are rounded in lose nothing either. No slice changes or moves.
        let _ =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    }

    fn punch(&self, blocks: Range<u64>) {
        let bytes = blocks.end - blocks.start;
        if self.file.punch(blocks).is_err() {
            // The space is the store's still, for the next extent there.
            self.unreclaimed_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    #[cfg(not(loom))]
    pub(crate) fn disk_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.extents.validate();
        self.file.file().metadata().unwrap().blocks() * 512
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("bytes", &self.map.len()).finish_non_exhaustive()
    }
}

/// A live extent of a segment. Dropping it frees it and punches its hole.
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
        let extent = segment.extents.allocate(len)?;
        Some(Self { segment: Arc::clone(segment), extent: Some(extent), len: 0 })
    }

    /// Takes disk space for the extent, and then writes `bytes`, at most as many as were allocated.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let range = self.extent.as_ref().map_or(0..0, Extent::range);
        if bytes.len() as u64 > range.end - range.start {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.segment.file.preallocate(range.clone())?;
        self.segment.file.write_all_at(bytes, range.start)?;
        self.len = bytes.len();
        Ok(())
    }

    /// What was written.
    pub(crate) fn bytes(&self) -> &[u8] {
        let offset = self.extent.as_ref().map_or(0, Extent::offset) as usize;
        // SAFETY: live extents never overlap, so the file's bytes here change by `write` (which needs `&mut self`)
        // or by `punch` (called for blocks that belong to no live extent) alone; nobody else can open the file,
        // which has no name, to write or truncate it. The extent lies in the file, all of which is mapped, and
        // `segment` keeps it mapped; `len` bytes of it were written.
        unsafe { slice::from_raw_parts(self.segment.map.as_ptr().wrapping_add(offset), self.len) }
    }

    /// The segment it lies in.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }
}

impl Drop for SegmentExtent {
    fn drop(&mut self) {
        if let Some(extent) = self.extent.take() {
            self.segment.extents.free(extent, |blocks| self.segment.punch(blocks));
        }
    }
}
