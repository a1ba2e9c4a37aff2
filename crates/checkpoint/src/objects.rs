//! Moves bulk data: one implementation a backend, behind one small trait.

mod fs;
#[cfg(feature = "hdfs")]
mod hdfs;
mod memory;
#[cfg(feature = "s3")]
mod s3;

use std::fmt;
use std::io;
use std::ops::Range;

use bytes::Bytes;

pub(crate) use fs::FsObjects;
#[cfg(feature = "hdfs")]
pub(crate) use hdfs::{Hdfs, HdfsObjects, failure as hdfs_failure, sync_and_close};
pub(crate) use memory::{Memory, MemoryObjects};
#[cfg(feature = "s3")]
pub(crate) use s3::{S3, S3Objects};

/// The objects of one store, by their paths below its address.
pub(crate) trait Objects: fmt::Debug + Send + Sync {
    /// Makes a directory to write to, where there are any.
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let _ = dir;
        Ok(())
    }

    /// Makes the names of all objects in a directory durable, where closing them does not.
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let _ = dir;
        Ok(())
    }

    /// Starts to write an object. It may appear before it is closed. The writer holds no more than `bytes_max`, or
    /// the least that it can do with where that is more.
    fn writer(&self, path: &str, bytes_max: usize) -> io::Result<Box<dyn ObjectWriter>>;

    /// Writes a small object, replacing what stood there.
    fn write(&self, path: &str, bytes: Bytes) -> io::Result<()>;

    /// An object's length.
    fn len(&self, path: &str) -> io::Result<u64>;

    /// Reads from one object; on a file system from the one that stands there at the first read.
    fn reader(&self, path: &str) -> io::Result<Box<dyn ObjectReader>>;

    /// What is directly in a directory, sorted by name; nothing where there is none.
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>>;

    /// Removes an object. One that is not there is no error.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Removes a directory and all in it. One that is not there is no error.
    fn remove_all(&self, dir: &str) -> io::Result<()>;

    /// Objects that somebody has begun to write, and that the backend keeps though nobody sees them.
    fn unfinished(&self) -> io::Result<Vec<Unfinished>> {
        Ok(Vec::new())
    }

    /// Gives one of them up. One that is not there any more is no error.
    fn give_up(&self, unfinished: &Unfinished) -> io::Result<()> {
        let _ = unfinished;
        Ok(())
    }

    /// [`remove`](Self::remove) after something else failed: the caller has waited for the server long enough.
    fn discard(&self, path: &str) -> io::Result<()> {
        self.remove(path)
    }

    /// [`remove_all`](Self::remove_all) where nobody asked for it.
    fn discard_all(&self, dir: &str) -> io::Result<()> {
        self.remove_all(dir)
    }

    /// What one writer holds at most of what it was given, if nothing else was asked of it.
    fn writer_bytes_max(&self) -> usize;

    /// How much is read at once, for a backend whose every request takes a while.
    fn batch_bytes(&self) -> u64;

    /// Whether a batch is read ahead of the one that is looked at.
    fn reads_ahead(&self) -> bool {
        false
    }
}

/// An object while it is written. Dropping it does not undo what was written: [`abort`](Self::abort) does.
pub(crate) trait ObjectWriter: Send {
    /// Hands over bytes, without copying them. They are written when the next ones come, or on close.
    fn write(&mut self, bytes: Bytes) -> io::Result<()>;

    /// Writes what is left and makes the bytes durable. Where it then takes a while until they are all seen, that goes
    /// on by itself.
    fn close(&mut self) -> io::Result<Option<Box<dyn Closing>>>;

    /// Lets go of what the backend holds for an unfinished object. A file may stay, which the caller removes.
    fn abort(&mut self) -> io::Result<()>;

    /// What it holds at most of what it was given.
    fn bytes_max(&self) -> usize;
}

/// An object whose bytes are durable, and that is being closed.
pub(crate) trait Closing: fmt::Debug + Send + Sync {
    /// Waits until it is closed. May be called again, and by several at once: all are told the same.
    fn wait(&self) -> io::Result<()>;
}

/// Reads from one object.
pub(crate) trait ObjectReader: Send + Sync {
    /// The bytes of a range; [`io::ErrorKind::UnexpectedEof`] when the object ends before it.
    fn read(&self, range: Range<u64>) -> io::Result<Bytes>;

    /// Starts to read a range that will be asked for next, where waiting for it takes longer than reading it.
    fn read_ahead(&self, range: Range<u64>) -> Option<Box<dyn ReadAhead>> {
        let _ = range;
        None
    }
}

/// A read that is under way; dropping it ends it.
pub(crate) trait ReadAhead: Send + Sync {
    /// As [`ObjectReader::read`].
    fn wait(self: Box<Self>) -> io::Result<Bytes>;
}

#[cfg(any(feature = "s3", feature = "hdfs"))]
impl ReadAhead for crate::runtime::Background<Bytes> {
    fn wait(self: Box<Self>) -> io::Result<Bytes> {
        Self::wait(*self)
    }
}

#[cfg(feature = "hdfs")]
impl Closing for crate::runtime::Ending {
    fn wait(&self) -> io::Result<()> {
        Self::wait(self)
    }
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

/// A write of an object that was begun and not ended.
#[derive(Debug)]
pub(crate) struct Unfinished {
    /// The object's path.
    pub(crate) path: String,
    /// What the backend calls it.
    #[cfg_attr(not(feature = "s3"), expect(dead_code, reason = "nothing else keeps any"))]
    pub(crate) id: String,
}

/// What OpenDAL lists of a directory, without the directory itself, sorted by name.
fn entries_of(listed: Vec<opendal::Entry>, dir: &str) -> Vec<Entry> {
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
    entries
}

/// A path below a directory of the backend.
#[cfg(feature = "hdfs")]
fn below(root: &str, path: &str) -> String {
    let root = root.trim_end_matches('/');
    if path.is_empty() {
        format!("{root}/").trim_end_matches('/').to_owned()
    } else {
        format!("{root}/{path}")
    }
}
