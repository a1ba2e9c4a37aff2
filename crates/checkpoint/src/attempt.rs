//! One try at writing a checkpoint.

mod copy;
mod part_writer;
mod publish;
mod record_writer;

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::manifest::Part;
use crate::objects::Closing;
use crate::store::Shared;
use crate::{AttemptId, Checkpoint, Error, Manifest, PartReader, Spec, Step, layout};

pub use part_writer::PartWriter;
pub use record_writer::RecordWriter;

/// One try at writing a checkpoint: write every part, from as many threads as you like, then commit.
///
/// Readers see nothing of it before the commit, and all of it afterwards. One that is dropped uncommitted removes
/// what it wrote (which blocks; what cannot be removed is left to
/// [`cleanup`](crate::CheckpointStore::cleanup)), unless it was unknown at any time whether a commit took place.
#[derive(Debug)]
pub struct Attempt {
    inner: Arc<Inner>,
}

/// Lives on in part writers, so that what they write is removed after the last of them.
#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    dataset: String,
    id: AttemptId,
    generation: u64,
    parent: Option<u64>,
    spec: Spec,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    parts: Vec<PartState>,
    /// Made by the first commit, so that a repeated one publishes the same bytes.
    manifest: Option<Arc<Manifest>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Committing,
    Committed,
    /// Another writer has committed the generation.
    Lost,
    /// The manifest may have been published.
    Unknown,
    Aborted,
}

#[derive(Clone, Debug)]
enum PartState {
    Vacant,
    /// A failed try may have left a file that could not be removed.
    Leftover,
    Writing,
    Finished(Part, Option<Arc<dyn Closing>>),
}

impl PartState {
    /// The part, if it is finished.
    fn part(&self) -> Option<&Part> {
        match self {
            Self::Finished(part, _) => Some(part),
            _ => None,
        }
    }
}

impl Attempt {
    pub(crate) fn new(
        shared: Arc<Shared>,
        dataset: &str,
        id: AttemptId,
        generation: u64,
        parent: Option<u64>,
        spec: Spec,
    ) -> Self {
        let parts = (0..spec.partitions).map(|_| PartState::Vacant).collect();
        let state = Mutex::new(State { phase: Phase::Open, parts, manifest: None });
        let dataset = dataset.to_owned();
        let began = Instant::now();
        Self { inner: Arc::new(Inner { shared, dataset, id, generation, parent, spec, began, state }) }
    }

    /// Its id, which the manifest will name.
    #[must_use]
    pub fn id(&self) -> AttemptId {
        self.inner.id
    }

    /// The generation it will be committed as.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.inner.generation
    }

    /// The newest generation when it began.
    #[must_use]
    pub fn parent(&self) -> Option<u64> {
        self.inner.parent
    }

    /// Starts to write a partition's part. Each part is written once; one whose writer was dropped unfinished, or
    /// failed, or that could not be [closed](Self::commit), may be started again. An empty partition needs a part too.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such partition, its part is being written or finished, or the attempt is
    /// over. [`Error::Io`] when the remains of a failed try cannot be removed.
    pub fn part(&self, partition: u32) -> Result<PartWriter, Error> {
        self.part_within(partition, usize::MAX)
    }

    /// As [`part`](Self::part), by a writer that holds no more than `bytes_max` of the bytes it is given, or the least
    /// that the backend can do with: S3 has fewer pieces on their way at once, and at least one; chunks that are made of
    /// records are smaller, and at least 256 KiB. What it does hold is said by [`PartWriter::held_bytes`].
    ///
    /// # Errors
    /// As [`part`](Self::part).
    pub fn part_within(&self, partition: u32, bytes_max: usize) -> Result<PartWriter, Error> {
        PartWriter::start(&self.inner, partition, bytes_max)
    }

    /// Whether a partition's part is finished: written, and durable.
    #[must_use]
    pub fn is_finished(&self, partition: u32) -> bool {
        let parts = &self.inner.state.lock().parts;
        let part = usize::try_from(partition).ok().and_then(|index| parts.get(index));
        part.is_some_and(|part| part.part().is_some())
    }

    /// Reads a finished part back to its end, decodes nothing, and compares it with what was written. A commit looks
    /// at the lengths alone; verify every part before it, from as many threads as you like, and readers never see a
    /// checkpoint that was damaged on its way to the medium.
    ///
    /// # Errors
    /// [`Error::Part`] when it is not what was written, [`Error::Invalid`] when it is not finished, [`Error::Io`].
    pub fn verify_part(&self, partition: u32) -> Result<(), Error> {
        self.read_back(partition)?.verify()
    }

    /// Opens a finished part, to [verify](PartReader::verify) it with [little memory](PartReader::within).
    ///
    /// # Errors
    /// As [`verify_part`](Self::verify_part).
    pub fn read_back(&self, partition: u32) -> Result<PartReader, Error> {
        let Inner { shared, dataset, spec, .. } = &*self.inner;
        let part = self.inner.finished(partition)?;
        PartReader::open(Arc::clone(shared), dataset, (spec.codec, spec.compression), partition, &part)
    }

    /// Commits the checkpoint: from here on it is there for every reader, and survives a power cut.
    ///
    /// May be called again after any error but `Conflict` and `Expired`; once it has succeeded it gives the same
    /// checkpoint again. Costs a look at every part's length and some five syncs.
    ///
    /// # Errors
    /// - [`Error::Incomplete`] when parts are missing, [`Error::Part`] when one is not as it was written;
    /// - [`Error::Conflict`] when another attempt has committed this generation, which stays as it is;
    /// - [`Error::Expired`] when the attempt has become too old;
    /// - [`Error::CommitUnknown`] when it may or may not be committed: call it again;
    /// - [`Error::Io`] and [`Error::StorageFull`] when it is not. On HDFS a finished part is closed while others are
    ///   written, and a commit waits for the last. One that cannot be closed ([`Step::AwaitPart`]) is not
    ///   [finished](Self::is_finished) any more: write it again.
    pub fn commit(&self) -> Result<Checkpoint, Error> {
        self.inner.commit()
    }

    /// Removes what was written. Dropping the attempt does the same, but cannot tell of a failure.
    ///
    /// Parts that are still being written fail with their next call.
    ///
    /// # Errors
    /// [`Error::Io`] when not all could be removed: a cleanup will. [`Error::Invalid`] when the attempt is or may be
    /// committed.
    pub fn abort(self) -> Result<(), Error> {
        let phase = {
            let mut state = self.inner.state.lock();
            if matches!(state.phase, Phase::Open | Phase::Lost) {
                state.phase = Phase::Aborted;
            }
            state.phase
        };
        match phase {
            Phase::Aborted => self.inner.remove_data(),
            phase => Err(self.inner.over(phase)),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Aborted;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if matches!(self.state.get_mut().phase, Phase::Lost | Phase::Aborted) {
            // Nobody can be told; what stays is an orphan, and cleanup finds it.
            let dir = layout::attempt_dir(&self.dataset, self.id);
            let _ = self.shared.run(Step::RemoveData, &dir, || self.shared.objects.discard_all(&dir));
        }
    }
}

