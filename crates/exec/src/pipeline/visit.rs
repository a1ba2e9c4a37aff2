//! Records that are there only while they are looked at.

use larder_blockstore::{OwnedBatches, Viewed};
use larder_checkpoint::Records;

use crate::checkpoint::Buffers;
use crate::error::{Cause, TaskError};

/// Records to be looked at, one by one.
pub(crate) enum Visit<T> {
    /// Those of a stored block of bytes.
    Block(OwnedBatches<T>),
    /// Those of a part of a checkpoint.
    Part { records: Box<Records<T>>, _buffers: Buffers },
    /// What an operator makes of such records.
    Made(Box<dyn Made<T>>),
}

/// Makes records that are only looked at.
pub(crate) trait Made<T> {
    /// Shows the next records, at most `records_max`; false at the end.
    fn next(&mut self, records_max: usize, see: &mut dyn FnMut(&[T])) -> Result<bool, TaskError>;
}

impl<T: 'static> Visit<T> {
    /// Shows the next records, at most `records_max`; false at the end.
    pub(crate) fn next(&mut self, records_max: usize, see: &mut dyn FnMut(&[T])) -> Result<bool, TaskError> {
        let seen = match self {
            Self::Block(batches) => batches.visit(records_max, see).map_err(Cause::from)?,
            Self::Part { records, .. } => records.visit(records_max, see).map_err(Cause::from)?,
            Self::Made(made) => return made.next(records_max, see),
        };
        Ok(seen > 0)
    }

    /// Shows the views of the next records, at most `records_max`; false at the end.
    pub(crate) fn next_views(
        &mut self,
        records_max: usize,
        mut see: impl FnMut(T::View<'_>),
    ) -> Result<bool, TaskError>
    where
        T: Viewed,
    {
        let seen = match self {
            Self::Block(batches) => batches.visit_views(records_max, see).map_err(Cause::from)?,
            Self::Part { records, .. } => records.visit_views(records_max, see).map_err(Cause::from)?,
            Self::Made(made) => {
                return made.next(records_max, &mut |records| records.iter().map(T::view).for_each(&mut see));
            }
        };
        Ok(seen > 0)
    }
}
