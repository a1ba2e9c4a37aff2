//! The parts of a checkpoint, several at a time.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Does `work` for each partition, on so many threads, or as many as there are processors; results in order.
pub(crate) fn for_each_partition<T: Send>(
    partitions: u32,
    threads: Option<NonZeroUsize>,
    work: impl Fn(u32) -> T + Sync,
) -> Vec<T> {
    let threads = threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let threads = threads.min(usize::try_from(partitions).unwrap_or(usize::MAX));
    let next = AtomicU32::new(0);
    let take = || {
        let taken = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| next.checked_add(1));
        taken.ok().filter(|&partition| partition < partitions)
    };
    let worker = || {
        let mut done = Vec::new();
        while let Some(partition) = take() {
            done.push((partition, work(partition)));
        }
        done
    };
    let mut results: Vec<(u32, T)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    results.sort_unstable_by_key(|(partition, _)| *partition);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Bytes done of bytes to do, on standard error; nothing where that is no terminal.
pub(crate) fn progress(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let template = "{wide_bar} {bytes} of {total_bytes}, {eta} left";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::for_each_partition;

    #[test]
    fn each_partition_is_done_once_and_results_come_in_order() {
        for threads in [1, 3, 200] {
            let squares = for_each_partition(100, NonZeroUsize::new(threads), |n| n * n);
            assert_eq!(squares, (0..100).map(|n| n * n).collect::<Vec<_>>());
        }
        assert!(for_each_partition(0, None, |n| n).is_empty());
    }
}
