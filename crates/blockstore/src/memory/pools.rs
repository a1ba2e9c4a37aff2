//! Who holds how much, and who may have how much more: the rules alone, without locks.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::snapshot::PerMode;
use super::{ConsumerMemory, MemoryMode, MemorySnapshot, MemoryUse, ModeSnapshot, Refused};

/// A registered task. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TaskId(u64);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A block or its writer, which holds `held_bytes` already and cannot give them up for itself.
    Storage {
        /// Bytes of the reservation that is to grow.
        held_bytes: u64,
    },
    /// A task of the engine above.
    Execution {
        /// The task.
        task: TaskId,
    },
}

impl Claim {
    fn memory_use(self) -> MemoryUse {
        match self {
            Self::Storage { .. } => MemoryUse::Storage,
            Self::Execution { .. } => MemoryUse::Execution,
        }
    }
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The bytes are charged.
    Granted,
    /// Nothing is charged; it would be, if storage gave back so many bytes first.
    Evict {
        /// Bytes that are missing.
        bytes: u64,
    },
    /// Nothing is charged; the task has a right to the bytes, and other tasks hold them.
    Wait,
    /// Nothing is charged, and no eviction the rules allow could change it.
    Refused,
}

/// Both budgets. Charges what is granted; the caller gives back exactly what it was granted.
#[derive(Debug)]
pub(super) struct Pools {
    splits: PerMode<Split>,
    tasks: BTreeMap<TaskId, Held>,
    next_task: u64,
    scratch: u64,
    scratch_peak: u64,
}

/// What one task holds.
#[derive(Debug, Default)]
struct Held {
    name: Option<Arc<str>>,
    bytes: PerMode<u64>,
}

/// One budget, split between storage and execution.
#[derive(Clone, Copy, Debug, Default)]
struct Split {
    budget: u64,
    storage_fraction: f64,
    protected_storage: u64,
    storage: u64,
    execution: u64,
    storage_peak: u64,
    execution_peak: u64,
    charged_peak: u64,
    storage_refused: u64,
    execution_refused: u64,
}

/// What a task can have of one budget.
#[derive(Clone, Copy, Debug)]
struct Share {
    held: u64,
    most: u64,
    sure: u64,
}

impl Share {
    fn is_exceeded(&self) -> bool {
        self.held > self.most
    }
}

impl Held {
    fn snapshot(&self, task: TaskId) -> ConsumerMemory {
        ConsumerMemory {
            name: self.name.as_ref().map_or_else(|| format!("task {}", task.0), |name| name.to_string()),
            heap_bytes: self.bytes.heap,
            off_heap_bytes: self.bytes.off_heap,
        }
    }
}

impl Split {
    fn new(budget: u64, storage_fraction: f64) -> Self {
        let mut split = Self { storage_fraction, ..Self::default() };
        split.resize(budget);
        split
    }

    fn resize(&mut self, budget: u64) {
        self.budget = budget;
        self.protected_storage = ((budget as f64 * self.storage_fraction) as u64).min(budget);
    }

    /// Charged beyond the budget, since it was made smaller.
    fn over(&self) -> u64 {
        (self.storage + self.execution).saturating_sub(self.budget)
    }

    fn free(&self) -> u64 {
        self.budget.saturating_sub(self.storage).saturating_sub(self.execution)
    }

    /// What storage holds beyond its region, and execution may evict.
    fn lent(&self) -> u64 {
        self.storage.saturating_sub(self.protected_storage)
    }

    /// The most execution could have with what storage holds now.
    fn execution_most(&self) -> u64 {
        self.budget.saturating_sub(self.storage.min(self.protected_storage))
    }

    fn note_peaks(&mut self) {
        self.storage_peak = self.storage_peak.max(self.storage);
        self.execution_peak = self.execution_peak.max(self.execution);
        self.charged_peak = self.charged_peak.max(self.storage + self.execution);
    }

