//! Random sequences of operations on the pools, against the rules written down the other way round.

use super::super::pools::{TaskId, Verdict};
use super::*;
use crate::random::Random;

const BUDGET: i128 = 1_000;

struct Model {
    protected: i128,
    tasks: Vec<TaskId>,
    /// What is live: whose, where, how much.
    live: Vec<(Option<TaskId>, MemoryMode, u64)>,
}

impl Model {
    fn sum(&self, mode: MemoryMode, of: impl Fn(Option<TaskId>) -> bool) -> i128 {
        self.live.iter().filter(|(task, m, _)| *m == mode && of(*task)).map(|(_, _, b)| i128::from(*b)).sum()
    }

    fn storage(&self, mode: MemoryMode) -> i128 {
        self.sum(mode, |task| task.is_none())
    }

    fn execution(&self, mode: MemoryMode) -> i128 {
        self.sum(mode, |task| task.is_some())
    }

    fn is_over(&self, task: TaskId, mode: MemoryMode) -> bool {
        let most = BUDGET - self.storage(mode).min(self.protected);
        self.sum(mode, |other| other == Some(task)) * self.tasks.len() as i128 > most
    }

    fn expected(&self, mode: MemoryMode, claim: Claim, bytes: u64) -> Verdict {
        let (storage, execution, asked) = (self.storage(mode), self.execution(mode), i128::from(bytes));
        let fits_beside = |kept: i128| kept + execution + asked <= BUDGET;
        let evict = Verdict::Evict { bytes: (storage + execution + asked - BUDGET).max(0) as u64 };
        match claim {
            Claim::Storage { .. } if fits_beside(storage) => Verdict::Granted,
            Claim::Storage { held_bytes } if fits_beside(i128::from(held_bytes)) => evict,
            Claim::Storage { .. } => Verdict::Refused,
            Claim::Execution { task } => {
                let wanted = self.sum(mode, |other| other == Some(task)) + asked;
                let tasks = self.tasks.len() as i128;
                let most = BUDGET - storage.min(self.protected);
                let over = MemoryMode::ALL.into_iter().any(|any| self.is_over(task, any));
                match () {
                    () if bytes == 0 => Verdict::Granted,
                    () if wanted * tasks > most => Verdict::Refused,
                    () if fits_beside(storage) => Verdict::Granted,
                    () if fits_beside(storage.min(self.protected)) => evict,
                    () if wanted * 2 * tasks <= most && !over => Verdict::Wait,
                    () => Verdict::Refused,
                }
            }
        }
    }
}

fn claim_of(task: Option<TaskId>, held_bytes: u64) -> Claim {
    task.map_or(Claim::Storage { held_bytes }, |task| Claim::Execution { task })
}

fn step(random: &mut Random, pools: &mut Pools, model: &mut Model) -> Option<Verdict> {
    let mode = MemoryMode::ALL[random.below(2) as usize];
    let nth = random.index(model.live.len());
    match random.below(12) {
        0 if model.tasks.len() < 6 => model.tasks.push(pools.register_task()),
        1 if !model.tasks.is_empty() => {
            let task = model.tasks.swap_remove(random.index(model.tasks.len()));
            for (_, mode, bytes) in model.live.extract_if(.., |(owner, ..)| *owner == Some(task)) {
                pools.release(mode, Claim::Execution { task }, bytes);
            }
            pools.remove_task(task);
        }
        2..=4 if !model.live.is_empty() => {
            let (task, mode, bytes) = model.live.swap_remove(nth);
            pools.release(mode, claim_of(task, bytes), bytes);
        }
        _ => {
            let execution = random.below(4) > 0 && !model.tasks.is_empty();
            let task = execution.then(|| model.tasks[random.index(model.tasks.len())]);
            let held = model.live.get(nth).map_or(0, |(owner, m, bytes)| match owner {
                None if *m == mode => *bytes,
                _ => 0,
            });
            let bytes = match random.below(50) {
                0 => u64::MAX - random.below(3),
                1..12 => pools.snapshot(0).mode(mode).free_bytes,
                magnitude => random.below(1 << (magnitude % 10)),
            };
            let claim = claim_of(task, held);
            let (expected, verdict) = (model.expected(mode, claim, bytes), pools.acquire(mode, claim, bytes));
            assert_eq!(verdict, expected, "{claim:?} of {bytes} {mode} bytes with {pools:?}");
            if verdict == Verdict::Granted {
                model.live.push((task, mode, bytes));
            }
            return Some(verdict);
        }
    }
    None
}

/// Whoever would be told to wait, a task that holds too much is not, so not all of them wait.
fn check_that_waiting_ends(pools: &mut Pools, model: &Model) {
    for task in &model.tasks {
        for mode in MemoryMode::ALL {
            for bytes in [1, 30, 250] {
                if model.expected(mode, Claim::Execution { task: *task }, bytes) == Verdict::Wait {
                    let holder = model.tasks.iter().find(|other| model.is_over(**other, mode));
                    let claim = Claim::Execution { task: *holder.unwrap() };
                    assert!(
                        MemoryMode::ALL.into_iter().all(|any| model.expected(any, claim, 1) != Verdict::Wait)
                    );
                    assert_eq!(pools.acquire(mode, claim, 1), Verdict::Refused);
                }
            }
        }
    }
}

#[test]
fn the_pools_follow_the_rules() {
    let mut seen = [0; 4];
    for seed in 0..48 {
        let fraction = [0.5, 0.0, 1.0, 0.9][seed as usize % 4];
        let mut random = Random::new(seed);
        let mut pools = Pools::new(BUDGET as u64, BUDGET as u64, fraction);
        let protected = i128::from(pools.snapshot(0).heap.protected_storage_bytes);
        let mut model = Model { protected, tasks: Vec::new(), live: Vec::new() };
        for _ in 0..500 {
            match step(&mut random, &mut pools, &mut model) {
                Some(Verdict::Granted) => seen[0] += 1,
                Some(Verdict::Evict { .. }) => seen[1] += 1,
                Some(Verdict::Wait) => seen[2] += 1,
                Some(Verdict::Refused) => seen[3] += 1,
                None => {}
            }
            pools.validate().unwrap();
            check_that_waiting_ends(&mut pools, &model);
            for mode in MemoryMode::ALL {
                let charged = *pools.snapshot(0).mode(mode);
                assert_eq!(i128::from(charged.storage_bytes), model.storage(mode), "seed {seed}");
                assert_eq!(i128::from(charged.execution_bytes), model.execution(mode), "seed {seed}");
            }
        }
    }
    assert!(seen.into_iter().all(|times| times > 50), "every verdict was met: {seen:?}");
}
