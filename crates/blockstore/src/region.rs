//! Regions: large address ranges whose extents are handed out as pinned handles.
//!
//! An [`Arena`] is anonymous memory, a [`DiskStore`] a set of mapped files. Both are the same idea: an allocator
//! whose book-keeping lives outside the range ([`extents`]), behind one lock ([`shared`]), and extents that belong
//! to whoever holds them. A stored extent is a `bytes::Bytes` into the mapping; when its last clone drops, the
//! extent is free and its pages go back to the kernel or the file system.
//!
//! `unsafe` stands in `arena` and `segment` alone. It rests on one invariant: *live extents never overlap*, which
//! `extents` keeps (tested against a model) and `shared` keeps between threads (proved by a loom model).

mod arena;
mod directory;
mod disk;
mod error;
mod extents;
mod segment;
mod segment_file;
mod shared;
mod warm;

#[cfg(all(test, loom))]
mod loom_tests;

pub(crate) use arena::{Arena, ExtentMut, arena_bytes};
pub use disk::{DirectoryStatus, DiskStatus};
pub(crate) use disk::{DiskOptions, DiskStore};
pub use error::RegionError;
