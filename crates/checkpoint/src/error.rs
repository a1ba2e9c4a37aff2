//! What can go wrong, by kind.

use std::fmt;
use std::io;
use std::time::Duration;

use larder_blockstore::codec::{CodecError, CodecId};
use larder_blockstore::format::{ChunkError, HeaderError};

use crate::{Address, AttemptId, Step};

/// What was being done, to which object of which store. Prints as the object's full path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The store.
    pub address: Address,
    /// The object's path below that address.
    pub object: String,
    /// The step that failed.
    pub step: Step,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.address.join(&self.object))
    }
}

/// Why a checkpoint could not be written, found or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no address.
    #[error("`{address}` is no address of a checkpoint or a checkpoint store: {reason}")]
    Address {
        /// The text.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The address names no backend there is.
    #[error(
        "cannot open `{address}`: {scheme}:// is not a backend; use a path, file://, s3://, hdfs:// or memory://"
    )]
    Scheme {
        /// The address.
        address: String,
        /// Its scheme.
        scheme: String,
    },
    /// The address needs a backend that was not compiled in.
    #[error(
        "cannot open `{address}`: this build has no support for {feature}; \
         enable the cargo feature `{feature}` of `larder` or `larder-checkpoint`"
    )]
    Feature {
        /// The address.
        address: String,
        /// The feature that is missing.
        feature: &'static str,
    },
    /// A server cannot be used as it is configured.
    #[error("cannot open `{address}`: {source}")]
    Configuration {
        /// The address.
        address: String,
        /// What is wrong.
        source: io::Error,
    },
    /// No dataset can have this name.
    #[error("`{name}` cannot be a dataset name: {reason}; use A-Z a-z 0-9 . _ -, not starting with a dot")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A call that cannot be served as asked.
    #[error("{reason}")]
    Invalid {
        /// What was asked, and what can be.
        reason: String,
    },
    /// The backend failed.
    #[error("cannot {} {at}{}: {source}{}", at.step, after(*bytes), advice(source))]
    Io {
        /// What and where.
        at: Box<Place>,
        /// Bytes that had been handed over before, when a part was being written.
        bytes: Option<u64>,
        /// The system's own words.
        source: io::Error,
    },
    /// The backend has no room left.
    #[error("cannot {} {at}{}: no space left ({source}); free some or use another address", at.step, after(*bytes))]
    StorageFull {
        /// What and where.
        at: Box<Place>,
        /// Bytes that had been handed over before, when a part was being written.
        bytes: Option<u64>,
        /// The system's own words.
        source: io::Error,
    },
    /// Another writer committed the generation first. What it wrote is intact; this attempt is over.
    #[error(
        "{at} was committed by {}, not by attempt {attempt}: begin a new attempt on top of it",
        winner.map_or("another writer and removed again".to_owned(), |winner| format!("attempt {winner}"))
    )]
    Conflict {
        /// The manifest.
        at: Box<Place>,
        /// The attempt that lost.
        attempt: AttemptId,
        /// The attempt that stands there; none when it was removed meanwhile.
        winner: Option<AttemptId>,
    },
    /// Whether the manifest was published is not known. Nothing was deleted: call `commit` again to find out.
    #[error("whether {at} was committed is unknown ({source}); commit again to find out")]
    CommitUnknown {
        /// The manifest.
        at: Box<Place>,
        /// The attempt.
        attempt: AttemptId,
        /// What happened to the publish.
        source: io::Error,
    },
    /// The attempt is so old that a cleanup may take its data for an orphan.
    #[error(
        "attempt {attempt} of {at} began {} s ago, and may not be committed after {} s (half the orphan grace): \
         begin a new one, or give stores and cleanups a longer orphan grace",
        age.as_secs(), limit.as_secs()
    )]
    Expired {
        /// The manifest that was not published.
        at: Box<Place>,
        /// The attempt.
        attempt: AttemptId,
        /// Its age.
        age: Duration,
        /// The greatest age an attempt may be committed at.
        limit: Duration,
    },
    /// Not all parts were written.
    #[error("cannot commit {at}: {} of {partitions} parts are not finished, the first is {first}", missing)]
    Incomplete {
        /// The manifest that was not published.
        at: Box<Place>,
        /// How many parts are missing.
        missing: usize,
        /// The first partition without a part.
        first: u32,
        /// How many there should be.
        partitions: u32,
    },
    /// No such checkpoint.
    #[error("there is no checkpoint {at}")]
    NotFound {
        /// The manifest.
        at: Box<Place>,
    },
    /// A manifest that cannot be believed.
    #[error("manifest {at} is damaged or foreign: {source}")]
    Manifest {
        /// The manifest.
        at: Box<Place>,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A part that is not the one its manifest names.
    #[error("part {partition}, {at}, is damaged: {source}")]
    Part {
        /// The part.
        at: Box<Place>,
        /// Which partition it holds.
        partition: u32,
        /// What is wrong with it.
        source: PartError,
    },
    /// The codec given is not the one the dataset is written in.
    #[error("{at} holds records of {expected}; {given} was given")]
    WrongCodec {
        /// The part.
        at: Box<Place>,
        /// The codec of the dataset.
        expected: CodecId,
        /// The codec given.
        given: CodecId,
    },
    /// A record could not be encoded or decoded.
    #[error("cannot {} {at}: {source}", at.step)]
    Codec {
        /// The part.
        at: Box<Place>,
        /// The codec's own words.
        source: CodecError,
    },
}

