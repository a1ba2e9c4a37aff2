//! Removes what is not needed any more.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use crate::store::Shared;
use crate::{AttemptId, CheckpointStore, Error, Step, layout};

/// What a [`cleanup`](CheckpointStore::cleanup) may remove.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CleanupOptions {
    /// How old what no manifest names must be. At least the orphan grace of every store that writes to the address:
    /// less may take the data of an attempt that is still being written, whose commit then fails.
    pub orphan_grace: Duration,
    /// Only list.
    pub dry_run: bool,
}

impl Default for CleanupOptions {
    fn default() -> Self {
        Self { orphan_grace: crate::ORPHAN_GRACE_DEFAULT, dry_run: false }
    }
}

impl CleanupOptions {
    /// Sets [`orphan_grace`](Self::orphan_grace).
    #[must_use]
    pub fn orphan_grace(mut self, grace: Duration) -> Self {
        self.orphan_grace = grace;
        self
    }

    /// Sets [`dry_run`](Self::dry_run).
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// What a [`cleanup`](CheckpointStore::cleanup) removed, or would remove.
#[derive(Debug)]
#[non_exhaustive]
pub struct CleanupReport {
    /// The orphans, sorted by path in each dataset, then unfinished uploads.
    pub orphans: Vec<Orphan>,
    /// Were they only listed?
    pub dry_run: bool,
    /// Datasets in which nothing more was removed, because what is an orphan could not be told or an orphan could
    /// not be removed, and why. `unfinished uploads` stands for all of these together.
    pub skipped: Vec<(String, Error)>,
}

impl CleanupReport {
    /// Bytes of all orphans, as far as they are known.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.orphans.iter().filter_map(|orphan| orphan.bytes).sum()
    }
}

/// Something that no manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orphan {
    /// Its path below the store's address: an attempt's directory, a temporary manifest, or, on S3, a part whose
    /// upload was not finished.
    pub object: String,
    /// The bytes of its files. Of an upload that was not finished they are not known.
    pub bytes: Option<u64>,
    /// When the attempt began that left it.
    pub began: SystemTime,
}

/// What a report calls the uploads of all datasets.
const UNFINISHED_UPLOADS: &str = "unfinished uploads";

impl CheckpointStore {
    /// Removes what attempts have left that were never committed: data directories that no manifest names,
    /// temporary manifests, and on S3 uploads that were neither completed nor aborted. Nothing else: not a committed
    /// checkpoint, not a file that Larder did not make.
    ///
    /// Candidates are collected first and the manifests read after, so that whatever is committed meanwhile is
    /// spared; an attempt that is committed later than that is younger than the grace, because older ones refuse to.
    /// Where a manifest cannot be read, nothing is removed of its dataset, and the report says so.
    ///
    /// # Errors
    /// [`Error::Io`] when the store cannot be listed.
    pub fn cleanup(&self, options: &CleanupOptions) -> Result<CleanupReport, Error> {
        let shared = self.shared();
        let mut report = CleanupReport { orphans: Vec::new(), dry_run: options.dry_run, skipped: Vec::new() };
        for dataset in shared.dataset_dirs()? {
            if let Err(error) = shared.cleanup_dataset(&dataset, options, &mut report.orphans) {
                report.skipped.push((dataset, error));
            }
        }
        if let Err(error) = shared.cleanup_uploads(options, &mut report.orphans) {
            report.skipped.push((UNFINISHED_UPLOADS.to_owned(), error));
        }
        Ok(report)
    }

    /// Removes one checkpoint: first its manifest, durably, then its data. Readers that have it open get
    /// [`Error::Part`] from then on.
    ///
    /// A manifest that is damaged is removed too. It does not tell its data, which is then an orphan.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Io`], after which a cleanup removes the data if the manifest is gone.
    pub fn remove_generation(&self, dataset: &str, generation: u64) -> Result<(), Error> {
        layout::check_name(dataset)?;
        let shared = self.shared();
        let object = layout::manifest(dataset, generation);
        let attempt = match shared.manifest(dataset, generation) {
            Ok(Some(manifest)) => Some(manifest.attempt),
            Ok(None) => return Err(Error::NotFound { at: shared.place(Step::RemoveManifest, &object) }),
            Err(Error::Manifest { .. }) => None,
            Err(e) => return Err(e),
        };
        shared.run(Step::RemoveManifest, &object, || shared.commits.remove(dataset, generation))?;
        let Some(attempt) = attempt else { return Ok(()) };
        let dir = layout::attempt_dir(dataset, attempt);
        shared.run(Step::RemoveData, &dir, || shared.objects.remove_all(&dir))
    }
}

