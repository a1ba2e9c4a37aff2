//! One directory of a disk store and its segments.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::budget::DiskBudget;
use super::segment::{FILE_BLOCK_BYTES, Segment, SegmentExtent, Unwritten};
use super::segment_file::OpenSegmentFile;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, RwLock};

/// What an I/O error says about the directory it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The directory cannot be used any more.
    Broken,
    /// It is the process, or this one write.
    Process,
    /// It has no room now.
    Full,
}

impl Fault {
    pub(crate) fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full,
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::FBIG) => Self::Process,
            Some(_) => Self::Broken,
            None => match error.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge => Self::Process,
                _ => Self::Broken,
            },
        }
    }
}

fn is_for_lack_of_space(error: &Unwritten) -> bool {
    match error {
        Unwritten::OverLimit(_) => true,
        Unwritten::Io(error) => Fault::of(error) == Fault::Full,
    }
}

/// A directory that was put aside, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryFailure {
    pub(crate) directory: PathBuf,
    pub(crate) reason: String,
}

#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    segment_bytes: u64,
    /// Are segments mapped?
    mapped: bool,
    budget: Arc<DiskBudget>,
    /// Locked before any segment's extents. No file is opened, read or closed under it.
    segments: RwLock<Vec<Arc<Segment>>>,
    /// The same as `failure` being there; read without its lock on every write.
    failed: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    reported: bool,
}

impl Directory {
    pub(crate) fn new(path: PathBuf, segment_bytes: u64, mapped: bool, budget: Arc<DiskBudget>) -> Self {
        Self {
            path,
            segment_bytes,
            mapped,
            budget,
            segments: RwLock::default(),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes to an extent of its own, in a new segment where no other has room.
    pub(crate) fn write(&self, stored: &[u8], open: &OpenSegmentFile) -> Result<SegmentExtent, Unwritten> {
        let len = stored.len() as u64;
        let mut extent = match self.allocate(len) {
            Some(extent) => extent,
            None => self.grow(len, open)?,
        };
        let written = match extent.write(stored, true) {
            Err(error) if is_for_lack_of_space(&error) => {
                self.reclaim();
                extent.write(stored, false)
            }
            done => done,
        };
        match written {
            Ok(()) => Ok(extent),
            Err(error) => {
                let segment = Arc::clone(extent.segment());
                drop(extent);
                self.retire_if_empty(&segment);
                Err(error)
            }
        }
    }

    /// Returns the disk space of all that is free here; the bytes that were returned.
    pub(crate) fn reclaim(&self) -> u64 {
        self.segments().iter().map(|segment| segment.reclaim()).sum()
    }

    fn allocate(&self, len: u64) -> Option<SegmentExtent> {
        self.segments.read().iter().find_map(|segment| SegmentExtent::allocate(segment, len))
    }

    fn grow(&self, len: u64, open: &OpenSegmentFile) -> io::Result<SegmentExtent> {
        let bytes = self.segment_bytes.max(len).checked_next_multiple_of(FILE_BLOCK_BYTES);
        let bytes = bytes.ok_or(io::ErrorKind::FileTooLarge)?;
        let segment = Arc::new(Segment::new(open(&self.path, bytes)?, bytes, self.mapped, &self.budget)?);
        let mut segments = self.segments.write();
        // Another thread may have grown the directory meanwhile; then this segment drops after the lock.
        if let Some(extent) = segments.iter().find_map(|segment| SegmentExtent::allocate(segment, len)) {
            return Ok(extent);
        }
        let extent = SegmentExtent::allocate(&segment, len).ok_or(io::ErrorKind::FileTooLarge)?;
        segments.push(segment);
        Ok(extent)
    }

    /// Lets an empty segment go, and with it all its disk space: cheaper than any hole.
    pub(crate) fn retire_if_empty(&self, segment: &Arc<Segment>) {
        if segment.live_bytes() > 0 {
            return;
        }
        let mut segments = self.segments.write();
        // Extents are allocated under the read lock, so none can appear between this check and the removal.
        if segment.live_bytes() > 0 {
            return;
        }
        let at = segments.iter().position(|kept| Arc::ptr_eq(kept, segment));
        let retired = at.map(|at| segments.swap_remove(at));
        drop(segments);
        drop(retired);
    }

    /// The segment whose map holds `bytes`.
    pub(crate) fn segment_of(&self, bytes: &[u8]) -> Option<Arc<Segment>> {
        self.segments.read().iter().find(|segment| segment.position(bytes).is_some()).cloned()
    }

    /// Puts the directory aside; of several reasons the first one stays.
    pub(crate) fn fail(&self, reason: String) {
        self.failure.lock().get_or_insert(Failure { reason, reported: false });
        self.failed.store(true, Ordering::Release);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Why it was put aside.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().as_ref().map(|failure| failure.reason.clone())
    }

    /// Its failure, the first time this is asked.
    pub(crate) fn take_failure(&self) -> Option<DirectoryFailure> {
        if !self.has_failed() {
            return None;
        }
        let mut failure = self.failure.lock();
        let failure = failure.as_mut().filter(|failure| !failure.reported)?;
        failure.reported = true;
        Some(DirectoryFailure { directory: self.path.clone(), reason: failure.reason.clone() })
    }

    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().clone()
    }
}
