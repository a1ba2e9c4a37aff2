//! Bounds the bytes a second of what is written in the background.

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::TaskError;
use crate::job::{CANCEL_CHECK, Job};

/// Lets bytes through one after the other, each time as long as they take at the given speed. So over any time the
/// average holds, to within what goes through at once.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_second: Option<NonZeroU64>,
    free_at: Mutex<Instant>,
}

impl Throttle {
    /// No bound without a number.
    pub(crate) fn new(bytes_per_second: Option<NonZeroU64>) -> Self {
        Self { bytes_per_second, free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes may go through; [`TaskError::Halted`] if the job ends before.
    pub(crate) fn pass(&self, bytes: u64, job: &Job) -> Result<(), TaskError> {
        let halted = || if job.is_halted() { Err(TaskError::Halted) } else { Ok(()) };
        let Some(bytes_per_second) = self.bytes_per_second else { return halted() };
        let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_second.get() as f64);
        let starts = {
            let mut free_at = self.free_at.lock();
            let starts = Instant::now().max(*free_at);
            *free_at = starts + takes;
            starts
        };
        loop {
            if let Err(error) = halted() {
                // They did not go through, so others need not wait for them.
                let mut free_at = self.free_at.lock();
                *free_at = free_at.checked_sub(takes).unwrap_or(*free_at);
                return Err(error);
            }
            let left = starts.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(CANCEL_CHECK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_at_the_speed_that_was_set_whoever_sends_them() {
        let throttle = Throttle::new(NonZeroU64::new(100_000));
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..10).for_each(|_| assert!(throttle.pass(1_000, &Job::default()).is_ok())));
            }
        });
        // The last of the 20 passes when the 19 before it are through.
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(190), "{took:?}");
    }

    #[test]
    fn who_is_cancelled_while_waiting_ends_at_once_and_delays_nobody() {
        let throttle = Throttle::new(NonZeroU64::new(1_000));
        let job = Job::default();
        assert!(throttle.pass(100, &job).is_ok());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| throttle.pass(1_000_000, &job));
            thread::sleep(2 * CANCEL_CHECK);
            job.cancel();
            assert!(matches!(waiting.join(), Ok(Err(TaskError::Halted))));
        });
        let started = Instant::now();
        assert!(throttle.pass(1, &Job::default()).is_ok());
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
