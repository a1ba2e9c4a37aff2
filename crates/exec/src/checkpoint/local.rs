//! Local checkpoints: the lineage is cut, and the blocks stay in the store.

use std::sync::Arc;

use larder_blockstore::{Record, StorageLevel};

use crate::data::Data;
use crate::dataset::Dataset;
use crate::error::{Cause, Error};
use crate::node::OpenLeaf;
use crate::persist::{Moving, Persisted};
use crate::task::Task;

/// How often blocks are filled, where some are lost again before all are there.
pub(super) const FILL_ROUNDS_MAX: u32 = 8;

impl<T: Record + Data> Dataset<T> {
    /// Computes all partitions, keeps them in the store, with its disk, and cuts the lineage. Fast, and good for long
    /// iterations; but a block that is lost afterwards cannot be computed again, and an action that needs it fails.
    /// [`checkpoint`](Self::checkpoint) is the durable way.
    ///
    /// The level is that of the dataset if it is persisted, else `MEMORY_AND_DISK`, and always with disk. The blocks
    /// then belong to the dataset rather than to its handles: they stay as long as something derived from it needs
    /// them. If anything fails, the dataset stays as it was.
    ///
    /// # Errors
    /// [`Error::Store`] when the store has no disk; [`Error::LocalCheckpointIncomplete`] when blocks did not stay in
    /// the store; as [`collect`](Self::collect) otherwise.
    pub fn local_checkpoint(&self) -> Result<(), Error> {
        let before = self.node().persisted();
        let level =
            before.as_ref().map_or(StorageLevel::MEMORY_AND_DISK, |before| before.level()).with_disk();
        let blocks = match &before {
            Some(before) if before.level() == level => Arc::clone(before),
            _ => self.blocks(level)?,
        };
        let filling: Arc<dyn Persisted> = match &before {
            Some(before) if before.level() != level => {
                Arc::new(Moving { from: Arc::clone(before), to: Arc::clone(&blocks) })
            }
            _ => Arc::clone(&blocks),
        };
        if let Err(error) = self.fill(&filling, &*blocks) {
            self.node().replace_persisted(before);
            return Err(error);
        }
        blocks.keep_with_dataset();
        self.node().replace_persisted(Some(blocks));
        self.context().note_persisted(self.id(), self.node());
        let lost: Arc<OpenLeaf> = Arc::new(|_: &Task, _| Err(Cause::LocalCheckpointLost.into()));
        self.context().cut(self.id(), self.node(), lost)
    }

    /// Has `filling` write all of `blocks`, and those again that were lost before all were there.
    fn fill(&self, filling: &Arc<dyn Persisted>, blocks: &dyn Persisted) -> Result<(), Error> {
        let mut missing = self.all_partitions();
        for _ in 0..FILL_ROUNDS_MAX {
            // In each round: another thread may have unpersisted the dataset in the last.
            self.node().replace_persisted(Some(Arc::clone(filling)));
            // Opening a partition of a persisted dataset fills it.
            self.context().run_job(self.id(), &missing, &|_, _, _| Ok(()))?;
            missing = (0..self.partitions()).filter(|&partition| !blocks.contains(partition)).collect();
            if missing.is_empty() {
                return Ok(());
            }
        }
        Err(Error::LocalCheckpointIncomplete {
            dataset: self.label(),
            missing: missing.len(),
            partitions: self.partitions(),
            rounds: FILL_ROUNDS_MAX,
        })
    }
}
