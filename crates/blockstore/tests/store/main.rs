//! The block store as an engine uses it, one file a subject.
//!
//! Every test ends with the same invariant, checked when its [`support::World`] drops: once all handles are gone,
//! nothing is charged, no arena extent lives, no byte on disk is in use.
#![cfg(not(any(loom, shuttle)))]

#[cfg(test)]
mod accounts;
#[cfg(test)]
mod budget;
#[cfg(test)]
mod codecs;
#[cfg(test)]
mod corruption;
#[cfg(test)]
mod datasets;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod disk_full;
#[cfg(test)]
mod encoding;
#[cfg(test)]
#[cfg(feature = "encryption")]
mod encryption;
#[cfg(test)]
mod events;
#[cfg(test)]
mod eviction;
#[cfg(test)]
mod fragmentation;
#[cfg(test)]
mod grants;
#[cfg(test)]
mod hammer;
#[cfg(test)]
mod levels;
#[cfg(test)]
mod panics;
#[cfg(test)]
mod pins;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod ranges;
#[cfg(test)]
mod replication;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod single_flight;
#[cfg(test)]
mod single_flight_async;
#[cfg(test)]
mod support;
#[cfg(test)]
mod uncached;
#[cfg(test)]
mod views;
