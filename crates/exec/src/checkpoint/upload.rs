//! Checkpoints that are written in the background, from a local copy.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::thread;

use larder_blockstore::{Record, StorageLevel};
use larder_checkpoint::{Attempt, CheckpointStore, Spec};
use larder_lineage::NodeId;
use parking_lot::Mutex;

use super::handle::{Failure, Request};
use super::local::FILL_ROUNDS_MAX;
use super::open::open_parts;
use super::pending::commit;
use super::uploads::{PARTS_AT_ONCE, Uploads};
use super::{CheckpointHandle, CheckpointInfo, CheckpointName, PartMemory, checkpoints, spec};
use crate::context::WeakContext;
use crate::data::Data;
use crate::dataset::Dataset;
use crate::error::{Cause, Error, TaskError};
use crate::job::{Job, WorksFor};
use crate::node::{Checkpointing, Node};
use crate::persist::Persisted;

impl<T: Record + Data> Dataset<T> {
    /// Checkpoints the dataset in the background, under its [name](Self::named), from a local copy that the job goes
    /// on with.
    ///
    /// Returns when all partitions are in the store, with its disk: those that are not are computed now, once. If the
    /// dataset is persisted at a level with disk, its blocks are that copy; else there is one on disk besides, until
    /// the checkpoint is written. Then the copy is uploaded, at most at the context's
    /// [bandwidth](crate::ContextBuilder::checkpoint_bandwidth), a few parts at a time and a few chunks of each in memory.
    /// When all parts were read back and committed, the lineage is cut, as by [`checkpoint`](Self::checkpoint).
    ///
    /// If that fails, or is [cancelled](CheckpointHandle::cancel), the dataset stays as it was, with its lineage, and
    /// readers see nothing of the checkpoint; the handle tells why. `unpersist` and dropping the dataset end neither
    /// the upload nor, before that, the copy.
    ///
    /// Asked for again under the same name while it goes on, it gives another handle of the same checkpoint.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use larder_exec::Context;
    ///
    /// let context = Context::builder().checkpoints(directory.path()).checkpoint_bandwidth("100MiB").build()?;
    /// let squares = context.range(0..1_000, 4)?.map(|n| n * n).named("squares");
    /// let checkpoint = squares.checkpoint_async()?;
    /// assert_eq!(squares.count()?, 1_000);      // from the local copy, or from the checkpoint
    /// assert_eq!(checkpoint.wait()?.records, 1_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoCheckpoints`]; [`Error::CheckpointInProgress`]; [`Error::Store`] when the store has no disk;
    /// [`Error::LocalCheckpointIncomplete`] when blocks did not stay in it; as [`collect`](Self::collect) otherwise.
    pub fn checkpoint_async(&self) -> Result<CheckpointHandle, Error> {
        self.checkpoint_async_as(self.checkpoint_name())
    }

    /// As [`checkpoint_async`](Self::checkpoint_async), under another name.
    ///
    /// # Errors
    /// As [`checkpoint_async`](Self::checkpoint_async).
    pub fn checkpoint_async_as(&self, name: impl Into<CheckpointName>) -> Result<CheckpointHandle, Error> {
        let what = || format!("dataset {} cannot be checkpointed", self.label());
        let store = checkpoints(self.context(), what)?.clone();
        let request = Request::new(name.into(), self.label(), Arc::default());
        let local = match self.node().persisted() {
            Some(blocks) if blocks.level().uses_disk() => blocks,
            _ => self.blocks(StorageLevel::DISK_ONLY)?,
        };
        let staged = Some(Arc::clone(&local));
        let checkpointing = Checkpointing { request: Arc::clone(&request), tee: None, staged };
        if let Err(current) = self.node().begin_checkpointing(checkpointing) {
            return self.in_background(current, &request.name);
        }
        let started = self.stage(&*local).and_then(|()| {
            let upload = Upload {
                context: self.context().downgrade(),
                dataset: self.id(),
                node: Arc::downgrade(self.node()),
                store,
                spec: spec(self, &request.name),
                partitions: self.partitions(),
                local,
                memory: PartMemory::of(self.context()),
                request: Arc::clone(&request),
                uploads: Arc::clone(self.context().uploads()),
                attempts: self.context().task_attempts(),
                cut: cut::<T>,
            };
            self.context().uploads().note(&request);
            let thread = thread::Builder::new().name("larder-upload".into());
            let started = thread.spawn(move || upload.run());
            started.map(drop).map_err(|source| Error::Thread { what: "the upload of a checkpoint", source })
        });
        if let Err(error) = started {
            self.node().end_checkpointing(&request);
            request.settle(Err(Failure::Cancelled("no local copy could be made")));
            return Err(error);
        }
        Ok(CheckpointHandle::new(request))
    }

    /// The checkpoint that is under way, if it is the one that is asked for.
    fn in_background(
        &self,
        current: Checkpointing,
        asked: &CheckpointName,
    ) -> Result<CheckpointHandle, Error> {
        if current.request.name == *asked && current.tee.is_none() {
            return Ok(CheckpointHandle::new(current.request));
        }
        Err(self.in_progress(&current.request, asked))
    }

    /// Has all partitions in the local copy; reading them fills it.
    fn stage(&self, local: &dyn Persisted) -> Result<(), Error> {
        let mut missing = self.all_partitions();
        for _ in 0..FILL_ROUNDS_MAX {
            missing.retain(|&partition| !local.contains(partition));
            if missing.is_empty() {
                return Ok(());
            }
            self.context().run_job(self.id(), &missing, &|_, _, _| Ok(()))?;
        }
        missing.retain(|&partition| !local.contains(partition));
        if missing.is_empty() {
            Ok(())
        } else {
            Err(incomplete(self.label(), missing.len(), self.partitions()))
        }
    }
}

