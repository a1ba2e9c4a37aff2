//! Describing a context.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::IsTerminal;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use larder_blockstore::{BlockStore, BlockStoreBuilder};
use larder_checkpoint::CheckpointStore;
use larder_lineage::Graph;
use parking_lot::Mutex;

use super::byte_amount::ByteAmount;
use super::{Context, Inner};
use crate::cancel;
use crate::checkpoint::Uploads;
use crate::error::Error;
use crate::job::Slots;

/// How often a task is tried when nothing else was said.
const TASK_ATTEMPTS: u32 = 4;

/// Describes a [`Context`]. Made by [`Context::builder`].
#[derive(Debug)]
pub struct ContextBuilder {
    name: String,
    threads: Option<usize>,
    task_attempts: u32,
    progress: bool,
    cancel_on_ctrl_c: bool,
    memory: Amount,
    off_heap: Amount,
    disk: Disk,
    describe_store: DescribeStore,
    store: Option<BlockStore>,
    checkpoints: Checkpoints,
    checkpoint_bandwidth: Amount,
}

#[derive(Debug)]
enum Checkpoints {
    None,
    At(OsString),
    Store(CheckpointStore),
}

/// A number of bytes, or why a text is none; told by `build`.
type Amount = Option<Result<u64, String>>;

/// What else is said of the store.
#[derive(Default)]
struct DescribeStore(Option<Box<dyn FnOnce(BlockStoreBuilder) -> BlockStoreBuilder + Send>>);

impl fmt::Debug for DescribeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "some" } else { "none" })
    }
}

#[derive(Debug)]
enum Disk {
    Default,
    None,
    Directories(Vec<PathBuf>),
}

impl Default for ContextBuilder {
    fn default() -> Self {
        Self {
            name: "larder".to_owned(),
            threads: None,
            task_attempts: TASK_ATTEMPTS,
            progress: true,
            cancel_on_ctrl_c: false,
            memory: None,
            off_heap: None,
            disk: Disk::Default,
            describe_store: DescribeStore::default(),
            store: None,
            checkpoints: Checkpoints::None,
            checkpoint_bandwidth: None,
        }
    }
}

impl ContextBuilder {
    /// What messages call the context. `larder` when not set.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many tasks run at once, the thread that calls an action among them. One a processor when not set.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The heap budget for blocks and for what sorts, joins and tables by key work in: `"64MiB"` or a number of bytes. The store's default when not set.
    #[must_use]
    pub fn memory(mut self, bytes: impl ByteAmount) -> Self {
        self.memory = Some(bytes.byte_amount());
        self
    }

    /// The budget of the off-heap arena. None when not set.
    #[must_use]
    pub fn off_heap(mut self, bytes: impl ByteAmount) -> Self {
        self.off_heap = Some(bytes.byte_amount());
        self
    }

    /// A directory for blocks on disk; may be given several times. The system's temporary directory when not set.
    /// Nothing in it outlives the process.
    #[must_use]
    pub fn disk(mut self, directory: impl Into<PathBuf>) -> Self {
        match &mut self.disk {
            Disk::Directories(directories) => directories.push(directory.into()),
            Disk::Default | Disk::None => self.disk = Disk::Directories(vec![directory.into()]),
        }
        self
    }

    /// No disk at all: storage levels with disk are refused, and shuffles, sorts, joins and tables by key must fit in
    /// memory.
    #[must_use]
    pub fn no_disk(mut self) -> Self {
        self.disk = Disk::None;
        self
    }

    /// Says whatever else there is to say of the store that is built here, after memory, off-heap memory and disk: who
    /// is evicted first, whether blocks on disk are encrypted, how they are read. Called once, by `build`.
    ///
    /// ```
    /// use larder_blockstore::policy::Sieve;
    /// use larder_exec::Context;
    ///
    /// let context = Context::builder()
    ///     .memory("64MiB")
    ///     .describe_store(|store| store.encrypt_disk(true).policy(Sieve::new))
    ///     .build()?;
    /// # Ok::<(), larder_exec::Error>(())
    /// ```
    #[must_use]
    pub fn describe_store(
        mut self,
        describe: impl FnOnce(BlockStoreBuilder) -> BlockStoreBuilder + Send + 'static,
    ) -> Self {
        self.describe_store = DescribeStore(Some(Box::new(describe)));
        self
    }

