//! Which checkpoints stay.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::{CheckpointStore, Error, Step, layout};

/// Which checkpoints of a dataset [`retain`](CheckpointStore::retain) keeps: those that any rule keeps. The newest
/// stays whatever the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionOptions {
    /// Keep so many of the newest: 1, unless set.
    pub keep_last: usize,
    /// Keep what was committed less long ago than this, by the clock of its writer.
    pub younger_than: Option<Duration>,
    /// Keep what a newer checkpoint superseded less long ago than this: whoever opened the newest checkpoint has so
    /// much time to read it. None, unless set.
    pub reader_grace: Duration,
    /// Only say what would be removed.
    pub dry_run: bool,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        Self { keep_last: 1, younger_than: None, reader_grace: Duration::ZERO, dry_run: false }
    }
}

impl RetentionOptions {
    /// Sets [`keep_last`](Self::keep_last).
    #[must_use]
    pub fn keep_last(mut self, keep: usize) -> Self {
        self.keep_last = keep;
        self
    }

    /// Sets [`younger_than`](Self::younger_than).
    #[must_use]
    pub fn younger_than(mut self, age: Duration) -> Self {
        self.younger_than = Some(age);
        self
    }

    /// Sets [`reader_grace`](Self::reader_grace).
    #[must_use]
    pub fn reader_grace(mut self, grace: Duration) -> Self {
        self.reader_grace = grace;
        self
    }

    /// Sets [`dry_run`](Self::dry_run).
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// What [`retain`](CheckpointStore::retain) did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionReport {
    /// Generations that were removed, or would be, ascending.
    pub removed: Vec<u64>,
    /// Generations that stay, ascending.
    pub kept: Vec<u64>,
    /// Was it only said?
    pub dry_run: bool,
}