impl Inner {
    fn remove_data(&self) -> Result<(), Error> {
        let dir = layout::attempt_dir(&self.dataset, self.id);
        self.shared.run(Step::RemoveData, &dir, || self.shared.objects.remove_all(&dir))
    }

    /// A finished part, once it is closed.
    fn finished(&self, partition: u32) -> Result<Part, Error> {
        let (part, closing) = self.written(partition)?;
        if let Some(closing) = closing {
            self.closed(partition, &part, &closing)?;
        }
        Ok(part)
    }

    /// A finished part, which may still have to be closed.
    fn written(&self, partition: u32) -> Result<(Part, Option<Arc<dyn Closing>>), Error> {
        let state = {
            let parts = &self.state.lock().parts;
            usize::try_from(partition).ok().and_then(|index| parts.get(index)).cloned()
        };
        let Some(PartState::Finished(part, closing)) = state else {
            let what = match state {
                Some(PartState::Leftover) => "has failed: write it again",
                _ => "is not finished",
            };
            return Err(Error::Invalid { reason: format!("part {partition} of {} {what}", self.dataset) });
        };
        Ok((part, closing))
    }

    /// Waits until a part is closed. One that could not be has to be written anew.
    fn closed(&self, partition: u32, part: &Part, closing: &Arc<dyn Closing>) -> Result<(), Error> {
        let (step, object) = (Step::AwaitPart, self.part_object(partition));
        let closed = self.shared.steps.run(step, &object, || closing.wait());
        let mut state = self.state.lock();
        let slot = usize::try_from(partition).ok().and_then(|index| state.parts.get_mut(index));
        // Others may have waited too, and the part be written anew by now.
        if let Some(slot) = slot
            && matches!(slot, PartState::Finished(_, Some(found)) if Arc::ptr_eq(found, closing))
        {
            *slot = match &closed {
                Ok(()) => PartState::Finished(part.clone(), None),
                Err(_) => PartState::Leftover,
            };
        }
        drop(state);
        closed.map_err(|e| Error::io(self.shared.place(step, &object), Some(part.bytes), e))
    }

    /// A part's path below the store's address.
    fn part_object(&self, partition: u32) -> String {
        format!("{}/{}", self.dataset, layout::part(self.id, partition, self.spec.partitions))
    }

    fn over(&self, phase: Phase) -> Error {
        let what = match phase {
            Phase::Open | Phase::Committing => "is being committed",
            Phase::Committed => "is committed",
            Phase::Lost => "has lost its generation to another writer",
            Phase::Unknown => "may be committed: commit it again to find out",
            Phase::Aborted => "was aborted",
        };
        let place = self.shared.address.join(&layout::attempt_dir(&self.dataset, self.id));
        Error::Invalid { reason: format!("attempt {place} {what}") }
    }
}
