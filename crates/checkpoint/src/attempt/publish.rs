//! Commits an attempt.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{Inner, PartState, Phase};
use crate::commit::PublishError;
use crate::error::PartError;
use crate::manifest::Part;
use crate::objects::Closing;
use crate::{Checkpoint, Error, Manifest, Step, layout};

/// How often a commit publishes before it leaves an unknown outcome to the caller.
const PUBLISH_TRIES: u32 = 3;
const PUBLISH_PAUSE: Duration = Duration::from_millis(20);

/// A finished part that is still being closed.
struct Unclosed {
    partition: u32,
    part: Part,
    closing: Arc<dyn Closing>,
}

impl Inner {
    pub(super) fn commit(&self) -> Result<Checkpoint, Error> {
        let (manifest, before) = self.start_commit()?;
        let mut unknown = before == Phase::Unknown;
        let result = match before {
            Phase::Committed => Ok(()),
            _ => self.publish(&manifest, &mut unknown),
        };
        self.state.lock().phase = match &result {
            Ok(()) => Phase::Committed,
            // A publish of which nothing was heard may still take effect, and need the data.
            Err(_) if unknown => Phase::Unknown,
            // A damaged manifest in its place may be its own.
            Err(Error::Manifest { .. }) => Phase::Unknown,
            Err(Error::Conflict { .. }) => Phase::Lost,
            Err(_) => Phase::Open,
        };
        result?;
        if before != Phase::Committed {
            self.write_hint();
        }
        Ok(Checkpoint::new(Arc::clone(&self.shared), Manifest::clone(&manifest)))
    }

    /// Enters the committing phase once every part is closed; gives the manifest and the phase before.
    fn start_commit(&self) -> Result<(Arc<Manifest>, Phase), Error> {
        loop {
            let closing = {
                let mut state = self.state.lock();
                let before = state.phase;
                if !matches!(before, Phase::Open | Phase::Unknown | Phase::Committed) {
                    return Err(self.over(before));
                }
                let closing = self.closing(&state.parts)?;
                if closing.is_empty() {
                    let parts = state.parts.iter().filter_map(PartState::part).cloned().collect();
                    let manifest = state.manifest.get_or_insert_with(|| Arc::new(self.manifest(parts)));
                    let manifest = Arc::clone(manifest);
                    state.phase = Phase::Committing;
                    return Ok((manifest, before));
                }
                closing
            };
            closing.iter().try_for_each(|it| self.closed(it.partition, &it.part, &it.closing))?;
        }
    }

