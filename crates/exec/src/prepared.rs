//! What a dataset must know before its tasks run: found once, by a job over its parent, and kept.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::context::Context;
use crate::error::Error;
use crate::job::in_task;
use crate::node::Prepare;

/// How it is found.
pub(crate) trait Find<V>: Send + Sync {
    fn find(&self, context: &Context) -> Result<V, Error>;
}

/// A value that is found when it is first needed. If finding it fails, the next one who asks tries again.
pub(crate) struct Prepared<V, F> {
    value: Mutex<Option<Arc<V>>>,
    /// Held while finding.
    finding: Mutex<()>,
    find: F,
}

impl<V, F: Find<V>> Prepared<V, F> {
    pub(crate) fn new(find: F) -> Self {
        Self { value: Mutex::new(None), finding: Mutex::new(()), find }
    }

    fn known(&self) -> Option<Arc<V>> {
        self.value.lock().clone()
    }

    /// The value; found now, if it is not known yet.
    pub(crate) fn get(&self, context: &Context) -> Result<Arc<V>, Error> {
        if let Some(value) = self.known() {
            return Ok(value);
        }
        // A task does not wait for another thread to find it: that one's job may be waiting for this task's slot.
        // It finds the same value itself.
        let _finding = (!in_task()).then(|| self.finding.lock());
        if let Some(value) = self.known() {
            return Ok(value);
        }
        let value = Arc::new(self.find.find(context)?);
        *self.value.lock() = Some(Arc::clone(&value));
        Ok(value)
    }
}

impl<V: Send + Sync, F: Find<V>> Prepare for Prepared<V, F> {
    fn is_ready(&self) -> bool {
        self.value.lock().is_some()
    }

    fn run(&self, context: &Context) -> Result<(), Error> {
        self.get(context).map(drop)
    }
}
