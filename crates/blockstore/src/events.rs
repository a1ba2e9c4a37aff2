//! Events: what happens to blocks, told to whoever listens.

use std::fmt;
use std::path::PathBuf;
use std::sync::Weak;

use crate::error::Residence;
use crate::id::BlockId;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Something that happened to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A writer finished and a copy was stored.
    Stored {
        /// Which block.
        block: BlockId,
        /// Where its first copy lives.
        residence: Residence,
        /// Bytes of that copy.
        bytes: u64,
    },
    /// A read was served.
    Hit {
        /// Which block.
        block: BlockId,
        /// From where.
        residence: Residence,
    },
    /// A read found no copy.
    Miss {
        /// Which block.
        block: BlockId,
    },
    /// A block was computed; `again` when it had been computed before, and stored or refused.
    Computed {
        /// Which block.
        block: BlockId,
        /// Had it been stored before?
        again: bool,
    },
    /// A memory copy was given up.
    Evicted {
        /// Which block.
        block: BlockId,
        /// The copy that went.
        residence: Residence,
        /// Its bytes.
        bytes: u64,
        /// Why it went.
        reason: EvictReason,
    },
    /// A copy was written to disk because memory was short.
    Spilled {
        /// Which block.
        block: BlockId,
        /// Bytes written.
        bytes: u64,
    },
    /// A copy was brought back from disk.
    Promoted {
        /// Which block.
        block: BlockId,
        /// Where it now also lives.
        residence: Residence,
        /// Bytes of the new copy.
        bytes: u64,
    },
    /// A copy was found damaged and discarded.
    Corrupt {
        /// Which block.
        block: BlockId,
        /// The copy that was discarded.
        residence: Residence,
    },
    /// A block was not stored: memory is short and its level has no disk.
    Refused {
        /// Which block.
        block: BlockId,
    },
    /// A block was removed on request.
    Removed {
        /// Which block.
        block: BlockId,
    },
    /// A block could not be written to disk.
    DiskError {
        /// Which block.
        block: BlockId,
        /// What the disk said, with the directory.
        problem: String,
    },
    /// A copy in memory was to be evicted and could not be encoded or written to disk. It stays.
    SpillFailed {
        /// Which block.
        block: BlockId,
        /// What went wrong.
        problem: String,
    },
    /// A directory failed and was put aside: new blocks go to the others, blocks on it are computed again when
    /// they turn out unreadable. Told once a directory.
    DirectoryFailed {
        /// Which one.
        directory: PathBuf,
        /// What it said.
        problem: String,
    },
    /// Fewer copies exist than the level asks for.
    UnderReplicated {
        /// Which block.
        block: BlockId,
        /// Copies asked for.
        wanted: u8,
        /// Copies there are.
        placed: u8,
    },
}

/// Why a memory copy was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EvictReason {
    /// To make room for another block, or for execution.
    Room,
    /// Because someone asked for it.
    Asked,
}

type Listener = dyn Fn(&Event) + Send + Sync;

/// The listeners of one store. When nobody listens an event costs one atomic load.
#[derive(Default)]
pub(crate) struct Events {
    listeners: Mutex<Vec<(u64, std::sync::Arc<Listener>)>>,
    next: Mutex<u64>,
    count: AtomicUsize,
}

impl Events {
    pub(crate) fn emit(&self, event: impl FnOnce() -> Event) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let listeners: Vec<_> =
            self.listeners.lock().iter().map(|(_, listener)| std::sync::Arc::clone(listener)).collect();
        let event = event();
        for listener in listeners {
            listener(&event);
        }
    }

    pub(crate) fn subscribe(
        events: &std::sync::Arc<Self>,
        listener: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Subscription {
        let id = {
            let mut next = events.next.lock();
            *next += 1;
            *next
        };
        events.listeners.lock().push((id, std::sync::Arc::new(listener)));
        events.count.fetch_add(1, Ordering::Relaxed);
        Subscription { events: std::sync::Arc::downgrade(events), id }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("listeners", &self.count.load(Ordering::Relaxed)).finish()
    }
}

/// Keeps a listener subscribed; dropping it ends the subscription.
#[derive(Debug)]
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    events: Weak<Events>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(events) = self.events.upgrade() else { return };
        let gone = {
            let mut listeners = events.listeners.lock();
            let at = listeners.iter().position(|(id, _)| *id == self.id);
            at.map(|at| listeners.swap_remove(at))
        };
        if gone.is_some() {
            events.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
