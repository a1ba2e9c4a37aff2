//! Asks a server, and asks again.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use super::{Failure, Patience};
use crate::runtime::block_on;

/// The longest pause between two tries.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(10);

impl Failure {
    pub(crate) fn new(kind: io::ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retryable: false }
    }

    pub(crate) fn passing(kind: io::ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retryable: true }
    }

    pub(crate) fn timed_out(after: Duration) -> Self {
        let message = format!("no answer in {:.1} s", after.as_secs_f64());
        Self::passing(io::ErrorKind::TimedOut, message)
    }
}

impl Patience {
    /// Makes a request that may be repeated, until it succeeds, fails for good or the time is up.
    pub(crate) fn retry<T, F>(&self, request: impl FnMut() -> F) -> io::Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        block_on(self.retrying(request))
    }

    /// The same, for a task.
    pub(crate) async fn retrying<T, F>(&self, mut request: impl FnMut() -> F) -> io::Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let started = Instant::now();
        let mut tries = 1;
        let mut pause = self.pause;
        loop {
            let left = self.total.saturating_sub(started.elapsed());
            let failure = match timed(self.operation.min(left), request()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let wait = pause.mul_f64(0.5 + fastrand::f64());
            let over = tries >= self.tries || started.elapsed() + wait >= self.total;
            if !failure.retryable || over {
                return Err(gave_up(failure, tries, started.elapsed()));
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
            tries += 1;
        }
    }

    /// Makes a request once.
    pub(crate) fn once<T>(&self, request: impl Future<Output = Result<T, Failure>>) -> io::Result<T> {
        block_on(async { timed(self.operation, request).await.map_err(io::Error::from) })
    }

    /// Makes one request of several that a step consists of.
    #[cfg(feature = "hdfs")]
    pub(crate) async fn request<T, E>(
        &self,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure>
    where
        Failure: From<E>,
    {
        timed(self.operation, async { request.await.map_err(Failure::from) }).await
    }

    /// For what is done after something else has failed: a server that hangs is waited for once.
    pub(crate) fn brief(&self) -> Self {
        Self { total: self.operation, ..*self }
    }

    /// For a step of many requests, each of which has its own time-out.
    #[cfg(any(feature = "s3", feature = "hdfs"))]
    pub(crate) fn of_many_requests(&self) -> Self {
        Self { operation: self.total, ..*self }
    }

    /// Makes requests that are repeated elsewhere, for as long as a step may take.
    #[cfg(feature = "s3")]
    pub(crate) fn in_total<T>(&self, request: impl Future<Output = Result<T, Failure>>) -> io::Result<T> {
        block_on(async { timed(self.total, request).await.map_err(io::Error::from) })
    }
}

async fn timed<T>(limit: Duration, request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer,
        Err(_) => Err(Failure::timed_out(limit)),
    }
}

fn gave_up(mut failure: Failure, tries: u32, after: Duration) -> io::Error {
    if tries > 1 {
        let seconds = after.as_secs_f64();
        failure.message = format!("{} (gave up after {tries} tries in {seconds:.1} s)", failure.message);
    }
    failure.into()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::is_retryable;
    use super::*;

    const QUICK: Patience = Patience {
        operation: Duration::from_millis(40),
        total: Duration::from_millis(400),
        tries: 4,
        pause: Duration::from_millis(2),
    };

    fn run(patience: Patience, outcome: impl Fn(u32) -> Result<u32, Failure>) -> (io::Result<u32>, u32) {
        let tries = Cell::new(0);
        let result = patience.retry(|| {
            tries.set(tries.get() + 1);
            let outcome = outcome(tries.get());
            async { outcome }
        });
        (result, tries.get())
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_not() {
        let busy = || Failure::passing(io::ErrorKind::ResourceBusy, "busy");
        assert_eq!(run(QUICK, |tries| if tries < 3 { Err(busy()) } else { Ok(7) }).0.unwrap(), 7);
        let (error, tries) = run(QUICK, |_| Err(busy()));
        let error = error.unwrap_err();
        assert!(error.to_string().starts_with("busy (gave up after 4 tries in"), "{error}");
        assert_eq!((tries, is_retryable(&error)), (4, Some(true)));
        let (error, tries) = run(QUICK, |_| Err(Failure::new(io::ErrorKind::PermissionDenied, "no")));
        let error = error.unwrap_err();
        assert_eq!((error.to_string(), error.kind()), ("no".to_owned(), io::ErrorKind::PermissionDenied));
        assert_eq!((tries, is_retryable(&error)), (1, Some(false)));
    }

    #[test]
    fn a_server_that_does_not_answer_is_given_up_in_time() {
        let started = Instant::now();
        let error = QUICK.once(std::future::pending::<Result<(), Failure>>()).unwrap_err();
        assert_eq!((error.kind(), is_retryable(&error)), (io::ErrorKind::TimedOut, Some(true)));
        let patience = Patience { tries: u32::MAX, ..QUICK };
        let error = patience.retry(std::future::pending::<Result<(), Failure>>).unwrap_err();
        assert!(error.to_string().contains("no answer in"), "{error}");
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{took:?}");
    }
}
