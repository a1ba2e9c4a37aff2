//! A block in one of three states: there, to be written, or being written by someone else.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::block::Block;
use crate::table::FlightOf;
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
pub struct Flight<T> {
    flight: FlightOf<T>,
    /// Its number among the tasks that wait, once it was polled.
    number: Option<u64>,
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.flight.forget(number);
        }
    }
}

impl<T> Flight<T> {
    pub(crate) fn new(flight: FlightOf<T>) -> Self {
        Self { flight, number: None }
    }

    /// Is the block computed by the thread that asks, as its writer
    /// [said](crate::BlockWriter::computes_on_this_thread)? Then waiting for it here would never end.
    #[must_use]
    pub fn is_led_by_this_thread(&self) -> bool {
        self.flight.is_led_here()
    }

    /// Blocks the thread until the writer is done.
    #[must_use]
    pub fn wait(self) -> Option<Block<T>> {
        self.flight.wait()
    }
}

impl<T> Future for Flight<T> {
    type Output = Option<Block<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { flight, number } = &mut *self;
        flight.poll(number, context)
    }
}

impl<T> fmt::Debug for Flight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").finish_non_exhaustive()
    }
}
