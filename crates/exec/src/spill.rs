//! Working memory of operators, and what they do when it is refused: sorted runs on disk, merged as streams.
//!
//! An operator holds its records under a [`Working`] memory of its task. When the memory manager refuses more, the
//! records go to disk as a sorted run, in small blocks of a dataset that the operator owns; so the store's disk
//! limits, directories and errors are theirs, and they go when the operator drops, however its task ends. Requests
//! never wait for other tasks: a task that holds memory may be waited for (by who needs the block it computes), so it
//! must not wait itself. What would wait spills instead.
//!
//! Two things need no grant, so that every task gets on: [`FLOOR_BYTES`] an operator, counted as scratch, and one
//! record, however large.

mod measure;
mod merge;
mod run;
mod sorter;
mod working;

pub(crate) use measure::{allocation_bytes, heap_bytes};
pub(crate) use run::{Run, RunReader, RunWriter, Spill};
pub(crate) use sorter::{Order, Sorted, Sorter};
pub(crate) use working::{Working, refused};

/// What each operator may hold though memory is refused.
pub(crate) const FLOOR_BYTES: u64 = 128 << 10;
