//! What records and keys must be able to do.

use std::hash::Hash;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a record of a dataset is: a value that threads can share and clone.
pub trait Data: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Data for T {}

/// A record that can leave the heap: what a shuffle or a checkpoint moves. Implemented for all types with
/// serde's traits.
pub trait Portable: Data + Serialize + DeserializeOwned {}

impl<T: Data + Serialize + DeserializeOwned> Portable for T {}

/// The key of a pair: what decides the partition of a record, and which records belong together.
pub trait Key: Portable + Hash + Eq {}

impl<T: Portable + Hash + Eq> Key for T {}
