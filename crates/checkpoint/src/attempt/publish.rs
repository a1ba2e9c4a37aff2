//! Commits an attempt.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{Inner, PartState, Phase};
use crate::commit::PublishError;
use crate::error::PartError;
use crate::manifest::Part;
use crate::{Checkpoint, Error, Manifest, Step, layout};

/// How often a commit publishes before it leaves an unknown outcome to the caller.
const PUBLISH_TRIES: u32 = 3;
const PUBLISH_PAUSE: Duration = Duration::from_millis(20);

impl Inner {
    pub(super) fn commit(&self) -> Result<Checkpoint, Error> {
        let (manifest, before) = self.start_commit()?;
        let result = match before {
            Phase::Committed => Ok(()),
            before => self.try_commit(&manifest, before == Phase::Unknown),
        };
        self.state.lock().phase = match &result {
            Ok(()) => Phase::Committed,
            Err(Error::Conflict { .. }) => Phase::Lost,
            // A damaged manifest in its place may be its own.
            Err(Error::CommitUnknown { .. } | Error::Manifest { .. }) => Phase::Unknown,
            // An outcome that was unknown before is no better known by failing to look.
            Err(_) if before == Phase::Unknown => Phase::Unknown,
            Err(_) => Phase::Open,
        };
        result?;
        if before != Phase::Committed {
            self.write_hint();
        }
        Ok(Checkpoint::new(Arc::clone(&self.shared), Manifest::clone(&manifest)))
    }

    /// Enters the committing phase; gives the manifest and the phase before.
    fn start_commit(&self) -> Result<(Arc<Manifest>, Phase), Error> {
        let mut state = self.state.lock();
        let before = state.phase;
        if !matches!(before, Phase::Open | Phase::Unknown | Phase::Committed) {
            drop(state);
            return Err(self.over(before));
        }
        let finished = |part: &PartState| match part {
            PartState::Finished(part) => Some(part.clone()),
            _ => None,
        };
        let parts: Vec<Part> = state.parts.iter().filter_map(finished).collect();
        let missing = state.parts.len() - parts.len();
        if missing > 0 {
            let first = state.parts.iter().position(|part| finished(part).is_none()).unwrap_or_default();
            let at = self.shared.place(Step::LinkManifest, &self.object());
            let first = u32::try_from(first).unwrap_or(u32::MAX);
            return Err(Error::Incomplete { at, missing, first, partitions: self.spec.partitions });
        }
        let manifest = Arc::clone(state.manifest.get_or_insert_with(|| Arc::new(self.manifest(parts))));
        state.phase = Phase::Committing;
        Ok((manifest, before))
    }

    fn manifest(&self, parts: Vec<Part>) -> Manifest {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Manifest {
            dataset: self.dataset.clone(),
            generation: self.generation,
            parent: self.parent,
            attempt: self.id,
            created_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            record_type: self.spec.record_type.clone(),
            codec: self.spec.codec,
            compression: self.spec.compression,
            partitioner: self.spec.partitioner.clone(),
            parts,
        }
    }

    /// Where the manifest will stand.
    fn object(&self) -> String {
        layout::manifest(&self.dataset, self.generation)
    }

    fn try_commit(&self, manifest: &Manifest, unknown_before: bool) -> Result<(), Error> {
        let bytes = manifest.encode()?;
        if unknown_before {
            return self.publish(&bytes, Some(io::ErrorKind::Other.into()));
        }
        self.check_lengths(manifest)?;
        let shared = &self.shared;
        let dir = layout::attempt_dir(&self.dataset, self.id);
        shared.run(Step::SyncDirectories, &dir, || shared.data.sync_dir(&dir))?;
        self.check_age()?;
        self.publish(&bytes, None)
    }

