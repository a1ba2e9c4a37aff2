//! What throws a job back, and how often it may.

use larder_lineage::RecomputePlan;

use super::stage::StageEnd;
use crate::error::Error;

/// How often in a row a job is planned anew for one reason without getting any further.
pub(super) const SETBACKS_MAX: u32 = 16;

/// Rounds that were for nothing, since the last one that brought the job nearer to its end.
pub(super) struct Setbacks {
    /// The fewest tasks a plan had so far. Fewer is progress; so a job ends, whatever happens to it.
    tasks_min: usize,
    lost: u32,
    stale: u32,
}

impl Setbacks {
    pub(super) fn none() -> Self {
        Self { tasks_min: usize::MAX, lost: 0, stale: 0 }
    }

    /// There is a new plan.
    pub(super) fn planned(&mut self, plan: &RecomputePlan) {
        let maps: usize = plan.shuffles().iter().map(|stage| stage.partitions.len()).sum();
        let tasks = maps + plan.result().partitions.len();
        if tasks < self.tasks_min {
            *self = Self { tasks_min: tasks, ..Self::none() };
        }
    }

    /// Its round ended so. An error if that was too often.
    pub(super) fn count(&mut self, end: StageEnd, dataset: impl FnOnce() -> String) -> Result<(), Error> {
        match end {
            StageEnd::Complete => {}
            StageEnd::Lost => self.lost += 1,
            StageEnd::Stale => self.stale += 1,
        }
        if self.lost >= SETBACKS_MAX {
            return Err(Error::LostTooOften { what: "a block", dataset: dataset(), rounds: self.lost });
        }
        if self.stale >= SETBACKS_MAX {
            return Err(Error::LineageUnsettled { dataset: dataset(), rounds: self.stale });
        }
        Ok(())
    }
}
