//! One memory tier: the blocks that could be evicted from it, and the policy that ranks them.

mod journal;

use std::fmt;
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry as MapEntry;

use crate::dataset::AnyDataset;
use crate::id::{BlockId, DatasetId};
use crate::policy::{Candidate, EvictionPolicy, Offer, Removed, Slot};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread::{self, ThreadId};
use crate::sync::{Condvar, Mutex, MutexGuard};
use journal::Journal;

/// The locking shell around a policy. Its lock is held for book-keeping alone, never over I/O, user code or a
/// drop of user data, and nothing else is locked under it. Reads, by far the most frequent, do not take it: they are
/// noted in a journal.
pub(crate) struct Tier {
    inner: Mutex<Inner>,
    touches: Journal,
    /// Signalled when a victim has left or stays.
    departed: Condvar,
    pinned_evicted_bytes: AtomicU64,
}

struct Inner {
    /// Victims that have left, or stayed after all.
    departures: u64,
    /// Victims that are about to.
    leaving: usize,
    /// Residents that could not leave the last time.
    stuck: usize,
    /// Bytes of the residents, by dataset.
    listed: HashMap<DatasetId, u64>,
    policy: Box<dyn EvictionPolicy>,
    /// How far the journal was read.
    touches_read: journal::Read,
    /// Indexed by slot.
    residents: Vec<Option<Resident>>,
    /// Whether there is one: a byte each, so that to look at it for every touch is no cache miss.
    occupied: Vec<bool>,
    free: Vec<Slot>,
}

/// What the tier knows of one memory copy.
struct Resident {
    block: BlockId,
    dataset: Weak<dyn AnyDataset>,
    pins: Pins,
    bytes: u64,
    /// Its level has a disk and it is not there yet.
    must_be_written: bool,
    /// It was chosen and could not leave: others are tried first.
    stuck: bool,
    /// Who has chosen it and is about to take it.
    leaving: Option<ThreadId>,
}

impl Resident {
    fn is_evictable(&self) -> bool {
        self.bytes > 0 && self.leaving.is_none() && self.pins.is_held_by_the_store_alone()
    }
}

/// How much is to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    /// So many bytes, or nothing.
    AtLeast(u64),
    /// So many bytes, or as many as can be had.
    UpTo(u64),
}

/// Which victims may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    /// All; those that could not leave the last time come last.
    All,
    /// Not those that could not leave the last time.
    Willing,
    /// Nor those that would have to be written to disk first.
    NeedNoWrite,
}

/// What a tier can give up.
pub(crate) enum Choice<'a> {
    /// These together are enough.
    Victims(Vec<Victim<'a>>),
    /// Not enough, but enough with what others have chosen and are about to take: wait for a departure after this.
    Others { departures: u64 },
    /// Not enough.
    TooLittle,
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
    pub(crate) must_be_written: bool,
}

impl Victim<'_> {
    /// It could not leave. It may be chosen again, when others are not enough.
    pub(crate) fn could_not_leave(self) {
        let mut inner = self.tier.inner.lock();
        if let Some(resident) = inner.resident(self.slot)
            && !std::mem::replace(&mut resident.stuck, true)
        {
            inner.stuck += 1;
        }
    }
}

impl Drop for Victim<'_> {
    fn drop(&mut self) {
        let mut inner = self.tier.inner.lock();
        // Where the slot has a next holder by now, that one may be chosen twice, and can be taken only once.
        if let Some(resident) = inner.resident(self.slot) {
            resident.leaving = None;
        }
        inner.departures += 1;
        inner.leaving = inner.leaving.saturating_sub(1);
        drop(inner);
        self.tier.departed.notify_all();
    }
}

impl Inner {
    fn unlist(&mut self, dataset: DatasetId, bytes: u64) {
        if let MapEntry::Occupied(mut listed) = self.listed.entry(dataset) {
            *listed.get_mut() -= bytes;
            if *listed.get() == 0 {
                listed.remove();
            }
        }
    }

    /// Puts a resident where there was none, or the other way round.
    fn occupy(&mut self, slot: Slot, resident: Option<Resident>) -> Option<Resident> {
        if let Some(is_occupied) = self.occupied.get_mut(slot.0 as usize) {
            *is_occupied = resident.is_some();
        }
        let place = self.residents.get_mut(slot.0 as usize)?;
        std::mem::replace(place, resident)
    }

    fn resident(&mut self, slot: Slot) -> Option<&mut Resident> {
        self.residents.get_mut(slot.0 as usize)?.as_mut()
    }

    /// Asks the policy for slots until those that `may` leave give back `bytes`; what they give back.
    fn collect(
        &mut self,
        bytes: u64,
        requester: Option<DatasetId>,
        may: impl Fn(&Resident) -> bool,
        chosen: &mut Vec<Slot>,
    ) -> u64 {
        let Self { policy, residents, .. } = self;
        let mut sum = 0_u64;
        chosen.clear();
        policy.rank(requester, &mut |slot| {
            let Some(Some(resident)) = residents.get(slot.0 as usize) else { return Offer::Next };
            if resident.is_evictable() && may(resident) {
                chosen.push(slot);
                sum = sum.saturating_add(resident.bytes);
            }
            if sum >= bytes { Offer::Stop } else { Offer::Next }
        });
        sum
    }