    /// A store that was built elsewhere. It has its own memory, off-heap memory, disk and all else: `build` refuses any
    /// that are set here too.
    #[must_use]
    pub fn store(mut self, store: BlockStore) -> Self {
        self.store = Some(store);
        self
    }

    /// Where checkpoints go: a path, or any other [address](larder_checkpoint::Address) of a store. Without it,
    /// datasets cannot be checkpointed.
    ///
    /// Addresses of checkpoints are text, so a path must be UTF-8; `build` refuses another.
    #[must_use]
    pub fn checkpoints(mut self, address: impl AsRef<OsStr>) -> Self {
        self.checkpoints = Checkpoints::At(address.as_ref().to_owned());
        self
    }

    /// As [`checkpoints`](Self::checkpoints), for a store that was opened elsewhere.
    #[must_use]
    pub fn checkpoint_store(mut self, store: CheckpointStore) -> Self {
        self.checkpoints = Checkpoints::Store(store);
        self
    }

    /// How many bytes a second all checkpoints that are written
    /// [in the background](crate::Dataset::checkpoint_async) may move together, what is read back of them included.
    /// On average, to within a few chunks of 4 MiB and one part that is read back. No bound when not set.
    #[must_use]
    pub fn checkpoint_bandwidth(mut self, bytes_per_second: impl ByteAmount) -> Self {
        self.checkpoint_bandwidth = Some(bytes_per_second.byte_amount());
        self
    }

    /// Whether stages show their progress on stderr where that is a terminal. They do when not set.
    #[must_use]
    pub fn progress(mut self, progress: bool) -> Self {
        self.progress = progress;
        self
    }

    /// How often a task is tried before its job fails. Four times when not set.
    #[must_use]
    pub fn task_attempts(mut self, attempts: u32) -> Self {
        self.task_attempts = attempts;
        self
    }

    /// Whether Ctrl-C cancels the running jobs. When no job runs, it still ends the process.
    #[must_use]
    pub fn cancel_on_ctrl_c(mut self, cancel: bool) -> Self {
        self.cancel_on_ctrl_c = cancel;
        self
    }

    /// The context.
    ///
    /// # Errors
    /// [`Error::Setting`] for a setting that cannot be, [`Error::Store`] when the store cannot be built,
    /// [`Error::Checkpoint`] when the address of checkpoints is none.
    pub fn build(self) -> Result<Context, Error> {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.unwrap_or_else(available);
        at_least_one("threads", threads as u64)?;
        at_least_one("task_attempts", u64::from(self.task_attempts))?;
        let bandwidth = bandwidth(self.checkpoint_bandwidth)?;
        let store = match self.store {
            Some(store) => {
                nothing_else_set(&self.memory, &self.off_heap, &self.disk, &self.describe_store)?;
                store
            }
            None => store(self.memory, self.off_heap, self.disk, self.describe_store)?,
        };
        let checkpoints = match self.checkpoints {
            Checkpoints::None => None,
            Checkpoints::At(address) => Some(CheckpointStore::open(utf8("checkpoints", &address)?)?),
            Checkpoints::Store(store) => Some(store),
        };
        let inner = Arc::new(Inner {
            name: self.name,
            threads,
            task_attempts: self.task_attempts,
            progress: self.progress && std::io::stderr().is_terminal(),
            store,
            checkpoints,
            graph: Mutex::new(Graph::new()),
            slots: Slots::new(threads),
            jobs: Mutex::default(),
            persisted: Mutex::default(),
            uploads: Uploads::new(bandwidth),
        });
        if self.cancel_on_ctrl_c {
            cancel::on_ctrl_c(Arc::downgrade(&inner))?;
        }
        Ok(Context { inner })
    }
}

fn at_least_one(setting: &'static str, value: u64) -> Result<(), Error> {
    if value > 0 { Ok(()) } else { Err(Error::Setting { setting, problem: "must be at least 1".into() }) }
}

fn bandwidth(amount: Amount) -> Result<Option<NonZeroU64>, Error> {
    let setting = "checkpoint_bandwidth";
    let Some(amount) = amount else { return Ok(None) };
    let bytes = amount.map_err(|problem| Error::Setting { setting, problem })?;
    at_least_one(setting, bytes)?;
    Ok(NonZeroU64::new(bytes))
}

