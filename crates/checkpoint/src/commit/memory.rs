//! Commits in this process' memory, for tests.

use std::io;

use bytes::Bytes;

use super::{CommitStore, PublishError};
use crate::objects::Memory;
use crate::step::Steps;
use crate::{AttemptId, Step, layout};

/// Publishes under the lock of the one map that all stores of a name share.
#[derive(Debug)]
pub(crate) struct MemoryCommitStore {
    memory: Memory,
    steps: Steps,
}

impl MemoryCommitStore {
    pub(crate) fn new(memory: Memory, steps: Steps) -> Self {
        Self { memory, steps }
    }
}

impl CommitStore for MemoryCommitStore {
    fn publish(
        &self,
        dataset: &str,
        generation: u64,
        _attempt: AttemptId,
        manifest: &[u8],
    ) -> Result<(), PublishError> {
        let object = layout::manifest(dataset, generation);
        let step = Step::PublishManifest;
        let put = || Ok(self.memory.put_new(&object, Bytes::copy_from_slice(manifest)));
        match self.steps.run(step, &object, put) {
            Ok(None) => Ok(()),
            Ok(Some(standing)) if standing == manifest => Ok(()),
            Ok(Some(_)) => Err(PublishError::Exists),
            Err(source) => Err(PublishError::Unknown { step, source }),
        }
    }

    fn read(&self, dataset: &str, generation: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(self.memory.get(&layout::manifest(dataset, generation)).map(|bytes| bytes.to_vec()))
    }

    fn list(&self, dataset: &str) -> io::Result<Vec<u64>> {
        let entries = self.memory.list(&layout::commits_dir(dataset));
        Ok(entries.iter().filter_map(|entry| layout::generation_of(&entry.name)).collect())
    }

    fn remove(&self, dataset: &str, generation: u64) -> io::Result<()> {
        let removed = self.memory.remove(&layout::manifest(dataset, generation));
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
