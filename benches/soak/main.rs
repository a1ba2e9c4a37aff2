//! Mixed load on one store from several threads, for as long as is wanted: every value is checked, memory is sampled.
//!
//! `cargo xtask soak --minutes 60`. It fails when a value is wrong, when what is charged is not what is held, when the
//! process takes more than the budget and the stated overhead, or when it grows.

#![forbid(unsafe_code)]

mod load;
mod memory;
mod rest;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use clap::Parser;
use larder::blockstore::BlockStore;
use larder::{Context, StorageLevel};

use crate::load::Load;
use crate::memory::{Samples, resident_bytes};
use crate::rest::Pause;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Mixed load on one store; fails when anything is wrong, or grows.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    #[arg(long, default_value_t = 3)]
    threads: usize,
    /// Heap budget.
    #[arg(long, default_value = "64MiB")]
    memory: ByteSize,
    /// Off-heap budget.
    #[arg(long, default_value = "64MiB")]
    off_heap: ByteSize,
    /// What the process may take beyond its budgets: code, stacks, the allocator's slack, a chunk or two a thread.
    #[arg(long, default_value = "64MiB")]
    overhead: ByteSize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// How long the load runs between two moments of rest.
const ROUND: Duration = Duration::from_secs(5);
/// Growth that the fitted line may show, in bytes an hour: noise of the allocator in a short run is spread over it.
const SLOPE_MAX: f64 = (16 << 20) as f64;

fn main() -> ExitCode {
    match soak(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn soak(options: &Options) -> Result<(), Failure> {
    let scratch = tempfile::tempdir()?;
    let store = BlockStore::builder()
        .memory(options.memory.as_u64())
        .off_heap(options.off_heap.as_u64())
        .disk(scratch.path())
        .build()?;
    let limit = options.memory.as_u64() + options.off_heap.as_u64() + options.overhead.as_u64();
    let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
    let (stop, steps, pause) = (AtomicBool::new(false), AtomicU64::new(0), Pause::new(options.threads + 1));
    let mut samples = Samples::default();
    thread::scope(|scope| {
        let load = (0..options.threads as u64).map(|thread| {
            let (store, stop, steps, pause) = (store.clone(), &stop, &steps, &pause);
            let seed = options.seed * 1_000 + thread;
            scope.spawn(move || {
                let mut load = Load::new(store, seed);
                until_stopped(stop, pause, || {
                    steps.fetch_add(1, Ordering::Relaxed);
                    load.step()
                })
            })
        });
        let mut threads: Vec<_> = load.collect();
        threads.push(scope.spawn(|| shuffles(&store, &stop, &pause)));
        let watched = watch(&store, limit, end, &stop, &pause, &mut samples);
        stop.store(true, Ordering::Relaxed);
        pause.go_on();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        watched
    })?;
    at_rest(&store)?;
    report(options, &store, &samples, steps.into_inner(), limit)
}

/// Jobs with shuffles, on the store that the others fill.
fn shuffles(store: &BlockStore, stop: &AtomicBool, pause: &Pause) -> Result<(), Failure> {
    let context = Context::builder().threads(2).store(store.clone()).build()?;
    let mut round = 0_u64;
    until_stopped(stop, pause, || {
        round += 1;
        shuffle(&context, round)
    })
}

/// Steps until all stop, and rests when all do. One that fails stops all.
fn until_stopped(
    stop: &AtomicBool,
    pause: &Pause,
    mut step: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut done = Ok(());
    while done.is_ok() && !stop.load(Ordering::Relaxed) {
        done = step();
        pause.rest_if_asked();
    }
    stop.store(true, Ordering::Relaxed);
    pause.leave();
    done
}

fn shuffle(context: &Context, round: u64) -> Result<(), Failure> {
    let records = 20_000 + round % 7 * 5_000;
    let numbers = context.range(0..records as i64, 4)?;
    let pairs = numbers.map(|n| (n % 1_000, 1_u64)).persist(StorageLevel::MEMORY_AND_DISK)?;
    let counts = pairs.reduce_by_key(|a, b| a + b)?.collect()?;
    let sum: u64 = counts.iter().map(|(_, count)| count).sum();
    let sorted = pairs.map(|(key, _)| *key).sort_by(|key| *key, false)?.first()?;
    if (counts.len(), sum, sorted) != (1_000, records, Some(999)) {
        return Err(
            format!("a shuffle of {records} records gave {} keys, {sum} records", counts.len()).into()
        );
    }
    Ok(())
}

/// Samples memory twice a second, and brings the load to rest every few seconds to compare what is charged with what
/// is held.
fn watch(
    store: &BlockStore,
    limit: u64,
    end: Instant,
    stop: &AtomicBool,
    pause: &Pause,
    samples: &mut Samples,
) -> Result<(), Failure> {
    let mut next_rest = Instant::now() + ROUND;
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(500));
        let resident = resident_bytes()?;
        samples.add(resident);
        let memory = store.memory().snapshot();
        for mode in [&memory.heap, &memory.off_heap] {
            if mode.charged_bytes() > mode.budget_bytes {
                return Err(format!("more is charged than the budget holds: {mode:?}").into());
            }
        }
        if resident > limit {
            return Err(format!(
                "the process takes {}, more than its budgets and the overhead, {}",
                ByteSize(resident).display().iec(),
                ByteSize(limit).display().iec()
            )
            .into());
        }
        if Instant::now() >= next_rest {
            let rested = pause.rest(|| at_rest(store));
            rested?;
            next_rest = Instant::now() + ROUND;
        }
    }
    Ok(())
}

