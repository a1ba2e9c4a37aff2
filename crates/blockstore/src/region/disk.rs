//! A store of bytes on disk, over one directory or several.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;

use super::budget::{DiskBudget, OverLimit};
use super::cipher::{ChunkId, DiskCipher};
use super::directory::{Directory, Fault};
use super::error::RegionError;
use super::segment::{FILE_BLOCK_BYTES, Segment, SegmentExtent, Unwritten};
use super::segment_file::{OpenSegmentFile, private_file};
use super::unmapped::{DiskExtent, Sealed, StoredBytes};
use crate::memory::MemoryManager;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub(crate) use super::directory::DirectoryFailure;

/// How blocks on disk are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DiskReads {
    /// Through a mapping of the segment files: nothing is copied, and the kernel's page cache is all the memory there
    /// is to it.
    ///
    /// Pages are read in when a handle is made, and a disk that fails then is an error. If the kernel drops them while
    /// a handle still reads, short of memory, and the disk fails when they are read again, the process gets SIGBUS, as
    /// with every mapping. It takes Linux 5.14; before, a disk that fails at all is SIGBUS.
    #[default]
    Mapped,
    /// By `pread` into memory, a chunk at a time; nothing is mapped, and a disk that fails is always an error.
    ///
    /// The memory is charged until the last reader drops it: to the heap budget where that much is free, else to
    /// [`scratch_bytes`](crate::memory::MemorySnapshot::scratch_bytes). A block of up to a 16th of the heap budget, and up to
    /// 16 MiB, is read once, when its handle is made, if there is room for it, and else twice: to be compared with its
    /// checksums, and again chunk by chunk as the handle is read. A larger one is read and compared chunk by chunk.
    Buffered,
}

/// Where a disk store keeps its bytes.
#[derive(Debug)]
pub(crate) struct DiskOptions {
    /// Created where they are absent. Other stores and other files in them are left alone.
    pub(crate) directories: Vec<PathBuf>,
    /// The most disk space to take in all of them together.
    pub(crate) limit_bytes: Option<u64>,
    /// The length of a segment file, which is sparse: it costs what is written to it. A larger extent gets a larger
    /// segment.
    pub(crate) segment_bytes: u64,
    pub(crate) reads: DiskReads,
    pub(crate) cipher: Option<DiskCipher>,
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
    /// Disk space taken, in all of them; see [`DirectoryStatus::taken_bytes`]. What the limit is about.
    pub taken_bytes: u64,
}

/// What one directory of a disk store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryStatus {
    /// Which one.
    pub path: PathBuf,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Disk space taken: the blocks of 4 KiB that hold a byte in use, and a bounded slack of what was taken ahead of
    /// writes or freed and not yet returned. The slack is at most a sixteenth of each segment file, and gone with the
    /// last block in it; it is used or returned before a write is refused for lack of space.
    pub taken_bytes: u64,
    /// Files open in it; they have no names.
    pub segments: usize,
    /// Why it was put aside, if it was: nothing new is written to it.
    pub failed: Option<String>,
    /// Freed bytes whose space the file system would not take back. They are used again.
    pub unreclaimed_bytes: u64,
}

/// What Linux maps at most when one page of a file is touched that it has in memory.
const FAULT_AROUND_BYTES: u64 = 64 << 10;
/// Larger extents are unmapped one by one: it interrupts every processor the process runs on.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// What small extents keep mapped at most after they were read: part of the process's resident memory.
const MAPPED_BYTES_MAX: u64 = 8 << 20;

/// Writes extents to disk and hands them out as bytes of a mapping.
///
/// All methods may be called by any number of threads; no lock is held over I/O. Nothing stored outlives the
/// process, and no file of it can be seen in the directories.
pub(crate) struct DiskStore {
    directories: Vec<Arc<Directory>>,
    budget: Arc<DiskBudget>,
    next: AtomicUsize,
    /// What reads of small extents can have mapped since all was unmapped.
    mapped_bytes: AtomicU64,
    /// Are segments mapped? Encrypted ones are not.
    mapped: bool,
    cipher: Option<std::sync::Arc<DiskCipher>>,
    memory: MemoryManager,
    open: std::sync::Arc<OpenSegmentFile>,
}

