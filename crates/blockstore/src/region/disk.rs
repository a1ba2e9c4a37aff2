//! A store of bytes on disk, over one directory or several.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use super::directory::{Directory, Fault};
use super::error::RegionError;
use super::extents::rounded;
use super::segment::{FILE_BLOCK_BYTES, Segment, SegmentExtent};
use super::segment_file::{OpenSegmentFile, open_segment_file, private_file};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub(crate) use super::directory::DirectoryFailure;

/// Where a disk store keeps its bytes.
#[derive(Clone, Debug)]
pub(crate) struct DiskOptions {
    /// Created where they are absent. Other stores and other files in them are left alone.
    pub(crate) directories: Vec<PathBuf>,
    /// The most bytes to keep in all of them together.
    pub(crate) limit_bytes: Option<u64>,
    /// The length of a segment file, which is sparse: it costs what is written to it. A larger extent gets a larger
    /// segment.
    pub(crate) segment_bytes: u64,
}

impl DiskOptions {
    /// The length of a segment where nothing else is asked for: 1 GiB.
    pub(crate) const SEGMENT_BYTES: u64 = 1 << 30;
}

/// What a disk store holds, for people and for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStatus {
    /// Its directories, in the order in which they were named.
    pub directories: Vec<DirectoryStatus>,
    /// Bytes in use, in all of them.
    pub used_bytes: u64,
}

/// What one directory of a disk store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryStatus {
    /// Which one.
    pub path: PathBuf,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Files open in it; they have no names.
    pub segments: usize,
    /// Why it was put aside, if it was: nothing new is written to it.
    pub failed: Option<String>,
    /// Freed bytes, counted each time, whose space the file system would not take back. They are used again.
    pub unreclaimed_bytes: u64,
}

/// Writes extents to disk and hands them out as bytes of a mapping.
///
/// All methods may be called by any number of threads; no lock is held over I/O. Nothing stored outlives the
/// process, and no file of it can be seen in the directories.
pub(crate) struct DiskStore {
    directories: Vec<Arc<Directory>>,
    limit_bytes: u64,
    used_bytes: Arc<AtomicU64>,
    next: AtomicUsize,
    open: Box<OpenSegmentFile>,
}

impl DiskStore {
    /// Creates the directories where needed, and tries each one.
    ///
    /// # Errors
    /// [`RegionError::NoDirectoryGiven`], [`RegionError::OpenDirectory`].
    pub(crate) fn open(options: DiskOptions) -> Result<Self, RegionError> {
        Self::open_with(options, Box::new(open_segment_file))
    }

    pub(crate) fn open_with(options: DiskOptions, open: Box<OpenSegmentFile>) -> Result<Self, RegionError> {
        if options.directories.is_empty() {
            return Err(RegionError::NoDirectoryGiven);
        }
        let segment_bytes = options.segment_bytes.max(FILE_BLOCK_BYTES);
        let mut directories = Vec::with_capacity(options.directories.len());
        for path in options.directories {
            let tried = fs::create_dir_all(&path).and_then(|()| private_file(&path));
            if let Err(source) = tried {
                return Err(RegionError::OpenDirectory { directory: path, source });
            }
            directories.push(Arc::new(Directory::new(path, segment_bytes)));
        }
        Ok(Self {
            directories,
            limit_bytes: options.limit_bytes.unwrap_or(u64::MAX),
            used_bytes: Arc::new(AtomicU64::new(0)),
            next: AtomicUsize::new(0),
            open,
        })
    }

    /// Writes `stored` and returns it as a view of the file, 64-byte aligned. When the last clone of the view drops,
    /// its disk space is returned.
    ///
    /// Directories take turns. A full one is passed over for this write, a failing one is put aside for good.
    ///
    /// # Errors
    /// [`RegionError::DiskFull`], [`RegionError::DiskLimit`], [`RegionError::NoDirectory`],
    /// [`RegionError::Write`]. What was stored before stays readable.
    pub(crate) fn write(&self, stored: &[u8]) -> Result<Bytes, RegionError> {
        if stored.is_empty() {
            return Ok(Bytes::new());
        }
        let charge = self.charge(stored.len() as u64)?;
        let mut refusal: Option<(Fault, RegionError)> = None;
        for directory in self.turns().filter(|directory| !directory.has_failed()) {
            match directory.write(stored, &*self.open) {
                Ok(extent) => return Ok(Stored::bytes(extent, directory, charge)),
                Err(source) => {
                    let fault = Fault::of(&source);
                    if fault == Fault::Broken {
                        directory.fail(source.to_string());
                    }
                    // The caller learns what stands in the way of the healthiest directory.
                    if refusal.as_ref().is_none_or(|(worst, _)| *worst <= fault) {
                        refusal = Some((fault, refused(fault, directory, stored.len() as u64, source)));
                    }
                }
            }
        }
        Err(refusal.map_or_else(|| self.nowhere(stored.len() as u64), |(_, error)| error))
    }

    /// The directories, each once, starting with another one each time.
    fn turns(&self) -> impl Iterator<Item = &Arc<Directory>> {
        let count = self.directories.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % count.max(1);
        self.directories.iter().cycle().skip(first).take(count)
    }