/// With nobody at work, what is charged is what the datasets list.
fn at_rest(store: &BlockStore) -> Result<(), Failure> {
    let memory = store.memory().snapshot();
    for mode in [&memory.heap, &memory.off_heap] {
        let others = (mode.execution_bytes, mode.pinned_evicted_bytes, mode.in_flight_bytes);
        if others != (0, 0, 0) || mode.block_bytes != mode.charged_bytes() {
            return Err(format!("at rest, more is charged than blocks hold: {mode:?}").into());
        }
    }
    let (heap, off_heap) = store.datasets().iter().fold((0, 0), |(heap, off_heap), dataset| {
        (heap + dataset.heap_bytes, off_heap + dataset.off_heap_bytes)
    });
    if (heap, off_heap) != (memory.heap.block_bytes, memory.off_heap.block_bytes) {
        return Err(format!("at rest, datasets list {heap} and {off_heap} bytes: {memory:?}").into());
    }
    if off_heap != store.arena_bytes() {
        return Err(format!("{off_heap} bytes are charged off the heap, {} live", store.arena_bytes()).into());
    }
    Ok(())
}

fn report(
    options: &Options,
    store: &BlockStore,
    samples: &Samples,
    steps: u64,
    limit: u64,
) -> Result<(), Failure> {
    let counters = store.counters();
    let shown = |bytes: u64| ByteSize(bytes).display().iec().to_string();
    println!("steps                 {steps}");
    println!("stored, recomputed    {}, {}", counters.stored, counters.recomputed);
    println!("hits, misses          {}, {}", counters.hits(), counters.misses);
    println!("evictions, spills     {}, {}", counters.evictions, counters.spills);
    println!("promotions, refused   {}, {}", counters.promotions, counters.refused);
    println!(
        "budgets               {} + {}",
        shown(options.memory.as_u64()),
        shown(options.off_heap.as_u64())
    );
    println!("resident, most        {} of {}", shown(samples.most()), shown(limit));
    let slope = samples.slope_an_hour();
    println!(
        "resident, slope       {:+.2} MiB an hour over {} samples",
        slope / f64::from(1 << 20),
        samples.len()
    );
    if counters.corrupt > 0 {
        return Err(format!("{} copies turned out damaged", counters.corrupt).into());
    }
    // In a run of minutes the line follows the order in which things happened to come; it is stated all the same.
    if options.minutes >= 30.0 && slope > SLOPE_MAX {
        return Err(format!("memory grows by {} an hour", shown(slope as u64)).into());
    }
    Ok(())
}
