//! Why a command did not do what was asked, and what scripts learn of it.

use std::io;

use larder_checkpoint::Error;

use crate::safe::safe;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Checkpoint(#[from] Error),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    NotFound(String),
    /// What is wrong was printed; the number is the exit code.
    #[error("{summary}")]
    Reported { summary: String, code: u8 },
    #[error("not confirmed: nothing was removed (--yes does not ask)")]
    Declined,
    #[error("cannot print: {0}")]
    Output(#[source] io::Error),
    #[error("cannot read the answer: {0}")]
    Input(#[source] io::Error),
}

/// Damage.
pub(crate) const DAMAGED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const NOT_FOUND: u8 = 4;
const NOT_DONE: u8 = 5;

impl Failure {
    /// See `larder --help`.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Checkpoint(error) => code(error),
            Self::Usage(_) => USAGE,
            Self::NotFound(_) => NOT_FOUND,
            Self::Reported { code, .. } => *code,
            Self::Declined => NOT_DONE,
            Self::Output(_) | Self::Input(_) => UNREACHABLE,
        }
    }

    /// On standard error, which someone may have closed.
    pub(crate) fn say(&self) {
        use std::io::Write as _;
        let _ = writeln!(io::stderr(), "larder: {}", safe(&self.to_string()));
    }
}

/// The exit code of an error.
pub(crate) fn code(error: &Error) -> u8 {
    match error {
        Error::Address { .. }
        | Error::Scheme { .. }
        | Error::Feature { .. }
        | Error::Configuration { .. }
        | Error::Name { .. }
        | Error::Invalid { .. } => USAGE,
        Error::NotFound { .. } => NOT_FOUND,
        Error::Manifest { .. } | Error::Part { .. } | Error::Codec { .. } => DAMAGED,
        Error::Conflict { .. } | Error::Expired { .. } => NOT_DONE,
        _ => UNREACHABLE,
    }
}
