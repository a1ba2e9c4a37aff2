//! Checkpoints: datasets that outlive the process.
//!
//! A [`CheckpointStore`] is a place that any number of processes use together. An [`Attempt`] writes one file a
//! partition, in parallel, and [commits](Attempt::commit) them in one atomic step, as the next *generation* of the
//! dataset. From then on a [`Checkpoint`] reads them back, in any process that knows its address, and tells what it
//! finds from what was written: a part that was cut, swapped, lost or changed is an error that names it, never a
//! shorter result.
//!
//! # What holds
//!
//! - Before its commit nothing of an attempt is visible to readers; after it, all is. A crash at any step leaves
//!   the previous generations as they were, and either the whole new one or garbage that
//!   [`cleanup`](CheckpointStore::cleanup) finds.
//! - Of any number of writers, threads or processes, that commit the same generation one wins; the others get
//!   [`Error::Conflict`].
//! - What was committed survives a power cut, as far as the medium keeps its promises.
//!
//! `docs/formats.md` has the bytes, the protocol, and the argument for each of these by cases.
//!
//! # When not to use it
//!
//! For data that need not outlive the process: a disk level of the block store needs no sync and no manifest. For
//! single records or small appends: a checkpoint is written whole.
//!
//! # Backends
//!
//! An [`Address`] names the backend: the local file system, S3 (cargo feature `s3`), HDFS (cargo feature `hdfs`), or
//! this process' memory for tests. The bytes are the same on all of them; what differs is the one step that has to be
//! atomic, a [`CommitStore`]. One of your own can be tested by [`conformance`].

#![forbid(unsafe_code)]

mod address;
mod attempt;
mod attempt_id;
mod checkpoint;
mod cleanup;
mod commit;
pub mod conformance;
mod error;
mod files;
mod layout;
mod manifest;
mod objects;
mod open;
#[cfg(test)]
mod power_cut;
mod retention;
mod retry;
mod runtime;
mod settings;
mod spec;
mod step;
mod store;

pub use address::Address;
pub use attempt::{Attempt, PartWriter, RecordWriter};
pub use attempt_id::{AttemptId, AttemptIdError};
pub use checkpoint::{Checkpoint, PartReader, Records, VerifyReport};
pub use cleanup::{CleanupOptions, CleanupReport, Orphan};
pub use commit::{CommitStore, FsCommitStore, PublishError};
pub use error::{Error, ManifestError, PartError, Place};
pub use layout::NAME_BYTES_MAX;
pub use manifest::{Manifest, PARTITIONS_MAX, Part, Partitioner, RecordSchema};
pub use open::Builder;
pub use retention::{RetentionOptions, RetentionReport};
pub use spec::Spec;
pub use step::{HookAction, Step};
pub use store::{CheckpointStore, ORPHAN_GRACE_DEFAULT};