    fn snapshot(&self) -> ModeSnapshot {
        ModeSnapshot {
            budget_bytes: self.budget,
            storage_bytes: self.storage,
            block_bytes: 0,
            pinned_evicted_bytes: 0,
            in_flight_bytes: self.storage,
            execution_bytes: self.execution,
            free_bytes: self.free(),
            protected_storage_bytes: self.protected_storage,
            storage_peak_bytes: self.storage_peak,
            execution_peak_bytes: self.execution_peak,
            charged_peak_bytes: self.charged_peak,
            storage_refused: self.storage_refused,
            execution_refused: self.execution_refused,
        }
    }
}

impl Pools {
    pub(super) fn new(heap: u64, off_heap: u64, storage_fraction: f64) -> Self {
        Self {
            splits: PerMode {
                heap: Split::new(heap, storage_fraction),
                off_heap: Split::new(off_heap, storage_fraction),
            },
            tasks: BTreeMap::new(),
            next_task: 0,
            scratch: 0,
            scratch_peak: 0,
        }
    }

    pub(super) fn acquire(&mut self, mode: MemoryMode, claim: Claim, bytes: u64) -> Verdict {
        match claim {
            Claim::Storage { held_bytes } => self.acquire_storage(mode, held_bytes, bytes),
            Claim::Execution { task } => self.acquire_execution(mode, task, bytes),
        }
    }

    pub(super) fn release(&mut self, mode: MemoryMode, claim: Claim, bytes: u64) {
        let split = self.splits.get_mut(mode);
        let pool = match claim {
            Claim::Storage { .. } => &mut split.storage,
            Claim::Execution { task } => {
                if let Some(held) = self.tasks.get_mut(&task) {
                    let held = held.bytes.get_mut(mode);
                    debug_assert!(*held >= bytes, "the task gives back more than it took");
                    *held = held.saturating_sub(bytes);
                }
                &mut split.execution
            }
        };
        debug_assert!(*pool >= bytes, "more is given back than was taken");
        *pool = pool.saturating_sub(bytes);
    }

    fn acquire_storage(&mut self, mode: MemoryMode, held: u64, bytes: u64) -> Verdict {
        let split = self.splits.get_mut(mode);
        let free = split.free();
        if bytes <= free {
            split.storage += bytes;
            split.note_peaks();
            return Verdict::Granted;
        }
        // Storage as it would be if every block but the requester's own bytes were evicted.
        let most = split.budget.saturating_sub(split.execution).saturating_sub(held);
        if bytes <= most { Verdict::Evict { bytes: bytes - free } } else { Verdict::Refused }
    }

    /// Waiting tasks never wait for each other alone. To be told to wait, with N tasks, the others must hold more
    /// than all but 1/(2N) of what execution can have, so one of them holds more than 1/N of it. That one is over
    /// its share and is never told to wait, for either mode: it is refused, and spills. It holds as long as
    /// every change wakes the waiting ones to ask again.
    fn acquire_execution(&mut self, mode: MemoryMode, task: TaskId, bytes: u64) -> Verdict {
        let share = self.share(mode, task);
        let over_a_share = MemoryMode::ALL.into_iter().any(|any| self.share(any, task).is_exceeded());
        let split = self.splits.get_mut(mode);
        let wanted = share.held.saturating_add(bytes);
        if bytes > 0 && wanted > share.most {
            return Verdict::Refused;
        }
        let free = split.free();
        if bytes > free {
            let missing = bytes - free;
            return match missing {
                _ if missing <= split.lent() => Verdict::Evict { bytes: missing },
                _ if wanted <= share.sure && !over_a_share => Verdict::Wait,
                _ => Verdict::Refused,
            };
        }
        let Some(held) = self.tasks.get_mut(&task) else {
            debug_assert!(false, "the task is not registered");
            return Verdict::Refused;
        };
        *held.bytes.get_mut(mode) += bytes;
        split.execution += bytes;
        split.note_peaks();
        Verdict::Granted
    }

    fn share(&self, mode: MemoryMode, task: TaskId) -> Share {
        let tasks = (self.tasks.len() as u64).max(1);
        let most = self.splits.get(mode).execution_most();
        let held = self.tasks.get(&task).map_or(0, |held| *held.bytes.get(mode));
        Share { held, most: most / tasks, sure: most / tasks.saturating_mul(2) }
    }

