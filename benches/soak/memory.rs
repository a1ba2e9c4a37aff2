//! What the process takes, over time.

use std::time::Instant;

use crate::Failure;

/// Resident bytes of this process, file pages that it maps among them.
pub(crate) fn resident_bytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in the status")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1_024)
}

/// Samples of memory, and the line through them.
#[derive(Debug)]
pub(crate) struct Samples {
    started: Instant,
    points: Vec<(f64, f64)>,
}

impl Default for Samples {
    fn default() -> Self {
        Self { started: Instant::now(), points: Vec::new() }
    }
}

impl Samples {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.points.push((self.started.elapsed().as_secs_f64(), bytes as f64));
    }

    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    pub(crate) fn most(&self) -> u64 {
        self.points.iter().map(|(_, bytes)| *bytes as u64).max().unwrap_or(0)
    }

    /// Bytes an hour, by least squares, without the first fifth, in which the store fills.
    pub(crate) fn slope_an_hour(&self) -> f64 {
        let settled = self.points.get(self.points.len() / 5..).unwrap_or_default();
        let count = settled.len() as f64;
        if count < 2.0 {
            return 0.0;
        }
        let mean = |of: fn(&(f64, f64)) -> f64| settled.iter().map(of).sum::<f64>() / count;
        let (time, bytes) = (mean(|point| point.0), mean(|point| point.1));
        let (mut covariance, mut variance) = (0.0, 0.0);
        for point in settled {
            covariance += (point.0 - time) * (point.1 - bytes);
            variance += (point.0 - time).powi(2);
        }
        if variance == 0.0 { 0.0 } else { covariance / variance * 3_600.0 }
    }
}
