//! Files of HDFS, streamed.
//!
//! Not through OpenDAL: its service takes neither a user nor a name service, writes over what stands at a path, and
//! hides which error a name node gave.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use hdfs_native::client::FileStatus;
use hdfs_native::file::{FileReader, FileWriter};
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions};
use larder_blockstore::format::CHUNK_BYTES_MAX;
use parking_lot::Mutex;

use super::{Closing, Entry, ObjectReader, ObjectWriter, Objects, ReadAhead, below};
use crate::address::with_port;
use crate::retry::{Failure, Patience};
use crate::runtime::{Background, Ending, block_on};
use crate::settings::Settings;

/// Every read asks a data node for a stream of its own, so it should be worth it.
const BATCH_BYTES: u64 = 8 << 20;

/// The packets that no data node has acknowledged yet: 64 KiB each, up to a window of them.
const WRITER_BYTES_MAX: usize = CHUNK_BYTES_MAX;

/// What several name nodes of one address are called together.
const NAME_SERVICE: &str = "larder";

const DIR_PERMISSION: u32 = 0o755;

/// One directory of HDFS. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hdfs {
    client: Client,
    root: Arc<str>,
    pub(crate) patience: Patience,
}

impl Hdfs {
    /// Reads Hadoop's configuration; makes no request.
    pub(crate) fn new(authority: &str, root: &Arc<str>, settings: &Settings) -> io::Result<Self> {
        let client = block_on(async {
            match client(authority, settings) {
                // A host without a port is a name service if the configuration knows one of that name.
                Err(HdfsError::InvalidArgument(_))
                    if !authority.is_empty() && !authority.contains([',', ':']) =>
                {
                    client(&with_port(authority), settings)
                }
                client => client,
            }
            .map_err(|e| failure(&e).into())
        })?;
        Ok(Self { client, root: Arc::clone(root), patience: settings.patience })
    }

    pub(crate) fn brief(&self) -> Self {
        Self { patience: self.patience.brief(), ..self.clone() }
    }

    pub(crate) fn path(&self, object: &str) -> String {
        below(&self.root, object)
    }

    pub(crate) fn make_dir(&self, dir: &str) -> io::Result<()> {
        let path = self.path(dir);
        self.patience.retry(|| async {
            self.client.mkdirs(&path, DIR_PERMISSION, true).await.map_err(|e| failure(&e))
        })
    }

    /// Creates a file that nobody else has a reason to create, and leaves it open.
    pub(crate) fn create(&self, object: &str, overwrite: bool) -> io::Result<FileWriter> {
        let (path, overwrite) = (self.path(object), Cell::new(overwrite));
        self.patience.retry(|| {
            // Whatever a second try finds there, the first has left.
            let options = WriteOptions::default().overwrite(overwrite.replace(true));
            let path = &path;
            async move { self.client.create(path, options).await.map_err(|e| failure(&e)) }
        })
    }

    /// A small file, whole.
    pub(crate) fn get(&self, object: &str) -> io::Result<Bytes> {
        let path = self.path(object);
        self.patience.retry(|| async {
            let file = self.client.read(&path).await.map_err(|e| failure(&e))?;
            file.read_range(0, file.file_length()).await.map_err(|e| failure(&e))
        })
    }

    /// Gives a file another name, unless something has it. Repeats nothing.
    pub(crate) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        self.patience.once(async { self.client.rename(&from, &to, false).await.map_err(|e| failure(&e)) })
    }

    pub(crate) fn status(&self, object: &str) -> io::Result<FileStatus> {
        let path = self.path(object);
        self.patience.retry(|| async { self.client.get_file_info(&path).await.map_err(|e| failure(&e)) })
    }

    /// Whether there was anything to delete, as far as the last try could tell.
    pub(crate) fn delete(&self, object: &str, recursive: bool) -> io::Result<bool> {
        let path = self.path(object);
        self.patience.retry(|| async {
            match self.client.delete(&path, recursive).await {
                Err(HdfsError::FileNotFound(_)) => Ok(false),
                deleted => deleted.map_err(|e| failure(&e)),
            }
        })
    }

    pub(crate) fn list_dir(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let path = self.path(dir);
        let path = if path.is_empty() { "/" } else { &path };
        let listed = self.patience.of_many_requests().retry(|| async {
            let (pages, mut listed) = (self.client.list_status_iter(path, false), Vec::new());
            loop {
                match self.patience.request(async { pages.next().await.transpose() }).await {
                    Ok(Some(status)) => listed.push(status),
                    Ok(None) => return Ok(listed),
                    Err(e) if e.kind == io::ErrorKind::NotFound => return Ok(Vec::new()),
                    Err(e) => return Err(e),
                }
            }
        })?;
        let entry = |status: FileStatus| {
            let name = status.path.rsplit('/').next().unwrap_or_default().to_owned();
            Entry { name, is_dir: status.isdir, bytes: if status.isdir { 0 } else { status.length as u64 } }
        };
        let mut entries: Vec<_> = listed.into_iter().map(entry).collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

impl fmt::Debug for Hdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hdfs").field("root", &self.root).finish_non_exhaustive()
    }
}

