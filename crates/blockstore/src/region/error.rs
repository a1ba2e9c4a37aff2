//! What can go wrong with memory and disks.

use std::io;
use std::path::PathBuf;

/// Why bytes could not be kept off the heap or on disk, or not be read from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The address space of an off-heap arena could not be reserved.
    #[error(
        "cannot reserve {reserve_bytes} bytes of address space for the off-heap arena; \
         lower the off-heap budget, or raise the process's address space limit (ulimit -v, vm.overcommit_memory)"
    )]
    Reserve {
        /// How much was asked for: a multiple of the budget, without using it.
        reserve_bytes: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No key to encrypt blocks on disk with.
    #[error("the operating system gives no random key to encrypt blocks on disk with")]
    Key {
        /// Why.
        source: io::Error,
    },
    /// Blocks shall go to disk, but no directory was named.
    #[error("no directory to keep blocks in was given; name one, or build the store without a disk")]
    NoDirectoryGiven,
    /// A directory cannot be created or written to.
    #[error("cannot keep blocks in directory {}: check that it can be created and written to", .directory.display())]
    OpenDirectory {
        /// Which one.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No directory has room. Nothing stored before is lost.
    #[error("no room for {needed_bytes} bytes in directory {}: its file system is full; free some space, or name a further directory", .directory.display())]
    DiskFull {
        /// The directory tried last.
        directory: PathBuf,
        /// The bytes that were to be written.
        needed_bytes: u64,
    },
    /// The store's own limit of disk space is reached. Nothing stored before is lost.
    #[error(
        "no room for {needed_bytes} bytes on disk: {used_bytes} of the store's {limit_bytes} bytes are taken"
    )]
    DiskLimit {
        /// The limit the store was built with.
        limit_bytes: u64,
        /// What is taken of it, in blocks of 4 KiB.
        used_bytes: u64,
        /// The bytes that were to be written.
        needed_bytes: u64,
    },
    /// A write failed for a reason that is not its directory's: the process is short of memory or file handles,
    /// or the file would become too large.
    #[error("cannot write {needed_bytes} bytes to directory {}", .directory.display())]
    Write {
        /// The directory tried last.
        directory: PathBuf,
        /// The bytes that were to be written.
        needed_bytes: u64,
        /// Why.
        source: io::Error,
    },
    /// Every directory has failed and was put aside.
    #[error("no directory is left for {needed_bytes} bytes; the last one, {}, failed: {reason}", .directory.display())]
    NoDirectory {
        /// The bytes that were to be written.
        needed_bytes: u64,
        /// The directory that failed last.
        directory: PathBuf,
        /// Its error, when it was put aside.
        reason: String,
    },
    /// Stored bytes cannot be read back: the disk fails, or someone changed the file.
    #[error("cannot read {bytes} stored bytes back from directory {}", .directory.display())]
    Read {
        /// Where they were stored.
        directory: PathBuf,
        /// How many.
        bytes: u64,
        /// Why.
        source: io::Error,
    },
}
