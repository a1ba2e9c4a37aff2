//! The steps of writing and reading a checkpoint, and the point where tests make them fail.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// One step of the protocol, for errors and for hooks.
///
/// Those that change the store come in this order when a checkpoint is written; `docs/formats.md` argues for each
/// what a crash before, in and after it leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Lists the manifests of a dataset.
    ListCommits,
    /// Makes the directories of the dataset and of the attempt, where there are any.
    CreateDirectories,
    /// Tries whether the server honours conditional writes: on S3, once a store.
    Probe,
    /// Starts to write a part.
    CreatePart,
    /// Writes a chunk of a part.
    WriteChunk,
    /// Writes the header that ends a part.
    WriteHeader,
    /// Closes a part, which makes its bytes durable.
    ClosePart,
    /// Waits until a part is closed whose bytes are durable: on HDFS that goes on while others are written.
    AwaitPart,
    /// Compares the lengths of all parts with what was written, by one listing.
    CheckPart,
    /// Makes the names of the attempt's parts durable.
    SyncDirectories,
    /// Writes the manifest under a temporary name.
    WriteManifest,
    /// Makes the temporary manifest's bytes durable.
    SyncManifest,
    /// Gives the manifest its name, exclusively: the commit point. By hard link, conditional PUT or rename.
    PublishManifest,
    /// Makes that name durable.
    SyncCommits,
    /// Removes the temporary name.
    RemoveTemporary,
    /// Reads a manifest, or reads one's own back.
    ReadManifest,
    /// Writes the hint at the newest generation.
    WriteLatest,
    /// Reads or writes a pin: the name of a generation that retention spares.
    Pin,
    /// Removes a pin.
    Unpin,
    /// Removes an unfinished part.
    DiscardPart,
    /// Removes a manifest.
    RemoveManifest,
    /// Removes the data of an attempt.
    RemoveData,
    /// Lists what a store or a dataset holds.
    ListData,
    /// Lists uploads that were begun and not finished, on S3.
    ListUploads,
    /// Opens a part and reads its header.
    OpenPart,
    /// Reads chunks of a part.
    ReadPart,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ListCommits => "list the manifests in",
            Self::CreateDirectories => "create directory",
            Self::Probe => "probe whether conditional writes are honoured by",
            Self::CreatePart => "create",
            Self::WriteChunk => "write a chunk of",
            Self::WriteHeader => "write the header of",
            Self::ClosePart => "sync and close",
            Self::AwaitPart => "close",
            Self::CheckPart => "check the lengths of the parts in",
            Self::SyncDirectories => "sync the directories of",
            Self::WriteManifest => "write a temporary manifest for",
            Self::SyncManifest => "sync the temporary manifest for",
            Self::PublishManifest => "publish",
            Self::SyncCommits => "sync the directory of",
            Self::RemoveTemporary => "remove the temporary manifest for",
            Self::ReadManifest => "read",
            Self::WriteLatest => "write",
            Self::Pin => "read or write",
            Self::Unpin => "remove",
            Self::DiscardPart => "remove unfinished",
            Self::RemoveManifest | Self::RemoveData => "remove",
            Self::ListData => "list",
            Self::ListUploads => "list the unfinished uploads in",
            Self::OpenPart => "open",
            Self::ReadPart => "read a chunk of",
        })
    }
}

/// What a hook has the store do with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HookAction {
    /// Go on.
    Continue,
    /// Fail, without having done anything.
    FailBefore(io::ErrorKind),
    /// Fail after half of the step's bytes; a step that writes none fails before.
    FailHalfway(io::ErrorKind),
    /// Do the step, then report a failure.
    FailAfter(io::ErrorKind),
    /// Let the server take so long before it begins. Where that is more than the time-out of an operation the step
    /// fails then, with [`io::ErrorKind::TimedOut`] and without effect; a local disk and memory have no time-out.
    Hang(Duration),
}

type Hook = dyn Fn(Step, &str) -> HookAction + Send + Sync;

/// Runs steps, past the hook if there is one.
#[derive(Clone, Default)]
pub(crate) struct Steps {
    hook: Option<Arc<Hook>>,
    /// How long a step may hang.
    timeout: Option<Duration>,
}

impl Steps {
    pub(crate) fn hooked(hook: impl Fn(Step, &str) -> HookAction + Send + Sync + 'static) -> Self {
        Self { hook: Some(Arc::new(hook)), timeout: None }
    }

    pub(crate) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    fn action(&self, step: Step, object: &str) -> HookAction {
        self.hook.as_ref().map_or(HookAction::Continue, |hook| hook(step, object))
    }

    fn hang(&self, time: Duration) -> io::Result<()> {
        match self.timeout.filter(|&timeout| time >= timeout) {
            Some(timeout) => {
                std::thread::sleep(timeout);
                Err(io::ErrorKind::TimedOut.into())
            }
            None => {
                std::thread::sleep(time);
                Ok(())
            }
        }
    }

    pub(crate) fn run<T>(
        &self,
        step: Step,
        object: &str,
        effect: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        match self.action(step, object) {
            HookAction::Continue => effect(),
            HookAction::Hang(time) => {
                self.hang(time)?;
                effect()
            }
            HookAction::FailBefore(kind) | HookAction::FailHalfway(kind) => Err(kind.into()),
            HookAction::FailAfter(kind) => {
                effect()?;
                Err(kind.into())
            }
        }
    }

    /// A step that writes `len` bytes: `effect` is told how many of them to write.
    pub(crate) fn write<T>(
        &self,
        step: Step,
        object: &str,
        len: usize,
        effect: impl FnOnce(usize) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.action(step, object) {
            HookAction::Continue => effect(len),
            HookAction::Hang(time) => {
                self.hang(time)?;
                effect(len)
            }
            HookAction::FailBefore(kind) => Err(kind.into()),
            HookAction::FailHalfway(kind) => {
                effect(len / 2)?;
                Err(kind.into())
            }
            HookAction::FailAfter(kind) => {
                effect(len)?;
                Err(kind.into())
            }
        }
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.hook.is_some() { "hooked" } else { "not hooked" })
    }
}
