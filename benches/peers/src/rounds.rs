//! Measuring two things in turn.

use std::time::Duration;

use serde_json::{Value, json};

const ROUNDS: usize = 15;

/// One case: medians in nanoseconds an operation.
pub struct Row {
    pub name: String,
    pub peer_name: &'static str,
    pub larder_ns: f64,
    pub peer_ns: f64,
}

impl Row {
    /// With the ratio of the peer's time to ours: higher is better for us.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "larder": self.larder_ns,
            "peer": self.peer_ns,
            "peer_name": self.peer_name,
            "unit": "ns",
            "ratio": self.peer_ns / self.larder_ns,
        })
    }
}

/// The median times of an operation, ours and theirs, each round of the one followed by a round of the other.
pub fn in_turn(
    operations: u32,
    mut larder: impl FnMut() -> Duration,
    mut peer: impl FnMut() -> Duration,
) -> (f64, f64) {
    larder();
    peer();
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) = (0..ROUNDS).map(|_| (larder(), peer())).unzip();
    let median_ns = |times: &mut [Duration]| {
        times.sort_unstable();
        times[times.len() / 2].as_nanos() as f64 / f64::from(operations)
    };
    (median_ns(&mut ours), median_ns(&mut theirs))
}
