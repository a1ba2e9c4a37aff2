//! foyer's side.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use foyer::{
    BlockEngineConfig, Compression, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    PsyncIoEngineConfig, RecoverMode,
};
use tokio::runtime::{Builder, Runtime};

use super::Case;
use super::load::{Lap, Load, Outcome, is_of};
use crate::Failure;

type Cache = HybridCache<u32, Bytes>;

pub fn run(case: &Case) -> Result<Outcome, Failure> {
    let scratch = tempfile::tempdir_in(&case.scratch)?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let cache = runtime.block_on(open(case, scratch.path()))?;
    let load = Arc::new(Load::new(case));
    on_tasks(&runtime, case.threads, |thread| fill(cache.clone(), Arc::clone(&load), thread))?;
    runtime.block_on(cache.storage().wait());
    let fetched_by_fill = load.fetched();
    let started = Instant::now();
    let laps = on_tasks(&runtime, case.threads, |thread| lap(cache.clone(), Arc::clone(&load), thread))?;
    let time = started.elapsed();
    runtime.block_on(cache.storage().wait());
    load.outcome(laps, time, fetched_by_fill, |partition| cache.contains(&partition))
}

async fn open(case: &Case, directory: &std::path::Path) -> Result<Cache, foyer::Error> {
    // Room for everything several times over.
    let capacity = 4 * case.blocks as usize * case.block_bytes.max(8 << 10) + (256 << 20);
    let device = FsDeviceBuilder::new(directory).with_capacity(capacity).build()?;
    HybridCacheBuilder::new()
        .memory(case.memory_bytes)
        .with_weighter(|_, bytes: &Bytes| bytes.len())
        .storage()
        .with_io_engine_config(PsyncIoEngineConfig::new())
        .with_engine_config(BlockEngineConfig::new(device))
        .with_recover_mode(RecoverMode::None)
        .with_compression(if case.lz4 { Compression::Lz4 } else { Compression::None })
        .build()
        .await
}

async fn fill(cache: Cache, load: Arc<Load>, thread: usize) -> Result<(), foyer::Error> {
    for partition in load.fill(thread) {
        get(&cache, &load, partition).await?;
    }
    Ok(())
}

async fn lap(cache: Cache, load: Arc<Load>, thread: usize) -> Result<Lap, foyer::Error> {
    let mut lap = load.lap(thread);
    while let Some(partition) = lap.next(&load) {
        get(&cache, &load, partition).await?;
        lap.done();
    }
    Ok(lap)
}

async fn get(cache: &Cache, load: &Arc<Load>, partition: u32) -> Result<(), foyer::Error> {
    let entry = cache
        .get_or_fetch(&partition, || {
            let load = Arc::clone(load);
            async move { Ok::<_, foyer::Error>(Bytes::from(load.fetch(partition))) }
        })
        .await?;
    assert!(is_of(partition, 0, entry.value()), "block {partition} is not what was stored");
    Ok(())
}

fn on_tasks<R: Send + 'static, F>(
    runtime: &Runtime,
    tasks: usize,
    task: impl Fn(usize) -> F,
) -> Result<Vec<R>, Failure>
where
    F: Future<Output = Result<R, foyer::Error>> + Send + 'static,
{
    let running: Vec<_> = (0..tasks).map(|thread| runtime.spawn(task(thread))).collect();
    running.into_iter().map(|task| Ok(runtime.block_on(task)??)).collect()
}
