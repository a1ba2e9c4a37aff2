//! Opens a store: from an address, settings and the environment.

use std::sync::Arc;
use std::time::Duration;

use crate::address::Backend;
use crate::commit::MemoryCommitStore;
use crate::files::Files;
use crate::objects::{FsObjects, Memory, MemoryObjects, Objects};
use crate::settings::{Secret, Settings};
use crate::step::Steps;
use crate::store::Shared;
use crate::{
    Address, CheckpointStore, CommitStore, Error, FsCommitStore, HookAction, ORPHAN_GRACE_DEFAULT, Step,
};

/// Settings of a [`CheckpointStore`].
///
/// What is not set comes from the environment, from where other tools of the backend take it too: on S3
/// `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, profiles and
/// roles; on HDFS `HADOOP_USER_NAME` and `HADOOP_CONF_DIR` with its `core-site.xml` and `hdfs-site.xml`.
///
/// ```
/// use std::time::Duration;
/// use larder_checkpoint::CheckpointStore;
///
/// let store = CheckpointStore::builder("memory://settings")
///     .operation_timeout(Duration::from_secs(20))
///     .deadline(Duration::from_secs(60))
///     .tries(3)
///     .open()?;
/// # Ok::<(), larder_checkpoint::Error>(())
/// ```
#[derive(Debug)]
pub struct Builder {
    address: String,
    commits: Option<Arc<dyn CommitStore>>,
    steps: Steps,
    files: Files,
    orphan_grace: Duration,
    settings: Settings,
}

/// What moves the data, and what commits it.
type Opened = (Box<dyn Objects>, Arc<dyn CommitStore>);

