//! Two operations measured in turn.
//!
//! Criterion measures one operation after the other. How fast a disk is, or what else the machine has to do, is another
//! thing half a minute later, and a ratio of the two would say more about that than about either of them. Here each run
//! of the one has a run of the other right beside it.
//!
//! That is for operations on more than a processor's cache holds. One that finds its data there would have lost them to
//! the other's: those are measured by criterion alone.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode};

/// Measures a case, the group of `NAME/ours` and `NAME/bare`. Each side runs once and says how long that took.
pub(crate) fn compare(
    c: &mut Criterion,
    name: &str,
    ours: impl FnMut() -> Duration,
    bare: impl FnMut() -> Duration,
) {
    let mut turns = Turns { ours: Side::new(ours), bare: Side::new(bare), bare_first: false };
    let mut group = c.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("ours", |b| b.iter_custom(|runs| turns.ours(runs)));
    group.bench_function("bare", |b| b.iter_custom(|runs| turns.bare(runs)));
    group.finish();
}

/// A side that is timed without what `prepare` does, and without the drop of what `run` returns.
pub(crate) fn prepared<I, O>(
    mut prepare: impl FnMut() -> I,
    mut run: impl FnMut(I) -> O,
) -> impl FnMut() -> Duration {
    move || {
        let input = black_box(prepare());
        let started = Instant::now();
        let output = black_box(run(input));
        let took = started.elapsed();
        drop(output);
        took
    }
}

/// A side that needs no preparation.
pub(crate) fn timed<O>(mut run: impl FnMut() -> O) -> impl FnMut() -> Duration {
    prepared(|| (), move |()| run())
}

struct Side<F> {
    run: F,
    /// What its runs took that criterion has not asked for yet.
    ahead: VecDeque<Duration>,
}

impl<F: FnMut() -> Duration> Side<F> {
    fn new(run: F) -> Self {
        Self { run, ahead: VecDeque::new() }
    }

    fn measure(&mut self) {
        let took = (self.run)();
        self.ahead.push_back(took);
    }
}

struct Turns<O, B> {
    ours: Side<O>,
    bare: Side<B>,
    /// The first of a turn may leave the second something to do, such as pages to write: they change places.
    bare_first: bool,
}

impl<O: FnMut() -> Duration, B: FnMut() -> Duration> Turns<O, B> {
    fn turn(&mut self) {
        if self.bare_first {
            self.bare.measure();
            self.ours.measure();
        } else {
            self.ours.measure();
            self.bare.measure();
        }
        self.bare_first = !self.bare_first;
    }

    fn ours(&mut self, runs: u64) -> Duration {
        (0..runs).map(|_| self.next(|turns| &mut turns.ours.ahead)).sum()
    }

    fn bare(&mut self, runs: u64) -> Duration {
        (0..runs).map(|_| self.next(|turns| &mut turns.bare.ahead)).sum()
    }

    fn next(&mut self, ahead: impl Fn(&mut Self) -> &mut VecDeque<Duration>) -> Duration {
        loop {
            if let Some(took) = ahead(self).pop_front() {
                return took;
            }
            self.turn();
        }
    }
}
