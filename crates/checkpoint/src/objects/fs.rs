//! Files of a local file system: listed and removed through OpenDAL, parts written and read by the system's own calls.
//!
//! No layer stands around the local file system: its calls do not time out, and OpenDAL's retry layer would take a
//! full disk for a passing trouble.

use std::error::Error as _;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytes::Bytes;
use larder_blockstore::format::CHUNK_BYTES_MAX;
use opendal::services::Fs;
use opendal::{ErrorKind, Operator};
use rustix::buffer::spare_capacity;
use rustix::io::retry_on_intr;

use super::{Closing, Entry, ObjectReader, ObjectWriter, Objects, entries_of};
use crate::files::{Change, Files};
use crate::runtime::block_on;

/// As many bytes stay in a processor's cache until they are verified.
const BATCH_BYTES: u64 = 2 << 20;

pub(crate) struct FsObjects {
    root: PathBuf,
    files: Files,
    operator: OnceLock<Operator>,
}

impl FsObjects {
    pub(crate) fn new(root: &Path, files: Files) -> Self {
        Self { root: root.to_owned(), files, operator: OnceLock::new() }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Made late, because OpenDAL would create the directory, and only writers may.
    fn operator(&self) -> io::Result<&Operator> {
        if let Some(operator) = self.operator.get() {
            return Ok(operator);
        }
        if !std::fs::metadata(&self.root)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        // It came from an address, which is text.
        let service = Fs::default().root(&self.root.to_string_lossy());
        let operator = Operator::new(service).map_err(into_io)?;
        Ok(self.operator.get_or_init(|| operator))
    }
}

impl Objects for FsObjects {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.files.create_dirs(&self.root, dir)
    }

    /// OpenDAL syncs the bytes of files alone.
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.files.sync_dirs(&self.root, dir)
    }

    fn writer(&self, path: &str, _: usize) -> io::Result<Box<dyn ObjectWriter>> {
        let path = self.file(path);
        let file = File::create(&path)?;
        self.files.tell(Change::CreateFile(&path));
        Ok(Box::new(FileWriter { file, path, files: self.files.clone() }))
    }

    fn write(&self, path: &str, bytes: Bytes) -> io::Result<()> {
        let operator = self.operator()?;
        block_on(async { operator.write(path, bytes.clone()).await.map_err(into_io) })?;
        let file = self.file(path);
        for change in [Change::CreateFile(&file), Change::Append(&file, &bytes), Change::SyncFile(&file)] {
            self.files.tell(change);
        }
        Ok(())
    }

    fn len(&self, path: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.file(path))?.len())
    }

    fn reader(&self, path: &str) -> io::Result<Box<dyn ObjectReader>> {
        Ok(Box::new(FileReader(File::open(self.file(path))?)))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let operator = match self.operator() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            operator => operator?,
        };
        let dir = format!("{dir}/");
        let listed = block_on(async { operator.list(&dir).await.map_err(into_io) })?;
        Ok(entries_of(listed, &dir))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let operator = self.operator()?;
        block_on(async { operator.delete(path).await.map_err(into_io) })?;
        self.files.tell(Change::RemoveFile(&self.file(path)));
        Ok(())
    }

    fn remove_all(&self, dir: &str) -> io::Result<()> {
        let operator = self.operator()?;
        let path = format!("{dir}/");
        block_on(async { operator.delete_with(&path).recursive(true).await.map_err(into_io) })?;
        self.files.tell(Change::RemoveDir(&self.file(dir)));
        Ok(())
    }

    fn writer_bytes_max(&self) -> usize {
        CHUNK_BYTES_MAX
    }

    fn batch_bytes(&self) -> u64 {
        BATCH_BYTES
    }
}

impl fmt::Debug for FsObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FsObjects").field(&self.root).finish()
    }
}

/// Not through OpenDAL, which copies what it writes and hands each 2 MiB of it from thread to thread.
struct FileWriter {
    file: File,
    path: PathBuf,
    files: Files,
}

impl ObjectWriter for FileWriter {
    fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.file.write_all(&bytes)?;
        self.files.tell(Change::Append(&self.path, &bytes));
        Ok(())
    }

    fn close(&mut self) -> io::Result<Option<Box<dyn Closing>>> {
        self.files.sync(&self.path, &self.file)?;
        Ok(None)
    }

    /// A file system holds nothing but the file.
    fn abort(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn bytes_max(&self) -> usize {
        CHUNK_BYTES_MAX
    }
}

/// Not through OpenDAL, which hands a read from thread to thread and copies what is longer than 2 MiB twice: reading a
/// checkpoint took 1.8 times what reading the files takes.
struct FileReader(File);

impl ObjectReader for FileReader {
    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        while bytes.len() < len {
            let offset = range.start + bytes.len() as u64;
            let read = retry_on_intr(|| rustix::io::pread(&self.0, spare_capacity(&mut bytes), offset))?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        bytes.truncate(len);
        Ok(bytes.into())
    }
}

fn into_io(error: opendal::Error) -> io::Error {
    let system = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if let Some(system) = system {
        return match system.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(system.kind(), error),
        };
    }
    let kind = match error.kind() {
        ErrorKind::NotFound => io::ErrorKind::NotFound,
        ErrorKind::PermissionDenied => io::ErrorKind::PermissionDenied,
        ErrorKind::AlreadyExists | ErrorKind::ConditionNotMatch => io::ErrorKind::AlreadyExists,
        ErrorKind::IsADirectory => io::ErrorKind::IsADirectory,
        ErrorKind::NotADirectory => io::ErrorKind::NotADirectory,
        ErrorKind::RangeNotSatisfied => io::ErrorKind::UnexpectedEof,
        ErrorKind::Unsupported => io::ErrorKind::Unsupported,
        ErrorKind::RateLimited => io::ErrorKind::ResourceBusy,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