fn client(authority: &str, settings: &Settings) -> hdfs_native::Result<Client> {
    let nodes: Vec<&str> = authority.split(',').collect();
    let mut config = HashMap::new();
    let mut set = |key: String, value: String| config.insert(key, value);
    // Retries are ours, with pauses and an end that are the user's; one round tries every name node.
    set("dfs.client.failover.max.attempts".to_owned(), nodes.len().max(2).to_string());
    set("dfs.client.failover.sleep.base.millis".to_owned(), settings.patience.pause.as_millis().to_string());
    set("dfs.client.socket-timeout".to_owned(), settings.patience.operation.as_millis().max(1).to_string());
    let url = match &nodes[..] {
        [one] => format!("hdfs://{one}/"),
        several => {
            let names: Vec<_> = (0..several.len()).map(|node| format!("nn{node}")).collect();
            set(format!("dfs.ha.namenodes.{NAME_SERVICE}"), names.join(","));
            for (name, node) in names.iter().zip(several) {
                set(format!("dfs.namenode.rpc-address.{NAME_SERVICE}.{name}"), (*node).to_owned());
            }
            format!("hdfs://{NAME_SERVICE}/")
        }
    };
    let mut builder = ClientBuilder::new().with_url(url).with_config(config);
    if let Some(user) = &settings.hdfs_user {
        builder = builder.with_user(user);
    }
    if let Some(dir) = &settings.hadoop_conf_dir {
        builder = builder.with_config_dir(dir);
    }
    builder.build()
}

/// What went wrong. Only what cannot have to do with the request itself may pass.
pub(crate) fn failure(error: &HdfsError) -> Failure {
    use io::ErrorKind::{
        AlreadyExists, Interrupted, InvalidInput, IsADirectory, NotADirectory, NotFound, Other,
        PermissionDenied, QuotaExceeded, ResourceBusy, StorageFull, Unsupported,
    };
    let (class, words) = match error {
        HdfsError::RPCError(class, words) | HdfsError::FatalRPCError(class, words) => {
            (class.rsplit('.').next().unwrap_or_default(), words.lines().next().unwrap_or_default())
        }
        _ => ("", ""),
    };
    let (kind, retryable) = match (error, class) {
        (_, "AccessControlException" | "AuthorizationException") => (PermissionDenied, false),
        (_, "FileNotFoundException") => (NotFound, false),
        (_, "ParentNotDirectoryException" | "PathIsNotDirectoryException") => (NotADirectory, false),
        (_, "NSQuotaExceededException" | "DSQuotaExceededException" | "QuotaExceededException") => {
            (QuotaExceeded, false)
        }
        (_, "DiskOutOfSpaceException") => (StorageFull, false),
        (
            _,
            "SafeModeException" | "RetriableException" | "RetryStartFileException" | "ServerTooBusyException",
        ) => (ResourceBusy, true),
        (_, "StandbyException") => (ResourceBusy, true),
        (HdfsError::FileNotFound(_) | HdfsError::BlocksNotFound(_), _) => (NotFound, false),
        (HdfsError::AlreadyExists(_), _) => (AlreadyExists, false),
        (HdfsError::IsADirectoryError(_), _) => (IsADirectory, false),
        (HdfsError::InvalidPath(_) | HdfsError::InvalidArgument(_) | HdfsError::UrlParseError(_), _) => {
            (InvalidInput, false)
        }
        (HdfsError::SASLError(_) | HdfsError::NoSASLMechanism | HdfsError::GSSAPIError(..), _) => {
            (PermissionDenied, false)
        }
        (HdfsError::UnsupportedFeature(_), _) => (Unsupported, false),
        (HdfsError::IOError(e), _) => (if e.kind() == NotFound { Other } else { e.kind() }, true),
        (HdfsError::DataTransferError(_), _) => (Interrupted, true),
        _ => (Other, false),
    };
    let message = if class.is_empty() { error.to_string() } else { format!("{class}: {words}") };
    Failure { kind, message, retryable }
}

impl From<HdfsError> for Failure {
    fn from(error: HdfsError) -> Self {
        failure(&error)
    }
}

/// Makes the last block of a file durable on every data node of its pipeline; false for a striped file, which knows no
/// sync: closing it is all there is.
async fn sync(file: &mut FileWriter) -> Result<bool, Failure> {
    match file.hsync().await {
        Err(HdfsError::UnsupportedFeature(_)) => Ok(false),
        synced => synced.map(|()| true).map_err(|e| failure(&e)),
    }
}

