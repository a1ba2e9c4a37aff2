//! Which partition a key belongs to.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

use twox_hash::XxHash3_64;

/// How the records of a dataset of pairs are spread over its partitions.
///
/// Two datasets with equal hash partitioners have equal keys in partitions of the same number, so that joining
/// them moves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Partitioner {
    /// By the key's hash, modulo `partitions`. Hashes do not depend on the process, the machine or a seed.
    Hash {
        /// How many partitions.
        partitions: u32,
    },
    /// By ranges of the sort key, ascending or descending over the partitions.
    Range {
        /// How many partitions.
        partitions: u32,
    },
}

impl Partitioner {
    /// Whether it spreads keys by hash over this many partitions.
    pub(crate) fn is_hash_of(this: Option<&Self>, partitions: u32) -> bool {
        this == Some(&Self::Hash { partitions })
    }
}

impl fmt::Display for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash { partitions } => write!(f, "hash of {partitions}"),
            Self::Range { partitions } => write!(f, "range of {partitions}"),
        }
    }
}

/// The partition of a key under [`Partitioner::Hash`].
pub(crate) fn hash_partition<K: Hash>(key: &K, partitions: u32) -> u32 {
    let hash = StableHasher(0).hash_one(key);
    hash.checked_rem(u64::from(partitions)).unwrap_or_default() as u32
}

/// Hashes the same way in every process: integers by value, byte strings by XXH3.
#[derive(Clone, Debug)]
pub(crate) struct StableHasher(u64);

/// Builds the hashers of tables. Another seed than that of the partitioner: within a partition, partition hashes
/// agree in their remainder, which would crowd a table.
#[derive(Clone, Default, Debug)]
pub(crate) struct TableHasher;

impl BuildHasher for TableHasher {
    type Hasher = StableHasher;

    fn build_hasher(&self) -> StableHasher {
        StableHasher(0x9E37_79B9_7F4A_7C15)
    }
}

impl StableHasher {
    fn hash_one<K: Hash>(mut self, key: &K) -> u64 {
        key.hash(&mut self);
        self.finish()
    }

    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0xA076_1D64_78BD_642F) * 0xE703_7ED1_A0B4_28DB_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for StableHasher {
    fn finish(&self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        hash ^ (hash >> 33)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = XxHash3_64::oneshot_with_seed(self.0, bytes);
    }

    fn write_u8(&mut self, n: u8) {
        self.mix(u64::from(n));
    }

    fn write_u16(&mut self, n: u16) {
        self.mix(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.mix(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.mix(n);
    }

    fn write_u128(&mut self, n: u128) {
        self.mix(n as u64);
        self.mix((n >> 64) as u64);
    }

    fn write_usize(&mut self, n: usize) {
        self.mix(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_keys_never_change() {
        // Checkpoints remember their partitioner: other numbers here break joins with them.
        assert_eq!(["libc6", "bash", ""].map(|key| hash_partition(&key, 1000)), [102, 643, 558]);
        assert_eq!([0_i64, 1, -1].map(|key| hash_partition(&key, 1000)), [920, 794, 233]);
        assert_eq!(hash_partition(&(1_u32, "one".to_owned()), 1000), 982);
        assert_eq!(hash_partition(&7, 0), 0);
    }

    #[test]
    fn small_integers_and_strings_spread_evenly() {
        for partitions in [7, 16] {
            let mut counts = vec![[0_u32; 2]; partitions as usize];
            for n in 0..16_000_u64 {
                counts[hash_partition(&n, partitions) as usize][0] += 1;
                counts[hash_partition(&format!("key {n}"), partitions) as usize][1] += 1;
            }
            let even = 16_000 / partitions;
            assert!(counts.iter().flatten().all(|&n| n.abs_diff(even) < even / 5), "{counts:?}");
        }
    }

    #[test]
    fn equal_strings_hash_equally_however_they_are_owned() {
        assert_eq!(hash_partition(&"a", 1 << 20), hash_partition(&"a".to_owned(), 1 << 20));
    }
}
