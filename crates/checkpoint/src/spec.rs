//! What an attempt is going to write.

use larder_blockstore::codec::CodecId;
use larder_blockstore::format::Compression;

use crate::Error;
use crate::manifest::{PARTITIONS_MAX, Partitioner, RecordSchema};

/// What a checkpoint is going to hold, for [`CheckpointStore::begin`](crate::CheckpointStore::begin).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub(crate) partitions: u32,
    pub(crate) codec: CodecId,
    pub(crate) compression: Compression,
    pub(crate) record_type: String,
    pub(crate) schema: Option<RecordSchema>,
    pub(crate) partitioner: Option<Partitioner>,
}

impl Spec {
    /// A checkpoint of `partitions` partitions, zero is one of them, whose records `codec` wrote.
    #[must_use]
    pub fn new(partitions: u32, codec: CodecId) -> Self {
        Self {
            partitions,
            codec,
            compression: Compression::None,
            record_type: String::new(),
            schema: None,
            partitioner: None,
        }
    }

    /// The compression that was asked for when the chunks were sealed; none, by default.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// What you call the type of the records. Stored and given back; empty by default.
    #[must_use]
    pub fn record_type(mut self, name: impl Into<String>) -> Self {
        self.record_type = name.into();
        self
    }

    /// What the records are made of. Stored and given back; none by default.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<Option<RecordSchema>>) -> Self {
        self.schema = schema.into();
        self
    }

    /// How records are assigned to partitions. Stored and given back; none by default.
    #[must_use]
    pub fn partitioner(mut self, partitioner: impl Into<Option<Partitioner>>) -> Self {
        self.partitioner = partitioner.into();
        self
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.partitions <= PARTITIONS_MAX {
            return Ok(());
        }
        let reason = format!(
            "a checkpoint has at most {PARTITIONS_MAX} partitions; {} were asked for",
            self.partitions
        );
        Err(Error::Invalid { reason })
    }
}
