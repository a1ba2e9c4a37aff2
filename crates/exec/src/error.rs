//! What can go wrong in a job.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_checkpoint::RecordSchema;
use larder_lineage::{GraphError, NodeId};

/// An error that a user's closure returned.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error of a context, a dataset or an action. Names the dataset, partition, path or setting it is about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A task failed as often as it may; the job was given up. What other tasks cached stays.
    #[error("dataset {dataset}, partition {partition}, attempt {attempt} of {attempts}: {cause}")]
    Task {
        /// Name and id of the dataset whose operation failed; with `, map side` if it was preparing a shuffle.
        dataset: String,
        /// Which of its partitions; on the map side, which of those that the shuffle reads.
        partition: u32,
        /// Which attempt this was, from 1.
        attempt: u32,
        /// How many attempts a task has.
        attempts: u32,
        /// Why it failed.
        #[source]
        cause: Box<Cause>,
    },
    /// All tasks were done, and merging their results failed: on the thread that called the action, where nothing
    /// is tried again.
    #[error("dataset {dataset}, merging the results of its partitions: {cause}")]
    Merge {
        /// Name and id of the dataset.
        dataset: String,
        /// Why it failed.
        #[source]
        cause: Box<Cause>,
    },
    /// The job was cancelled. The context can be used again.
    #[error("the job was cancelled")]
    Cancelled,
    /// Blocks were lost faster than they could be computed again.
    #[error(
        "{what} of dataset {dataset}, or of one it is computed from, was lost again in each of {rounds} rounds that got no further; give the context more memory or a disk"
    )]
    LostTooOften {
        /// What was lost.
        what: &'static str,
        /// Name and id of the dataset the job was for.
        dataset: String,
        /// How many rounds in a row got no further.
        rounds: u32,
    },
    /// The lineage changed again and again while a job of it ran: datasets were checkpointed under it.
    #[error(
        "the lineage of dataset {dataset} was cut under its job in each of {rounds} rounds that got no further; run the action again when fewer checkpoints are made beside it"
    )]
    LineageUnsettled {
        /// Name and id of the dataset the job was for.
        dataset: String,
        /// How many rounds in a row got no further.
        rounds: u32,
    },
    /// A setting of the context is impossible.
    #[error("{setting}: {problem}")]
    Setting {
        /// Which setting.
        setting: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A dataset cannot be made with these arguments.
    #[error("{operation}: {problem}")]
    Argument {
        /// The transformation, action or source.
        operation: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The dataset is persisted at another level.
    #[error(
        "dataset {dataset} is persisted at {current}; `unpersist` it before persisting it at {requested}"
    )]
    LevelConflict {
        /// Name and id of the dataset.
        dataset: String,
        /// The level it has.
        current: larder_blockstore::StorageLevel,
        /// The level that was asked for.
        requested: larder_blockstore::StorageLevel,
    },
    /// The context has no place for checkpoints.
    #[error("{what}: the context has no checkpoint directory; give it one with `.checkpoints(path)`")]
    NoCheckpoints {
        /// What cannot be done.
        what: String,
    },
    /// The output of a save exists already. It was not touched.
    #[error("{} exists already; remove it or save elsewhere", path.display())]
    OutputExists {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory could not be read or written.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// There is no checkpoint of this name.
    #[error("there is no checkpoint named `{name}` in {address}")]
    NoSuchCheckpoint {
        /// The name.
        name: String,
        /// Where it was looked for.
        address: String,
    },
    /// A checkpoint holds records of another type, or of the same type by another name.
    #[error(
        "checkpoint {address} holds records of type `{found}`, not `{expected}`{shapes}; if they are the same, open it by `CheckpointName::new(..).records(\"{found}\")`"
    )]
    WrongRecordType {
        /// The checkpoint.
        address: String,
        /// What the records are called that were asked for.
        expected: String,
        /// What those are called that were written.
        found: String,
        /// What both are made of, in words; empty when that is not known of one of them.
        shapes: String,
    },
    /// A checkpoint holds records that are built in another way: its bytes are none of the type that was asked for.
    #[error(
        "checkpoint {address} holds records of type `{}`, made of `{}`, not of `{}`, made of `{}`; open it as what it is",
        found.rust_type, found.description, expected.rust_type, expected.description
    )]
    WrongRecordShape {
        /// The checkpoint.
        address: String,
        /// The type that was asked for.
        expected: Box<RecordSchema>,
        /// The type that was written.
        found: Box<RecordSchema>,
    },
    /// A checkpoint's partitioner and its parts contradict each other: joins with it would miss records.
    #[error(
        "checkpoint {address} says that `{partitioner}` spread its records over {into} partitions, and has {partitions}; it was written wrong, write it again"
    )]
    WrongPartitioner {
        /// The checkpoint.
        address: String,
        /// The partitioner.
        partitioner: String,
        /// Into how many partitions it assigns records.
        into: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A local checkpoint could not keep all blocks. The dataset is as it was, with its lineage.
    #[error(
        "{missing} of {partitions} blocks of dataset {dataset} did not stay in the store in {rounds} rounds of filling them, so its lineage was not cut; look at what removes them, or use `checkpoint()`"
    )]
    LocalCheckpointIncomplete {
        /// Name and id of the dataset.
        dataset: String,
        /// How many blocks were missing in the end.
        missing: usize,
        /// How many there should be.
        partitions: u32,
        /// How many times those that were missing were filled.
        rounds: u32,
    },
    /// A checkpoint that was asked for to be written later failed. The dataset is as it was, with its lineage.
    #[error("checkpoint `{name}` of dataset {dataset} failed, and its lineage was kept: {cause}")]
    CheckpointFailed {
        /// The checkpoint's name.
        name: String,
        /// Name and id of the dataset.
        dataset: String,
        /// Why it failed.
        #[source]
        cause: Arc<Self>,
    },
    /// A checkpoint that was asked for to be written later was given up. The dataset is as it was, with its lineage.
    #[error("checkpoint `{name}` of dataset {dataset} was not written: {why}")]
    CheckpointCancelled {
        /// The checkpoint's name.
        name: String,
        /// Name and id of the dataset.
        dataset: String,
        /// What ended it.
        why: &'static str,
    },
    /// The dataset waits to be checkpointed, or is being checkpointed, in another way.
    #[error(
        "dataset {dataset} is to be checkpointed as `{current}` already; wait for that or cancel it before asking for `{requested}`"
    )]
    CheckpointInProgress {
        /// Name and id of the dataset.
        dataset: String,
        /// The name that was asked for first.
        current: String,
        /// The name that is asked for now.
        requested: String,
    },
    /// The system gave no thread.
    #[error("no thread could be started for {what}: {source}")]
    Thread {
        /// What it was for.
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The block store refused.
    #[error(transparent)]
    Store(#[from] larder_blockstore::Error),
    /// A checkpoint could not be written, found or read.
    #[error(transparent)]
    Checkpoint(#[from] larder_checkpoint::Error),
    /// The lineage graph refused.
    #[error(transparent)]
    Lineage(#[from] GraphError),
}

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// A closure, or code it called, panicked.
    #[error("panicked: {message}")]
    Panic {
        /// The panic's message.
        message: String,
    },
    /// A closure returned an error.
    #[error("{source}")]
    User {
        /// That error.
        source: BoxError,
    },
    /// A file could not be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A line of a text file is not UTF-8.
    #[error("{}: the line at byte {offset} is not valid UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
    },
    /// The two sides of a zip have different numbers of records.
    #[error("zip needs as many records on both sides, but the {longer} one has more")]
    UnequalZip {
        /// Which side goes on after the other's end.
        longer: &'static str,
    },
    /// A block of a locally checkpointed dataset is gone, and its lineage was cut.
    #[error(
        "a block of this local checkpoint was lost and its lineage was cut; use `checkpoint()` for one that survives losing blocks"
    )]
    LocalCheckpointLost,
    /// The output of a shuffle found no room.
    #[error(
        "the output of a shuffle does not fit in memory and there is no disk; give the context a disk with `.disk(path)`, or more memory"
    )]
    ShuffleRefused,
    /// An operator needs more memory and has no disk to spill to.
    #[error(
        "execution memory refused: {needed_bytes} more bytes were needed, {available_bytes} of the budget of {budget_bytes} are available to the task, and there is no disk to spill to; give the context a disk with `.disk(path)`, or more memory"
    )]
    MemoryRefused {
        /// What was asked for, beyond what the operator held.
        needed_bytes: u64,
        /// What it could have had.
        available_bytes: u64,
        /// The heap budget, for storage and execution together.
        budget_bytes: u64,
    },
    /// What is gathered for one key is one record, and larger than the memory a task can have.
    #[error(
        "the values of one key take {needed_bytes} bytes, and {available_bytes} of the budget of {budget_bytes} are available to the task; give the context more memory, or reduce the values instead of grouping them"
    )]
    GroupTooLarge {
        /// What the key's values took when no more were granted. There may be more of them.
        needed_bytes: u64,
        /// What the task could have had for them.
        available_bytes: u64,
        /// The heap budget, for storage and execution together.
        budget_bytes: u64,
    },
    /// The block store failed.
    #[error("{0}")]
    Store(#[from] larder_blockstore::Error),
    /// A checkpoint could not be written or read.
    #[error("{0}")]
    Checkpoint(#[from] larder_checkpoint::Error),
    /// A job that the task started, or needed, failed.
    #[error("{0}")]
    Job(#[source] Box<Error>),
    /// A batch had another type than its consumer expects: a fault of this library.
    #[error("a batch of records has the wrong type; this is a fault of larder-exec, please report it")]
    Internal,
}

/// Why a task ended without a result.
#[derive(Debug)]
pub(crate) enum TaskError {
    /// The job was cancelled, or another task of it failed for good.
    Halted,
    /// A map output that the plan took for granted is gone: plan again.
    Lost,
    /// The lineage changed under the task: plan again.
    Stale,
    /// A failure that counts as an attempt.
    Failed(Box<Cause>),
}

impl From<Cause> for TaskError {
    fn from(cause: Cause) -> Self {
        Self::Failed(Box::new(cause))
    }
}

impl TaskError {
    pub(crate) fn user(error: impl Into<BoxError>) -> Self {
        Cause::User { source: error.into() }.into()
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Cause::Io { action, path: path.to_owned(), source }.into()
    }
}

impl From<GraphError> for TaskError {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::UnknownNode { .. } => Self::Stale,
            other => Self::Failed(Box::new(Cause::Job(Box::new(other.into())))),
        }
    }
}

impl From<Error> for TaskError {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Halted,
            other => Self::Failed(Box::new(Cause::Job(Box::new(other)))),
        }
    }
}

/// How messages name a dataset: `` `ranks` (node_7) ``.
pub(crate) fn dataset_label(name: &str, node: NodeId) -> String {
    format!("`{name}` ({node})")
}

impl Cause {
    pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(message), _) => (*message).to_owned(),
            (_, Some(message)) => message.clone(),
            _ => "with something that is no text".to_owned(),
        };
        Self::Panic { message }
    }

    /// As [`of_panic`](Self::of_panic), and lets go of what was thrown. If that panics as well, it stays where it is.
    pub(crate) fn of_caught(panic: Box<dyn Any + Send>) -> Self {
        let cause = Self::of_panic(&*panic);
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
            std::mem::forget(another);
        }
        cause
    }

    /// Whether trying again would give the same.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::NotUtf8 { .. } | Self::UnequalZip { .. } | Self::LocalCheckpointLost | Self::Internal
        )
    }
}