impl Builder {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            commits: None,
            steps: Steps::default(),
            files: Files::default(),
            orphan_grace: ORPHAN_GRACE_DEFAULT,
            settings: Settings::default(),
        }
    }

    /// Commits manifests elsewhere than beside the data.
    #[must_use]
    pub fn commit_store(mut self, commits: Arc<dyn CommitStore>) -> Self {
        self.commits = Some(commits);
        self
    }

    /// The least age at which any cleanup of this address takes data for an orphan; the default is
    /// [`ORPHAN_GRACE_DEFAULT`]. An attempt older than half of it is not committed any more.
    #[must_use]
    pub fn orphan_grace(mut self, grace: Duration) -> Self {
        self.orphan_grace = grace;
        self
    }

    /// Calls `hook` before each step that changes the store or reads a part of it, with the step and the object's
    /// path below the address. The point where tests inject faults: the hook says what becomes of the step, or ends
    /// the process.
    #[must_use]
    pub fn hook(mut self, hook: impl Fn(Step, &str) -> HookAction + Send + Sync + 'static) -> Self {
        self.steps = Steps::hooked(hook);
        self
    }

    /// How long one request to a server may take: 60 seconds, unless set. Closing a large file is one request.
    /// Local disks and memory have no time-out.
    #[must_use]
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.settings.patience.operation = timeout;
        self
    }

    /// How long one step may take with all its retries and pauses: 180 seconds, unless set. A commit is some ten
    /// steps; against a server that does not answer it ends with the first. What a failed part has left is removed
    /// within one time-out.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.patience.total = deadline;
        self
    }

    /// How often a request is made at most, when it fails in a way that may pass: 5 times, unless set; at least once.
    /// The pauses between begin with [`retry_pause`](Self::retry_pause), double, and jitter by half.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.settings.patience.tries = tries.max(1);
        self
    }

    /// The pause before the second try: 100 milliseconds, unless set.
    #[must_use]
    pub fn retry_pause(mut self, pause: Duration) -> Self {
        self.settings.patience.pause = pause;
        self
    }

    /// S3: how many pieces of one part are uploaded at the same time: 4, unless set; at least 1.
    #[must_use]
    pub fn concurrency(mut self, pieces: usize) -> Self {
        self.settings.concurrency = pieces.max(1);
        self
    }

    /// S3: how large these pieces are, and how much is read at once: 8 MiB, unless set; at least 5 MiB. An object
    /// has up to 10,000 pieces, so a part up to 10,000 times as many bytes.
    #[must_use]
    pub fn chunk_bytes(mut self, bytes: usize) -> Self {
        self.settings.chunk_bytes = bytes;
        self
    }

    /// S3: the server's address, such as `http://127.0.0.1:9000`; that of AWS, unless set.
    #[must_use]
    pub fn s3_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.settings.endpoint = Some(endpoint.into());
        self
    }

    /// S3: the region; `us-east-1`, unless set.
    #[must_use]
    pub fn s3_region(mut self, region: impl Into<String>) -> Self {
        self.settings.region = Some(region.into());
        self
    }

    /// S3: these credentials and no others. They are printed nowhere.
    #[must_use]
    pub fn s3_credentials(
        mut self,
        access_key_id: impl Into<String>,
        secret_access_key: impl Into<String>,
        session_token: Option<String>,
    ) -> Self {
        let (key, secret) = (Secret(access_key_id.into()), Secret(secret_access_key.into()));
        self.settings.credentials = Some((key, secret, session_token.map(Secret)));
        self
    }

    /// S3: nobody else commits to this address, so a server that ignores conditional writes will do. Where several
    /// writers commit the same generation all the same, one silently replaces the other's.
    #[must_use]
    pub fn single_writer(mut self, single: bool) -> Self {
        self.settings.single_writer = single;
        self
    }

    /// S3: whether the first attempt tries out that the server honours conditional writes, by two small requests;
    /// it does, unless set to `false` because you know.
    #[must_use]
    pub fn probe(mut self, probe: bool) -> Self {
        self.settings.probe = probe;
        self
    }

    /// HDFS: the user, where the cluster believes what clients say.
    #[must_use]
    pub fn hdfs_user(mut self, user: impl Into<String>) -> Self {
        self.settings.hdfs_user = Some(user.into());
        self
    }

    /// HDFS: the directory of `core-site.xml` and `hdfs-site.xml`.
    #[must_use]
    pub fn hadoop_conf_dir(mut self, dir: impl Into<String>) -> Self {
        self.settings.hadoop_conf_dir = Some(dir.into());
        self
    }

    #[cfg(test)]
    pub(crate) fn files(mut self, files: Files) -> Self {
        self.files = files;
        self
    }

    /// Opens the store. Creates nothing and asks no server anything: the first call does.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Scheme`], [`Error::Feature`] and [`Error::Configuration`].
    pub fn open(self) -> Result<CheckpointStore, Error> {
        let address: Address = self.address.parse()?;
        let steps = match address.backend() {
            Backend::Fs { .. } | Backend::Memory { .. } => self.steps.clone(),
            _ => self.steps.clone().timeout(self.settings.patience.operation),
        };
        let (objects, commits) = match address.backend() {
            Backend::Fs { .. } => self.fs(&address)?,
            Backend::Memory { name } => {
                let memory = Memory::named(name);
                let commits = MemoryCommitStore::new(memory.clone(), self.steps.clone());
                (
                    Box::new(MemoryObjects(memory)) as Box<dyn Objects>,
                    Arc::new(commits) as Arc<dyn CommitStore>,
                )
            }
            Backend::S3 { bucket, prefix } => self.s3(&address, bucket, prefix, &steps)?,
            Backend::Hdfs { authority, path } => self.hdfs(&address, authority, path, &steps)?,
        };
        Ok(CheckpointStore::new(Shared {
            objects,
            commits: self.commits.unwrap_or(commits),
            address,
            steps,
            orphan_grace: self.orphan_grace,
            patience: self.settings.patience,
        }))
    }

    fn fs(&self, address: &Address) -> Result<Opened, Error> {
        let root = address.path().unwrap_or("/".as_ref());
        if root.exists() && !root.is_dir() {
            let reason = "it is a file, and a directory is needed".to_owned();
            return Err(Error::Address { address: self.address.clone(), reason });
        }
        let commits = FsCommitStore::with(root, self.steps.clone(), self.files.clone());
        Ok((Box::new(FsObjects::new(root, self.files.clone())), Arc::new(commits)))
    }

    #[cfg(feature = "s3")]
    fn s3(&self, address: &Address, bucket: &Arc<str>, prefix: &str, steps: &Steps) -> Result<Opened, Error> {
        use crate::commit::{Exclusive, S3CommitStore};
        use crate::objects::{S3, S3Objects};

        let opened = S3::new(bucket, prefix, &self.settings);
        let s3 = opened.map_err(|source| Error::Configuration { address: address.to_string(), source })?;
        let exclusive = match (self.settings.single_writer, self.settings.probe) {
            (true, _) => Exclusive::SingleWriter,
            (false, true) => Exclusive::Probed,
            (false, false) => Exclusive::Trusted,
        };
        let commits = S3CommitStore::new(s3.clone(), steps.clone(), exclusive);
        Ok((Box::new(S3Objects(s3)), Arc::new(commits)))
    }

    #[cfg(not(feature = "s3"))]
    fn s3(&self, address: &Address, _: &Arc<str>, _: &str, _: &Steps) -> Result<Opened, Error> {
        Err(Error::Feature { address: address.to_string(), feature: "s3" })
    }

    #[cfg(feature = "hdfs")]
    fn hdfs(
        &self,
        address: &Address,
        authority: &str,
        path: &Arc<str>,
        steps: &Steps,
    ) -> Result<Opened, Error> {
        use crate::commit::HdfsCommitStore;
        use crate::objects::{Hdfs, HdfsObjects};

        let opened = Hdfs::new(authority, path, &self.settings);
        let hdfs = opened.map_err(|source| Error::Configuration { address: address.to_string(), source })?;
        let commits = HdfsCommitStore::new(hdfs.clone(), steps.clone());
        Ok((Box::new(HdfsObjects(hdfs)), Arc::new(commits)))
    }

    #[cfg(not(feature = "hdfs"))]
    fn hdfs(&self, address: &Address, _: &str, _: &Arc<str>, _: &Steps) -> Result<Opened, Error> {
        Err(Error::Feature { address: address.to_string(), feature: "hdfs" })
    }
}
