//! The datasets of one record type, and what each of their blocks must hold.

use std::collections::BTreeMap;
use std::fmt::Debug;

use arbitrary::{Result, Unstructured};
use larder_blockstore::codec::{Bincode, Codec, Pod};
use larder_blockstore::format::Compression;
use larder_blockstore::{
    Block, BlockStore, BlockWriter, Computed, Entry, Error, Finished, LevelFacts, Pushed, StorageLevel,
    StoredDataset,
};

const DATASETS_MAX: usize = 4;
const PARTITIONS: u32 = 3;
const HELD_MAX: usize = 6;

/// A record type and how its records are made, written and measured.
pub(super) trait Tested: Clone + Debug + PartialEq + Send + Sync + 'static {
    fn codec() -> impl Codec<Self>;
    fn make(seed: u64, size: usize) -> Self;
    fn heap_bytes(&self) -> usize;
}

impl Tested for Vec<u8> {
    fn codec() -> impl Codec<Self> {
        Bincode
    }

    fn make(seed: u64, size: usize) -> Self {
        // Every third one compresses well.
        (0..size as u64)
            .map(|i| if seed.is_multiple_of(3) { seed as u8 } else { (seed * 31 + i * i * 7) as u8 })
            .collect()
    }

    fn heap_bytes(&self) -> usize {
        self.capacity()
    }
}

impl Tested for [u64; 3] {
    fn codec() -> impl Codec<Self> {
        Pod
    }

    fn make(seed: u64, size: usize) -> Self {
        [seed, size as u64, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)]
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

pub(super) struct Family<T: Tested> {
    store: BlockStore,
    /// On a short disk a spill can fail, which is an error of whoever asked for it.
    disk_is_short: bool,
    datasets: Vec<Modelled<T>>,
    held: Vec<(Block<T>, Vec<T>)>,
    writers: Vec<Writing<T>>,
    /// Makes every put different from those before.
    puts: u64,
}

struct Modelled<T: Tested> {
    stored: StoredDataset<T>,
    /// What was stored last, for each partition not removed since. Levels without disk may have lost it.
    blocks: BTreeMap<u32, Vec<T>>,
}

/// A writer kept over other operations, and what was pushed.
struct Writing<T: Tested> {
    writer: BlockWriter<T>,
    pushed: Vec<T>,
    refused: bool,
    /// The block was removed while it was written: it will not be stored.
    withdrawn: bool,
}

impl<T: Tested> Family<T> {
    pub(super) fn new(store: BlockStore, disk_is_short: bool) -> Self {
        Self { store, disk_is_short, datasets: Vec::new(), held: Vec::new(), writers: Vec::new(), puts: 0 }
    }

    pub(super) fn datasets(&self) -> usize {
        self.datasets.len()
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.held.is_empty() && self.writers.is_empty()
    }

    pub(super) fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if self.datasets.is_empty() {
            return self.build(input);
        }
        let at = input.choose_index(self.datasets.len())?;
        let partition = input.int_in_range(0..=PARTITIONS - 1)?;
        match input.int_in_range(0..=15_u8)? {
            0 => self.build(input),
            1..=4 => self.put(input, at, partition),
            5 => self.put_iter(input, at, partition),
            6 | 7 => self.get(input, at, partition),
            8 | 9 => self.open(input, at, partition),
            10 => self.write_on(input),
            11 | 12 => {
                self.evict(at, partition);
                Ok(())
            }
            13 => {
                self.remove(at, partition);
                Ok(())
            }
            14 => self.let_go(input),
            _ => self.drop_some(input, at),
        }
    }

