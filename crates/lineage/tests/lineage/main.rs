//! The lineage graph as an engine uses it, one file a subject.

mod common;
mod cost;
mod handles;
mod million;
mod order;
mod plan;
mod printing;
mod truncate;
