//! The store of checkpoints.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Place;
use crate::objects::Objects;
use crate::retry::Patience;
use crate::step::Steps;
use crate::{
    Address, Attempt, AttemptId, Builder, Checkpoint, CommitStore, Error, Manifest, Spec, Step, layout,
};

/// How often [`CheckpointStore::latest`] looks again when a newest manifest vanishes under its eyes.
const LATEST_TRIES: usize = 8;

/// How old data that no manifest names must be before a cleanup may take it for an orphan: 24 hours.
pub const ORPHAN_GRACE_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// Checkpoints of any number of datasets, at one [`Address`].
///
/// Cheap to clone. Any number of processes may use one address together: writers never see each other's unfinished
/// data, and of those that commit the same generation one wins. Every call blocks its thread until the I/O is done,
/// from inside an async runtime too.
///
/// ```
/// use std::sync::Arc;
/// use larder_blockstore::codec::{Bincode, CodecId};
/// use larder_checkpoint::{CheckpointStore, Error, Spec};
///
/// # let dir = tempfile::tempdir()?;
/// # let address = dir.path().join("checkpoints").to_str().unwrap_or_default().to_owned();
/// let store = CheckpointStore::open(&address)?;
///
/// let attempt = store.begin("squares", Spec::new(2, CodecId::BINCODE).record_type("u64"))?;
/// for partition in 0..2 {
///     let mut records = attempt.part(partition)?.records::<u64>(Arc::new(Bincode))?;
///     for n in 0..1000 {
///         records.push(&(n * n))?;
///     }
///     records.finish()?;
/// }
/// let checkpoint = attempt.commit()?;
///
/// // in another process, perhaps
/// let checkpoint = larder_checkpoint::Checkpoint::open(&checkpoint.address())?;
/// assert_eq!((checkpoint.generation(), checkpoint.partitions(), checkpoint.records()), (1, 2, 2000));
/// let squares = checkpoint.read_part(1)?.records::<u64>(Arc::new(Bincode))?;
/// assert_eq!(squares.sum::<Result<u64, Error>>()?, 332_833_500);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    shared: Arc<Shared>,
}

/// What a store, its attempts and its checkpoints share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) address: Address,
    pub(crate) objects: Box<dyn Objects>,
    pub(crate) commits: Arc<dyn CommitStore>,
    pub(crate) steps: Steps,
    pub(crate) orphan_grace: Duration,
    pub(crate) patience: Patience,
}

impl CheckpointStore {
    /// Opens the store at an [`Address`]. Creates nothing and asks no server anything: the first call does.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Scheme`], [`Error::Feature`] and [`Error::Configuration`].
    pub fn open(address: impl AsRef<str>) -> Result<Self, Error> {
        Self::builder(address).open()
    }

    /// Opens a store with settings of your own.
    #[must_use]
    pub fn builder(address: impl AsRef<str>) -> Builder {
        Builder::new(address.as_ref())
    }

