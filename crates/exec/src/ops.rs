//! Operators and the sources that need whole inputs.

pub(crate) mod co_group;
pub(crate) mod combine;
pub(crate) mod concat;
pub(crate) mod deferred;
pub(crate) mod join;
pub(crate) mod partitions;
pub(crate) mod product;
pub(crate) mod records;
pub(crate) mod rows;
pub(crate) mod sample;
pub(crate) mod sort_merge;
pub(crate) mod step;
pub(crate) mod table;
pub(crate) mod zip;