    /// The parts that are still being closed, of an attempt whose parts are all finished.
    fn closing(&self, parts: &[PartState]) -> Result<Vec<Unclosed>, Error> {
        let mut missing = (0..).zip(parts).filter(|(_, part)| part.part().is_none());
        if let Some((first, _)) = missing.next() {
            let at = self.shared.place(Step::PublishManifest, &self.object());
            let missing = 1 + missing.count();
            return Err(Error::Incomplete { at, missing, first, partitions: self.spec.partitions });
        }
        let closing = |(partition, part): (u32, &PartState)| match part {
            PartState::Finished(part, Some(closing)) => {
                Some(Unclosed { partition, part: part.clone(), closing: Arc::clone(closing) })
            }
            _ => None,
        };
        Ok((0..).zip(parts).filter_map(closing).collect())
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
            schema: self.spec.schema.clone(),
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

    /// Publishes until the outcome is known. `unknown` says whether that of an earlier try is not, and in the end
    /// whether that of any was not.
    fn publish(&self, manifest: &Manifest, unknown: &mut bool) -> Result<(), Error> {
        let bytes = manifest.encode()?;
        let (started, limit) = (Instant::now(), self.shared.patience.total);
        let mut tries = 1;
        loop {
            let source = match self.publish_once(manifest, &bytes, *unknown) {
                Err(Error::CommitUnknown { source, .. }) => source,
                // A failure now says nothing of what an earlier try has done.
                Err(Error::Io { source, .. } | Error::StorageFull { source, .. }) if *unknown => source,
                result => return result,
            };
            *unknown = true;
            if tries == PUBLISH_TRIES || started.elapsed() >= limit {
                return Err(self.commit_unknown(source));
            }
            std::thread::sleep(PUBLISH_PAUSE * tries);
            tries += 1;
        }
    }

    fn publish_once(&self, manifest: &Manifest, bytes: &[u8], unknown: bool) -> Result<(), Error> {
        // One that stands is published again, to make sure that it is durable. That creates nothing, so nothing is
        // checked; anything else would.
        let stands = unknown && self.read_back()?;
        if !stands {
            self.check_publishable(manifest)?;
        }
        match self.shared.commits.publish(&self.dataset, self.generation, self.id, bytes) {
            Ok(()) => Ok(()),
            Err(PublishError::Exists) => match self.read_back() {
                Ok(true) => Err(self.commit_unknown(io::ErrorKind::AlreadyExists.into())),
                Ok(false) => Err(self.conflict(None)),
                Err(Error::Io { source, .. }) => Err(self.commit_unknown(source)),
                Err(e) => Err(e),
            },
            Err(PublishError::Failed { step, source }) => {
                Err(Error::io(self.shared.place(step, &self.object()), None, source))
            }
            Err(PublishError::Unknown { source, .. }) => Err(self.commit_unknown(source)),
        }
    }

    /// Does its own manifest stand there? A conflict if another's does.
    fn read_back(&self) -> Result<bool, Error> {
        match self.shared.manifest(&self.dataset, self.generation)? {
            Some(found) if found.attempt == self.id => Ok(true),
            Some(found) => Err(self.conflict(Some(found.attempt))),
            None => Ok(false),
        }
    }

    /// All that must hold when the manifest's name comes into being: the data is there, durable, and safe from
    /// cleanup, and the generation is the newest.
    fn check_publishable(&self, manifest: &Manifest) -> Result<(), Error> {
        self.check_lengths(manifest)?;
        let shared = &self.shared;
        let dir = layout::attempt_dir(&self.dataset, self.id);
        shared.run(Step::SyncDirectories, &dir, || shared.objects.sync_dir(&dir))?;
        self.check_age()?;
        self.check_newest()
    }

    fn check_lengths(&self, manifest: &Manifest) -> Result<(), Error> {
        let dir = layout::attempt_dir(&self.dataset, self.id);
        let listed = self.shared.run(Step::CheckPart, &dir, || self.shared.objects.list(&dir))?;
        let lengths: HashMap<_, _> = listed.iter().map(|entry| (&*entry.name, entry.bytes)).collect();
        for (partition, part) in (0..).zip(&manifest.parts) {
            let name = part.path.rsplit('/').next().unwrap_or_default();
            let source = match lengths.get(name) {
                Some(&found) if found == part.bytes => continue,
                Some(&found) => PartError::Length { expected: part.bytes, found },
                None => PartError::Missing,
            };
            let at = self.shared.place(Step::CheckPart, &self.part_object(partition));
            return Err(Error::Part { at, partition, source });
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
        let at = self.shared.place(Step::PublishManifest, &self.object());
        Err(Error::Expired { at, attempt: self.id, age, limit })
    }

    /// This or a later generation may have been committed meanwhile, and removed again, so that publishing would
    /// succeed, behind the newest.
    fn check_newest(&self) -> Result<(), Error> {
        let dir = layout::commits_dir(&self.dataset);
        let commits = &self.shared.commits;
        let listed = self.shared.run(Step::ListCommits, &dir, || commits.list(&self.dataset))?;
        if listed.last().is_none_or(|&newest| newest < self.generation) || self.read_back()? {
            return Ok(());
        }
        Err(self.conflict(None))
    }

    fn commit_unknown(&self, source: io::Error) -> Error {
        let at = self.shared.place(Step::PublishManifest, &self.object());
        Error::CommitUnknown { at, attempt: self.id, source }
    }

    fn conflict(&self, winner: Option<crate::AttemptId>) -> Error {
        let at = self.shared.place(Step::PublishManifest, &self.object());
        Error::Conflict { at, attempt: self.id, winner }
    }

    /// The hint is for people and for listings that are slow; nothing depends on it, so it may fail.
    fn write_hint(&self) {
        let object = layout::latest(&self.dataset);
        let hint = Bytes::from(layout::encode_generation(self.generation));
        let objects = &self.shared.objects;
        let _ = self
            .shared
            .steps
            .write(Step::WriteLatest, &object, hint.len(), |len| objects.write(&object, hint.slice(..len)));
    }
}