impl CheckpointStore {
    /// Removes all checkpoints of a dataset that neither a rule nor a [pin](Self::pin) keeps, the oldest first.
    ///
    /// Opens the newest before, and removes nothing when that fails; what is committed meanwhile stays. A writer at
    /// work is safe: a checkpoint is not removed before a newer one is committed, and a writer that was overtaken is
    /// told so when it commits. Reads the manifests of older checkpoints where a rule asks for their age.
    ///
    /// ```
    /// use std::time::Duration;
    /// use larder_checkpoint::{CheckpointStore, RetentionOptions};
    ///
    /// let store = CheckpointStore::open("memory://retention")?;
    /// let week = RetentionOptions::default().keep_last(3).younger_than(Duration::from_secs(7 * 24 * 60 * 60));
    /// assert!(store.retain("ranks", &week)?.removed.is_empty());
    /// # Ok::<(), larder_checkpoint::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`latest`](Self::latest) and [`remove_generation`](Self::remove_generation); [`Error::Manifest`] when the
    /// age of a checkpoint is asked for and its manifest is damaged.
    pub fn retain(&self, dataset: &str, options: &RetentionOptions) -> Result<RetentionReport, Error> {
        let mut report = RetentionReport { removed: Vec::new(), kept: Vec::new(), dry_run: options.dry_run };
        let Some(newest) = self.latest(dataset)? else { return Ok(report) };
        let generations = self.generations(dataset)?;
        // What was committed after the newest was opened is not vouched for, and kept besides.
        let vouched = generations.partition_point(|&generation| generation <= newest.generation());
        let removable = vouched.saturating_sub(options.keep_last.max(1));
        // Read late, so that a checkpoint that was pinned before it was superseded is found pinned.
        let pinned: BTreeSet<u64> = self.pins(dataset)?.into_values().collect();
        for (index, &generation) in generations.iter().enumerate() {
            let spared = index >= removable || pinned.contains(&generation);
            let superseded_by = generations.get(index + 1).copied();
            if spared || self.is_young(dataset, generation, superseded_by, options)? {
                report.kept.push(generation);
                continue;
            }
            match if options.dry_run { Ok(()) } else { self.remove_generation(dataset, generation) } {
                // Someone else may have been faster.
                Ok(()) => report.removed.push(generation),
                Err(Error::NotFound { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(report)
    }

    /// [`retain`](Self::retain) with nothing but a number; gives the generations removed.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `keep` is 0, else as [`retain`](Self::retain).
    pub fn keep_last(&self, dataset: &str, keep: usize) -> Result<Vec<u64>, Error> {
        if keep == 0 {
            let reason =
                "keep_last keeps at least 1 checkpoint; remove_generation removes the last".to_owned();
            return Err(Error::Invalid { reason });
        }
        Ok(self.retain(dataset, &RetentionOptions::default().keep_last(keep))?.removed)
    }

    fn is_young(
        &self,
        dataset: &str,
        generation: u64,
        superseded_by: Option<u64>,
        options: &RetentionOptions,
    ) -> Result<bool, Error> {
        let now = SystemTime::now();
        let age = |generation| match self.shared().manifest(dataset, generation)? {
            Some(manifest) => {
                let committed = UNIX_EPOCH + Duration::from_millis(manifest.created_unix_ms);
                Ok(now.duration_since(committed).unwrap_or_default())
            }
            None => Ok(Duration::MAX),
        };
        if let Some(limit) = options.younger_than
            && age(generation)? < limit
        {
            return Ok(true);
        }
        match superseded_by.filter(|_| !options.reader_grace.is_zero()) {
            Some(newer) => Ok(age(newer)? < options.reader_grace),
            None => Ok(false),
        }
    }

    /// Gives a checkpoint a name, by which [`retain`](Self::retain) spares it until it is [unpinned](Self::unpin). A
    /// name that another checkpoint of the dataset has moves to this one.
    ///
    /// Pin what no retention that runs at the same time would remove: the newest, for instance.
    /// [`remove_generation`](Self::remove_generation) removes what is pinned too.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such checkpoint, [`Error::Name`], [`Error::Io`].
    pub fn pin(&self, dataset: &str, generation: u64, name: &str) -> Result<(), Error> {
        layout::check_name(dataset)?;
        layout::check_name(name)?;
        let shared = self.shared();
        let object = layout::pin(dataset, name);
        self.open_generation(dataset, generation)?;
        shared.run(Step::Pin, &object, || {
            shared.objects.create_dir(&layout::pins_dir(dataset))?;
            shared.objects.write(&object, Bytes::from(layout::encode_generation(generation)))?;
            shared.objects.sync_dir(&layout::pins_dir(dataset))
        })?;
        // It may have been removed before the pin was there to see.
        self.open_generation(dataset, generation).map(drop)
    }

    /// Takes a name from its checkpoint. One that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Name`] and [`Error::Io`].
    pub fn unpin(&self, dataset: &str, name: &str) -> Result<(), Error> {
        layout::check_name(dataset)?;
        layout::check_name(name)?;
        let object = layout::pin(dataset, name);
        if self.pins(dataset)?.contains_key(name) {
            self.shared().run(Step::Unpin, &object, || self.shared().objects.remove(&object))?;
        }
        Ok(())
    }

    /// The names of a dataset's checkpoints.
    ///
    /// # Errors
    /// [`Error::Name`] and [`Error::Io`], also when a pin does not say what it pins.
    pub fn pins(&self, dataset: &str) -> Result<BTreeMap<String, u64>, Error> {
        layout::check_name(dataset)?;
        let shared = self.shared();
        let dir = layout::pins_dir(dataset);
        let listed = shared.run(Step::ListData, &dir, || shared.objects.list(&dir))?;
        let mut pins = BTreeMap::new();
        for entry in listed.into_iter().filter(|entry| !entry.is_dir) {
            let object = layout::pin(dataset, &entry.name);
            let text =
                shared.run(Step::Pin, &object, || shared.objects.reader(&object)?.read(0..entry.bytes))?;
            let Some(generation) = layout::decode_generation(&text) else {
                let what = format!("{} does not say which generation it pins", shared.address.join(&object));
                return Err(Error::Invalid { reason: what });
            };
            pins.insert(entry.name, generation);
        }
        Ok(pins)
    }
}
