//! Checkpoints in the rhythm of an iteration.

use std::collections::VecDeque;

use larder_blockstore::{Record, StorageLevel};
use larder_checkpoint::CheckpointStore;

use crate::checkpoint::{CheckpointInfo, checkpoints};
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
    name: String,
    level: StorageLevel,
    updates: u32,
    persisted: VecDeque<Dataset<T>>,
}

impl<T: Record + Data> PeriodicCheckpointer<T> {
    /// Checkpoints every `interval`-th dataset under `name`; none if the interval is 0. Datasets are persisted at
    /// `MEMORY_AND_DISK`.
    ///
    /// # Errors
    /// [`Error::NoCheckpoints`], unless the interval is 0.
    pub fn new(context: &Context, interval: u32, name: &str) -> Result<Self, Error> {
        let store = match interval {
            0 => None,
            _ => Some(checkpoints(context, || format!("`{name}` cannot be checkpointed"))?.clone()),
        };
        Ok(Self {
            checkpoints: store,
            interval,
            name: name.to_owned(),
            level: StorageLevel::MEMORY_AND_DISK,
            updates: 0,
            persisted: VecDeque::new(),
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
    /// # Errors
    /// As [`Dataset::persist`] and [`Dataset::checkpoint`]. [`Error::Checkpoint`] also when an older checkpoint could
    /// not be deleted; the next checkpoint tries again.
    pub fn update(&mut self, dataset: &Dataset<T>) -> Result<Option<CheckpointInfo>, Error> {
        if dataset.storage_level().is_none() && self.level.is_stored() {
            dataset.persist(self.level)?;
        }
        self.persisted.push_back(dataset.clone());
        while self.persisted.len() > PERSISTED_MAX {
            if let Some(superseded) = self.persisted.pop_front() {
                superseded.unpersist();
            }
        }
        self.updates += 1;
        if self.updates.checked_rem(self.interval) != Some(0) {
            return Ok(None);
        }
        let info = dataset.checkpoint_as(&self.name)?;
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.keep_last(&self.name, CHECKPOINTS_MAX)?;
        }
        Ok(Some(info))
    }

    /// Unpersists the datasets that are still persisted by it. Checkpoints stay.
    pub fn unpersist_all(&mut self) {
        for dataset in self.persisted.drain(..) {
            dataset.unpersist();
        }
    }
}