struct Candidate {
    attempt: AttemptId,
    orphan: Orphan,
    is_dir: bool,
}

impl Shared {
    fn cleanup_dataset(
        &self,
        dataset: &str,
        options: &CleanupOptions,
        orphans: &mut Vec<Orphan>,
    ) -> Result<(), Error> {
        let mut candidates = self.candidates(dataset, options.orphan_grace)?;
        if candidates.is_empty() {
            return Ok(());
        }
        // Only now, so that a checkpoint committed since the candidates were collected is seen.
        let committed = self.committed_attempts(dataset)?;
        candidates.retain(|candidate| !candidate.is_dir || !committed.contains(&candidate.attempt));
        for candidate in candidates {
            let object = &candidate.orphan.object;
            if !options.dry_run {
                self.run(Step::RemoveData, object, || {
                    if candidate.is_dir {
                        self.objects.remove_all(object)
                    } else {
                        self.objects.remove(object)
                    }
                })?;
            }
            orphans.push(candidate.orphan);
        }
        Ok(())
    }

    /// Ends uploads of parts that no attempt goes on with. Their own listing finds them: to all others an upload that
    /// is not completed is nothing.
    fn cleanup_uploads(&self, options: &CleanupOptions, orphans: &mut Vec<Orphan>) -> Result<(), Error> {
        let now = SystemTime::now();
        let unfinished = self.run(Step::ListUploads, "", || self.objects.unfinished())?;
        for upload in unfinished {
            let attempt = layout::attempt_of_part(&upload.path);
            let Some(attempt) = attempt.filter(|attempt| attempt.age(now) >= options.orphan_grace) else {
                continue;
            };
            if !options.dry_run {
                self.run(Step::DiscardPart, &upload.path, || self.objects.give_up(&upload))?;
            }
            orphans.push(Orphan { object: upload.path, bytes: None, began: attempt.began() });
        }
        Ok(())
    }

    /// Everything old enough that is an attempt's, committed or not.
    fn candidates(&self, dataset: &str, grace: Duration) -> Result<Vec<Candidate>, Error> {
        let now = SystemTime::now();
        let old_enough = |attempt: &AttemptId| attempt.age(now) >= grace;
        let list = |dir: &str| self.run(Step::ListData, dir, || self.objects.list(dir));
        let mut candidates = Vec::new();
        let commits_dir = layout::commits_dir(dataset);
        for entry in list(&commits_dir)?.into_iter().filter(|entry| !entry.is_dir) {
            if let Some(attempt) = layout::attempt_of_temporary(&entry.name).filter(old_enough) {
                let object = format!("{commits_dir}/{}", entry.name);
                let orphan = Orphan { object, bytes: Some(entry.bytes), began: attempt.began() };
                candidates.push(Candidate { attempt, orphan, is_dir: false });
            }
        }
        for entry in list(&layout::data_dir(dataset))?.into_iter().filter(|entry| entry.is_dir) {
            if let Some(attempt) = entry.name.parse().ok().filter(old_enough) {
                let object = layout::attempt_dir(dataset, attempt);
                let bytes = list(&object)?.iter().map(|file| file.bytes).sum();
                let orphan = Orphan { object, bytes: Some(bytes), began: attempt.began() };
                candidates.push(Candidate { attempt, orphan, is_dir: true });
            }
        }
        Ok(candidates)
    }

    fn committed_attempts(&self, dataset: &str) -> Result<HashSet<AttemptId>, Error> {
        let dir = layout::commits_dir(dataset);
        let generations = self.run(Step::ListCommits, &dir, || self.commits.list(dataset))?;
        let mut attempts = HashSet::with_capacity(generations.len());
        for generation in generations {
            // One that was removed since names nothing.
            attempts.extend(self.manifest(dataset, generation)?.map(|manifest| manifest.attempt));
        }
        Ok(attempts)
    }
}