/// Makes the last block of a file durable, and closes the file.
pub(crate) async fn sync_and_close(file: &mut FileWriter) -> Result<(), Failure> {
    sync(file).await?;
    file.close().await.map_err(|e| failure(&e))
}

#[derive(Debug)]
pub(crate) struct HdfsObjects(pub(crate) Hdfs);

impl Objects for HdfsObjects {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.0.make_dir(dir)
    }

    fn writer(&self, path: &str, _: usize) -> io::Result<Box<dyn ObjectWriter>> {
        let file = self.0.create(path, false)?;
        Ok(Box::new(Stream { patience: self.0.patience, file: Some(file) }))
    }

    fn write(&self, path: &str, bytes: Bytes) -> io::Result<()> {
        let mut file = Stream { patience: self.0.patience, file: Some(self.0.create(path, true)?) };
        file.write(bytes)?;
        file.close()?.map_or(Ok(()), |closing| closing.wait())
    }

    fn len(&self, path: &str) -> io::Result<u64> {
        Ok(self.0.status(path)?.length as u64)
    }

    fn reader(&self, path: &str) -> io::Result<Box<dyn ObjectReader>> {
        Ok(Box::new(Read { hdfs: self.0.clone(), path: self.0.path(path), file: Arc::default() }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.0.list_dir(dir)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.0.delete(path, false).map(drop)
    }

    fn remove_all(&self, dir: &str) -> io::Result<()> {
        self.0.delete(dir, true).map(drop)
    }

    fn discard(&self, path: &str) -> io::Result<()> {
        self.0.brief().delete(path, false).map(drop)
    }

    fn discard_all(&self, dir: &str) -> io::Result<()> {
        self.0.brief().delete(dir, true).map(drop)
    }

    fn writer_bytes_max(&self) -> usize {
        WRITER_BYTES_MAX
    }

    fn batch_bytes(&self) -> u64 {
        BATCH_BYTES
    }

    fn reads_ahead(&self) -> bool {
        true
    }
}

/// A file while it is written. A write that fails is not repeated: how much of it was written is not known, so the
/// part has to be written anew.
struct Stream {
    patience: Patience,
    file: Option<FileWriter>,
}

impl Stream {
    fn file(&mut self) -> io::Result<&mut FileWriter> {
        self.file.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl ObjectWriter for Stream {
    fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        let patience = self.patience;
        let file = self.file()?;
        patience.once(async { file.write_bytes(bytes).await.map(drop).map_err(|e| failure(&e)) })
    }

    /// Closing the file takes half a second where the name node has not heard of its last block yet: the client asks
    /// at once, and then pauses for so long. A thread that writes parts does not.
    fn close(&mut self) -> io::Result<Option<Box<dyn Closing>>> {
        let patience = self.patience;
        if !patience.once(sync(self.file()?))? {
            let file = self.file()?;
            patience.once(async { file.close().await.map_err(|e| failure(&e)) })?;
            return Ok(None);
        }
        let mut file = self.file.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let close = async move { patience.request(file.close()).await };
        Ok(Some(Box::new(Ending::start(close)?)))
    }

    fn abort(&mut self) -> io::Result<()> {
        block_on(async {
            self.file = None;
            Ok(())
        })
    }

    fn bytes_max(&self) -> usize {
        WRITER_BYTES_MAX
    }
}

impl Drop for Stream {
    /// The client ends its tasks where it can spawn some.
    fn drop(&mut self) {
        let _ = self.abort();
    }
}

#[derive(Clone)]
struct Read {
    hdfs: Hdfs,
    path: String,
    /// Opened by the first read: where its blocks are.
    file: Arc<Mutex<Option<Arc<FileReader>>>>,
}

impl Read {
    async fn open(&self) -> Result<Arc<FileReader>, Failure> {
        let known = self.file.lock().clone();
        if let Some(file) = known {
            return Ok(file);
        }
        let file = Arc::new(self.hdfs.client.read(&self.path).await?);
        *self.file.lock() = Some(Arc::clone(&file));
        Ok(file)
    }

    async fn get(self, range: Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let too_far = || Failure::new(io::ErrorKind::UnexpectedEof, "the file ends before");
        let ends = [range.start, range.end].map(usize::try_from);
        let [Ok(start), Ok(end)] = ends else { return Err(too_far().into()) };
        let request = || async {
            let file = self.open().await?;
            if end > file.file_length() {
                return Err(too_far());
            }
            let read = file.read_range(start, end - start).await;
            read.map_err(|e| {
                // Blocks move: look again where they are.
                *self.file.lock() = None;
                failure(&e)
            })
        };
        self.hdfs.patience.retrying(request).await
    }
}

impl ObjectReader for Read {
    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        block_on(self.clone().get(range))
    }

    fn read_ahead(&self, range: Range<u64>) -> Option<Box<dyn ReadAhead>> {
        let started = Background::start(self.clone().get(range));
        started.ok().map(|read| Box::new(read) as Box<dyn ReadAhead>)
    }
}