impl DiskStore {
    /// Creates the directories where needed, and tries each one. Segment files are made by `open`; what is read into
    /// memory is charged to `memory`.
    ///
    /// # Errors
    /// [`RegionError::NoDirectoryGiven`], [`RegionError::OpenDirectory`].
    pub(crate) fn open(
        options: DiskOptions,
        memory: MemoryManager,
        open: std::sync::Arc<OpenSegmentFile>,
    ) -> Result<Self, RegionError> {
        if options.directories.is_empty() {
            return Err(RegionError::NoDirectoryGiven);
        }
        let segment_bytes = options.segment_bytes.max(FILE_BLOCK_BYTES);
        let budget = Arc::new(DiskBudget::new(options.limit_bytes.unwrap_or(u64::MAX)));
        let mapped = options.reads == DiskReads::Mapped && options.cipher.is_none();
        let mut directories = Vec::with_capacity(options.directories.len());
        for path in options.directories {
            let tried = fs::create_dir_all(&path).and_then(|()| private_file(&path));
            if let Err(source) = tried {
                return Err(RegionError::OpenDirectory { directory: path, source });
            }
            directories.push(Arc::new(Directory::new(path, segment_bytes, mapped, Arc::clone(&budget))));
        }
        Ok(Self {
            directories,
            budget,
            next: AtomicUsize::new(0),
            mapped_bytes: AtomicU64::new(0),
            mapped,
            cipher: options.cipher.map(std::sync::Arc::new),
            memory,
            open,
        })
    }

    /// Writes `stored` and returns it as a view of the file, 64-byte aligned, or as something to read it by. When the
    /// last clone drops, its disk space is free.
    ///
    /// Directories take turns. A full one is passed over for this write, a failing one is put aside for good.
    ///
    /// # Errors
    /// [`RegionError::DiskFull`], [`RegionError::DiskLimit`], [`RegionError::NoDirectory`],
    /// [`RegionError::Write`]. What was stored before stays readable.
    pub(crate) fn write(&self, stored: &[u8], chunk: ChunkId) -> Result<StoredBytes, RegionError> {
        if stored.is_empty() {
            return Ok(Bytes::new().into());
        }
        let Some(cipher) = &self.cipher else {
            let held = self.write_held(stored)?;
            let unmapped = |held| DiskExtent::new(held, self.memory.clone(), stored.len(), None);
            return Ok(if self.mapped {
                Bytes::from_owner(held).into()
            } else {
                StoredBytes::Disk(std::sync::Arc::new(unmapped(held)))
            });
        };
        let _counted = self.memory.scratch((stored.len() + DiskCipher::TAG_BYTES) as u64);
        let (bytes, nonce) = cipher.seal(stored, chunk).ok_or_else(|| self.too_large(stored.len()))?;
        let held = self.write_held(&bytes)?;
        let sealed = Sealed { cipher: std::sync::Arc::clone(cipher), nonce, chunk };
        let extent = DiskExtent::new(held, self.memory.clone(), stored.len(), Some(sealed));
        Ok(StoredBytes::Disk(std::sync::Arc::new(extent)))
    }

    fn write_held(&self, stored: &[u8]) -> Result<Held, RegionError> {
        match self.try_write(stored) {
            // What other directories have free counts against the limit too.
            Err(RegionError::DiskLimit { .. }) if self.reclaim() > 0 => self.try_write(stored),
            done => done,
        }
    }

    fn try_write(&self, stored: &[u8]) -> Result<Held, RegionError> {
        let needed_bytes = stored.len() as u64;
        let mut refusal: Option<(Fault, RegionError)> = None;
        for directory in self.turns().filter(|directory| !directory.has_failed()) {
            let (fault, error) = match directory.write(stored, &*self.open) {
                Ok(extent) => return Ok(Held::new(extent, directory)),
                Err(Unwritten::OverLimit(over)) => (Fault::Full, over_limit(over, needed_bytes)),
                Err(Unwritten::Io(source)) => {
                    let fault = Fault::of(&source);
                    if fault == Fault::Broken {
                        directory.fail(source.to_string());
                    }
                    (fault, refused(fault, directory, needed_bytes, source))
                }
            };
            // The caller learns what stands in the way of the healthiest directory.
            if refusal.as_ref().is_none_or(|(worst, _)| *worst <= fault) {
                refusal = Some((fault, error));
            }
        }
        Err(refusal.map_or_else(|| self.nowhere(needed_bytes), |(_, error)| error))
    }

    fn reclaim(&self) -> u64 {
        self.directories.iter().map(|directory| directory.reclaim()).sum()
    }

    /// The directories, each once, starting with another one each time.
    fn turns(&self) -> impl Iterator<Item = &Arc<Directory>> {
        let count = self.directories.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % count.max(1);
        self.directories.iter().cycle().skip(first).take(count)
    }

