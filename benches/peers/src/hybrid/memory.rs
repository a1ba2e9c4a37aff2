//! What the kernel says of this process.

use std::fs;

use crate::Failure;

/// The most memory that was resident, in bytes, file pages included.
pub fn peak_bytes() -> Result<u64, Failure> {
    let file = "/proc/self/status";
    let status = fs::read_to_string(file).map_err(|e| format!("cannot read {file}: {e}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
