//! One memory tier: the blocks that could be evicted from it, and the policy that ranks them.

use std::fmt;
use std::sync::{Arc, Weak};

use crate::dataset::AnyDataset;
use crate::id::{BlockId, DatasetId};
use crate::policy::{Candidate, EvictionPolicy, Offer, Removed, Slot};
use crate::sync::Mutex;

/// The locking shell around a policy. Its lock is held for book-keeping alone, never over I/O, user code or a
/// drop of user data, and nothing else is locked under it.
pub(crate) struct Tier {
    inner: Mutex<Inner>,
}

struct Inner {
    policy: Box<dyn EvictionPolicy>,
    /// Indexed by slot.
    residents: Vec<Option<Resident>>,
    free: Vec<Slot>,
}

/// What the tier knows of one memory copy.
struct Resident {
    block: BlockId,
    dataset: Weak<dyn AnyDataset>,
    pins: Pins,
    bytes: u64,
    /// Someone has chosen it and is about to take it.
    leaving: bool,
}

impl Resident {
    fn is_evictable(&self) -> bool {
        self.bytes > 0 && !self.leaving && self.pins.is_held_by_the_store_alone()
    }
}

/// Tells whether anyone but the store holds a copy. A hint: the copy itself stays valid for whoever holds it.
pub(crate) struct Pins(Weak<dyn Send + Sync>);

impl Pins {
    pub(crate) fn of<C: Send + Sync + 'static>(copy: &Arc<C>) -> Self {
        let copy: Weak<C> = Arc::downgrade(copy);
        Self(copy)
    }

    /// False while a reader holds the copy, and once it is gone.
    fn is_held_by_the_store_alone(&self) -> bool {
        self.0.strong_count() == 1
    }
}

/// A copy chosen to leave the tier. Nobody else chooses it while this lives; one that has not left when this drops
/// stays after all.
pub(crate) struct Victim<'a> {
    tier: &'a Tier,
    pub(crate) slot: Slot,
    pub(crate) block: BlockId,
    pub(crate) dataset: Weak<dyn AnyDataset>,
}

impl Drop for Victim<'_> {
    fn drop(&mut self) {
        // Where the slot has a next holder by now, that one may be chosen twice, and can be taken only once.
        if let Some(Some(resident)) = self.tier.inner.lock().residents.get_mut(self.slot.0 as usize) {
            resident.leaving = false;
        }
    }
}

impl Tier {
    pub(crate) fn new(policy: Box<dyn EvictionPolicy>) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(Inner { policy, residents: Vec::new(), free: Vec::new() }) })
    }

    /// Makes a copy known, and evictable. It leaves with the returned guard.
    pub(crate) fn insert(
        self: &Arc<Self>,
        candidate: &Candidate,
        dataset: Weak<dyn AnyDataset>,
        pins: Pins,
    ) -> Tracked {
        let Candidate { block, bytes, .. } = *candidate;
        let resident = Resident { block, dataset, pins, bytes, leaving: false };
        let mut inner = self.inner.lock();
        let slot = inner.free.pop().unwrap_or_else(|| {
            inner.residents.push(None);
            Slot(u32::try_from(inner.residents.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(place) = inner.residents.get_mut(slot.0 as usize) {
            *place = Some(resident);
        }
        inner.policy.insert(slot, candidate);
        Tracked { tier: Arc::clone(self), slot, removed: Removed::Dropped }
    }

    fn remove(&self, slot: Slot, removed: Removed) {
        let mut inner = self.inner.lock();
        let gone = inner.residents.get_mut(slot.0 as usize).and_then(Option::take);
        if gone.is_some() {
            inner.policy.remove(slot, removed);
            inner.free.push(slot);
        }
        drop(inner);
        drop(gone);
    }

    /// Chooses copies, coldest first, that give back at least `bytes` together; none when they could not.
    pub(crate) fn choose(&self, bytes: u64, requester: Option<DatasetId>) -> Vec<Victim<'_>> {
        let mut inner = self.inner.lock();
        let Inner { policy, residents, .. } = &mut *inner;
        let mut chosen = Vec::new();
        let mut sum = 0_u64;
        policy.rank(requester, &mut |slot| {
            let Some(Some(resident)) = residents.get(slot.0 as usize) else { return Offer::Next };
            if resident.is_evictable() {
                chosen.push(slot);
                sum = sum.saturating_add(resident.bytes);
            }
            if sum >= bytes { Offer::Stop } else { Offer::Next }
        });
        if sum < bytes {
            return Vec::new();
        }
        chosen
            .into_iter()
            .filter_map(|slot| {
                let resident = residents.get_mut(slot.0 as usize)?.as_mut()?;
                resident.leaving = true;
                let dataset = Weak::clone(&resident.dataset);
                Some(Victim { tier: self, slot, block: resident.block, dataset })
            })
            .collect()
    }

    /// Marks a copy as just used. One that has left meanwhile is ignored, or its slot's next holder marked.
    pub(crate) fn touch(&self, slot: Slot) {
        let mut inner = self.inner.lock();
        if matches!(inner.residents.get(slot.0 as usize), Some(Some(_))) {
            inner.policy.touch(slot);
        }
    }
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier").finish_non_exhaustive()
    }
}

/// A copy's place in its tier, for as long as the store lists it.
pub(crate) struct Tracked {
    tier: Arc<Tier>,
    slot: Slot,
    removed: Removed,
}

impl Tracked {
    pub(crate) fn slot(&self) -> Slot {
        self.slot
    }

    /// Leaves the tier as one that was taken to make room.
    pub(crate) fn evicted(mut self) {
        self.removed = Removed::Evicted;
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.tier.remove(self.slot, self.removed);
    }
}