    fn charge(&self, needed_bytes: u64) -> Result<Charge, RegionError> {
        let limit_bytes = self.limit_bytes;
        let bytes = rounded(needed_bytes).unwrap_or(u64::MAX);
        let grow = |used: u64| used.checked_add(bytes).filter(|used| *used <= limit_bytes);
        match self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, grow) {
            Ok(_) => Ok(Charge { used_bytes: Arc::clone(&self.used_bytes), bytes }),
            Err(used_bytes) => Err(RegionError::DiskLimit { limit_bytes, used_bytes, needed_bytes }),
        }
    }

    /// All directories were put aside before.
    fn nowhere(&self, needed_bytes: u64) -> RegionError {
        let failure = self.directories.iter().rev().find_map(|directory| {
            let reason = directory.failure()?;
            Some(RegionError::NoDirectory { needed_bytes, directory: directory.path().to_owned(), reason })
        });
        failure.unwrap_or(RegionError::NoDirectoryGiven)
    }

    /// Reads bytes that [`write`](Self::write) returned into memory, faster than touching them one page at a time.
    ///
    /// Call it before reading: a failing disk is an error here, where touching the bytes would end the process
    /// with SIGBUS. Bytes that are not this store's are left alone. Costs one system call where the pages are in
    /// memory already.
    ///
    /// # Errors
    /// [`RegionError::Read`]; the directory is then put aside.
    pub(crate) fn prefetch(&self, stored: &[u8]) -> Result<(), RegionError> {
        let Some((directory, segment)) = self.place_of(stored) else { return Ok(()) };
        let Some(range) = segment.position(stored) else { return Ok(()) };
        segment.populate(range).map_err(|source| {
            directory.fail(source.to_string());
            let bytes = stored.len() as u64;
            RegionError::Read { directory: directory.path().to_owned(), bytes, source }
        })
    }

    /// Takes bytes that were read out of the process's resident memory; the kernel keeps them in its page cache as
    /// long as it likes. Reading them again is as good as before.
    pub(crate) fn release(&self, stored: &[u8]) {
        let place = self.place_of(stored);
        if let Some((segment, range)) = place.and_then(|(_, it)| it.position(stored).map(|at| (it, at))) {
            segment.unmap_pages(range);
        }
    }

    fn place_of(&self, stored: &[u8]) -> Option<(&Arc<Directory>, Arc<Segment>)> {
        if stored.is_empty() {
            return None;
        }
        self.directories.iter().find_map(|directory| Some((directory, directory.segment_of(stored)?)))
    }

    /// The directories put aside since this was last called, each reported once.
    pub(crate) fn take_failures(&self) -> Vec<DirectoryFailure> {
        self.directories.iter().filter_map(|directory| directory.take_failure()).collect()
    }

    /// What is where, now.
    pub(crate) fn status(&self) -> DiskStatus {
        let directories: Vec<_> =
            self.directories.iter().map(|directory| directory_status(directory)).collect();
        let used_bytes = directories.iter().map(|directory| directory.used_bytes).sum();
        DiskStatus { directories, used_bytes }
    }
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskStore").field("directories", &self.directories).finish_non_exhaustive()
    }
}

fn directory_status(directory: &Directory) -> DirectoryStatus {
    let segments = directory.segments();
    DirectoryStatus {
        path: directory.path().to_owned(),
        used_bytes: segments.iter().map(|segment| segment.live_bytes()).sum(),
        segments: segments.len(),
        failed: directory.failure(),
        unreclaimed_bytes: segments.iter().map(|segment| segment.unreclaimed_bytes()).sum(),
    }
}

fn refused(fault: Fault, directory: &Directory, needed_bytes: u64, source: std::io::Error) -> RegionError {
    let directory = directory.path().to_owned();
    match fault {
        Fault::Full => RegionError::DiskFull { directory, needed_bytes },
        Fault::Process => RegionError::Write { directory, needed_bytes, source },
        Fault::Broken => RegionError::NoDirectory { needed_bytes, directory, reason: source.to_string() },
    }
}

/// What a `Bytes` into a segment owns. The fields drop in this order: the extent is freed and its hole punched, the
/// segment goes if it is empty, and the limit has room again.
struct Stored {
    extent: SegmentExtent,
    _retire: Retire,
    _charge: Charge,
}

impl Stored {
    fn bytes(extent: SegmentExtent, directory: &Arc<Directory>, charge: Charge) -> Bytes {
        let segment = Arc::clone(extent.segment());
        let retire = Retire { directory: Arc::clone(directory), segment };
        Bytes::from_owner(Self { extent, _retire: retire, _charge: charge })
    }
}

impl AsRef<[u8]> for Stored {
    fn as_ref(&self) -> &[u8] {
        self.extent.bytes()
    }
}

struct Retire {
    directory: Arc<Directory>,
    segment: Arc<Segment>,
}

impl Drop for Retire {
    fn drop(&mut self) {
        self.directory.retire_if_empty(&self.segment);
    }
}

struct Charge {
    used_bytes: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
