//! The process's peak resident memory, as Linux keeps it.

use std::fs;

/// Starts to measure anew; without effect where the system has no such thing.
pub(crate) fn reset() {
    fs::write("/proc/self/clear_refs", "5").ok();
}

/// The peak since the last reset.
pub(crate) fn bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
