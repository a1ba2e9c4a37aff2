//! Larder beside other engines, on the same records in the same run.
//!
//! `cargo xtask peers` runs it and prints the table. Each case measures both in turn, several rounds of each, and
//! reports the medians, so that a busy spell of the machine falls on both.

#![forbid(unsafe_code)]

mod hits;
mod rounds;

use std::error::Error;
use std::path::PathBuf;

use crate::rounds::Row;

fn main() -> Result<(), Box<dyn Error>> {
    let Some(file) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err("usage: larder-peers FILE (the rows are written there, as JSON)".into());
    };
    let rows: Vec<_> = hits::rows()?.iter().map(Row::to_json).collect();
    std::fs::write(&file, serde_json::Value::from(rows).to_string())
        .map_err(|e| format!("cannot write {}: {e}", file.display()))?;
    Ok(())
}
