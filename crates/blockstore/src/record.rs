//! What a store must know of the records it keeps.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::{Bincode, Codec};
use crate::heap_size::HeapSize;

/// A record that any storage level can keep: serde writes and reads it, [`HeapSize`] measures it.
///
/// Implemented for every type that qualifies. A record type that cannot (because it is not yours, or serde is not
/// how it is written) is stored through [`BlockStore::dataset_with`](crate::BlockStore::dataset_with).
pub trait Record: Serialize + DeserializeOwned + HeapSize + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + HeapSize + Send + Sync + 'static> Record for T {}

/// How the records of one dataset are written and measured.
pub(crate) struct RecordKind<T> {
    pub(crate) codec: Arc<dyn Codec<T>>,
    pub(crate) heap_bytes: Arc<HeapBytesOf<T>>,
}

/// The heap bytes of a run of records: one dynamic call a run, not a record.
pub(crate) type HeapBytesOf<T> = dyn Fn(&[T]) -> usize + Send + Sync;

impl<T> Clone for RecordKind<T> {
    fn clone(&self) -> Self {
        Self { codec: Arc::clone(&self.codec), heap_bytes: Arc::clone(&self.heap_bytes) }
    }
}

impl<T: Record> RecordKind<T> {
    pub(crate) fn of_record() -> Self {
        Self::with(Bincode, T::heap_bytes)
    }
}

impl<T> RecordKind<T> {
    pub(crate) fn with(
        codec: impl Codec<T>,
        heap_bytes: impl Fn(&T) -> usize + Send + Sync + 'static,
    ) -> Self {
        let heap_bytes = move |records: &[T]| records.iter().map(&heap_bytes).sum();
        Self { codec: Arc::new(codec), heap_bytes: Arc::new(heap_bytes) }
    }
}
