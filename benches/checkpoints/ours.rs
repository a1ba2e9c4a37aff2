//! Our side.

use larder_blockstore::codec::CodecId;
use larder_checkpoint::{CheckpointStore, Spec};

use crate::parts::{PARTS, Parts, for_each_part, sum};

const NAME: &str = "numbers";

pub(crate) fn write(store: &CheckpointStore, parts: &Parts) {
    let attempt = store.begin(NAME, Spec::new(PARTS, CodecId::POD)).expect("a place to write");
    for_each_part(|partition| {
        let mut part = attempt.part(partition).expect("a place to write");
        for _ in 0..parts.chunks_a_part {
            part.write(&parts.chunk).expect("space");
        }
        part.finish().expect("a durable part");
        0
    });
    attempt.commit().expect("no other writer");
}

pub(crate) fn read(store: &CheckpointStore) -> u64 {
    let checkpoint = store.latest(NAME).expect("a sound manifest").expect("the checkpoint that was written");
    for_each_part(|partition| {
        let chunks = checkpoint.read_part(partition).expect("the part that was written");
        let sums = chunks.map(|chunk| sum(&chunk.expect("sound bytes").raw().expect("plain bytes")));
        sums.fold(0, u64::wrapping_add)
    })
}

/// Removes what an earlier iteration wrote.
pub(crate) fn clear(store: &CheckpointStore) {
    for generation in store.generations(NAME).expect("a list") {
        store.remove_generation(NAME, generation).expect("a generation that is there");
    }
}
