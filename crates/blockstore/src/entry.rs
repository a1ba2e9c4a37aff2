//! A block in one of three states: there, to be written, or being written by someone else.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::block::Block;
use crate::dataset::Inner;
use crate::error::Error;
use crate::table::FlightOf;
use crate::waits::Circular;
use crate::writer::BlockWriter;

/// What [`StoredDataset::entry`](crate::StoredDataset::entry) finds, for engines that stream or await.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "moved once a block; a box would cost every push")]
pub enum Entry<T: Send + Sync + 'static> {
    /// The block is stored.
    Resident(Block<T>),
    /// It is not, and the caller is the one to write it. Others wait until the writer finishes or drops.
    Vacant(BlockWriter<T>),
    /// Someone else is writing it.
    InFlight(Flight<T>),
}

/// A block that someone else is writing. Wait for it on a thread, or await it as a task.
///
/// Resolves to the block; or to nothing when the writer gave up, was refused memory, or the block was removed
/// meanwhile: ask [`entry`](crate::StoredDataset::entry) again, and perhaps become the writer. Awaiting needs no
/// particular runtime and blocks no thread.
#[must_use = "a flight does nothing unless waited for"]
pub struct Flight<T: Send + Sync + 'static> {
    flight: FlightOf<T>,
    inner: Arc<Inner<T>>,
    partition: u32,
    /// Its number among the tasks that wait, once it was polled.
    number: Option<u64>,
}

impl<T: Send + Sync + 'static> Drop for Flight<T> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.flight.forget(number);
        }
    }
}

impl<T: Send + Sync + 'static> Flight<T> {
    pub(crate) fn new(flight: FlightOf<T>, inner: Arc<Inner<T>>, partition: u32) -> Self {
        Self { flight, inner, partition, number: None }
    }

    /// Blocks the thread until the writer is done.
    ///
    /// # Errors
    /// [`Error::ComputesItself`] when it would never be: the block is computed by this thread, or by one that waits,
    /// perhaps through others, for a block of the same store that this one computes. Threads count that
    /// [said](crate::BlockWriter::computes_on_this_thread) that they compute, and wait here or in `get_or_compute`; tasks
    /// that await do not.
    pub fn wait(self) -> Result<Option<Block<T>>, Error> {
        match self.waited(None)? {
            Poll::Ready(block) => Ok(block),
            // There is no end to the time.
            Poll::Pending => Ok(None),
        }
    }

    /// As [`wait`](Self::wait), for at most so long: for engines whose tasks can be cancelled.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Poll<Option<Block<T>>>, Error> {
        self.waited(Some(timeout))
    }

    fn waited(&self, timeout: Option<Duration>) -> Result<Poll<Option<Block<T>>>, Error> {
        let facts = &self.inner.facts;
        self.flight.wait(self.inner.core.waits(), timeout).map_err(|Circular| Error::ComputesItself {
            block: facts.block(self.partition),
            name: facts.name.to_string(),
        })
    }
}

impl<T: Send + Sync + 'static> Future for Flight<T> {
    type Output = Option<Block<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { flight, number, .. } = &mut *self;
        flight.poll(number, context)
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Flight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").finish_non_exhaustive()
    }
}
