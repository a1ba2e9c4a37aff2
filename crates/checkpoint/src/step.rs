//! The steps of writing and reading a checkpoint, and the point where tests make them fail.

use std::fmt;
use std::io;
use std::sync::Arc;

/// One step of the protocol, for errors and for hooks.
///
/// Those that change the store come in this order when a checkpoint is written; `docs/formats.md` argues for each
/// what a crash before, in and after it leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Lists the manifests of a dataset.
    ListCommits,
    /// Makes the directories of the dataset and of the attempt.
    CreateDirectories,
    /// Writes a chunk of a part.
    WriteChunk,
    /// Writes the header that ends a part.
    WriteHeader,
    /// Closes a part, which makes its bytes durable.
    ClosePart,
    /// Compares a part's length with what was written.
    CheckPart,
    /// Makes the names of the attempt's parts durable.
    SyncDirectories,
    /// Writes the manifest under a temporary name.
    WriteManifest,
    /// Makes the temporary manifest's bytes durable.
    SyncManifest,
    /// Gives the manifest its name, exclusively: the commit point.
    LinkManifest,
    /// Makes that name durable.
    SyncCommits,
    /// Removes the temporary name.
    RemoveTemporary,
    /// Reads a manifest, or reads one's own back.
    ReadManifest,
    /// Writes the hint at the newest generation.
    WriteLatest,
    /// Removes an unfinished part.
    DiscardPart,
    /// Removes a manifest.
    RemoveManifest,
    /// Removes the data of an attempt.
    RemoveData,
    /// Lists what a store or a dataset holds.
    ListData,
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
            Self::WriteChunk => "write a chunk of",
            Self::WriteHeader => "write the header of",
            Self::ClosePart => "sync and close",
            Self::CheckPart => "check the length of",
            Self::SyncDirectories => "sync the directories of",
            Self::WriteManifest => "write a temporary manifest for",
            Self::SyncManifest => "sync the temporary manifest for",
            Self::LinkManifest => "publish (by hard link)",
            Self::SyncCommits => "sync the directory of",
            Self::RemoveTemporary => "remove the temporary manifest for",
            Self::ReadManifest => "read",
            Self::WriteLatest => "write",
            Self::DiscardPart => "remove unfinished",
            Self::RemoveManifest | Self::RemoveData => "remove",
            Self::ListData => "list",
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
}

type Hook = dyn Fn(Step, &str) -> HookAction + Send + Sync;

/// Runs steps, past the hook if there is one.
#[derive(Clone, Default)]
pub(crate) struct Steps(Option<Arc<Hook>>);

impl Steps {
    pub(crate) fn hooked(hook: impl Fn(Step, &str) -> HookAction + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(crate) fn run<T>(
        &self,
        step: Step,
        object: &str,
        effect: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let action = self.0.as_ref().map_or(HookAction::Continue, |hook| hook(step, object));
        match action {
            HookAction::Continue => effect(),
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
        let action = self.0.as_ref().map_or(HookAction::Continue, |hook| hook(step, object));
        match action {
            HookAction::Continue => effect(len),
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
        f.write_str(if self.0.is_some() { "hooked" } else { "not hooked" })
    }
}