    fn build(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let facts = LevelFacts {
            disk: input.arbitrary()?,
            memory: input.arbitrary()?,
            off_heap: input.arbitrary()?,
            deserialized: input.arbitrary()?,
            replication: input.int_in_range(1..=2)?,
        };
        let level = StorageLevel::custom(facts).unwrap_or(StorageLevel::DISK_ONLY);
        let compression = if input.arbitrary()? { Compression::Lz4 } else { Compression::None };
        if self.datasets.len() < DATASETS_MAX {
            let dataset = self.store.dataset_with("fuzzed", T::codec(), T::heap_bytes);
            let stored = dataset.level(level).compression(compression).build().expect("the store has it all");
            self.datasets.push(Modelled { stored, blocks: BTreeMap::new() });
        }
        Ok(())
    }

    fn records(&mut self, input: &mut Unstructured<'_>) -> Result<Vec<T>> {
        self.puts += 1;
        let (count, size) = *input.choose(&[
            (0, 0),
            (1, 0),
            (1, 30),
            (5, 100),
            (40, 60),
            (400, 10),
            (1, 5_000),
            (9, 2_000),
        ])?;
        let size = size + input.int_in_range(0..=20_usize)?;
        Ok((0..count).map(|i| T::make(self.puts * 1_000 + i, size)).collect())
    }

    fn is_written(&self, at: usize, partition: u32) -> bool {
        let dataset = self.datasets[at].stored.id();
        self.writers.iter().any(|writing| {
            let id = writing.writer.id();
            !writing.withdrawn && (id.dataset, id.partition) == (dataset, partition)
        })
    }

    fn put(&mut self, input: &mut Unstructured<'_>, at: usize, partition: u32) -> Result<()> {
        let (records, appended) = (self.records(input)?, input.arbitrary()?);
        if self.is_written(at, partition) {
            // Waiting for it here would never end.
            assert!(matches!(self.datasets[at].stored.entry(partition), Ok(Entry::InFlight(_))));
            return Ok(());
        }
        let mut computed = false;
        let put = self.datasets[at].stored.get_or_compute(partition, |out| {
            computed = true;
            if appended {
                return out.append(&mut records.clone());
            }
            records.iter().try_for_each(|record| out.push(record.clone()))
        });
        self.settle(at, partition, computed, records, put.map(Some))
    }

    fn put_iter(&mut self, input: &mut Unstructured<'_>, at: usize, partition: u32) -> Result<()> {
        let (records, taken) = (self.records(input)?, input.int_in_range(0..=100_usize)?);
        if self.is_written(at, partition) {
            return Ok(());
        }
        let mut computed = false;
        let put = self.datasets[at].stored.get_or_compute_iter(partition, || {
            computed = true;
            Ok::<_, Error>(records.clone().into_iter().map(Ok::<_, Error>))
        });
        let put = put.map(|put| match put {
            Computed::Stored(block) => Some(block),
            Computed::Uncached(uncached) => {
                let read: Vec<_> =
                    uncached.take(taken).map(|record| record.expect("it was computed")).collect();
                assert_eq!(read, records[..taken.min(records.len())]);
                None
            }
        });
        self.settle(at, partition, computed, records, put)
    }

    /// After a put: what came back is what was stored before, or else what was put.
    fn settle(
        &mut self,
        at: usize,
        partition: u32,
        computed: bool,
        records: Vec<T>,
        put: std::result::Result<Option<Block<T>>, Error>,
    ) -> Result<()> {
        let Modelled { stored, blocks } = &mut self.datasets[at];
        if computed {
            assert!(
                !stored.level().uses_disk() || !blocks.contains_key(&partition),
                "lost, and it has a disk"
            );
            blocks.remove(&partition);
        }
        match put {
            Ok(block) => {
                let expected = if computed { &records } else { &blocks[&partition] };
                if let Some(block) = &block {
                    check_read(block, expected);
                }
                if computed && stored.contains(partition) {
                    blocks.insert(partition, records);
                }
            }
            Err(Error::Disk { .. }) if self.disk_is_short => assert!(computed),
            Err(error) => panic!("{error}"),
        }
        Ok(())
    }

