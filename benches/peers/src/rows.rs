//! What is reported.

use serde_json::{Value, json};

/// One case: ours and theirs, in a unit of which less is better.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub peer_name: &'static str,
    pub unit: &'static str,
    pub larder: f64,
    pub peer: f64,
}

impl Row {
    /// The peer's number to ours: higher is better for us. None where ours is zero, as of blocks lost.
    pub fn ratio(&self) -> Option<f64> {
        (self.larder > 0.0).then(|| self.peer / self.larder)
    }

    pub fn is_time(&self) -> bool {
        matches!(self.unit, "ns" | "us" | "s")
    }

    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "larder": self.larder,
            "peer": self.peer,
            "peer_name": self.peer_name,
            "unit": self.unit,
            "ratio": self.ratio(),
        })
    }

    /// For whoever waits.
    pub fn tell(&self) {
        let Self { name, peer_name, unit, larder, peer } = self;
        let ratio = self.ratio().map_or(String::new(), |ratio| format!("  x {ratio:.2}"));
        eprintln!("{name}: {larder:.2} {unit}, {peer_name} {peer:.2} {unit}{ratio}");
    }
}
