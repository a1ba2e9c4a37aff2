//! Checkpoints in the rhythm of an iteration.

use std::collections::VecDeque;

use larder_blockstore::{Record, StorageLevel};
use larder_checkpoint::CheckpointStore;

use crate::checkpoint::{CheckpointInfo, CheckpointName, checkpoints};
use crate::context::Context;
use crate::data::Data;
use crate::dataset::Dataset;
use crate::error::Error;

/// How many iterations stay persisted: the one that is being computed, and the one it is computed from.
const PERSISTED_MAX: usize = 2;

/// How many checkpoints stay.
const CHECKPOINTS_MAX: usize = 2;

/// Persists each dataset of an iteration and checkpoints every so many of them, so that lineage, memory and disk stay
/// bounded.
///
/// Checkpoints go wherever those of the context go; older ones are deleted there.
///
/// Call [`update`](Self::update) with the dataset of each iteration, best before its first action. Unless it is
/// persisted already, it is now; the one before the last is unpersisted. Every `interval`-th is checkpointed, which
/// computes it; when that is durable, all checkpoints of the name but the last two are deleted.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// use larder_exec::{Context, PeriodicCheckpointer};
///
/// let context = Context::builder().checkpoints(directory.path()).build()?;
/// let mut checkpointer = PeriodicCheckpointer::new(&context, 10, "numbers")?;
/// let mut numbers = context.range(0..100, 4)?;
/// for _ in 0..25 {
///     numbers = numbers.map(|n| n + 1);
///     checkpointer.update(&numbers)?;
/// }
/// assert_eq!(numbers.first()?, Some(25));
/// assert_eq!(context.latest_checkpoint("numbers")?.map(|info| info.generation), Some(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PeriodicCheckpointer<T> {
    checkpoints: Option<CheckpointStore>,
    interval: u32,
    name: CheckpointName,
    level: StorageLevel,
    /// Since the last checkpoint.
    updates: u32,
    persisted: VecDeque<Dataset<T>>,
    retention_error: Option<Error>,
}

impl<T: Record + Data> PeriodicCheckpointer<T> {
    /// Checkpoints every `interval`-th dataset under `name`; none if the interval is 0. Datasets are persisted at
    /// `MEMORY_AND_DISK`.
    ///
    /// # Errors
    /// [`Error::NoCheckpoints`], unless the interval is 0.
    pub fn new(context: &Context, interval: u32, name: impl Into<CheckpointName>) -> Result<Self, Error> {
        let name = name.into();
        let store = match interval {
            0 => None,
            _ => {
                Some(checkpoints(context, || format!("`{}` cannot be checkpointed", name.as_str()))?.clone())
            }
        };
        Ok(Self {
            checkpoints: store,
            interval,
            name,
            level: StorageLevel::MEMORY_AND_DISK,
            updates: 0,
            persisted: VecDeque::new(),
            retention_error: None,
        })
    }

    /// Persists at another level; at [`StorageLevel::NONE`], only checkpoints.
    #[must_use]
    pub fn level(mut self, level: StorageLevel) -> Self {
        self.level = level;
        self
    }

    /// Takes the dataset of the next iteration. Returns its checkpoint if it was its turn.
    ///
    /// One that failed can be repeated with the same dataset; if the next dataset comes instead, it is its turn.
    /// An older checkpoint that cannot be deleted is no failure, see [`retention_error`](Self::retention_error).
    ///
    /// # Errors
    /// As [`Dataset::persist`] and [`Dataset::checkpoint`].
    pub fn update(&mut self, dataset: &Dataset<T>) -> Result<Option<CheckpointInfo>, Error> {
        if dataset.storage_level().is_none() && self.level.is_stored() {
            dataset.persist(self.level)?;
        }
        if self.persisted.iter().all(|persisted| persisted.id() != dataset.id()) {
            self.persisted.push_back(dataset.clone());
        }
        while self.persisted.len() > PERSISTED_MAX {
            if let Some(superseded) = self.persisted.pop_front() {
                superseded.unpersist();
            }
        }
        let updates = self.updates.saturating_add(1);
        let Some(checkpoints) = self.checkpoints.as_ref().filter(|_| updates >= self.interval) else {
            self.updates = updates;
            return Ok(None);
        };
        let info = dataset.checkpoint_as(self.name.clone())?;
        self.updates = 0;
        self.retention_error =
            checkpoints.keep_last(self.name.as_str(), CHECKPOINTS_MAX).err().map(Error::from);
        Ok(Some(info))
    }

    /// Why older checkpoints could not be deleted after the last one was written, if so. They stay readable; the next
    /// checkpoint tries again.
    #[must_use]
    pub fn retention_error(&self) -> Option<&Error> {
        self.retention_error.as_ref()
    }

    /// Unpersists the datasets that are still persisted by it. Checkpoints stay.
    pub fn unpersist_all(&mut self) {
        for dataset in self.persisted.drain(..) {
            dataset.unpersist();
        }
    }
}
