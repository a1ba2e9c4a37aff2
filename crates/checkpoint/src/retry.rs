//! How long to wait for a server, and how often to ask.

#[cfg(any(feature = "s3", feature = "hdfs"))]
mod requests;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

#[cfg(feature = "s3")]
pub(crate) use requests::PAUSE_MAX;

/// Time-outs and retries for servers. A local disk and memory need none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For one request.
    pub(crate) operation: Duration,
    /// For one step with all its retries and pauses.
    pub(crate) total: Duration,
    /// How often a step is tried at most; at least 1.
    pub(crate) tries: u32,
    /// Before the second try; doubles with each, and jitters.
    pub(crate) pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            operation: Duration::from_secs(60),
            total: Duration::from_secs(180),
            tries: 5,
            pause: Duration::from_millis(100),
        }
    }
}

/// What a server did not do, in words for people.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: io::ErrorKind,
    pub(crate) message: String,
    /// May the same request succeed when it is made again?
    pub(crate) retryable: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Failure {}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind, failure)
    }
}

/// Whether the same may succeed when it is tried again, if a server told.
pub(crate) fn is_retryable(error: &io::Error) -> Option<bool> {
    let failure = error.get_ref()?.downcast_ref::<Failure>()?;
    Some(failure.retryable)
}
