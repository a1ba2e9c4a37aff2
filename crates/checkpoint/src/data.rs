//! Moves bulk data. The only module that names OpenDAL.
//!
//! No layer stands around the local file system: its calls do not time out, and OpenDAL's retry layer would take a
//! full disk for a passing trouble.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::OnceLock;

use bytes::Bytes;
use opendal::services::Fs;
use opendal::{ErrorKind, Operator};

use crate::Address;
use crate::files::{Change, Files};
use crate::runtime::block_on;

/// The objects of one store.
pub(crate) struct DataStore {
    address: Address,
    files: Files,
    operator: OnceLock<Operator>,
}

/// What a listing says of one object.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its name in its directory.
    pub(crate) name: String,
    pub(crate) is_dir: bool,
    /// Its length, 0 for a directory.
    pub(crate) bytes: u64,
}

impl DataStore {
    pub(crate) fn new(address: Address, files: Files) -> Self {
        Self { address, files, operator: OnceLock::new() }
    }

    fn file(&self, path: &str) -> PathBuf {
        self.address.path().join(path)
    }

    /// Made late, because OpenDAL would create the directory, and only writers may.
    fn operator(&self) -> io::Result<&Operator> {
        if let Some(operator) = self.operator.get() {
            return Ok(operator);
        }
        if !std::fs::metadata(self.address.path())?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let service = Fs::default().root(&self.address.to_string());
        let operator = Operator::new(service).map_err(into_io)?;
        Ok(self.operator.get_or_init(|| operator))
    }

    /// Makes a directory to write to.
    pub(crate) fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.files.create_dirs(self.address.path(), dir)
    }

    /// Makes the names of all objects in a directory durable; OpenDAL syncs their bytes alone.
    pub(crate) fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.files.sync_dirs(self.address.path(), dir)
    }

    /// Starts to write an object. It may appear before it is closed.
    pub(crate) fn writer(&self, path: &str) -> io::Result<DataWriter> {
        let operator = self.operator()?;
        let writer = block_on(async { operator.writer(path).await.map_err(into_io) })?;
        let (file, files) = (self.file(path), self.files.clone());
        files.tell(Change::CreateFile(&file));
        Ok(DataWriter { writer, file, files })
    }

    /// Writes a small object, replacing what stood there.
    pub(crate) fn write(&self, path: &str, bytes: Bytes) -> io::Result<()> {
        let operator = self.operator()?;
        block_on(async { operator.write(path, bytes.clone()).await.map_err(into_io) })?;
        let file = self.file(path);
        for change in [Change::CreateFile(&file), Change::Append(&file, &bytes), Change::SyncFile(&file)] {
            self.files.tell(change);
        }
        Ok(())
    }

    /// An object's length.
    pub(crate) fn len(&self, path: &str) -> io::Result<u64> {
        let operator = self.operator()?;
        block_on(async { operator.stat(path).await.map_err(into_io) }).map(|meta| meta.content_length())
    }

    /// Reads from one object; on a file system from the one that stands there at the first read.
    pub(crate) fn reader(&self, path: &str) -> io::Result<DataReader> {
        let operator = self.operator()?;
        block_on(async { operator.reader(path).await.map_err(into_io) }).map(DataReader)
    }

    /// What is directly in a directory, sorted by name; nothing where there is none.
    pub(crate) fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let operator = match self.operator() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            operator => operator?,
        };
        let dir = format!("{dir}/");
        let listed = block_on(async { operator.list(&dir).await.map_err(into_io) })?;
        let mut entries: Vec<_> = listed
            .into_iter()
            .filter(|entry| entry.path().trim_matches('/') != dir.trim_matches('/'))
            .map(|entry| Entry {
                name: entry.name().trim_end_matches('/').to_owned(),
                is_dir: entry.metadata().is_dir(),
                bytes: entry.metadata().content_length(),
            })
            .collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Removes an object. One that is not there is no error.
    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        let operator = self.operator()?;
        block_on(async { operator.delete(path).await.map_err(into_io) })?;
        self.files.tell(Change::RemoveFile(&self.file(path)));
        Ok(())
    }

    /// Removes a directory and all in it. One that is not there is no error.
    pub(crate) fn remove_all(&self, dir: &str) -> io::Result<()> {
        let operator = self.operator()?;
        let path = format!("{dir}/");
        block_on(async { operator.delete_with(&path).recursive(true).await.map_err(into_io) })?;
        self.files.tell(Change::RemoveDir(&self.file(dir)));
        Ok(())
    }
}

impl fmt::Debug for DataStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DataStore").field(&self.address).finish()
    }
}

/// An object while it is written.
pub(crate) struct DataWriter {
    writer: opendal::Writer,
    file: PathBuf,
    files: Files,
}

impl DataWriter {
    /// Hands over bytes, without copying them. They are written when the next ones come, or on close.
    pub(crate) fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        block_on(async { self.writer.write(bytes.clone()).await.map_err(into_io) })?;
        self.files.tell(Change::Append(&self.file, &bytes));
        Ok(())
    }

    /// Writes what is left and makes the bytes durable.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        block_on(async { self.writer.close().await.map_err(into_io) })?;
        self.files.tell(Change::SyncFile(&self.file));
        Ok(())
    }

    /// Lets go of what the backend holds for an unfinished object.
    pub(crate) fn abort(&mut self) -> io::Result<()> {
        match block_on(async { self.writer.abort().await.map_err(into_io) }) {
            // A file system holds nothing but the file, which the caller removes.
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
            other => other,
        }
    }
}

/// Reads from one object.
pub(crate) struct DataReader(opendal::Reader);

impl DataReader {
    /// The bytes of a range; [`io::ErrorKind::UnexpectedEof`] when the object ends before it.
    pub(crate) fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        block_on(async { self.0.read(range).await.map_err(into_io) }).map(|buffer| buffer.to_bytes())
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
