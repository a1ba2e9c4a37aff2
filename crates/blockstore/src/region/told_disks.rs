//! Disks that do as tests tell them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::segment::FILE_BLOCK_BYTES;
use super::segment_file::{OpenSegmentFile, SegmentFile, open_segment_file};

/// A step at which a disk can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Open,
    Preallocate,
    Write,
    Read,
    Punch,
}

/// Disks that do as they are told: which step of which directory fails, and how large each one is.
#[derive(Default)]
pub(crate) struct Disks {
    pub(crate) steps: u64,
    pub(crate) fail_at: Option<(u64, Errno)>,
    pub(crate) broken: HashMap<PathBuf, (Step, Errno)>,
    pub(crate) capacity_bytes: HashMap<PathBuf, u64>,
    pub(crate) used_bytes: HashMap<PathBuf, u64>,
    pub(crate) counts: HashMap<Step, u64>,
    pub(crate) files: Vec<File>,
}

pub(crate) type SharedDisks = Arc<Mutex<Disks>>;

impl Disks {
    fn step(&mut self, directory: &Path, step: Step) -> io::Result<()> {
        self.steps += 1;
        *self.counts.entry(step).or_default() += 1;
        // A full disk stays full; anything else happens once.
        let happens =
            |(at, errno): &(u64, Errno)| *at == self.steps || *errno == Errno::NOSPC && *at < self.steps;
        let now = self.fail_at.filter(happens).map(|(_, errno)| errno);
        let always = self.broken.get(directory).filter(|(at, _)| *at == step).map(|(_, errno)| *errno);
        now.or(always).map_or(Ok(()), |errno| Err(errno.into()))
    }
}

#[derive(Debug)]
struct ToldFile {
    inner: Box<dyn SegmentFile>,
    directory: PathBuf,
    disks: SharedDisks,
    /// Blocks with disk space.
    blocks: Mutex<HashSet<u64>>,
}

impl std::fmt::Debug for Disks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disks")
    }
}

impl ToldFile {
    fn step(&self, step: Step) -> io::Result<()> {
        self.disks.lock().unwrap().step(&self.directory, step)
    }

    /// Takes space block by block, as file systems do; those it got before the disk was full stay taken.
    fn take(&self, range: Range<u64>) -> io::Result<()> {
        let mut disks = self.disks.lock().unwrap();
        let capacity = disks.capacity_bytes.get(&self.directory).copied().unwrap_or(u64::MAX);
        let used = disks.used_bytes.entry(self.directory.clone()).or_default();
        let mut blocks = self.blocks.lock().unwrap();
        for block in range.start / FILE_BLOCK_BYTES..range.end.div_ceil(FILE_BLOCK_BYTES) {
            if !blocks.contains(&block) {
                if *used + FILE_BLOCK_BYTES > capacity {
                    return Err(Errno::NOSPC.into());
                }
                *used += FILE_BLOCK_BYTES;
                blocks.insert(block);
            }
        }
        Ok(())
    }
}

impl Drop for ToldFile {
    fn drop(&mut self) {
        let mut disks = self.disks.lock().unwrap();
        let used = disks.used_bytes.entry(self.directory.clone()).or_default();
        *used -= self.blocks.lock().unwrap().len() as u64 * FILE_BLOCK_BYTES;
    }
}

impl SegmentFile for ToldFile {
    fn file(&self) -> &File {
        self.inner.file()
    }

    fn preallocate(&self, range: Range<u64>) -> io::Result<()> {
        self.step(Step::Preallocate)?;
        self.take(range.clone())?;
        self.inner.preallocate(range)
    }

    /// A write that fails is torn: half of it is in the file.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let told = self.step(Step::Write).and_then(|()| self.take(offset..offset + bytes.len() as u64));
        let written = if told.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        self.inner.write_all_at(written, offset).and(told)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.step(Step::Read)?;
        self.inner.read_exact_at(bytes, offset)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.step(Step::Punch)?;
        self.inner.punch(range.clone())?;
        let mut blocks = self.blocks.lock().unwrap();
        let before = blocks.len();
        blocks.retain(|block| !range.contains(&(block * FILE_BLOCK_BYTES)));
        let returned = (before - blocks.len()) as u64 * FILE_BLOCK_BYTES;
        *self.disks.lock().unwrap().used_bytes.entry(self.directory.clone()).or_default() -= returned;
        Ok(())
    }
}

/// Makes segment files that do as `disks` say.
pub(crate) fn told_files(disks: &SharedDisks) -> Arc<OpenSegmentFile> {
    let told = Arc::clone(disks);
    Arc::new(move |directory: &Path, len: u64| -> io::Result<Box<dyn SegmentFile>> {
        told.lock().unwrap().step(directory, Step::Open)?;
        let inner = open_segment_file(directory, len)?;
        told.lock().unwrap().files.push(inner.file().try_clone()?);
        let (directory, disks, blocks) = (directory.to_owned(), Arc::clone(&told), Mutex::default());
        Ok(Box::new(ToldFile { inner, directory, disks, blocks }))
    })
}
