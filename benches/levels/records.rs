//! The records that are measured.

use bytemuck::{Pod, Zeroable};
use larder_blockstore::HeapSize;
use serde::{Deserialize, Serialize};

/// Records in a block of them.
pub(crate) const COUNT: usize = 500_000;

/// A record as data engines keep them: numbers and a short string.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sale {
    pub(crate) id: i64,
    pub(crate) key: i32,
    pub(crate) value: f64,
    pub(crate) name: String,
}

impl HeapSize for Sale {
    fn heap_bytes(&self) -> usize {
        self.name.heap_bytes()
    }
}

pub(crate) fn sales() -> Vec<Sale> {
    let sale = |id: i64| Sale {
        id,
        key: i32::try_from(id % 1_000).expect("below 1,000"),
        value: f64::from(i32::try_from(id % 977).expect("below 977")) * 0.5,
        name: format!("name-{}", id % 100_000),
    };
    (0..i64::try_from(COUNT).expect("a small number")).map(sale).collect()
}

/// A record of plain old data.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Reading {
    pub(crate) at: u64,
    pub(crate) value: f64,
}

pub(crate) const POD_BYTES: usize = 64 << 20;

/// 64 MiB of them, half of whose bytes compress away.
pub(crate) fn readings() -> Vec<Reading> {
    let count = POD_BYTES / size_of::<Reading>();
    let value = |i: u64| f64::from(u32::try_from(mix(i) >> 44).expect("20 bits"));
    (0..count as u64).map(|i| Reading { at: 1_700_000_000_000 + i, value: value(i) }).collect()
}

/// A number that looks random (the finalizer of SplitMix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
