//! Which thread waits for which, to tell the waits that would never end.

use std::collections::HashMap;
use std::sync::Arc;

use crate::sync::Mutex;
use crate::sync::thread::{self, ThreadId};

/// The thread that computes a block, as long as it does, where it is known to be one.
pub(crate) type Leader = Arc<Mutex<Option<ThreadId>>>;

/// The threads that wait for blocks of a store, and for whom.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    leaders: Mutex<HashMap<ThreadId, Leader>>,
}

/// The thread that is waited for waits, perhaps through others, for this one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Circular;

impl Waits {
    /// Notes that this thread waits for `leader` until the guard drops.
    ///
    /// Of threads that wait for each other in a circle, the last to get here is told.
    pub(crate) fn wait_here(&self, leader: Leader) -> Result<Waiting<'_>, Circular> {
        let this = thread::current().id();
        let mut leaders = self.leaders.lock();
        let mut next = *leader.lock();
        // A circle of others, of which one is about to be told, must not hold this one.
        for _ in 0..=leaders.len() {
            match next {
                Some(thread) if thread == this => return Err(Circular),
                Some(thread) => next = leaders.get(&thread).and_then(|leader| *leader.lock()),
                None => break,
            }
        }
        leaders.insert(this, leader);
        Ok(Waiting { waits: self, thread: this })
    }
}

/// A thread that waits.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    waits: &'a Waits,
    thread: ThreadId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waits.leaders.lock().remove(&self.thread);
    }
}
