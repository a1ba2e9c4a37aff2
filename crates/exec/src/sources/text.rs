//! Datasets of the lines of a text file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lz4_flex::frame::FrameDecoder;

use crate::batch::{BATCH_RECORDS, Batch};
use crate::context::Context;
use crate::dataset::Dataset;
use crate::error::{Cause, Error, TaskError};
use crate::node::{Compute, Node};
use crate::pipeline::{AnySource, Source};
use crate::transform::at_least_one_partition;

/// Bytes read at a time.
const BUFFER_BYTES: usize = 128 << 10;

impl Context {
    /// The lines of a text file, without their line ends, in this many byte ranges of about equal size. A line
    /// belongs to the range its first byte is in. Lines end with LF or CRLF; the last one may end with the file.
    ///
    /// A file whose name ends in `.lz4` is decompressed (LZ4 frames); it can only be read from its beginning, so it
    /// becomes one partition.
    ///
    /// The file is read again whenever a partition is computed, so it must stay as it is. A pipe, a device, or a file
    /// that hides its length as those in `/proc` do, is refused.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be opened or is refused, [`Error::Argument`] for zero partitions. A job fails where the
    /// file is not UTF-8, or its compressed form is damaged.
    pub fn text_file(&self, path: impl AsRef<Path>, partitions: u32) -> Result<Dataset<String>, Error> {
        at_least_one_partition("text_file", partitions)?;
        let path: Arc<Path> = path.as_ref().into();
        let unreadable = |source| Error::Io { action: "open the file", path: path.to_path_buf(), source };
        let bytes = length(&path).map_err(unreadable)?;
        let compressed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("lz4"));
        let partitions = if compressed { 1 } else { partitions };
        let open = move |_: &_, partition: u32| {
            let bound =
                |partition: u32| (u128::from(partition) * u128::from(bytes) / u128::from(partitions)) as u64;
            let lines = match compressed {
                true => Lines::decompressed(&path)?,
                false => Lines::of_range(&path, bound(partition), bound(partition + 1))?,
            };
            Ok(AnySource::flat(lines))
        };
        self.add(
            Node::new::<String>("text_file", partitions, None, Compute::Leaf(Arc::new(open)), None),
            Vec::new(),
        )
    }

    /// The lines of a text file of tab-separated values, each as its fields. As [`text_file`](Self::text_file)
    /// otherwise; tabs cannot be escaped.
    ///
    /// # Errors
    /// As [`text_file`](Self::text_file).
    pub fn tsv_file(&self, path: impl AsRef<Path>, partitions: u32) -> Result<Dataset<Vec<String>>, Error> {
        let lines = self.text_file(path, partitions)?;
        Ok(lines.map(|line| line.split('\t').map(str::to_owned).collect()))
    }
}

/// The length of a regular file.
fn length(path: &Path) -> io::Result<u64> {
    let facts = std::fs::metadata(path)?;
    if facts.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    let refused = |what: &str| {
        let problem = format!("it {what}, so it cannot be read in ranges and again; copy it to a file first");
        io::Error::new(io::ErrorKind::InvalidInput, problem)
    };
    if !facts.is_file() {
        return Err(refused("is a pipe, a device or a socket"));
    }
    if facts.len() == 0 && File::open(path)?.read(&mut [0])? > 0 {
        return Err(refused("has content and says that it is empty"));
    }
    Ok(facts.len())
}

/// The lines that begin in a range of bytes.
struct Lines {
    path: PathBuf,
    input: Box<dyn BufRead>,
    /// Where the next line begins.
    offset: u64,
    /// The range's end; lines from here on are another partition's.
    end: u64,
}

impl Lines {
    fn of_range(path: &Path, start: u64, end: u64) -> Result<Self, TaskError> {
        let unreadable = |e| TaskError::io("read the file", path, e);
        let mut file = File::open(path).map_err(unreadable)?;
        // From the byte before: if that ends a line, the first line of the range begins with the range.
        let before = start.saturating_sub(1);
        file.seek(SeekFrom::Start(before)).map_err(unreadable)?;
        let mut input = BufReader::with_capacity(BUFFER_BYTES, file);
        let skipped = if start > 0 { input.skip_until(b'\n').map_err(unreadable)? as u64 } else { 0 };
        Ok(Self { path: path.to_owned(), input: Box::new(input), offset: before + skipped, end })
    }

    fn decompressed(path: &Path) -> Result<Self, TaskError> {
        let file = File::open(path).map_err(|e| TaskError::io("read the file", path, e))?;
        let input = BufReader::with_capacity(BUFFER_BYTES, Frames::new(BufReader::new(file)));
        Ok(Self { path: path.to_owned(), input: Box::new(input), offset: 0, end: u64::MAX })
    }

    fn next_line(&mut self) -> Result<Option<String>, TaskError> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let mut line = Vec::new();
        let read = self.input.read_until(b'\n', &mut line);
        let read = read.map_err(|e| TaskError::io("read the file", &self.path, e))?;
        if read == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        let offset = self.offset;
        self.offset += read as u64;
        let path = || self.path.clone();
        Ok(Some(String::from_utf8(line).map_err(|_| Cause::NotUtf8 { path: path(), offset })?))
    }
}

impl Source<String> for Lines {
    fn next(&mut self, records_max: usize) -> Result<Option<Batch<String>>, TaskError> {
        let mut lines = Vec::new();
        while lines.len() < records_max.min(BATCH_RECORDS)
            && let Some(line) = self.next_line()?
        {
            lines.push(line);
        }
        Ok(if lines.is_empty() { None } else { Some(Batch::Owned(lines)) })
    }
}

/// Decompresses one LZ4 frame after the other, to the end of the file. A file that ends within a frame is an error.
struct Frames<R: BufRead> {
    /// Of its own for each frame: one that is used again takes its buffers for those of the next frame. None at the
    /// end of the file.
    frame: Option<FrameDecoder<Watched<R>>>,
}

/// Notes when its reader was asked for more than there is. The decoder takes a file that ends between two blocks of
/// a frame for complete, but it must have looked for the next block then.
struct Watched<R> {
    input: R,
    overrun: bool,
}

impl<R: BufRead> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.overrun |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

impl<R: BufRead> Frames<R> {
    fn new(input: R) -> Self {
        Self { frame: Some(FrameDecoder::new(Watched { input, overrun: false })) }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(frame) = &mut self.frame else { return Ok(0) };
            let read = frame.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let watched = frame.get_mut();
            if watched.overrun {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file ends within an LZ4 frame",
                ));
            }
            let at_end = watched.input.fill_buf()?.is_empty();
            let next = self.frame.take().filter(|_| !at_end);
            self.frame = next.map(|frame| FrameDecoder::new(frame.into_inner()));
        }
    }
}
