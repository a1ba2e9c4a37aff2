//! Objects in this process' memory, for tests: whole or not there, like those of an object store.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::{Closing, Entry, ObjectReader, ObjectWriter, Objects};

const BATCH_BYTES: u64 = 2 << 20;

/// All stores of this process, by name. They live as long as it does, so that whoever opens a name again finds
/// what was written, as with any other address.
static STORES: LazyLock<Mutex<HashMap<String, Memory>>> = LazyLock::new(Mutex::default);

/// The objects of one name, by path.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<String, Bytes>>>);

impl Memory {
    pub(crate) fn named(name: &str) -> Self {
        STORES.lock().entry(name.to_owned()).or_default().clone()
    }

    pub(crate) fn get(&self, path: &str) -> Option<Bytes> {
        self.0.lock().get(path).cloned()
    }

    pub(crate) fn put(&self, path: &str, bytes: Bytes) {
        let replaced = self.0.lock().insert(path.to_owned(), bytes);
        drop(replaced);
    }

    /// Puts it where nothing stands; gives what stands there.
    pub(crate) fn put_new(&self, path: &str, bytes: Bytes) -> Option<Bytes> {
        let mut objects = self.0.lock();
        let standing = objects.get(path).cloned();
        if standing.is_none() {
            objects.insert(path.to_owned(), bytes);
        }
        standing
    }

    pub(crate) fn remove(&self, path: &str) -> Option<Bytes> {
        self.0.lock().remove(path)
    }

    fn remove_all(&self, dir: &str) {
        let below = format!("{dir}/");
        let mut removed = Vec::new();
        self.0.lock().retain(|path, bytes| {
            let goes = path.starts_with(&below);
            if goes {
                removed.push(std::mem::take(bytes));
            }
            !goes
        });
    }

    pub(crate) fn list(&self, dir: &str) -> Vec<Entry> {
        let below = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let mut entries: Vec<Entry> = Vec::new();
        let objects = self.0.lock();
        for (path, bytes) in objects.range(below.clone()..) {
            let Some(rest) = path.strip_prefix(&below) else { break };
            let (name, is_dir) = rest.split_once('/').map_or((rest, false), |(dir, _)| (dir, true));
            if entries.last().is_none_or(|last| last.name != name) {
                let bytes = if is_dir { 0 } else { bytes.len() as u64 };
                entries.push(Entry { name: name.to_owned(), is_dir, bytes });
            }
        }
        entries
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct MemoryObjects(pub(crate) Memory);

impl Objects for MemoryObjects {
    fn writer(&self, path: &str, _: usize) -> io::Result<Box<dyn ObjectWriter>> {
        Ok(Box::new(Unwritten { memory: self.0.clone(), path: path.to_owned(), bytes: BytesMut::new() }))
    }

    fn write(&self, path: &str, bytes: Bytes) -> io::Result<()> {
        self.0.put(path, bytes);
        Ok(())
    }

    fn len(&self, path: &str) -> io::Result<u64> {
        Ok(self.0.get(path).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }

    fn reader(&self, path: &str) -> io::Result<Box<dyn ObjectReader>> {
        Ok(Box::new(Whole { memory: self.0.clone(), path: path.to_owned() }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        Ok(self.0.list(dir))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.remove(path);
        Ok(())
    }

    fn remove_all(&self, dir: &str) -> io::Result<()> {
        self.0.remove_all(dir);
        Ok(())
    }

    fn writer_bytes_max(&self) -> usize {
        0
    }

    fn batch_bytes(&self) -> u64 {
        BATCH_BYTES
    }
}

/// Becomes an object when it is closed.
struct Unwritten {
    memory: Memory,
    path: String,
    bytes: BytesMut,
}

impl ObjectWriter for Unwritten {
    fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    fn close(&mut self) -> io::Result<Option<Box<dyn Closing>>> {
        self.memory.put(&self.path, std::mem::take(&mut self.bytes).freeze());
        Ok(None)
    }

    fn abort(&mut self) -> io::Result<()> {
        self.bytes = BytesMut::new();
        Ok(())
    }

    /// What it was given is the store's.
    fn bytes_max(&self) -> usize {
        0
    }
}

/// Looks again at every read, as a server would.
struct Whole {
    memory: Memory,
    path: String,
}

impl ObjectReader for Whole {
    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let bytes = self.memory.get(&self.path).ok_or(io::ErrorKind::NotFound)?;
        let ends = [range.start, range.end].map(|end| usize::try_from(end).unwrap_or(usize::MAX));
        match ends {
            [start, end] if start <= end && end <= bytes.len() => Ok(bytes.slice(start..end)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
