//! Keeping a dataset: `cache`, `persist`, `unpersist`, `local_checkpoint`.

use std::sync::Arc;

use larder_blockstore::{Record, StorageLevel};

use crate::data::Data;
use crate::dataset::Dataset;
use crate::error::Error;
use crate::persist::{Blocks, Persisted};

impl<T: Record + Data> Dataset<T> {
    /// Keeps the dataset's partitions as values in memory, as far as they fit: [`persist`](Self::persist) at
    /// [`StorageLevel::MEMORY_ONLY`].
    ///
    /// # Errors
    /// As [`persist`](Self::persist).
    pub fn cache(&self) -> Result<Self, Error> {
        self.persist(StorageLevel::MEMORY_ONLY)
    }

    /// Keeps each partition in the store from the first time it is computed, at a storage level, until
    /// [`unpersist`](Self::unpersist) is called or the dataset's last handle drops. Computes nothing now; returns a
    /// handle of the same dataset. Asking for the level it has again changes nothing.
    ///
    /// # Errors
    /// [`Error::LevelConflict`] when it is persisted at another level, [`Error::Store`] when the store lacks what
    /// the level needs.
    pub fn persist(&self, level: StorageLevel) -> Result<Self, Error> {
        let current = match self.node().persisted() {
            Some(current) => current,
            None => match self.node().persist_with(self.blocks(level)?) {
                Ok(()) => {
                    self.context().note_persisted(self.id(), self.node());
                    return Ok(self.clone());
                }
                Err(current) => current,
            },
        };
        if current.level() == level {
            return Ok(self.clone());
        }
        Err(Error::LevelConflict { dataset: self.label(), current: current.level(), requested: level })
    }

    pub(crate) fn blocks(&self, level: StorageLevel) -> Result<Arc<dyn Persisted>, Error> {
        let stored = self.context().store().dataset::<T>(&self.name()).level(level).build()?;
        Ok(Blocks::new(stored))
    }
}

impl<T: Data> Dataset<T> {
    /// Removes the dataset's blocks from all tiers. A later action computes them again. Those of a local checkpoint
    /// cannot be computed again; later actions fail then.
    pub fn unpersist(&self) {
        self.context().forget_persisted(self.id());
        drop(self.node().take_persisted());
    }

    /// The level it is persisted at, if it is.
    #[must_use]
    pub fn storage_level(&self) -> Option<StorageLevel> {
        self.node().storage_level()
    }
}
