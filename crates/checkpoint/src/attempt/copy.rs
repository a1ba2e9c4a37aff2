//! Copies parts of another checkpoint.

use super::PartState;
use crate::error::PartError;
use crate::{Attempt, Checkpoint, Error, Spec, Step};

impl Checkpoint {
    /// What an attempt at a copy of this checkpoint is begun with, in this store or another.
    ///
    /// ```
    /// # use larder_blockstore::codec::CodecId;
    /// # use larder_checkpoint::{CheckpointStore, Error, Spec};
    /// # let dir = tempfile::tempdir()?;
    /// # let address = |name| dir.path().join(name).to_str().unwrap_or_default().to_owned();
    /// # let (here, there) = (CheckpointStore::open(address("here"))?, CheckpointStore::open(address("there"))?);
    /// # let attempt = here.begin("squares", Spec::new(1, CodecId::BINCODE))?;
    /// # attempt.part(0)?.finish()?;
    /// # attempt.commit()?;
    /// let Some(checkpoint) = here.latest("squares")? else { return Ok(()) };
    /// let copy = there.begin("squares", checkpoint.spec())?;
    /// for partition in 0..checkpoint.partitions() {
    ///     copy.copy_part(&checkpoint, partition)?;
    ///     copy.verify_part(partition)?;
    /// }
    /// assert_eq!(copy.commit()?.bytes(), checkpoint.bytes());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn spec(&self) -> Spec {
        let manifest = self.manifest();
        Spec::new(self.partitions(), manifest.codec)
            .compression(manifest.compression)
            .record_type(manifest.record_type.clone())
            .schema(manifest.schema.clone())
            .partitioner(manifest.partitioner.clone())
    }
}

impl Attempt {
    /// Writes the part of a partition as the same bytes that another checkpoint has there, and gives their number.
    /// Decodes nothing; what is read is verified, and what is written has the same checksum, or it is an error.
    ///
    /// # Errors
    /// [`Error::Invalid`] when this attempt was not begun with the [`spec`](Checkpoint::spec) of that checkpoint;
    /// as [`Checkpoint::read_part`], [`PartWriter::write`](crate::PartWriter::write) and
    /// [`PartWriter::finish`](crate::PartWriter::finish). The part may then be started again.
    pub fn copy_part(&self, from: &Checkpoint, partition: u32) -> Result<u64, Error> {
        if self.inner.spec != from.spec() {
            let reason = format!("an attempt that copies {} is begun with its spec", from.address());
            return Err(Error::Invalid { reason });
        }
        let chunks = from.read_part(partition)?;
        let mut writer = self.part(partition)?;
        for chunk in chunks {
            writer.write(&chunk?)?;
        }
        writer.finish()?;

        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        let expected = from.manifest().parts.get(index).map(|part| part.checksum).unwrap_or_default();
        let (written, _) = self.inner.written(partition)?;
        if written.checksum == expected {
            return Ok(written.bytes);
        }
        // Every chunk was verified on its way, so the header is another: one that this version writes differently.
        if let Some(slot) = self.inner.state.lock().parts.get_mut(index) {
            *slot = PartState::Leftover;
        }
        let at = self.inner.shared.place(Step::ClosePart, &self.inner.part_object(partition));
        let source = PartError::Checksum { what: "the copy", expected, actual: written.checksum };
        Err(Error::Part { at, partition, source })
    }
}
