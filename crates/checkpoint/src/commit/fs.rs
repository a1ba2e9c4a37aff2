//! Commits on a local file system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{CommitStore, PublishError};
use crate::files::Files;
use crate::step::Steps;
use crate::{Address, AttemptId, Error, Step, layout};

/// Errors of a `link` that say that it was not made.
const REFUSALS: [io::ErrorKind; 10] = [
    io::ErrorKind::CrossesDevices,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::NotADirectory,
    io::ErrorKind::NotFound,
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::QuotaExceeded,
    io::ErrorKind::ReadOnlyFilesystem,
    io::ErrorKind::StorageFull,
    io::ErrorKind::TooManyLinks,
    io::ErrorKind::Unsupported,
];

/// Publishes by `link(2)`: the manifest is written and synced under a name of its own, then linked to its final
/// name, which fails if that exists, and the directory is synced.
///
/// Needs a file system with hard links, where `link` is atomic and `fsync` of a file or directory keeps its promise.
#[derive(Debug)]
pub struct FsCommitStore {
    root: PathBuf,
    steps: Steps,
    files: Files,
}

impl FsCommitStore {
    /// Commits in the directory of `address`, which is made by the first [`prepare`](CommitStore::prepare).
    ///
    /// # Errors
    /// [`Error::Address`] when that is no directory of a local file system.
    pub fn new(address: &Address) -> Result<Self, Error> {
        match address.path() {
            Some(root) => Ok(Self::with(root, Steps::default(), Files::default())),
            None => {
                let reason = "a directory of a local file system is needed".to_owned();
                Err(Error::Address { address: address.to_string(), reason })
            }
        }
    }

    pub(crate) fn with(root: &Path, steps: Steps, files: Files) -> Self {
        Self { root: root.to_owned(), steps, files }
    }

    fn path(&self, object: &str) -> PathBuf {
        self.root.join(object)
    }

    fn sync(&self, dataset: &str) -> io::Result<()> {
        self.files.sync_dirs(&self.root, &layout::commits_dir(dataset))
    }

    fn stage(&self, object: &str, temporary: &Path, manifest: &[u8]) -> Result<(), PublishError> {
        let write = |bytes: &[u8]| {
            // An earlier try of the same attempt may have left it.
            self.remove_if_there(temporary)?;
            self.files.create(temporary, bytes)
        };
        super::stage(&self.steps, object, manifest, write, |file| self.files.sync(temporary, &file))
    }

    fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.files.remove(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn link(&self, object: &str, temporary: &Path, manifest: &[u8]) -> Result<(), PublishError> {
        let target = self.path(object);
        let link = || self.files.link(temporary, &target);
        super::publish(&self.steps, object, manifest, &REFUSALS, link, || fs::read(&target))
    }
}

impl CommitStore for FsCommitStore {
    fn prepare(&self, dataset: &str) -> io::Result<()> {
        self.files.create_dirs(&self.root, &layout::commits_dir(dataset))
    }

    fn publish(
        &self,
        dataset: &str,
        generation: u64,
        attempt: AttemptId,
        manifest: &[u8],
    ) -> Result<(), PublishError> {
        let object = layout::manifest(dataset, generation);
        let temporary = self.path(&layout::temporary_manifest(dataset, generation, attempt));
        let staged = self.stage(&object, &temporary, manifest);
        let linked = staged.and_then(|()| self.link(&object, &temporary, manifest));
        let published = linked.and_then(|()| {
            self.steps
                .run(Step::SyncCommits, &object, || self.sync(dataset))
                .map_err(|source| PublishError::Unknown { step: Step::SyncCommits, source })
        });
        // Whatever the outcome, the temporary has done its part; one that stays is left to cleanup.
        let _ = self.steps.run(Step::RemoveTemporary, &object, || self.remove_if_there(&temporary));
        published
    }

    fn read(&self, dataset: &str, generation: u64) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(&layout::manifest(dataset, generation))) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn list(&self, dataset: &str) -> io::Result<Vec<u64>> {
        let mut generations = Vec::new();
        let entries = match fs::read_dir(self.path(&layout::commits_dir(dataset))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(generations),
            entries => entries?,
        };
        for entry in entries {
            generations.extend(entry?.file_name().to_str().and_then(layout::generation_of));
        }
        generations.sort_unstable();
        Ok(generations)
    }

    fn remove(&self, dataset: &str, generation: u64) -> io::Result<()> {
        self.files.remove(&self.path(&layout::manifest(dataset, generation)))?;
        self.sync(dataset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_commit_store() {
        let dir = tempfile::tempdir().unwrap();
        let address: Address = dir.path().to_str().unwrap().parse().unwrap();
        crate::conformance::check(|| std::sync::Arc::new(FsCommitStore::new(&address).unwrap())).unwrap();
    }

    #[test]
    fn files_that_are_no_manifests_are_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let store = FsCommitStore::new(&dir.path().to_str().unwrap().parse().unwrap()).unwrap();
        let attempt = AttemptId::new();
        store.prepare("d").unwrap();
        fs::write(store.path(&layout::temporary_manifest("d", 1, attempt)), b"half").unwrap();
        fs::write(store.path("d/commits/1.json"), b"foreign").unwrap();
        assert_eq!(store.list("d").unwrap(), Vec::<u64>::new());
    }
}