    fn check_lengths(&self, manifest: &Manifest) -> Result<(), Error> {
        for (partition, part) in (0..).zip(&manifest.parts) {
            let object = self.part_object(partition);
            let found = self.shared.run(Step::CheckPart, &object, || self.shared.data.len(&object));
            let source = match found {
                Ok(found) if found == part.bytes => continue,
                Ok(found) => PartError::Length { expected: part.bytes, found },
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    PartError::Missing
                }
                Err(e) => return Err(e),
            };
            return Err(Error::Part { at: self.shared.place(Step::CheckPart, &object), partition, source });
        }
        Ok(())
    }

    /// A cleanup takes old data that no manifest names for an orphan: what is half as old is not published.
    fn check_age(&self) -> Result<(), Error> {
        let limit = self.shared.orphan_grace / 2;
        // The two clocks fail in different ways; the greater age is the safe one.
        let age = self.began.elapsed().max(self.id.age(SystemTime::now()));
        if age < limit {
            return Ok(());
        }
        let at = self.shared.place(Step::LinkManifest, &self.object());
        Err(Error::Expired { at, attempt: self.id, age, limit })
    }

    /// Publishes until the outcome is known. `unknown` says why it was not, when an earlier call left it so.
    fn publish(&self, manifest: &[u8], mut unknown: Option<io::Error>) -> Result<(), Error> {
        let (commits, dataset) = (&self.shared.commits, &self.dataset);
        for publish_try in 0..PUBLISH_TRIES {
            std::thread::sleep(PUBLISH_PAUSE * publish_try);
            let exists = if unknown.is_none() && self.is_overtaken()? {
                true
            } else {
                match commits.publish(dataset, self.generation, self.id, manifest) {
                    Ok(()) => return Ok(()),
                    Err(PublishError::Exists) => true,
                    Err(PublishError::Failed { step, source }) if unknown.is_none() => {
                        return Err(Error::io(self.shared.place(step, &self.object()), None, source));
                    }
                    Err(PublishError::Failed { source, .. } | PublishError::Unknown { source, .. }) => {
                        unknown = Some(source);
                        false
                    }
                }
            };
            match self.shared.manifest(dataset, self.generation) {
                // Ours. Publishing it once more makes sure that it is durable.
                Ok(Some(found)) if found.attempt == self.id => {
                    unknown.get_or_insert(io::ErrorKind::Other.into());
                }
                Ok(Some(found)) => return Err(self.conflict(Some(found.attempt))),
                Ok(None) if exists => return Err(self.conflict(None)),
                Ok(None) => {}
                Err(Error::Io { source, .. }) => unknown = Some(source),
                Err(e) => return Err(e),
            }
        }
        let at = self.shared.place(Step::LinkManifest, &self.object());
        let source = unknown.unwrap_or_else(|| io::ErrorKind::Other.into());
        Err(Error::CommitUnknown { at, attempt: self.id, source })
    }

    /// Has this or a later generation been committed meanwhile? It may since have been removed, so that publishing
    /// would succeed, behind the newest.
    fn is_overtaken(&self) -> Result<bool, Error> {
        let dir = layout::commits_dir(&self.dataset);
        let commits = &self.shared.commits;
        let listed = self.shared.run(Step::ListCommits, &dir, || commits.list(&self.dataset))?;
        Ok(listed.last().is_some_and(|&newest| newest >= self.generation))
    }

    fn conflict(&self, winner: Option<crate::AttemptId>) -> Error {
        let at = self.shared.place(Step::LinkManifest, &self.object());
        Error::Conflict { at, attempt: self.id, winner }
    }

    /// The hint is for people and for listings that are slow; nothing depends on it, so it may fail.
    fn write_hint(&self) {
        let object = layout::latest(&self.dataset);
        let hint = Bytes::from(format!("{:020}\n", self.generation));
        let data = &self.shared.data;
        let _ = self
            .shared
            .steps
            .write(Step::WriteLatest, &object, hint.len(), |len| data.write(&object, hint.slice(..len)));
    }
}
