//! The one place that names a lock, an atomic or a thread.
//!
//! Everything else in the crate takes its primitives from here, so that the same code runs on parking_lot in
//! production, under loom (`--cfg loom`) for exhaustive models of small cells, and under shuttle
//! (`--cfg shuttle`) for randomised schedules of the whole store. All three offer one house API: `lock()` and
//! friends return guards, never results, and a condition variable takes and returns its guard.

#[cfg(all(loom, shuttle))]
compile_error!("`--cfg loom` and `--cfg shuttle` exclude each other");

#[cfg(not(any(loom, shuttle)))]
#[path = "sync/parking_lot.rs"]
mod imp;

#[cfg(loom)]
#[path = "sync/loom.rs"]
mod imp;

#[cfg(shuttle)]
#[path = "sync/shuttle.rs"]
mod imp;

pub(crate) use imp::*;
