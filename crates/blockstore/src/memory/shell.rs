//! The thin shell of locks around the pools, and the loop of evicting and asking again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::pools::{Claim, Pools, TaskId, Verdict};
use super::{DatasetMemory, MemoryMode, MemorySnapshot, Refused};
use crate::DatasetId;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Rounds of evicting for one request. Only other threads that take what was evicted, or readers that hold it,
/// make a second one necessary.
const RECLAIM_ROUNDS_MAX: u32 = 64;

/// Evicts blocks when memory is short. The block store implements it.
pub(crate) trait Reclaim: Send + Sync {
    /// Evicts blocks of `mode` so that at least `bytes` are given back, sparing those of `requester`. If all that
    /// may be evicted is less, evicts nothing.
    ///
    /// Called without any lock of the manager. It chooses under its own lock, writes outside it, commits. It may wait
    /// for another thread's eviction to end. It must not reserve in ways that evict: what it needs for itself is
    /// scratch.
    fn reclaim(&self, mode: MemoryMode, bytes: u64, requester: Option<DatasetId>) -> Reclaimed;

    /// Evicts blocks of `mode` that give back `bytes`, or as much as can be had.
    fn shrink(&self, mode: MemoryMode, bytes: u64) -> Reclaimed {
        self.reclaim(mode, bytes, None)
    }

    /// What its blocks hold.
    fn usage(&self, mode: MemoryMode) -> StorageUsage {
        let _ = mode;
        StorageUsage::default()
    }

    /// The budget of `mode` is another from now on.
    fn resized(&self, mode: MemoryMode, budget_bytes: u64) {
        let _ = (mode, budget_bytes);
    }
}

/// What the blocks of one store hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct StorageUsage {
    /// Listed blocks, by dataset.
    pub(crate) blocks: Vec<(DatasetId, Arc<str>, u64)>,
    /// Blocks that left while a reader holds them.
    pub(crate) pinned_evicted_bytes: u64,
}

/// What was evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reclaimed {
    /// Bytes of the evicted blocks. They are free when the blocks' reservations drop: at once, or with the last
    /// reader that still holds one.
    pub(crate) bytes: u64,
    /// Others were evicting what was missing, and some of it has left meanwhile: look again.
    pub(crate) others_gave_back: bool,
}

#[derive(Debug)]
pub(super) struct Shell {
    state: Mutex<State>,
    /// Signalled on every change of the pools, if anyone waits.
    changed: Condvar,
    /// Not taken together with `state`, and not held while one of them evicts.
    reclaimers: Mutex<Vec<Weak<dyn Reclaim>>>,
    datasets: AtomicU64,
}

#[derive(Debug)]
struct State {
    pools: Pools,
    tasks_waiting: usize,
}

impl Shell {
    pub(super) fn new(pools: Pools) -> Self {
        Self {
            state: Mutex::new(State { pools, tasks_waiting: 0 }),
            changed: Condvar::new(),
            reclaimers: Mutex::new(Vec::new()),
            datasets: AtomicU64::new(0),
        }
    }

