//! Regions: large address ranges whose extents are handed out as pinned handles.
//!
//! An [`Arena`] is anonymous memory, a [`DiskStore`] a set of mapped files. Both are the same idea: an allocator
//! whose book-keeping lives outside the range ([`extents`]), behind one lock ([`shared`], [`space`]), and extents that
//! belong to whoever holds them. A stored extent is a `bytes::Bytes` into the mapping; when its last clone drops, the
//! extent is free. Its pages go back to the kernel; to a file system, which makes that expensive, in long runs, when
//! more than a bounded slack has gathered.
//!
//! `unsafe` stands in `arena` and `segment` alone. It rests on one invariant: *live extents never overlap*, which
//! `extents` keeps (tested against a model) and `shared` and `space` keep between threads (proved by loom models).

mod arena;
mod budget;
mod cipher;
mod directory;
mod disk;
mod error;
mod extents;
mod page_set;
mod segment;
mod segment_file;
mod shared;
mod space;
#[cfg(test)]
#[cfg(not(loom))]
pub(crate) mod told_disks;
mod unmapped;
mod warm;

#[cfg(all(test, loom))]
mod loom_tests;

pub(crate) use arena::{Arena, ExtentMut, arena_bytes};
pub(crate) use cipher::ChunkId;
#[cfg(feature = "encryption")]
pub(crate) use cipher::DiskCipher;
pub use disk::{DirectoryStatus, DiskReads, DiskStatus};
pub(crate) use disk::{DiskOptions, DiskStore};
pub use error::RegionError;
pub(crate) use segment_file::{OpenSegmentFile, open_segment_file};
pub(crate) use unmapped::{LoadError, StoredBytes};
