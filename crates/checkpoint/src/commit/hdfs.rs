//! Commits on HDFS.

use std::io;

use bytes::Bytes;
use hdfs_native::file::FileWriter;

use super::{CommitStore, PublishError};
use crate::objects::{Hdfs, hdfs_failure, sync_and_close};
use crate::step::Steps;
use crate::{AttemptId, Step, layout};

/// Errors of a rename that say that there was none.
const REFUSALS: [io::ErrorKind; 3] =
    [io::ErrorKind::PermissionDenied, io::ErrorKind::InvalidInput, io::ErrorKind::QuotaExceeded];

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

    fn stage(&self, object: &str, temporary: &str, manifest: &[u8]) -> Result<(), PublishError> {
        let patience = self.hdfs.patience;
        let write = |bytes: &[u8]| {
            // An earlier try of the same attempt may have left it.
            self.hdfs.delete(temporary, false)?;
            let mut file = self.hdfs.create(temporary, false)?;
            let bytes = Bytes::copy_from_slice(bytes);
            patience.once(async { file.write_bytes(bytes).await.map_err(|e| hdfs_failure(&e)) })?;
            Ok(file)
        };
        let sync = |mut file: FileWriter| patience.once(sync_and_close(&mut file));
        super::stage(&self.steps, object, manifest, write, sync)
    }

    fn rename(&self, object: &str, temporary: &str, manifest: &[u8]) -> Result<(), PublishError> {
        let rename = || self.hdfs.rename_new(temporary, object);
        super::publish(&self.steps, object, manifest, &REFUSALS, rename, || self.hdfs.get(object))
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
        let staged = self.stage(&object, &temporary, manifest);
        let published = staged.and_then(|()| self.rename(&object, &temporary, manifest));
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
