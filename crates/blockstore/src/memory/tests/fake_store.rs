//! A store of bare reservations that evicts the eldest first.

use std::sync::{Arc, Weak};

use super::*;
use crate::sync::Mutex;

type Hook = Box<dyn Fn(usize) + Send + Sync>;

pub(super) struct FakeStore {
    memory: MemoryManager,
    pub(super) blocks: Mutex<Vec<(DatasetId, Reservation)>>,
    asked: Mutex<Vec<(MemoryMode, u64, Option<DatasetId>)>>,
    /// Evicted blocks that readers hold, if victims are pinned.
    pinned: Mutex<Option<Vec<Reservation>>>,
    hook: Mutex<Option<Hook>>,
}

pub(super) fn weak<R: Reclaim + 'static>(reclaimer: &Arc<R>) -> Weak<dyn Reclaim> {
    let weak: Weak<R> = Arc::downgrade(reclaimer);
    weak
}

impl FakeStore {
    pub(super) fn new(memory: &MemoryManager) -> Arc<Self> {
        let store = Arc::new(Self {
            memory: memory.clone(),
            blocks: Mutex::default(),
            asked: Mutex::default(),
            pinned: Mutex::default(),
            hook: Mutex::default(),
        });
        memory.register(weak(&store));
        store
    }

    pub(super) fn put(&self, mode: MemoryMode, dataset: DatasetId, bytes: u64) -> Result<(), Refused> {
        let reservation = self.memory.reserve_storage(mode, bytes, Some(dataset))?;
        self.blocks.lock().push((dataset, reservation));
        Ok(())
    }

    /// What the manager asked for, in order.
    pub(super) fn asked(&self) -> Vec<(MemoryMode, u64, Option<DatasetId>)> {
        self.asked.lock().clone()
    }

    /// From now on victims leave the store and stay charged.
    pub(super) fn pin_victims(&self) {
        *self.pinned.lock() = Some(Vec::new());
    }

    pub(super) fn take_pinned(&self) -> Vec<Reservation> {
        self.pinned.lock().take().unwrap_or_default()
    }

    /// Runs `hook`, with the number of times the store was asked, when victims are out; for one that panics, once.
    pub(super) fn during_reclaim(&self, hook: impl Fn(usize) + Send + Sync + 'static) {
        *self.hook.lock() = Some(Box::new(hook));
    }

    fn choose(&self, mode: MemoryMode, bytes: u64, requester: Option<DatasetId>) -> Vec<Reservation> {
        let mut blocks = self.blocks.lock();
        let (mut chosen, mut missing) = (Vec::new(), bytes);
        for (at, (dataset, block)) in blocks.iter().enumerate() {
            if missing > 0 && block.mode() == mode && Some(*dataset) != requester {
                missing = missing.saturating_sub(block.bytes());
                chosen.push(at);
            }
        }
        if missing > 0 {
            return Vec::new();
        }
        chosen.into_iter().rev().map(|at| blocks.remove(at).1).collect()
    }
}

impl Reclaim for FakeStore {
    fn reclaim(&self, mode: MemoryMode, bytes: u64, requester: Option<DatasetId>) -> Reclaimed {
        let times = {
            let mut asked = self.asked.lock();
            asked.push((mode, bytes, requester));
            asked.len()
        };
        let victims = self.choose(mode, bytes, requester);
        let evicted = victims.iter().map(Reservation::bytes).sum();
        match &mut *self.pinned.lock() {
            Some(pinned) => pinned.extend(victims),
            None => drop(victims),
        }
        let hook = self.hook.lock().take();
        if let Some(hook) = hook {
            hook(times);
            *self.hook.lock() = Some(hook);
        }
        Reclaimed { bytes: evicted, ..Reclaimed::default() }
    }
}
