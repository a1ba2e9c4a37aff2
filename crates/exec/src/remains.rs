//! Dropping what datasets owned of their users', one after the other.

use std::cell::RefCell;
use std::sync::Arc;

use crate::node::{Compute, Prepare};
use crate::persist::Persisted;

/// Closures and records of a dataset.
#[derive(Default)]
pub(crate) struct Owned {
    pub(crate) compute: Option<Compute>,
    pub(crate) prepare: Option<Arc<dyn Prepare>>,
    pub(crate) persisted: Option<Arc<dyn Persisted>>,
}

/// What a dataset leaves behind. It may own the last handles of other datasets, which leave remains of their own:
/// those join the queue of the thread, so that drops do not nest.
///
/// Drop it outside any lock.
#[must_use]
pub(crate) struct Remains(Option<Owned>);

impl Remains {
    pub(crate) fn of(owned: Owned) -> Self {
        Self(Some(owned))
    }
}

thread_local! {
    /// What this thread is still to drop, while it drops something.
    static QUEUE: RefCell<Option<Vec<Owned>>> = const { RefCell::new(None) };
}

impl Drop for Remains {
    fn drop(&mut self) {
        let mut next = self.0.take();
        let is_first = QUEUE.try_with(|queue| match &mut *queue.borrow_mut() {
            Some(queue) => {
                queue.extend(next.take());
                false
            }
            empty => {
                *empty = Some(Vec::new());
                true
            }
        });
        if is_first != Ok(true) {
            return;
        }
        let _closing = Closing;
        while let Some(Owned { compute, prepare, persisted }) = next {
            drop((compute, prepare, persisted));
            next = QUEUE.with_borrow_mut(|queue| queue.as_mut().and_then(Vec::pop));
        }
    }
}

/// Closes the queue, also when a drop panicked.
struct Closing;

impl Drop for Closing {
    fn drop(&mut self) {
        drop(QUEUE.take());
    }
}