    /// Bytes that other threads are about to give back; none for a thread that is giving back itself, which must not
    /// wait for them.
    fn leaving_elsewhere(&self, requester: Option<DatasetId>) -> u64 {
        if self.leaving == 0 {
            return 0;
        }
        let here = thread::current().id();
        let mut sum = 0_u64;
        for resident in self.residents.iter().flatten() {
            match resident.leaving {
                Some(thread) if thread == here => return 0,
                Some(_) if Some(resident.block.dataset) != requester => sum += resident.bytes,
                _ => {}
            }
        }
        sum
    }
}

impl Tier {
    pub(crate) fn new(policy: Box<dyn EvictionPolicy>) -> Arc<Self> {
        let inner = Inner {
            departures: 0,
            leaving: 0,
            stuck: 0,
            listed: HashMap::new(),
            policy,
            touches_read: journal::Read::default(),
            residents: Vec::new(),
            occupied: Vec::new(),
            free: Vec::new(),
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            touches: Journal::new(),
            departed: Condvar::new(),
            pinned_evicted_bytes: AtomicU64::new(0),
        })
    }

    /// Locks the tier, with the policy told of every touch so far.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock();
        let Inner { policy, occupied, touches_read, .. } = &mut *inner;
        self.touches.read(touches_read, |slot| {
            if occupied.get(slot.0 as usize) == Some(&true) {
                policy.touch(slot);
            }
        });
        inner
    }

    /// Makes a copy known, and evictable, until its slot is removed.
    pub(crate) fn insert(
        &self,
        candidate: &Candidate,
        dataset: Weak<dyn AnyDataset>,
        pins: Pins,
        must_be_written: bool,
    ) -> Slot {
        let Candidate { block, bytes, .. } = *candidate;
        let resident = Resident { block, dataset, pins, bytes, must_be_written, stuck: false, leaving: None };
        let mut inner = self.lock();
        let slot = inner.free.pop().unwrap_or_else(|| {
            inner.residents.push(None);
            inner.occupied.push(false);
            Slot(u32::try_from(inner.residents.len() - 1).unwrap_or(u32::MAX))
        });
        inner.occupy(slot, Some(resident));
        inner.policy.insert(slot, candidate);
        *inner.listed.entry(block.dataset).or_default() += bytes;
        slot
    }

    /// Forgets a copy; as evicted, if someone has chosen it as a victim.
    pub(crate) fn remove(&self, slot: Slot) {
        let mut inner = self.lock();
        let gone = inner.occupy(slot, None);
        if let Some(resident) = &gone {
            let removed = if resident.leaving.is_some() { Removed::Evicted } else { Removed::Dropped };
            inner.policy.remove(slot, removed);
            inner.free.push(slot);
            inner.unlist(resident.block.dataset, resident.bytes);
            inner.stuck -= usize::from(resident.stuck);
        }
        drop(inner);
        drop(gone);
    }

    /// What listed copies hold, by dataset.
    pub(crate) fn listed(&self) -> Vec<(DatasetId, u64)> {
        self.inner.lock().listed.iter().map(|(dataset, bytes)| (*dataset, *bytes)).collect()
    }

    /// What copies hold that left while a reader has them.
    pub(crate) fn pinned_evicted_bytes(&self) -> u64 {
        self.pinned_evicted_bytes.load(Ordering::Relaxed)
    }

    /// A copy left; it is counted until it is gone.
    pub(crate) fn count_leaving(&self, bytes: u64) {
        self.pinned_evicted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A copy that had left is gone.
    pub(crate) fn count_gone(&self, bytes: u64) {
        self.pinned_evicted_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Chooses copies, coldest first, that give back so much together; none when they could not.
    pub(crate) fn choose(&self, amount: Amount, requester: Option<DatasetId>, among: Among) -> Choice<'_> {
        let (Amount::AtLeast(bytes) | Amount::UpTo(bytes)) = amount;
        let willing = |resident: &Resident| {
            !resident.stuck && (among != Among::NeedNoWrite || !resident.must_be_written)
        };
        let mut inner = self.lock();
        let mut chosen = Vec::new();
        let mut sum = inner.collect(bytes, requester, willing, &mut chosen);
        if sum < bytes && among == Among::All && inner.stuck > 0 {
            sum = inner.collect(bytes, requester, |_| true, &mut chosen);
        }
        let enough = sum >= bytes || (sum > 0 && matches!(amount, Amount::UpTo(_)));
        if !enough {
            let later = sum.saturating_add(inner.leaving_elsewhere(requester));
            let departures = inner.departures;
            return if later < bytes { Choice::TooLittle } else { Choice::Others { departures } };
        }
        let here = thread::current().id();
        let victims = chosen.into_iter().filter_map(|slot| {
            let resident = inner.resident(slot)?;
            resident.leaving = Some(here);
            let dataset = Weak::clone(&resident.dataset);
            let must_be_written = resident.must_be_written;
            Some(Victim { tier: self, slot, block: resident.block, dataset, must_be_written })
        });
        let victims: Vec<_> = victims.collect();
        inner.leaving += victims.len();
        Choice::Victims(victims)
    }

    /// Waits until there was a departure after so many.
    pub(crate) fn wait_for_departure(&self, departures: u64) {
        let mut inner = self.inner.lock();
        while inner.departures == departures {
            inner = self.departed.wait(inner);
        }
    }

    /// Marks a copy as just used. One that has left meanwhile is ignored, or its slot's next holder marked.
    #[inline]
    pub(crate) fn touch(&self, slot: Slot) {
        if self.touches.note(slot) {
            drop(self.lock());
        }
    }
}

impl fmt::Debug for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tier").finish_non_exhaustive()
    }
}
