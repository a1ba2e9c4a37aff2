//! The file below a segment: where tests tear, fill and fail writes.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

/// A sparse file of fixed length that nobody else can open.
pub(crate) trait SegmentFile: fmt::Debug + Send + Sync {
    /// The file itself, to be mapped.
    fn file(&self) -> &File;

    /// Takes disk space for `range`, so that a full disk shows before anything is written.
    fn preallocate(&self, range: Range<u64>) -> io::Result<()>;

    /// Writes all of `bytes`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills all of `bytes`.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Gives the disk space of `range` back; it reads as zeros afterwards.
    fn punch(&self, range: Range<u64>) -> io::Result<()>;
}

/// Makes the file of a new segment, of so many bytes, in a directory.
pub(crate) type OpenSegmentFile = dyn Fn(&Path, u64) -> io::Result<Box<dyn SegmentFile>> + Send + Sync;

/// A [`SegmentFile`] of the operating system, in `directory`.
pub(crate) fn open_segment_file(directory: &Path, len: u64) -> io::Result<Box<dyn SegmentFile>> {
    let file = private_file(directory)?;
    file.set_len(len)?;
    Ok(Box::new(OsFile(file)))
}

#[derive(Debug)]
struct OsFile(File);

impl SegmentFile for OsFile {
    fn file(&self) -> &File {
        &self.0
    }

    fn preallocate(&self, range: Range<u64>) -> io::Result<()> {
        let len = range.end - range.start;
        match retry_on_intr(|| fallocate(&self.0, FallocateFlags::KEEP_SIZE, range.start, len)) {
            // Without support by the file system the write itself takes the space. It is no mapped store, so a full
            // disk is its error all the same.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            done => Ok(done?),
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(&self.0, bytes, offset)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(retry_on_intr(|| fallocate(&self.0, flags, range.start, range.end - range.start))?)
    }
}

/// An empty file that has no name: it is gone with the process, however that ends, and only its owner's descriptor
/// can truncate it.
pub(crate) fn private_file(directory: &Path) -> io::Result<File> {
    nameless_file(directory).or_else(|_| unlinked_file(directory))
}

/// By `O_TMPFILE`: never had a name, and never gets one.
fn nameless_file(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Where the file system has no `O_TMPFILE`: created in a directory nobody else can enter, and unlinked with that
/// directory before a byte is written. A kill in between leaves an empty directory, at worst an empty file in it.
fn unlinked_file(directory: &Path) -> io::Result<File> {
    let private = tempfile::Builder::new()
        .prefix(".larder-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(directory)?;
    let path = private.path().join("segment");
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    private.close()?;
    Ok(file)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_private_file_has_no_name_and_leaves_nothing_in_its_directory() {
        let home = tempfile::tempdir().unwrap();
        for make in [nameless_file, unlinked_file, private_file] {
            let file = make(home.path()).unwrap();
            let facts = file.metadata().unwrap();
            assert_eq!((facts.nlink(), facts.mode() & 0o777), (0, 0o600));
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
            FileExt::write_all_at(&file, b"still usable", 0).unwrap();
        }
        assert!(private_file(&home.path().join("absent")).is_err());
    }

    #[test]
    fn space_is_taken_before_the_write_and_returned_by_a_hole() {
        let home = tempfile::tempdir().unwrap();
        let segment = open_segment_file(home.path(), 1 << 20).unwrap();
        let disk_bytes = || segment.file().metadata().unwrap().blocks() * 512;
        assert_eq!(disk_bytes(), 0);
        segment.preallocate(0..512 << 10).unwrap();
        assert!(disk_bytes() >= 512 << 10);
        segment.write_all_at(&[1; 8192], 0).unwrap();
        segment.punch(0..512 << 10).unwrap();
        assert_eq!(segment.file().metadata().unwrap().len(), 1 << 20);
        assert!(disk_bytes() <= 8 << 10, "{} bytes left", disk_bytes());
    }
}