fn utf8<'a>(setting: &'static str, address: &'a OsStr) -> Result<&'a str, Error> {
    address.to_str().ok_or_else(|| {
        let problem = format!("`{}` is not valid UTF-8; give the directory another name", address.display());
        Error::Setting { setting, problem }
    })
}

/// Settings of a store that is not built here.
fn nothing_else_set(
    memory: &Amount,
    off_heap: &Amount,
    disk: &Disk,
    describe_store: &DescribeStore,
) -> Result<(), Error> {
    let also_set = match disk {
        _ if memory.is_some() => ".memory",
        _ if off_heap.is_some() => ".off_heap",
        Disk::Directories(_) => ".disk",
        Disk::None => ".no_disk",
        Disk::Default if describe_store.0.is_some() => ".describe_store",
        Disk::Default => return Ok(()),
    };
    let problem =
        format!("a store that was built elsewhere has its own; leave out `{also_set}` or the store");
    Err(Error::Setting { setting: "store", problem })
}

fn store(memory: Amount, off_heap: Amount, disk: Disk, describe: DescribeStore) -> Result<BlockStore, Error> {
    let amount =
        |setting, amount: Amount| amount.transpose().map_err(|problem| Error::Setting { setting, problem });
    let mut store = BlockStore::builder();
    if let Some(bytes) = amount("memory", memory)? {
        store = store.memory(bytes);
    }
    if let Some(bytes) = amount("off_heap", off_heap)? {
        store = store.off_heap(bytes);
    }
    let directories = match disk {
        Disk::Default => vec![std::env::temp_dir()],
        Disk::None => Vec::new(),
        Disk::Directories(directories) => directories,
    };
    for directory in directories {
        store = store.disk(directory);
    }
    if let Some(describe) = describe.0 {
        store = describe(store);
    }
    Ok(store.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_settings_are_named() {
        let message = |builder: ContextBuilder| builder.build().unwrap_err().to_string();
        assert!(message(Context::builder().threads(0)).contains("threads"));
        assert!(message(Context::builder().task_attempts(0)).contains("task_attempts"));
        assert!(message(Context::builder().memory("much")).contains("memory: `much`"));
        assert!(message(Context::builder().checkpoint_bandwidth(0)).contains("checkpoint_bandwidth: must"));
        assert!(message(Context::builder().checkpoint_bandwidth("fast")).contains("`fast`"));
    }

    #[test]
    fn what_else_is_said_of_the_store_is_heeded() -> Result<(), Error> {
        let home = tempfile::tempdir().unwrap();
        let describe = |store: BlockStoreBuilder| store.disk_limit(1_000);
        let context = Context::builder().disk(home.path()).describe_store(describe).build()?;
        let numbers =
            context.range(0..100_000_i64, 1)?.persist(larder_blockstore::StorageLevel::DISK_ONLY)?;
        let mut error: Option<&dyn std::error::Error> = Some(&numbers.count().unwrap_err());
        let mut told = String::new();
        while let Some(cause) = error {
            told += &cause.to_string();
            error = cause.source();
        }
        assert!(told.contains("0 of the store's 1000 bytes are taken"), "{told}");
        Ok(())
    }

    #[test]
    fn a_store_that_was_built_elsewhere_leaves_no_setting_unheeded() -> Result<(), Error> {
        let store = BlockStore::builder().build()?;
        let with_store = || Context::builder().store(store.clone());
        for (builder, setting) in [
            (with_store().memory("64MiB"), ".memory"),
            (with_store().memory("much"), ".memory"),
            (with_store().off_heap(1), ".off_heap"),
            (with_store().disk("/tmp"), ".disk"),
            (with_store().no_disk(), ".no_disk"),
            (with_store().describe_store(|store| store), ".describe_store"),
        ] {
            let message = builder.build().unwrap_err().to_string();
            assert!(message.starts_with("store: ") && message.contains(setting), "{message}");
        }
        with_store().build().map(drop)
    }

    #[cfg(unix)]
    #[test]
    fn a_checkpoint_directory_whose_name_is_no_text_is_refused_rather_than_renamed() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(OsStr::from_bytes(b"ckpt-\xff"));
        let message = Context::builder().checkpoints(path).build().unwrap_err().to_string();
        assert!(message.starts_with("checkpoints: ") && message.contains("UTF-8"), "{message}");
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