    fn get(&mut self, input: &mut Unstructured<'_>, at: usize, partition: u32) -> Result<()> {
        let Modelled { stored, blocks } = &mut self.datasets[at];
        let got = stored.get(partition).expect("nothing was damaged");
        assert_eq!(got.is_some(), stored.contains(partition) || got.is_some());
        let Some(block) = got else {
            // In memory alone it may have been evicted.
            assert!(
                !stored.level().uses_disk() || !blocks.contains_key(&partition),
                "lost, and it has a disk"
            );
            return Ok(());
        };
        let expected = &blocks[&partition];
        check_read(&block, expected);
        if input.arbitrary()? && self.held.len() < HELD_MAX {
            self.held.push((block, expected.clone()));
        }
        Ok(())
    }

    /// Opens a writer, and abandons or keeps it.
    fn open(&mut self, input: &mut Unstructured<'_>, at: usize, partition: u32) -> Result<()> {
        let is_written = self.is_written(at, partition);
        let Modelled { stored, blocks } = &mut self.datasets[at];
        match stored.entry(partition).expect("the dataset is there") {
            Entry::Resident(block) => check_read(&block, &blocks[&partition]),
            Entry::InFlight(_) => assert!(is_written),
            Entry::Vacant(writer) => {
                assert!(!is_written);
                assert!(!stored.level().uses_disk() || !blocks.contains_key(&partition));
                blocks.remove(&partition);
                self.writers.push(Writing { writer, pushed: Vec::new(), refused: false, withdrawn: false });
                if input.ratio(1_u8, 3_u8)? || self.writers.len() > 3 {
                    let records = self.records(input)?;
                    self.push(self.writers.len() - 1, records);
                    self.finish(input, self.writers.len() - 1)?;
                }
            }
        }
        Ok(())
    }

    fn write_on(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if self.writers.is_empty() {
            return Ok(());
        }
        let which = input.choose_index(self.writers.len())?;
        if input.arbitrary()? {
            return self.finish(input, which);
        }
        let records = self.records(input)?;
        self.push(which, records);
        Ok(())
    }