    /// Larger than what one nonce encrypts.
    fn too_large(&self, len: usize) -> RegionError {
        let directory = self.directories.first().map(|directory| directory.path().to_owned());
        let source = std::io::ErrorKind::FileTooLarge.into();
        RegionError::Write { directory: directory.unwrap_or_default(), needed_bytes: len as u64, source }
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
        segment.populate(range).map_err(|source| unreadable(directory, stored.len(), source))
    }

    /// Copies bytes that [`write`](Self::write) returned into `copy`, which is as long, without mapping any of them.
    ///
    /// # Errors
    /// [`RegionError::Read`]; the directory is then put aside.
    pub(crate) fn read(&self, stored: &[u8], copy: &mut [u8]) -> Result<(), RegionError> {
        let place = self.place_of(stored);
        let place =
            place.and_then(|(directory, segment)| Some((directory, segment.position(stored)?, segment)));
        match place {
            Some((directory, range, segment)) => {
                segment.read(range.start, copy).map_err(|source| unreadable(directory, stored.len(), source))
            }
            // In memory, and nowhere else.
            None => {
                copy.copy_from_slice(stored);
                Ok(())
            }
        }
    }

    /// Takes bytes that were read out of the process's resident memory; the kernel keeps them in its page cache as
    /// long as it likes. Reading them again is as good as before.
    ///
    /// Small extents are let go in bulk: the kernel maps pages around them as well, up to [`MAPPED_BYTES_MAX`] in all.
    pub(crate) fn release(&self, stored: &[u8]) {
        if !self.mapped {
            return;
        }
        let mapped_bytes = (stored.len() as u64).next_multiple_of(FAULT_AROUND_BYTES);
        if mapped_bytes >= SMALL_BYTES_MAX {
            let place = self.place_of(stored);
            if let Some((segment, range)) = place.and_then(|(_, it)| it.position(stored).map(|at| (it, at))) {
                segment.unmap_pages(range);
            }
        } else if self.mapped_bytes.fetch_add(mapped_bytes, Ordering::Relaxed) >= MAPPED_BYTES_MAX {
            self.mapped_bytes.store(0, Ordering::Relaxed);
            let segments = self.directories.iter().flat_map(|directory| directory.segments());
            segments.for_each(|segment| segment.unmap_all());
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
        DiskStatus { directories, used_bytes, taken_bytes: self.budget.taken_bytes() }
    }
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskStore")
            .field("directories", &self.directories)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

fn directory_status(directory: &Directory) -> DirectoryStatus {
    let segments = directory.segments();
    DirectoryStatus {
        path: directory.path().to_owned(),
        used_bytes: segments.iter().map(|segment| segment.live_bytes()).sum(),
        taken_bytes: segments.iter().map(|segment| segment.backed_bytes()).sum(),
        segments: segments.len(),
        failed: directory.failure(),
        unreclaimed_bytes: segments.iter().map(|segment| segment.unreclaimed_bytes()).sum(),
    }
}

fn over_limit(over: OverLimit, needed_bytes: u64) -> RegionError {
    let OverLimit { limit_bytes, taken_bytes } = over;
    RegionError::DiskLimit { limit_bytes, used_bytes: taken_bytes, needed_bytes }
}

fn refused(fault: Fault, directory: &Directory, needed_bytes: u64, source: std::io::Error) -> RegionError {
    let directory = directory.path().to_owned();
    match fault {
        Fault::Full => RegionError::DiskFull { directory, needed_bytes },
        Fault::Process => RegionError::Write { directory, needed_bytes, source },
        Fault::Broken => RegionError::NoDirectory { needed_bytes, directory, reason: source.to_string() },
    }
}

/// Puts a directory aside that failed on a read.
fn unreadable(directory: &Directory, len: usize, source: std::io::Error) -> RegionError {
    directory.fail(source.to_string());
    RegionError::Read { directory: directory.path().to_owned(), bytes: len as u64, source }
}

/// A written extent. The fields drop in this order: the extent is freed, and the segment goes if it is empty then.
pub(super) struct Held {
    extent: SegmentExtent,
    retire: Retire,
}

impl Held {
    fn new(extent: SegmentExtent, directory: &Arc<Directory>) -> Self {
        let segment = Arc::clone(extent.segment());
        Self { extent, retire: Retire { directory: Arc::clone(directory), segment } }
    }

    /// Fills `bytes` with what was written.
    pub(super) fn read(&self, bytes: &mut [u8]) -> Result<(), RegionError> {
        let len = bytes.len();
        self.extent.read(bytes).map_err(|source| unreadable(&self.retire.directory, len, source))
    }
}

impl AsRef<[u8]> for Held {
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

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