fn after(bytes: Option<u64>) -> String {
    bytes.map(|bytes| format!(" after {bytes} bytes")).unwrap_or_default()
}

/// What to do where the words of a server leave it open.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "; trying again cannot help until the credentials, or what they permit, are mended"
        }
        _ => "",
    }
}

impl Error {
    /// What was being done and where, if the error is about an object of a store.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Address { .. }
            | Self::Scheme { .. }
            | Self::Feature { .. }
            | Self::Configuration { .. }
            | Self::Name { .. }
            | Self::Invalid { .. } => None,
            Self::Io { at, .. }
            | Self::StorageFull { at, .. }
            | Self::Conflict { at, .. }
            | Self::CommitUnknown { at, .. }
            | Self::Expired { at, .. }
            | Self::Incomplete { at, .. }
            | Self::NotFound { at }
            | Self::Manifest { at, .. }
            | Self::Part { at, .. }
            | Self::WrongCodec { at, .. }
            | Self::Codec { at, .. } => Some(at),
        }
    }

    /// May the same call succeed when it is made again, with nothing else changed?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
            NetworkUnreachable, NotConnected, ResourceBusy, StaleNetworkFileHandle, TimedOut, WouldBlock,
        };
        match self {
            Self::CommitUnknown { .. } => true,
            // A server's word counts for more than the kind of its error.
            Self::Io { source, .. } => crate::retry::is_retryable(source).unwrap_or(matches!(
                source.kind(),
                BrokenPipe
                    | ConnectionAborted
                    | ConnectionReset
                    | HostUnreachable
                    | Interrupted
                    | NetworkDown
                    | NetworkUnreachable
                    | NotConnected
                    | ResourceBusy
                    | StaleNetworkFileHandle
                    | TimedOut
                    | WouldBlock
            )),
            _ => false,
        }
    }

    /// Sorts an I/O error: a full medium has a kind of its own.
    pub(crate) fn io(at: Box<Place>, bytes: Option<u64>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::StorageFull { at, bytes, source }
            }
            _ => Self::Io { at, bytes, source },
        }
    }
}

/// Why the bytes of a manifest are not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// They do not end in a checksum.
    #[error("it does not end in a checksum: cut short, or no Larder manifest")]
    NoChecksum,
    /// They are not those that were written.
    #[error("checksum {actual:016x} where {expected:016x} was written")]
    Checksum {
        /// As recorded.
        expected: u64,
        /// Of the bytes found.
        actual: u64,
    },
    /// Written by a later Larder.
    #[error("manifest version {found}; this version reads up to {supported}")]
    Version {
        /// The version found.
        found: u32,
        /// The latest this build reads.
        supported: u32,
    },
    /// No manifest in JSON, though its checksum is right.
    #[error("it does not parse: {0}")]
    Json(#[from] serde_json::Error),
    /// It stands where another manifest should.
    #[error("its {what} is {found}, where {expected} belongs")]
    Misplaced {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: String,
        /// The value that fits the place.
        expected: String,
    },
}

/// How a part differs from what its manifest says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It is shorter or longer.
    #[error("it has {found} bytes where {expected} were written")]
    Length {
        /// As the manifest says.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// It became shorter while it was read.
    #[error("it ends before byte {needed}")]
    Shrunk {
        /// The byte after the last that was asked for.
        needed: u64,
    },
    /// Its header cannot be read.
    #[error("{0}")]
    Header(#[from] HeaderError),
    /// Its header or its whole is not the one the manifest was made for.
    #[error("the checksum of {what} is {actual:016x} where the manifest has {expected:016x}")]
    Checksum {
        /// `its header`, `the file` or `the copy`.
        what: &'static str,
        /// As the manifest says.
        expected: u64,
        /// Of the bytes found.
        actual: u64,
    },
    /// Its header and the manifest disagree.
    #[error("its header says {found}, the manifest {expected}")]
    Contradiction {
        /// What the header says.
        found: String,
        /// What the manifest says.
        expected: String,
    },
    /// One of its chunks is not what was written.
    #[error("chunk {chunk}: {source}")]
    Chunk {
        /// Which one, counted from 0.
        chunk: usize,
        /// What is wrong with it.
        source: ChunkError,
    },
}