    /// Where the store is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.shared.address
    }

    /// Begins to write the next generation of a dataset, and makes the directories for it.
    ///
    /// The generation is fixed here: one more than the newest there is. So of several attempts that run at the same
    /// time one commits, and the others learn of the conflict when they do.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Invalid`] when there are more than [`PARTITIONS_MAX`](crate::PARTITIONS_MAX)
    /// partitions, and [`Error::Io`] when the address cannot be written.
    pub fn begin(&self, dataset: &str, spec: Spec) -> Result<Attempt, Error> {
        layout::check_name(dataset)?;
        spec.check()?;
        let parent = self.generations(dataset)?.last().copied();
        let generation = match parent.map_or(Some(1), |parent| parent.checked_add(1)) {
            Some(generation) => generation,
            None => return Err(Error::Invalid { reason: format!("{dataset} has no generation left") }),
        };
        let attempt = AttemptId::new();
        let dir = layout::attempt_dir(dataset, attempt);
        self.shared.run(Step::CreateDirectories, &dir, || {
            self.shared.objects.create_dir(&dir)?;
            self.shared.commits.prepare(dataset)
        })?;
        Ok(Attempt::new(Arc::clone(&self.shared), dataset, attempt, generation, parent, spec))
    }

    /// The datasets that have a checkpoint, sorted by name. Lists the commits of each.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn datasets(&self) -> Result<Vec<String>, Error> {
        let mut names = self.shared.dataset_dirs()?;
        let mut failed = None;
        names.retain(|name| match self.generations(name) {
            Ok(generations) => !generations.is_empty(),
            Err(e) => {
                failed.get_or_insert(e);
                false
            }
        });
        failed.map_or(Ok(names), Err)
    }

    /// The generations of a dataset, ascending.
    ///
    /// # Errors
    /// [`Error::Name`] and [`Error::Io`].
    pub fn generations(&self, dataset: &str) -> Result<Vec<u64>, Error> {
        layout::check_name(dataset)?;
        self.shared
            .run(Step::ListCommits, &layout::commits_dir(dataset), || self.shared.commits.list(dataset))
    }

    /// The newest checkpoint of a dataset, if it has one.
    ///
    /// # Errors
    /// [`Error::Manifest`] when the newest is damaged: an older one is never given in its place, unless you ask for
    /// [`latest_readable`](Self::latest_readable). [`Error::Name`] and [`Error::Io`].
    pub fn latest(&self, dataset: &str) -> Result<Option<Checkpoint>, Error> {
        let mut tries = 1;
        loop {
            let Some(&newest) = self.generations(dataset)?.last() else { return Ok(None) };
            match self.open_generation(dataset, newest) {
                // Removed since it was listed: newer ones must have come.
                Err(Error::NotFound { .. }) if tries < LATEST_TRIES => tries += 1,
                opened => return opened.map(Some),
            }
        }
    }

    /// The newest checkpoint of a dataset whose manifest and part headers are sound. Reads the header of every part
    /// of each generation it tries; the records themselves are not read.
    ///
    /// # Errors
    /// [`Error::Name`], and [`Error::Io`] when it cannot be told whether a generation is sound.
    pub fn latest_readable(&self, dataset: &str) -> Result<Option<Checkpoint>, Error> {
        for generation in self.generations(dataset)?.into_iter().rev() {
            let opened = self.open_generation(dataset, generation);
            let checked = opened.and_then(|checkpoint| checkpoint.check_headers().map(|()| checkpoint));
            match checked {
                Err(Error::Manifest { .. } | Error::Part { .. } | Error::NotFound { .. }) => {}
                other => return other.map(Some),
            }
        }
        Ok(None)
    }

    /// One checkpoint of a dataset. Reads its manifest and nothing else.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Manifest`], [`Error::Name`] and [`Error::Io`].
    pub fn open_generation(&self, dataset: &str, generation: u64) -> Result<Checkpoint, Error> {
        layout::check_name(dataset)?;
        match self.shared.manifest(dataset, generation)? {
            Some(manifest) => Ok(Checkpoint::new(Arc::clone(&self.shared), manifest)),
            None => {
                let object = layout::manifest(dataset, generation);
                Err(Error::NotFound { at: self.shared.place(Step::ReadManifest, &object) })
            }
        }
    }

    /// The store's manifests, for [`conformance::check`](crate::conformance::check) and for tools.
    #[must_use]
    pub fn commit_store(&self) -> Arc<dyn CommitStore> {
        Arc::clone(&self.shared.commits)
    }

    /// What one part that is being written holds at most of the bytes it was given, besides the chunk that is being
    /// encoded. What an engine with a memory budget charges is [`PartWriter::held_bytes`](crate::PartWriter::held_bytes);
    /// it can ask for less by [`Attempt::part_within`].
    #[must_use]
    pub fn part_writer_bytes_max(&self) -> usize {
        self.shared.objects.writer_bytes_max()
    }

    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Shared {
    pub(crate) fn place(&self, step: Step, object: &str) -> Box<Place> {
        Box::new(Place { address: self.address.clone(), object: object.to_owned(), step })
    }

    /// Runs a step, and says where it failed.
    pub(crate) fn run<T>(
        &self,
        step: Step,
        object: &str,
        effect: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, Error> {
        self.steps.run(step, object, effect).map_err(|e| Error::io(self.place(step, object), None, e))
    }

    /// The manifest of a generation, if there is one.
    pub(crate) fn manifest(&self, dataset: &str, generation: u64) -> Result<Option<Manifest>, Error> {
        let object = layout::manifest(dataset, generation);
        let step = Step::ReadManifest;
        let Some(bytes) = self.run(step, &object, || self.commits.read(dataset, generation))? else {
            return Ok(None);
        };
        Manifest::decode(&bytes, dataset, generation)
            .map(Some)
            .map_err(|source| Error::Manifest { at: self.place(step, &object), source })
    }

    /// Directories that may be datasets, with or without a checkpoint.
    pub(crate) fn dataset_dirs(&self) -> Result<Vec<String>, Error> {
        let entries = self.run(Step::ListData, "", || self.objects.list(""))?;
        let dirs = entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name);
        Ok(dirs.filter(|name| layout::check_name(name).is_ok()).collect())
    }
}
