//! Operations on a block store against a sequential model of what each block must hold.

mod family;

use arbitrary::{Result, Unstructured};
use larder_blockstore::memory::Reservation;
use larder_blockstore::{BlockStore, DatasetStatus, MemoryMode};

use self::family::Family;

/// Room for a handful of blocks.
const HEAP_BYTES: u64 = 24 << 10;
const OFF_HEAP_BYTES: u64 = 12 << 10;

/// Puts, gets, writes and aborts, evicts, removes and unpersists blocks of datasets that come and go at every
/// level, holds handles, and takes and gives back execution memory. After every operation the budgets hold and
/// what is listed is what is charged; at the end nothing is left.
pub fn store_ops(data: &[u8]) {
    // Running out of bytes ends the sequence.
    let _ = run(&mut Unstructured::new(data));
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let mut builder = BlockStore::builder()
        .memory(HEAP_BYTES)
        .off_heap(OFF_HEAP_BYTES)
        .disk(scratch.path())
        .verify_memory(input.arbitrary()?)
        .chunk_bytes(input.int_in_range(1..=6_000)?);
    let disk_is_short = input.ratio(1_u8, 4_u8)?;
    if disk_is_short {
        builder = builder.disk_limit(16 << 10);
    }
    let store = builder.build().expect("a store");
    let mut world = World {
        bytes: Family::new(store.clone(), disk_is_short),
        numbers: Family::new(store.clone(), disk_is_short),
        execution: Vec::new(),
        store,
    };
    // What goes wrong goes wrong in here, also when the bytes run out.
    let ended = world.steps(input);
    world.leave();
    ended
}

struct World {
    store: BlockStore,
    bytes: Family<Vec<u8>>,
    numbers: Family<[u64; 3]>,
    execution: Vec<Reservation>,
}

impl World {
    fn steps(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        while !input.is_empty() {
            match input.int_in_range(0..=9_u8)? {
                0 => self.execute(input)?,
                1..=6 => self.bytes.step(input)?,
                _ => self.numbers.step(input)?,
            }
            self.check();
        }
        Ok(())
    }

    fn execute(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if self.execution.len() >= 3 || input.arbitrary()? {
            let index = input.choose_index(self.execution.len().max(1))?;
            if index < self.execution.len() {
                drop(self.execution.swap_remove(index));
            }
            return Ok(());
        }
        let mode = *input.choose(&MemoryMode::ALL)?;
        let bytes = input.int_in_range(0..=2 * HEAP_BYTES)?;
        let before = *self.store.memory().snapshot().mode(mode);
        match self.store.memory().nonblocking_task().reserve(mode, bytes) {
            Ok(reservation) => self.execution.push(reservation),
            Err(refused) => assert!(bytes > before.free_bytes || !self.execution.is_empty(), "{refused}"),
        }
        Ok(())
    }

    fn check(&self) {
        let memory = self.store.memory().snapshot();
        for mode in [memory.heap, memory.off_heap] {
            assert!(mode.charged_bytes() <= mode.budget_bytes, "{memory:?}");
        }
        let executing = |mode| -> u64 {
            self.execution.iter().filter(|held| held.mode() == mode).map(Reservation::bytes).sum()
        };
        for mode in MemoryMode::ALL {
            assert_eq!(memory.mode(mode).execution_bytes, executing(mode));
        }
        let datasets = self.store.datasets();
        assert_eq!(datasets.len(), self.bytes.datasets() + self.numbers.datasets());
        let sum = |of: fn(&DatasetStatus) -> u64| datasets.iter().map(of).sum::<u64>();
        let (heap, off_heap, disk) =
            (sum(|d| d.heap_bytes), sum(|d| d.off_heap_bytes), sum(|d| d.disk_bytes));
        let used = self.store.disk().map_or(0, |disk| disk.used_bytes);
        assert!(heap <= memory.heap.storage_bytes && off_heap <= memory.off_heap.storage_bytes);
        assert!(disk <= used && off_heap <= self.store.arena_bytes());
        if self.bytes.holds_nothing() && self.numbers.holds_nothing() {
            // Nobody but the store holds anything: what is listed is what is charged.
            assert_eq!((heap, off_heap), (memory.heap.storage_bytes, memory.off_heap.storage_bytes));
            assert_eq!(memory.scratch_bytes, 0);
            assert_eq!(disk == 0, used == 0);
        }
        self.bytes.check();
        self.numbers.check();
    }

    /// Everything goes, in no particular order; then nothing is left.
    fn leave(self) {
        let Self { store, bytes, numbers, execution } = self;
        drop(execution);
        bytes.leave();
        numbers.leave();
        let memory = store.memory().snapshot();
        assert_eq!((memory.heap.charged_bytes(), memory.off_heap.charged_bytes()), (0, 0), "{memory:?}");
        assert_eq!((memory.scratch_bytes, memory.tasks, memory.tasks_waiting), (0, 0, 0), "{memory:?}");
        assert_eq!((store.arena_bytes(), store.disk().map_or(0, |disk| disk.used_bytes)), (0, 0));
        assert_eq!(store.datasets(), []);
    }
}
