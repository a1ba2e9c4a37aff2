//! What one thread does to the store.

use fastrand::Rng;
use larder::StorageLevel;
use larder::blockstore::{Block, BlockStore, Entry, Error, Finished, MemoryMode, Pushed, StoredDataset};

use crate::Failure;

const LEVELS: [StorageLevel; 6] = [
    StorageLevel::MEMORY_ONLY,
    StorageLevel::MEMORY_ONLY_SER,
    StorageLevel::MEMORY_AND_DISK,
    StorageLevel::MEMORY_AND_DISK_SER,
    StorageLevel::OFF_HEAP,
    StorageLevel::DISK_ONLY,
];
const PARTITIONS: u32 = 24;

/// Datasets of its own, one a level, some of which are dropped and made again now and then.
pub(crate) struct Load {
    store: BlockStore,
    random: Rng,
    datasets: Vec<Numbered>,
}

/// A dataset whose records follow from a number of its own and the partition.
struct Numbered {
    number: u64,
    dataset: StoredDataset<Vec<u8>>,
}

impl Numbered {
    fn new(store: &BlockStore, number: u64, level: StorageLevel) -> Result<Self, Error> {
        let dataset = store.dataset::<Vec<u8>>(&format!("soak-{number}")).level(level).build()?;
        Ok(Self { number, dataset })
    }

    /// From a few hundred bytes to some two MiB, in records of 100 bytes to 64 KiB.
    fn records(&self, partition: u32) -> impl Iterator<Item = Vec<u8>> + use<> {
        let mut random = Rng::with_seed(self.number.wrapping_mul(1_000_003) + u64::from(partition));
        let record_bytes = 100 << random.u32(0..10);
        let block_bytes: usize = 512 << random.u32(0..13);
        (0..block_bytes.div_ceil(record_bytes)).map(move |index| {
            let mut record = vec![random.u8(..); random.usize(record_bytes / 2..=record_bytes)];
            record.splice(
                ..4.min(record.len()),
                (index as u32).to_le_bytes().into_iter().take(4.min(record.len())),
            );
            record
        })
    }

    fn check(&self, block: &Block<Vec<u8>>) -> Result<(), Failure> {
        let mut expected = self.records(block.id().partition);
        for record in block.iter() {
            if expected.next().as_ref() != Some(&*record?) {
                return Err(
                    format!("{} of `{}` holds a wrong record", block.id(), self.dataset.name()).into()
                );
            }
        }
        match expected.next() {
            None => Ok(()),
            Some(_) => Err(format!("{} of `{}` is short", block.id(), self.dataset.name()).into()),
        }
    }

    fn computed(&self, partition: u32) -> Result<Block<Vec<u8>>, Error> {
        self.dataset
            .get_or_compute(partition, |out| self.records(partition).try_for_each(|record| out.push(record)))
    }
}

impl Load {
    pub(crate) fn new(store: BlockStore, seed: u64) -> Self {
        Self { store, random: Rng::with_seed(seed), datasets: Vec::new() }
    }

    pub(crate) fn step(&mut self) -> Result<(), Failure> {
        if self.datasets.len() < LEVELS.len() {
            let number = self.random.u64(..);
            let level = self.random.choice(LEVELS).unwrap_or(StorageLevel::MEMORY_ONLY);
            self.datasets.push(Numbered::new(&self.store, number, level)?);
        }
        let (which, partition) = (self.random.usize(..self.datasets.len()), self.random.u32(..PARTITIONS));
        let Some(data) = self.datasets.get(which) else { return Ok(()) };
        match self.random.u32(..1_000) {
            0..500 => data.check(&data.computed(partition)?)?,
            500..800 => {
                if let Some(block) = data.dataset.get(partition)? {
                    data.check(&block)?;
                }
            }
            800..840 => self.pinned_and_removed(which, partition)?,
            840..890 => self.written_by_hand(which, partition)?,
            890..930 => drop(data.dataset.evict(partition)?),
            930..950 => drop(data.dataset.remove(partition)),
            950..990 => self.executed(),
            990 => data.dataset.unpersist(),
            991 => drop(self.datasets.swap_remove(which)),
            _ => drop(self.store.datasets()),
        }
        Ok(())
    }

    /// Reads a block that is gone from the store.
    fn pinned_and_removed(&self, which: usize, partition: u32) -> Result<(), Failure> {
        let Some(data) = self.datasets.get(which) else { return Ok(()) };
        let block = data.computed(partition)?;
        data.dataset.remove(partition);
        data.check(&block)
    }

    /// Writes a block record by record, and may give it up half-way.
    fn written_by_hand(&mut self, which: usize, partition: u32) -> Result<(), Failure> {
        let stop_after = self.random.usize(..2_000);
        let Some(data) = self.datasets.get(which) else { return Ok(()) };
        let Entry::Vacant(mut writer) = data.dataset.entry(partition)? else { return Ok(()) };
        for (index, record) in data.records(partition).enumerate() {
            if index == stop_after {
                writer.abort();
                return Ok(());
            }
            if let Pushed::Refused(_) = writer.push(record)? {
                let unrolled = writer.into_unrolled().count();
                return if unrolled == index {
                    Ok(())
                } else {
                    Err(format!("{unrolled} records of {index} came back").into())
                };
            }
        }
        match writer.finish()? {
            Finished::Stored(block) => data.check(&block),
            Finished::Refused(unrolled) => drop_checked(unrolled.count(), data.records(partition).count()),
        }
    }

    fn executed(&mut self) {
        let mode = if self.random.bool() { MemoryMode::Heap } else { MemoryMode::OffHeap };
        let task = self.store.memory().nonblocking_task();
        let mut held = task.reserve(mode, self.random.u64(..16 << 20)).ok();
        if let Some(held) = &mut held {
            let _ = held.grow(self.random.u64(..16 << 20), None);
        }
    }
}

fn drop_checked(unrolled: usize, records: usize) -> Result<(), Failure> {
    if unrolled == records {
        Ok(())
    } else {
        Err(format!("{unrolled} records of {records} came back").into())
    }
}
