//! Commits on S3.

use std::io;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{CommitStore, PublishError};
use crate::objects::S3;
use crate::step::Steps;
use crate::{AttemptId, Step, layout};

/// Errors of a request that say that it did nothing.
const REFUSALS: [io::ErrorKind; 4] = [
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::InvalidInput,
    io::ErrorKind::Unsupported,
    io::ErrorKind::StorageFull,
];

/// Publishes by one conditional PUT (`If-None-Match: *`), after a probe that the server honours the condition:
/// some ignore it, and would let every writer win.
#[derive(Debug)]
pub(crate) struct S3CommitStore {
    s3: S3,
    steps: Steps,
    exclusive: Exclusive,
    /// What the one probe found out. Held while it is made, so that it is made once.
    honoured: Mutex<bool>,
}

/// Why a manifest is not overwritten by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exclusive {
    /// The server refuses to, as a probe has shown.
    Probed,
    /// The server refuses to, as the user says.
    Trusted,
    /// There is no other writer, as the user says.
    SingleWriter,
}

impl S3CommitStore {
    pub(crate) fn new(s3: S3, steps: Steps, exclusive: Exclusive) -> Self {
        Self { s3, steps, exclusive, honoured: Mutex::new(exclusive != Exclusive::Probed) }
    }

    /// Creates an object twice under the condition that there is none. The second has to fail.
    fn probe(&self, dataset: &str) -> io::Result<()> {
        let mut honoured = self.honoured.lock();
        if *honoured {
            return Ok(());
        }
        // Named like a temporary manifest, so that a cleanup takes what a crash leaves.
        let object = layout::temporary_manifest(dataset, 0, AttemptId::new());
        let create = |bytes| self.s3.put_once(&object, Bytes::from_static(bytes), true);
        let probed = self.steps.run(Step::Probe, &object, || {
            match create(b"first") {
                // A server that has to be asked again may have done it the first time.
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            create(b"second")
        });
        let removed = self.s3.brief().delete(&object);
        match probed {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                *honoured = true;
                removed
            }
            Err(e) => Err(e),
            Ok(()) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the server ignores If-None-Match: of several writers that commit one generation all would win; \
                 use another server, or say that there is a single writer (Builder::single_writer)",
            )),
        }
    }

    fn put(&self, object: &str, manifest: &[u8]) -> io::Result<()> {
        if self.exclusive == Exclusive::SingleWriter && self.s3.exists(object)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let new = self.exclusive != Exclusive::SingleWriter;
        self.s3.put_once(object, Bytes::copy_from_slice(manifest), new)
    }
}

impl CommitStore for S3CommitStore {
    fn prepare(&self, dataset: &str) -> io::Result<()> {
        self.probe(dataset)
    }

    fn publish(
        &self,
        dataset: &str,
        generation: u64,
        _attempt: AttemptId,
        manifest: &[u8],
    ) -> Result<(), PublishError> {
        let object = layout::manifest(dataset, generation);
        let put = || self.put(&object, manifest);
        super::publish(&self.steps, &object, manifest, &REFUSALS, put, || self.s3.get(&object))
    }

    fn read(&self, dataset: &str, generation: u64) -> io::Result<Option<Vec<u8>>> {
        match self.s3.get(&layout::manifest(dataset, generation)) {
            Ok(manifest) => Ok(Some(manifest.to_vec())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn list(&self, dataset: &str) -> io::Result<Vec<u64>> {
        let entries = self.s3.list_dir(&layout::commits_dir(dataset))?;
        Ok(entries.iter().filter_map(|entry| layout::generation_of(&entry.name)).collect())
    }

    fn remove(&self, dataset: &str, generation: u64) -> io::Result<()> {
        let object = layout::manifest(dataset, generation);
        if !self.s3.exists(&object)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.s3.delete(&object)
    }
}
