//! Commits on HDFS.

use std::io;

use bytes::Bytes;

use super::{CommitStore, PublishError, unless_its_own};
use crate::objects::{Hdfs, hdfs_failure, sync_and_close};
use crate::step::Steps;
use crate::{AttemptId, Step, layout};

/// Publishes by a rename that does not overwrite: the manifest is written, synced on every data node of its
/// pipeline and closed under a name of its own, then renamed, which fails if the final name is taken.
#[derive(Debug)]
pub(crate) struct HdfsCommitStore {
    hdfs: Hdfs,
    steps: Steps,
}

impl HdfsCommitStore {
    pub(crate) fn new(hdfs: Hdfs, steps: Steps) -> Self {
        Self { hdfs, steps }
    }

    fn stage(&self, object: &str, temporary: &str, manifest: &[u8]) -> Result<(), (Step, io::Error)> {
        let patience = self.hdfs.patience;
        let file = self.steps.write(Step::WriteManifest, object, manifest.len(), |len| {
            // An earlier try of the same attempt may have left it.
            self.hdfs.delete(temporary, false)?;
            let mut file = self.hdfs.create(temporary, false)?;
            let bytes = Bytes::copy_from_slice(manifest.get(..len).unwrap_or(manifest));
            patience.once(async { file.write_bytes(bytes).await.map_err(|e| hdfs_failure(&e)) })?;
            Ok(file)
        });
        let mut file = file.map_err(|e| (Step::WriteManifest, e))?;
        let synced = self.steps.run(Step::SyncManifest, object, || patience.once(sync_and_close(&mut file)));
        synced.map_err(|e| (Step::SyncManifest, e))
    }

    fn rename(&self, object: &str, temporary: &str, manifest: &[u8]) -> Result<(), PublishError> {
        let step = Step::PublishManifest;
        let source = match self.steps.run(step, object, || self.hdfs.rename_new(temporary, object)) {
            Ok(()) => return Ok(()),
            Err(source) => source,
        };
        match source.kind() {
            io::ErrorKind::AlreadyExists => unless_its_own(self.hdfs.get(object), manifest),
            io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput | io::ErrorKind::QuotaExceeded => {
                Err(PublishError::Failed { step, source })
            }
            _ => Err(PublishError::Unknown { step, source }),
        }
    }
}

impl CommitStore for HdfsCommitStore {
    fn prepare(&self, dataset: &str) -> io::Result<()> {
        self.hdfs.make_dir(&layout::commits_dir(dataset))
    }

    fn publish(
        &self,
        dataset: &str,
        generation: u64,
        attempt: AttemptId,
        manifest: &[u8],
    ) -> Result<(), PublishError> {
        let object = layout::manifest(dataset, generation);
        let temporary = layout::temporary_manifest(dataset, generation, attempt);
        let published = match self.stage(&object, &temporary, manifest) {
            Ok(()) => self.rename(&object, &temporary, manifest),
            Err((step, source)) => Err(PublishError::Failed { step, source }),
        };
        if published.is_err() {
            // One that stays is left to cleanup.
            let remove = || self.hdfs.brief().delete(&temporary, false);
            let _ = self.steps.run(Step::RemoveTemporary, &object, remove);
        }
        published
    }

    fn read(&self, dataset: &str, generation: u64) -> io::Result<Option<Vec<u8>>> {
        match self.hdfs.get(&layout::manifest(dataset, generation)) {
            Ok(manifest) => Ok(Some(manifest.to_vec())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn list(&self, dataset: &str) -> io::Result<Vec<u64>> {
        let entries = self.hdfs.list_dir(&layout::commits_dir(dataset))?;
        Ok(entries.iter().filter_map(|entry| layout::generation_of(&entry.name)).collect())
    }

    fn remove(&self, dataset: &str, generation: u64) -> io::Result<()> {
        let there = self.hdfs.delete(&layout::manifest(dataset, generation), false)?;
        if there { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}