    fn push(&mut self, which: usize, records: Vec<T>) {
        let disk_is_short = self.disk_is_short;
        let Writing { writer, pushed, refused, .. } = &mut self.writers[which];
        for record in records {
            match writer.push(record.clone()) {
                Ok(Pushed::Kept) => {
                    assert!(!*refused, "once refused, always refused");
                    pushed.push(record);
                }
                Ok(Pushed::Refused(back)) => {
                    *refused = true;
                    assert_eq!(back, record);
                }
                Err(Error::Disk { .. }) if disk_is_short => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn finish(&mut self, input: &mut Unstructured<'_>, which: usize) -> Result<()> {
        let Writing { writer, pushed, refused, withdrawn } = self.writers.swap_remove(which);
        let id = writer.id();
        match input.int_in_range(0..=3_u8).unwrap_or(0) {
            0 => writer.abort(),
            1 => assert_eq!(unwrapped(writer.into_unrolled()), pushed),
            _ => match writer.finish() {
                Ok(Finished::Stored(block)) => {
                    assert!(!refused);
                    check_read(&block, &pushed);
                    let dataset = self.datasets.iter_mut().find(|dataset| dataset.stored.id() == id.dataset);
                    if let Some(dataset) = dataset.filter(|_| !withdrawn) {
                        dataset.blocks.insert(id.partition, pushed.clone());
                    }
                    if self.held.len() < HELD_MAX {
                        self.held.push((block, pushed));
                    }
                }
                Ok(Finished::Refused(unrolled)) => assert_eq!(unwrapped(unrolled), pushed),
                Err(Error::Disk { .. }) if self.disk_is_short => {}
                Err(error) => panic!("{error}"),
            },
        }
        Ok(())
    }

    fn evict(&mut self, at: usize, partition: u32) {
        let Modelled { stored, blocks } = &mut self.datasets[at];
        let before = stored.block_status(partition);
        let was_in_memory = before.as_ref().is_some_and(|block| block.effective.uses_memory());
        match stored.evict(partition) {
            Ok(evicted) => {
                assert_eq!(evicted, was_in_memory, "{before:?}");
                assert_eq!(stored.contains(partition), before.is_some() && stored.level().uses_disk());
                let after = stored.block_status(partition);
                assert!(after.is_none_or(|block| !block.effective.uses_memory()));
            }
            Err(Error::Disk { .. }) if self.disk_is_short => {
                assert_eq!(stored.block_status(partition), before, "it stays as it was");
            }
            Err(error) => panic!("{error}"),
        }
        if !stored.contains(partition) && !stored.level().uses_disk() {
            blocks.remove(&partition);
        }
    }

    fn remove(&mut self, at: usize, partition: u32) {
        let is_written = self.is_written(at, partition);
        let Modelled { stored, blocks } = &mut self.datasets[at];
        let was_there = stored.contains(partition) || is_written;
        assert_eq!(stored.remove(partition), was_there);
        assert!(!stored.contains(partition));
        blocks.remove(&partition);
        let dataset = stored.id();
        self.withdraw(|id| (id.dataset, id.partition) == (dataset, partition));
    }

    fn withdraw(&mut self, of: impl Fn(larder_blockstore::BlockId) -> bool) {
        for writing in &mut self.writers {
            writing.withdrawn |= of(writing.writer.id());
        }
    }

    /// A handle goes; whatever happened since it was made, it still reads the same.
    fn let_go(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if !self.held.is_empty() {
            let (block, expected) = self.held.swap_remove(input.choose_index(self.held.len())?);
            check_read(&block, &expected);
        }
        Ok(())
    }

    /// A dataset is emptied, or goes.
    fn drop_some(&mut self, input: &mut Unstructured<'_>, at: usize) -> Result<()> {
        let dataset = self.datasets[at].stored.id();
        self.withdraw(|id| id.dataset == dataset);
        if input.arbitrary()? {
            self.datasets[at].stored.unpersist();
            self.datasets[at].blocks.clear();
            assert_eq!(self.datasets[at].stored.status().blocks, 0);
        } else {
            if input.arbitrary()? {
                assert!(self.store.remove_dataset(dataset));
            }
            self.datasets.swap_remove(at);
            assert!(!self.store.remove_dataset(dataset));
        }
        Ok(())
    }

    /// Every block that is there is one that was put, and none that has a disk is lost.
    pub(super) fn check(&self) {
        for Modelled { stored, blocks } in &self.datasets {
            for partition in 0..PARTITIONS {
                let status = stored.block_status(partition);
                let expected = blocks.get(&partition);
                if let Some(status) = &status {
                    let expected = expected.expect("nobody put it");
                    assert_eq!(status.records, expected.len() as u64);
                    assert!(!status.residences.is_empty());
                }
                assert!(status.is_some() || expected.is_none() || !stored.level().uses_disk());
            }
        }
    }

    pub(super) fn leave(self) {
        drop((self.writers, self.datasets));
        for (block, expected) in self.held {
            check_read(&block, &expected);
        }
    }
}

fn unwrapped<T: Tested>(unrolled: larder_blockstore::Unrolled<T>) -> Vec<T> {
    unrolled.map(|record| record.expect("it was kept")).collect()
}

/// The block reads as expected, in each way there is to read it.
fn check_read<T: Tested>(block: &Block<T>, expected: &[T]) {
    assert_eq!(block.len(), expected.len() as u64);
    let mut batches = block.batches();
    let mut at = 0;
    while let Some(batch) = batches.next_batch().expect("nothing was damaged") {
        assert!(!batch.is_empty());
        assert_eq!(batch, &expected[at..at + batch.len()]);
        at += batch.len();
    }
    assert_eq!(at, expected.len());
    assert!(
        block
            .iter()
            .map(|record| record.expect("nothing was damaged"))
            .map(|r| r.into_owned())
            .eq(expected.iter().cloned())
    );
    if let Some(bytes) = block.serialized() {
        bytes.verify().expect("nothing was damaged");
    }
}
