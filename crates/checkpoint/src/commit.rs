//! The one atomic step of a checkpoint.

mod fs;
#[cfg(feature = "hdfs")]
mod hdfs;
mod memory;
#[cfg(feature = "s3")]
mod s3;

use std::fmt;
use std::io;

use crate::step::Steps;
use crate::{AttemptId, Step};

pub use fs::FsCommitStore;
#[cfg(feature = "hdfs")]
pub(crate) use hdfs::HdfsCommitStore;
pub(crate) use memory::MemoryCommitStore;
#[cfg(feature = "s3")]
pub(crate) use s3::{Exclusive, S3CommitStore};

/// Publishes manifests, each exactly once.
///
/// OpenDAL moves the data of a checkpoint, but none of its backends offers an exclusive, durable, atomic "create
/// this object" that behaves alike everywhere. So this one step is a trait: on a file system it is a hard link, on
/// S3 a conditional PUT, on HDFS a rename without overwrite, and a catalogue of your own can take its place
/// (see [`Builder::commit_store`](crate::Builder::commit_store)).
///
/// # How it is used
///
/// 1. A writer calls [`prepare`](Self::prepare), then writes its parts under paths no other attempt shares.
/// 2. When they are durable it calls [`publish`](Self::publish) with the manifest.
/// 3. Among any number of writers that publish the same generation, one is told `Ok`; the others
///    [`PublishError::Exists`].
/// 4. On `Exists` and [`PublishError::Unknown`] the writer [`read`](Self::read)s what stands there: the manifest
///    names its attempt, so everybody finds out who won.
///
/// # What an implementation promises
///
/// - A manifest is visible whole or not at all, and once visible its bytes never change.
/// - `publish` gives `Ok` only when the manifest will survive a power cut.
/// - Publishing bytes that already stand there is `Ok` again, once they are durable. Manifests name their attempt,
///   so equal bytes are one's own.
/// - What `publish` has acknowledged, every later `read` and `list`, from any process, sees.
///
/// [`conformance::check`](crate::conformance::check) tests these.
pub trait CommitStore: fmt::Debug + Send + Sync + 'static {
    /// Makes the place for a dataset's manifests, if it needs one. Called when an attempt begins.
    ///
    /// # Errors
    /// When the place cannot be written, or is found unable to publish exclusively.
    fn prepare(&self, dataset: &str) -> io::Result<()> {
        let _ = dataset;
        Ok(())
    }

    /// Creates the manifest of a generation, unless there is one.
    ///
    /// # Errors
    /// See [`PublishError`]: the three kinds differ in what is known of the outcome.
    fn publish(
        &self,
        dataset: &str,
        generation: u64,
        attempt: AttemptId,
        manifest: &[u8],
    ) -> Result<(), PublishError>;

    /// The manifest of a generation, or none.
    ///
    /// # Errors
    /// When it is not known whether there is one.
    fn read(&self, dataset: &str, generation: u64) -> io::Result<Option<Vec<u8>>>;

    /// All generations of a dataset, ascending; none for a dataset that is not there.
    ///
    /// # Errors
    /// When the list would not be complete.
    fn list(&self, dataset: &str) -> io::Result<Vec<u64>>;

    /// Removes a manifest, durably; [`io::ErrorKind::NotFound`] when there is none.
    ///
    /// # Errors
    /// When it may still be there, or come back after a power cut.
    fn remove(&self, dataset: &str, generation: u64) -> io::Result<()>;
}

/// Why a manifest was not, or may not have been, published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Another manifest stands there.
    #[error("the generation is already committed")]
    Exists,
    /// Nothing was published, and nothing will appear later.
    #[error("cannot {step} the manifest")]
    Failed {
        /// Where it failed.
        step: Step,
        /// The system's own words.
        source: io::Error,
    },
    /// The manifest may have been published, now or later, or may not be durable yet.
    #[error("the outcome of publishing is unknown: could not {step} the manifest")]
    Unknown {
        /// Where certainty ended.
        step: Step,
        /// The system's own words.
        source: io::Error,
    },
}

/// Writes and syncs a manifest under a name of its own.
fn stage<F>(
    steps: &Steps,
    object: &str,
    manifest: &[u8],
    write: impl FnOnce(&[u8]) -> io::Result<F>,
    sync: impl FnOnce(F) -> io::Result<()>,
) -> Result<(), PublishError> {
    let failed = |step| move |source| PublishError::Failed { step, source };
    let file = steps.write(Step::WriteManifest, object, manifest.len(), |len| {
        write(manifest.get(..len).unwrap_or(manifest))
    });
    let file = file.map_err(failed(Step::WriteManifest))?;
    steps.run(Step::SyncManifest, object, || sync(file)).map_err(failed(Step::SyncManifest))
}

/// Gives a manifest its final name. What a failure means follows from its kind: `refusals` are those after which
/// nothing was published; whose manifest stands there already, `read` tells.
fn publish<B: AsRef<[u8]>>(
    steps: &Steps,
    object: &str,
    manifest: &[u8],
    refusals: &[io::ErrorKind],
    effect: impl FnOnce() -> io::Result<()>,
    read: impl FnOnce() -> io::Result<B>,
) -> Result<(), PublishError> {
    let step = Step::PublishManifest;
    let Err(source) = steps.run(step, object, effect) else { return Ok(()) };
    match source.kind() {
        io::ErrorKind::AlreadyExists => match read() {
            Ok(found) if found.as_ref() == manifest => Ok(()),
            Ok(_) => Err(PublishError::Exists),
            // The winner was removed since.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(PublishError::Exists),
            Err(source) => Err(PublishError::Unknown { step: Step::ReadManifest, source }),
        },
        kind if refusals.contains(&kind) => Err(PublishError::Failed { step, source }),
        _ => Err(PublishError::Unknown { step, source }),
    }
}
