//! Encryption of what lies on disk, under a key that nobody but this process has.

use crate::id::BlockId;

/// Which chunk bytes are. What was written as one is never read as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkId {
    pub(crate) block: BlockId,
    pub(crate) index: u32,
}

/// Bytes that this key did not seal as this chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

#[cfg(feature = "encryption")]
pub(crate) use self::aes::DiskCipher;

/// Without the feature there is no cipher.
#[cfg(not(feature = "encryption"))]
#[derive(Debug)]
pub(crate) enum DiskCipher {}

#[cfg(not(feature = "encryption"))]
impl DiskCipher {
    pub(crate) const TAG_BYTES: usize = 0;

    pub(crate) fn seal(&self, _plain: &[u8], _chunk: ChunkId) -> Option<(Vec<u8>, u64)> {
        match *self {}
    }

    pub(crate) fn open(&self, _sealed: &mut Vec<u8>, _nonce: u64, _chunk: ChunkId) -> Result<(), Forged> {
        match *self {}
    }
}

#[cfg(feature = "encryption")]
mod aes {
    use std::fmt;
    use std::io;

    use aes_gcm::Aes256Gcm;
    use aes_gcm::aead::{AeadInOut, Generate, Key, KeyInit, Nonce, Tag};

    use super::{ChunkId, Forged};
    use crate::sync::atomic::{AtomicU64, Ordering};

    /// AES-256-GCM under a random key, which is never written anywhere and is cleared when this drops.
    ///
    /// A nonce is a count of this cipher's seals. It repeats only after 2^64 of them, and the key belongs to this
    /// cipher alone: made here from the operating system's randomness, neither given out nor taken in. So no nonce is
    /// used twice under a key, which is what GCM rests on. A process that forks shares key and count with its child
    /// and would break that; but it would share the files too, so a store must not be written to on both sides.
    pub(crate) struct DiskCipher {
        aes: Aes256Gcm,
        next_nonce: AtomicU64,
    }

    impl DiskCipher {
        /// Bytes that sealing adds.
        pub(crate) const TAG_BYTES: usize = 16;

        /// # Errors
        /// When the operating system gives no randomness.
        pub(crate) fn random() -> io::Result<Self> {
            let mut key = Key::<Aes256Gcm>::try_generate().map_err(io::Error::other)?;
            let aes = Aes256Gcm::new(&key);
            zeroize::Zeroize::zeroize(key.as_mut_slice());
            Ok(Self { aes, next_nonce: AtomicU64::new(0) })
        }

        /// The bytes encrypted, with their tag at the end, and the nonce to open them with. None beyond 64 GiB.
        pub(crate) fn seal(&self, plain: &[u8], chunk: ChunkId) -> Option<(Vec<u8>, u64)> {
            let nonce = self.next_nonce.fetch_add(1, Ordering::Relaxed);
            let mut sealed = Vec::with_capacity(plain.len() + Self::TAG_BYTES);
            sealed.extend_from_slice(plain);
            let bytes = sealed.as_mut_slice().into();
            let tag = self.aes.encrypt_inout_detached(&nonce_of(nonce), &facts(chunk), bytes).ok()?;
            sealed.extend_from_slice(&tag);
            Some((sealed, nonce))
        }

        /// Decrypts bytes where they lie, and takes the tag off.
        pub(crate) fn open(&self, sealed: &mut Vec<u8>, nonce: u64, chunk: ChunkId) -> Result<(), Forged> {
            let len = sealed.len().checked_sub(Self::TAG_BYTES).ok_or(Forged)?;
            let (bytes, tag) = sealed.split_at_mut_checked(len).ok_or(Forged)?;
            let tag = Tag::<Aes256Gcm>::try_from(&*tag).map_err(|_| Forged)?;
            self.aes
                .decrypt_inout_detached(&nonce_of(nonce), &facts(chunk), bytes.into(), &tag)
                .map_err(|_| Forged)?;
            sealed.truncate(len);
            Ok(())
        }
    }