    /// Counts a refusal and says what there was instead.
    pub(super) fn refuse(&mut self, mode: MemoryMode, claim: Claim, bytes: u64) -> Refused {
        let split = self.splits.get_mut(mode);
        match claim {
            Claim::Storage { .. } => split.storage_refused += 1,
            Claim::Execution { .. } => split.execution_refused += 1,
        }
        self.refused(mode, claim, bytes)
    }

    /// What there is instead of what was asked for.
    pub(super) fn refused(&self, mode: MemoryMode, claim: Claim, bytes: u64) -> Refused {
        let available_bytes = match claim {
            Claim::Storage { .. } => self.splits.get(mode).free(),
            Claim::Execution { task } => {
                let (share, split) = (self.share(mode, task), self.splits.get(mode));
                share.most.saturating_sub(share.held).min(split.free() + split.lent())
            }
        };
        let budget_bytes = self.splits.get(mode).budget;
        Refused {
            mode,
            memory_use: claim.memory_use(),
            requested_bytes: bytes,
            available_bytes,
            budget_bytes,
        }
    }

    pub(super) fn register_task(&mut self) -> TaskId {
        let task = TaskId(self.next_task);
        self.next_task += 1;
        self.tasks.insert(task, Held::default());
        task
    }

    pub(super) fn name_task(&mut self, task: TaskId, name: Arc<str>) {
        if let Some(held) = self.tasks.get_mut(&task) {
            held.name = Some(name);
        }
    }

    /// Makes a budget larger or smaller. What is charged stays so: how much of it is over the new budget.
    pub(super) fn resize(&mut self, mode: MemoryMode, budget: u64) -> u64 {
        let split = self.splits.get_mut(mode);
        split.resize(budget);
        split.over()
    }

    pub(super) fn over(&self, mode: MemoryMode) -> u64 {
        self.splits.get(mode).over()
    }

    pub(super) fn remove_task(&mut self, task: TaskId) {
        let held = self.tasks.remove(&task);
        debug_assert_eq!(
            held.map(|held| held.bytes),
            Some(PerMode::default()),
            "a task leaves when it holds nothing"
        );
    }

    pub(super) fn task_bytes(&self, mode: MemoryMode, task: TaskId) -> u64 {
        self.share(mode, task).held
    }

    pub(super) fn add_scratch(&mut self, bytes: u64) {
        self.scratch = self.scratch.saturating_add(bytes);
        self.scratch_peak = self.scratch_peak.max(self.scratch);
    }

    pub(super) fn sub_scratch(&mut self, bytes: u64) {
        self.scratch = self.scratch.saturating_sub(bytes);
    }

    pub(super) fn snapshot(&self, tasks_waiting: usize) -> MemorySnapshot {
        MemorySnapshot {
            heap: self.splits.heap.snapshot(),
            off_heap: self.splits.off_heap.snapshot(),
            tasks: self.tasks.len(),
            tasks_waiting,
            scratch_bytes: self.scratch,
            scratch_peak_bytes: self.scratch_peak,
            datasets: Vec::new(),
            consumers: self.tasks.iter().map(|(task, held)| held.snapshot(*task)).collect(),
        }
    }

    /// What must hold at any moment.
    #[cfg(test)]
    pub(super) fn validate(&self) -> Result<(), String> {
        for mode in MemoryMode::ALL {
            let split = self.splits.get(mode);
            if split.storage.checked_add(split.execution).is_none_or(|charged| charged > split.budget) {
                return Err(format!("{mode}: more is charged than the budget holds: {split:?}"));
            }
            if split.protected_storage > split.budget {
                return Err(format!("{mode}: the protected region is larger than the budget: {split:?}"));
            }
            let of_tasks: u64 = self.tasks.values().map(|held| *held.bytes.get(mode)).sum();
            if of_tasks != split.execution {
                return Err(format!("{mode}: tasks hold {of_tasks} bytes, not as charged: {split:?}"));
            }
            if split.charged_peak < split.storage + split.execution {
                return Err(format!("{mode}: more is charged than the peak: {split:?}"));
            }
        }
        Ok(())
    }
}