    /// A number no other dataset of these budgets has: it names whose blocks to spare when memory is short.
    pub(super) fn next_dataset(&self) -> DatasetId {
        DatasetId(self.datasets.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes from free memory or not at all.
    pub(super) fn acquire_free(&self, mode: MemoryMode, claim: Claim, bytes: u64) -> Result<(), Refused> {
        let mut state = self.state.lock();
        match state.pools.acquire(mode, claim, bytes) {
            Verdict::Granted => {
                self.wake(state);
                Ok(())
            }
            _ => Err(state.pools.refused(mode, claim, bytes)),
        }
    }

    /// Takes free memory, then evicts what the rules allow, then waits if the claim has a right to and `may_wait`.
    pub(super) fn acquire_evicting(
        &self,
        mode: MemoryMode,
        claim: Claim,
        bytes: u64,
        requester: Option<DatasetId>,
        may_wait: bool,
    ) -> Result<(), Refused> {
        let mut rounds = 0;
        let mut state = self.state.lock();
        loop {
            match state.pools.acquire(mode, claim, bytes) {
                Verdict::Granted => {
                    self.wake(state);
                    return Ok(());
                }
                Verdict::Evict { bytes: missing } if rounds < RECLAIM_ROUNDS_MAX => {
                    drop(state);
                    // When nothing was evicted, others may still have given back: look once more.
                    let reclaimed = self.reclaim(mode, missing, requester);
                    rounds = match reclaimed {
                        Reclaimed { bytes: 0, others_gave_back: false } => RECLAIM_ROUNDS_MAX,
                        _ => rounds + 1,
                    };
                    state = self.state.lock();
                }
                Verdict::Wait if may_wait => {
                    state.tasks_waiting += 1;
                    state = self.changed.wait(state);
                    state.tasks_waiting -= 1;
                    rounds = 0;
                }
                Verdict::Evict { .. } | Verdict::Wait | Verdict::Refused => {
                    return Err(state.pools.refuse(mode, claim, bytes));
                }
            }
        }
    }

    pub(super) fn release(&self, mode: MemoryMode, claim: Claim, bytes: u64) {
        self.change(|pools| pools.release(mode, claim, bytes));
    }

    pub(super) fn register_task(&self) -> TaskId {
        self.change(Pools::register_task)
    }

    pub(super) fn remove_task(&self, task: TaskId) {
        self.change(|pools| pools.remove_task(task));
    }

    pub(super) fn task_bytes(&self, mode: MemoryMode, task: TaskId) -> u64 {
        self.state.lock().pools.task_bytes(mode, task)
    }

    pub(super) fn add_scratch(&self, bytes: u64) {
        self.state.lock().pools.add_scratch(bytes);
    }

    pub(super) fn sub_scratch(&self, bytes: u64) {
        self.state.lock().pools.sub_scratch(bytes);
    }

    pub(super) fn name_task(&self, task: TaskId, name: Arc<str>) {
        self.state.lock().pools.name_task(task, name);
    }

    /// Sets a budget, and evicts down to it as far as can be; how much is charged beyond it still.
    pub(super) fn resize(&self, mode: MemoryMode, budget_bytes: u64) -> u64 {
        let mut over = self.change(|pools| pools.resize(mode, budget_bytes));
        let reclaimers = self.reclaimers();
        for reclaimer in reclaimers {
            reclaimer.resized(mode, budget_bytes);
            while over > 0 {
                let reclaimed = reclaimer.shrink(mode, over);
                over = self.state.lock().pools.over(mode);
                if reclaimed.bytes == 0 && !reclaimed.others_gave_back {
                    break;
                }
            }
        }
        over
    }

    pub(super) fn snapshot(&self) -> MemorySnapshot {
        let state = self.state.lock();
        let mut snapshot = state.pools.snapshot(state.tasks_waiting);
        drop(state);
        let mut datasets: BTreeMap<DatasetId, DatasetMemory> = BTreeMap::new();
        for reclaimer in self.reclaimers() {
            for mode in MemoryMode::ALL {
                let usage = reclaimer.usage(mode);
                let split = snapshot.mode_mut(mode);
                split.pinned_evicted_bytes += usage.pinned_evicted_bytes;
                for (dataset, name, bytes) in usage.blocks {
                    split.block_bytes += bytes;
                    let entry = datasets.entry(dataset).or_insert_with(|| DatasetMemory::new(dataset, &name));
                    *entry.bytes_mut(mode) += bytes;
                }
            }
        }
        for mode in MemoryMode::ALL {
            let split = snapshot.mode_mut(mode);
            let known = split.block_bytes + split.pinned_evicted_bytes;
            split.in_flight_bytes = split.storage_bytes.saturating_sub(known);
        }
        snapshot.datasets = datasets.into_values().collect();
        snapshot
    }

    fn reclaimers(&self) -> Vec<std::sync::Arc<dyn Reclaim>> {
        self.reclaimers.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn register(&self, reclaimer: Weak<dyn Reclaim>) {
        let mut reclaimers = self.reclaimers.lock();
        reclaimers.retain(|known| known.strong_count() > 0);
        reclaimers.push(reclaimer);
    }

    fn change<R>(&self, change: impl FnOnce(&mut Pools) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state.pools);
        self.wake(state);
        result
    }

    fn wake(&self, state: MutexGuard<'_, State>) {
        let someone_waits = state.tasks_waiting > 0;
        drop(state);
        if someone_waits {
            self.changed.notify_all();
        }
    }

    /// One round: asks each reclaimer in turn for what is still missing.
    fn reclaim(&self, mode: MemoryMode, bytes: u64, requester: Option<DatasetId>) -> Reclaimed {
        let mut sum = Reclaimed::default();
        for reclaimer in self.reclaimers() {
            if sum.bytes >= bytes {
                break;
            }
            let reclaimed = reclaimer.reclaim(mode, bytes - sum.bytes, requester);
            sum.bytes = sum.bytes.saturating_add(reclaimed.bytes);
            sum.others_gave_back |= reclaimed.others_gave_back;
        }
        sum
    }

    #[cfg(test)]
    pub(super) fn validate(&self) -> Result<(), String> {
        self.state.lock().pools.validate()
    }
}
