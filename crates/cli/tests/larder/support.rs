//! Stores with something in them, and the program that looks at them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use larder_blockstore::codec::{Bincode, Codec, CodecId, Pod};
use larder_blockstore::format::Compression;
use larder_checkpoint::{Checkpoint, CheckpointStore, Partitioner, Spec};
use serde_json::Value;
use tempfile::TempDir;

/// Steers a terminal.
pub(crate) const NASTY: &str = "red \u{1b}[31m and \u{9b}2J\nnext";

pub(crate) struct Store {
    pub(crate) dir: TempDir,
}

/// What a run printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With three generations of words, one of numbers and one of bytes of unknown records.
    pub(crate) fn filled() -> Self {
        let store = Self::new();
        for generation in 1..=3 {
            store.words(generation);
        }
        store.numbers(1000);
        store.pairs();
        store
    }

    pub(crate) fn address(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    pub(crate) fn open(&self) -> CheckpointStore {
        CheckpointStore::open(self.address()).unwrap()
    }

    /// Three partitions, the second empty; the last record steers terminals.
    pub(crate) fn words(&self, first: u32) -> Checkpoint {
        let words = |n: u32| (0..n).map(|i| format!("word {}", first + i)).collect::<Vec<_>>();
        let partitions = [words(4), Vec::new(), [words(2), vec![NASTY.to_owned()]].concat()];
        let spec = Spec::new(3, CodecId::BINCODE)
            .record_type("alloc::string::String")
            .compression(Compression::Lz4)
            .partitioner(Partitioner { kind: "hash".to_owned(), partitions: 3 });
        self.write("words", spec, Arc::new(Bincode), &partitions)
    }

    /// Two partitions, the second of so many numbers.
    pub(crate) fn numbers(&self, len: u32) -> Checkpoint {
        let spec = Spec::new(2, CodecId::POD).record_type("u32 \u{1b}[31m");
        self.write("numbers", spec, Arc::new(Pod), &[vec![0x0403_0201_u32, 7], (0..len).collect()])
    }

    fn pairs(&self) -> Checkpoint {
        let spec = Spec::new(1, CodecId::BINCODE).record_type("(u64, bool)");
        self.write("pairs", spec, Arc::new(Bincode), &[vec![(1_u64, true), (2, false), (3, true)]])
    }

    fn write<T: 'static>(
        &self,
        name: &str,
        spec: Spec,
        codec: Arc<dyn Codec<T>>,
        parts: &[Vec<T>],
    ) -> Checkpoint {
        let attempt = self.open().begin(name, spec).unwrap();
        for (partition, records) in (0..).zip(parts) {
            let mut part = attempt.part(partition).unwrap().records(Arc::clone(&codec)).unwrap();
            records.iter().for_each(|record| part.push(record).unwrap());
            part.finish().unwrap();
        }
        attempt.commit().unwrap()
    }
}

/// Where a part lies.
pub(crate) fn part_path(checkpoint: &Checkpoint, partition: usize) -> PathBuf {
    let manifest = PathBuf::from(checkpoint.address());
    manifest.ancestors().nth(2).unwrap().join(&checkpoint.manifest().parts[partition].path)
}

pub(crate) fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.arg("checkpoint").args(args).stdin(Stdio::null());
    command
}

pub(crate) fn larder(args: &[&str]) -> Ran {
    Ran::from(command(args).output().unwrap())
}

pub(crate) fn larder_told(args: &[&str], answer: &str) -> Ran {
    let pipes = || Stdio::piped();
    let mut child = command(args).stdin(pipes()).stdout(pipes()).stderr(pipes()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    Ran::from(child.wait_with_output().unwrap())
}

impl Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            let steers = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(steers), "a terminal would be steered by {text:?}");
            text
        };
        Self { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What a run that did all that was asked printed.
    pub(crate) fn done(self) -> String {
        assert_eq!((self.code, &*self.err), (0, ""), "{}", self.out);
        self.out
    }

    /// What a run that failed so said of it.
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.starts_with("larder: "), "{self:?}");
        self.err
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}