fn incomplete(dataset: String, missing: usize, partitions: u32) -> Error {
    Error::LocalCheckpointIncomplete { dataset, missing, partitions, rounds: FILL_ROUNDS_MAX }
}

/// Everything an upload needs. It keeps neither the context nor the dataset: both may go while it works.
struct Upload {
    context: WeakContext,
    dataset: NodeId,
    node: Weak<Node>,
    store: CheckpointStore,
    spec: Spec,
    partitions: u32,
    local: Arc<dyn Persisted>,
    memory: PartMemory,
    request: Arc<Request>,
    uploads: Arc<Uploads>,
    attempts: u32,
    cut: fn(&Upload, larder_checkpoint::Checkpoint),
}

/// Cuts the lineage of the dataset, if it is still there.
fn cut<T: Data + Record>(upload: &Upload, checkpoint: larder_checkpoint::Checkpoint) {
    if let (Some(context), Some(node)) = (upload.context.upgrade(), upload.node.upgrade()) {
        // One that left the graph meanwhile has no lineage to cut.
        drop(context.cut(upload.dataset, &node, open_parts::<T>(checkpoint)));
    }
}

impl Upload {
    fn run(self) {
        let _for_it = WorksFor::job(&self.request.job);
        let written = panic::catch_unwind(AssertUnwindSafe(|| self.write()));
        if let Some(node) = self.node.upgrade() {
            node.end_checkpointing(&self.request);
        }
        let Self { request, local, .. } = self;
        // The copy is gone when the handle says that the checkpoint is there.
        drop(local);
        request.settle(match written {
            Ok(written) => written.map_err(|error| request.failure(error)),
            Err(_) => Err(Failure::Cancelled("its thread panicked")),
        });
    }

    fn write(&self) -> Result<CheckpointInfo, Error> {
        let attempt = self.store.begin(self.request.name.as_str(), self.spec.clone())?;
        self.parts(&attempt)?;
        if self.job().is_halted() {
            return Err(Error::Cancelled);
        }
        let checkpoint = commit(&attempt)?;
        let info = CheckpointInfo::of(&checkpoint);
        (self.cut)(self, checkpoint);
        Ok(info)
    }

    fn job(&self) -> &Arc<Job> {
        &self.request.job
    }

    /// Writes all parts, a few at a time.
    fn parts(&self, attempt: &Attempt) -> Result<(), Error> {
        let next = AtomicU32::new(0);
        let failure = Mutex::new(None);
        let work = || {
            let _for_it = WorksFor::job(self.job());
            while failure.lock().is_none() {
                let partition = next.fetch_add(1, Ordering::Relaxed);
                if partition >= self.partitions {
                    return;
                }
                // Shared by all uploads of the context.
                let Some(_slot) = self.uploads.slots.take(self.job()) else { return };
                if let Err(error) = self.part(attempt, partition) {
                    failure.lock().get_or_insert(error);
                    self.job().halt();
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..PARTS_AT_ONCE {
                let helper = thread::Builder::new().name("larder-upload".into());
                // Without the thread, this one does its share.
                if helper.spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        failure.into_inner().map_or(Ok(()), Err)
    }

    /// Writes one part and reads it back; again if that fails, as often as tasks are tried.
    fn part(&self, attempt: &Attempt, partition: u32) -> Result<(), Error> {
        let mut tried = 1;
        loop {
            // Records are encoded by code of the user's.
            let written = panic::catch_unwind(AssertUnwindSafe(|| self.try_part(attempt, partition)));
            let written = written.unwrap_or_else(|panic| Err(Cause::of_panic(&*panic).into()));
            let error = match written {
                Ok(()) => return Ok(()),
                Err(TaskError::Failed(cause)) => cause,
                Err(TaskError::Halted | TaskError::Lost | TaskError::Stale) => return Err(Error::Cancelled),
            };
            if self.job().is_halted() {
                return Err(Error::Cancelled);
            }
            if tried >= self.attempts || error.is_final() {
                let (dataset, attempts) = (self.request.dataset.clone(), self.attempts);
                return Err(Error::Task { dataset, partition, attempt: tried, attempts, cause: error });
            }
            tried += 1;
        }
    }

    fn try_part(&self, attempt: &Attempt, partition: u32) -> Result<(), TaskError> {
        let mut pass = |bytes| self.uploads.throttle.pass(bytes, self.job());
        for _ in 0..FILL_ROUNDS_MAX {
            if let Some(bytes) = self.local.write_part(partition, attempt, &self.memory, &mut pass)? {
                // What is read back goes over the same line.
                pass(bytes)?;
                return Ok(self.memory.verify(attempt, partition).map_err(Cause::from)?);
            }
            self.fill_again(partition)?;
        }
        Err(incomplete(self.request.dataset.clone(), 1, self.partitions).into())
    }

    /// Brings a block back that was lost from the local copy, from the lineage.
    fn fill_again(&self, partition: u32) -> Result<(), TaskError> {
        let Some(context) = self.context.upgrade() else { return Err(TaskError::Halted) };
        context.run_job(self.dataset, &[partition], &|_, _, _| Ok(()))?;
        Ok(())
    }
}
