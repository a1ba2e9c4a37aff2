//! Waits for asynchronous I/O on whatever thread the caller is.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use tokio::runtime::{Builder, Runtime};

#[cfg(feature = "hdfs")]
use crate::retry::Failure;

const WORKERS: usize = 2;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

fn runtime() -> io::Result<&'static Runtime> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let built = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("larder-checkpoint")
        .enable_all()
        .build()?;
    if let Err(superfluous) = RUNTIME.set(built) {
        // Dropping a runtime waits, which is not allowed on another runtime's thread.
        superfluous.shutdown_background();
    }
    RUNTIME.get().ok_or_else(|| io::Error::other("the checkpoint runtime is gone"))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `future` to its end on the calling thread, with the crate's own runtime behind it.
///
/// tokio's `block_on` panics on a thread that drives another runtime. This one only blocks it.
pub(crate) fn block_on<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let _entered = runtime()?.enter();
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A task of the runtime; dropping it ends it.
#[cfg(any(feature = "s3", feature = "hdfs"))]
pub(crate) struct Background<T>(tokio::task::JoinHandle<io::Result<T>>);

#[cfg(any(feature = "s3", feature = "hdfs"))]
impl<T: Send + 'static> Background<T> {
    pub(crate) fn start(future: impl Future<Output = io::Result<T>> + Send + 'static) -> io::Result<Self> {
        Ok(Self(runtime()?.spawn(future)))
    }

    pub(crate) fn wait(mut self) -> io::Result<T> {
        block_on(async { (&mut self.0).await.map_err(io::Error::other)? })
    }
}

#[cfg(any(feature = "s3", feature = "hdfs"))]
impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A task of the runtime that ends by itself, and whose end any number may wait for.
#[cfg(feature = "hdfs")]
#[derive(Debug)]
pub(crate) struct Ending(tokio::sync::watch::Receiver<Option<Result<(), Failure>>>);

#[cfg(feature = "hdfs")]
impl Ending {
    pub(crate) fn start(
        future: impl Future<Output = Result<(), Failure>> + Send + 'static,
    ) -> io::Result<Self> {
        let (tell, told) = tokio::sync::watch::channel(None);
        drop(runtime()?.spawn(async move { tell.send(Some(future.await)) }));
        Ok(Self(told))
    }

    pub(crate) fn wait(&self) -> io::Result<()> {
        let mut told = self.0.clone();
        block_on(async move {
            // One that panicked tells nobody, but its end of the channel is gone.
            let ended = told.wait_for(Option::is_some).await.map_err(io::Error::other)?;
            ended.clone().unwrap_or(Ok(())).map_err(io::Error::from)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_on_a_thread_that_drives_another_runtime() {
        let outer = Builder::new_current_thread().build().unwrap();
        let answer = outer.block_on(async {
            block_on(async {
                let task = tokio::task::spawn_blocking(|| 42);
                task.await.map_err(io::Error::other)
            })
        });
        assert_eq!(answer.unwrap(), 42);
    }

    #[cfg(feature = "hdfs")]
    #[test]
    fn all_who_wait_for_an_end_are_told_also_of_a_panic() {
        let failure = || Failure::passing(io::ErrorKind::ResourceBusy, "busy");
        let pause = tokio::time::Duration::from_millis(20);
        let tasks: [(_, Option<io::ErrorKind>); 3] = [
            (
                Ending::start(async move {
                    tokio::time::sleep(pause).await;
                    Ok(())
                }),
                None,
            ),
            (Ending::start(async move { Err(failure()) }), Some(io::ErrorKind::ResourceBusy)),
            (Ending::start(async { panic!("on purpose") }), Some(io::ErrorKind::Other)),
        ];
        for (task, expected) in tasks {
            let task = task.unwrap();
            let kind = || task.wait().err().map(|e| e.kind());
            std::thread::scope(|scope| {
                let others: Vec<_> = (0..3).map(|_| scope.spawn(kind)).collect();
                assert!(others.into_iter().all(|other| other.join().unwrap() == expected));
            });
            assert_eq!(kind(), expected);
        }
    }
}
