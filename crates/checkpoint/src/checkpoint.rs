//! A committed checkpoint.

mod part_reader;
mod records;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::manifest::Part;
use crate::store::Shared;
use crate::{CheckpointStore, Error, Manifest, layout};

pub use part_reader::PartReader;
pub use records::Records;

/// More threads than that wait for each other's disk or server.
const VERIFY_THREADS_MAX: usize = 4;

/// A committed checkpoint of a dataset, open for reading. Cheap to clone.
///
/// It holds the manifest and no file. Removing the generation meanwhile makes later reads fail with
/// [`Error::Part`]; they never give less than all.
#[derive(Clone)]
pub struct Checkpoint {
    shared: Arc<Shared>,
    manifest: Arc<Manifest>,
}

impl Checkpoint {
    pub(crate) fn new(shared: Arc<Shared>, manifest: Manifest) -> Self {
        Self { shared, manifest: Arc::new(manifest) }
    }

    /// Opens a checkpoint by the address that [`address`](Self::address) gives.
    ///
    /// # Errors
    /// [`Error::Address`] when it is none, else as [`CheckpointStore::open_generation`].
    pub fn open(address: &str) -> Result<Self, Error> {
        let Some((root, dataset, generation)) = layout::split_checkpoint_address(address) else {
            let reason = "that of a checkpoint ends in /{dataset}/commits/{generation}.json".to_owned();
            return Err(Error::Address { address: address.to_owned(), reason });
        };
        CheckpointStore::open(root)?.open_generation(dataset, generation)
    }

    /// Where it is: the path of its manifest, by which any process can [`open`](Self::open) it.
    #[must_use]
    pub fn address(&self) -> String {
        self.shared.address.join(&layout::manifest(&self.manifest.dataset, self.manifest.generation))
    }

    /// What it consists of.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Which checkpoint of its dataset it is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.manifest.generation
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.manifest.parts.len()).unwrap_or(u32::MAX)
    }

    /// Records in all partitions.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.manifest.records()
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.manifest.bytes()
    }

    /// Opens the part of a partition, whose chunks then come one by one. Its length and its header are compared
    /// with the manifest here, each chunk as it comes: what you get is what was written, or an error.
    ///
    /// # Errors
    /// [`Error::Part`] when it is not the part that was committed, [`Error::Invalid`] when there is no such
    /// partition, [`Error::Io`].
    pub fn read_part(&self, partition: u32) -> Result<PartReader, Error> {
        let part = self.part(partition)?;
        let Manifest { dataset, codec, compression, .. } = &*self.manifest;
        PartReader::open(Arc::clone(&self.shared), dataset, (*codec, *compression), partition, part)
    }

    /// Reads one part to its end, decodes nothing, and compares everything that was recorded of it.
    ///
    /// # Errors
    /// As [`read_part`](Self::read_part).
    pub fn verify_part(&self, partition: u32) -> Result<(), Error> {
        self.read_part(partition)?.verify()
    }

    /// Reads every part to its end, on up to four threads. Use [`verify_part`](Self::verify_part) to do it on your
    /// own.
    #[must_use]
    pub fn verify(&self) -> VerifyReport {
        let report = VerifyReport { parts: 0, records: 0, bytes: 0, damaged: Vec::new() };
        let (report, next) = (Mutex::new(report), AtomicU32::new(0));
        let verify_parts = || {
            loop {
                let partition = next.fetch_add(1, Ordering::Relaxed);
                let Ok(part) = self.part(partition) else { break };
                let verified = self.verify_part(partition);
                report.lock().add(partition, part, verified);
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(VERIFY_THREADS_MAX).min(self.manifest.parts.len());
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| {
                scope.spawn(verify_parts);
            });
            verify_parts();
        });
        let mut report = report.into_inner();
        report.damaged.sort_unstable_by_key(|&(partition, _)| partition);
        report
    }

    /// Opens every part, without reading its chunks.
    pub(crate) fn check_headers(&self) -> Result<(), Error> {
        (0..self.partitions()).try_for_each(|partition| self.read_part(partition).map(drop))
    }

    fn part(&self, partition: u32) -> Result<&Part, Error> {
        let part = usize::try_from(partition).ok().and_then(|index| self.manifest.parts.get(index));
        part.ok_or_else(|| Error::Invalid {
            reason: format!("{} has {} partitions, no {partition}", self.address(), self.partitions()),
        })
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("address", &self.address())
            .field("partitions", &self.partitions())
            .field("records", &self.manifest.records())
            .finish_non_exhaustive()
    }
}

/// What [`Checkpoint::verify`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Parts that are as they were written.
    pub parts: u32,
    /// Their records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Partitions whose part is damaged or cannot be read, and why.
    pub damaged: Vec<(u32, Error)>,
}

impl VerifyReport {
    fn add(&mut self, partition: u32, part: &Part, verified: Result<(), Error>) {
        match verified {
            Ok(()) => {
                self.parts += 1;
                self.records += part.records;
                self.bytes += part.bytes;
            }
            Err(error) => self.damaged.push((partition, error)),
        }
    }

    /// Is every part as it was written?
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.damaged.is_empty()
    }

    /// The first damage, as an error.
    ///
    /// # Errors
    /// The first of [`damaged`](Self::damaged).
    pub fn into_result(self) -> Result<(), Error> {
        self.damaged.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }
}
