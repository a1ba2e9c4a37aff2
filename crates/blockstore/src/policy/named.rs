//! The policies of this crate, by name.

use super::{EvictionPolicy, Fifo, GreedyDual, Lru, S3Fifo, Sieve};

/// Makes a policy with no blocks.
type Make = fn() -> Box<dyn EvictionPolicy>;

const ALL: [(&str, Make); 5] = [
    ("lru", || Box::new(Lru::new())),
    ("fifo", || Box::new(Fifo::new())),
    ("s3-fifo", || Box::new(S3Fifo::new())),
    ("sieve", || Box::new(Sieve::new())),
    ("greedy-dual", || Box::new(GreedyDual::new())),
];

/// The names that [`by_name`] knows, the default first.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// What makes the policy of this [name](EvictionPolicy::name), in any case, for
/// [`BlockStoreBuilder::policy`](crate::BlockStoreBuilder::policy).
///
/// # Errors
/// [`UnknownPolicy`], which lists the known ones.
pub fn by_name(name: &str) -> Result<fn() -> Box<dyn EvictionPolicy>, UnknownPolicy> {
    let known = ALL.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    known.map(|(_, make)| *make).ok_or_else(|| UnknownPolicy { name: name.to_owned() })
}

/// No policy has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no eviction policy is named `{name}`: there are {}", names().collect::<Vec<_>>().join(", "))]
#[non_exhaustive]
pub struct UnknownPolicy {
    /// What was asked for.
    pub name: String,
}