    /// Shows no key.
    impl fmt::Debug for DiskCipher {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("DiskCipher")
        }
    }

    fn nonce_of(count: u64) -> Nonce<Aes256Gcm> {
        let mut nonce = [0; 12];
        nonce.iter_mut().zip(count.to_le_bytes()).for_each(|(byte, of_count)| *byte = of_count);
        nonce.into()
    }

    /// What is authenticated beside the bytes.
    fn facts(chunk: ChunkId) -> [u8; 16] {
        let dataset = u128::from(chunk.block.dataset.0);
        let (partition, index) = (u128::from(chunk.block.partition), u128::from(chunk.index));
        (dataset << 64 | partition << 32 | index).to_le_bytes()
    }

    #[cfg(test)]
    #[cfg(not(loom))]
    mod tests {
        use super::*;
        use crate::id::{BlockId, DatasetId};

        fn chunk(dataset: u64, partition: u32, index: u32) -> ChunkId {
            ChunkId { block: BlockId { dataset: DatasetId(dataset), partition }, index }
        }

        fn opened(cipher: &DiskCipher, sealed: &[u8], nonce: u64, chunk: ChunkId) -> Result<Vec<u8>, Forged> {
            let mut bytes = sealed.to_vec();
            cipher.open(&mut bytes, nonce, chunk).map(|()| bytes)
        }

        #[test]
        fn what_was_sealed_is_opened_by_the_same_key_as_the_same_chunk_alone() {
            let (cipher, other) = (DiskCipher::random().unwrap(), DiskCipher::random().unwrap());
            for plain in [&b""[..], b"x", &[7; 100_000]] {
                let (sealed, nonce) = cipher.seal(plain, chunk(1, 2, 3)).unwrap();
                assert_eq!(sealed.len(), plain.len() + DiskCipher::TAG_BYTES);
                assert_eq!(opened(&cipher, &sealed, nonce, chunk(1, 2, 3)).unwrap(), plain);
                assert_eq!(
                    opened(&other, &sealed, nonce, chunk(1, 2, 3)),
                    Err(Forged),
                    "another store's key"
                );
                assert_eq!(opened(&cipher, &sealed, nonce + 1, chunk(1, 2, 3)), Err(Forged));
                for elsewhere in [chunk(0, 2, 3), chunk(1, 0, 3), chunk(1, 2, 0), chunk(2, 1, 3)] {
                    assert_eq!(opened(&cipher, &sealed, nonce, elsewhere), Err(Forged), "{elsewhere:?}");
                }
            }
        }

        #[test]
        fn every_flipped_bit_and_every_cut_is_found() {
            let cipher = DiskCipher::random().unwrap();
            let (sealed, nonce) = cipher.seal(b"some records", chunk(1, 2, 3)).unwrap();
            for bit in 0..sealed.len() * 8 {
                let mut flipped = sealed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(opened(&cipher, &flipped, nonce, chunk(1, 2, 3)), Err(Forged), "bit {bit}");
            }
            for len in 0..sealed.len() {
                assert_eq!(
                    opened(&cipher, &sealed[..len], nonce, chunk(1, 2, 3)),
                    Err(Forged),
                    "{len} bytes"
                );
            }
        }

        #[test]
        fn no_nonce_is_used_twice() {
            let cipher = DiskCipher::random().unwrap();
            let seal =
                || (0..500).map(|_| cipher.seal(b"the same", chunk(1, 2, 3)).unwrap()).collect::<Vec<_>>();
            let mut sealed = std::thread::scope(|scope| {
                let threads = [scope.spawn(seal), scope.spawn(seal)];
                threads.map(|thread| thread.join().unwrap()).concat()
            });
            sealed.sort_unstable();
            sealed.dedup();
            assert_eq!(sealed.len(), 1_000, "equal bytes never look equal");
            sealed.sort_unstable_by_key(|(_, nonce)| *nonce);
            assert!(sealed.iter().map(|(_, nonce)| *nonce).eq(0..1_000));
        }
    }
}
