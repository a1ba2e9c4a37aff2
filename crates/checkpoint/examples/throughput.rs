//! Checkpoints against bare files: 16 parts of 64 MiB, written by two threads, then read back.
//!
//! `cargo run --release -p larder-checkpoint --example throughput [DIRECTORY] [ROUNDS]`

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use larder_blockstore::codec::CodecId;
use larder_blockstore::format::{Chunk, Compression};
use larder_checkpoint::{CheckpointStore, Spec};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const PARTS: u32 = 16;
const CHUNKS_PER_PART: u32 = 16;
const CHUNK_BYTES: usize = 4 << 20;
const THREADS: u32 = 2;

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let dir = tempfile::tempdir_in(args.next().unwrap_or_else(|| ".".to_owned()))?;
    let rounds: u32 = args.next().map_or(Ok(3), |rounds| rounds.parse())?;
    let mut noise = 1_u64;
    let bytes = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.to_be_bytes()[0]
    });
    let chunk = Chunk::seal(bytes.take(CHUNK_BYTES).collect(), 1, Compression::None);

    for round in 1..=rounds {
        let bare = dir.path().join(format!("bare-{round}"));
        std::fs::create_dir(&bare)?;
        let bare_write = time("bare files, write and fsync", || write_bare(&bare, &chunk))?;
        let bare_read = time("bare files, read", || read_bare(&bare))?;
        std::fs::remove_dir_all(&bare)?;
        let store = CheckpointStore::open(dir.path().to_str().ok_or("the directory is not UTF-8")?)?;
        let write = time("checkpoint, write and commit", || write_checkpoint(&store, &chunk))?;
        let read = time("checkpoint, read and verify", || read_checkpoint(&store))?;
        store.remove_generation("noise", 1)?;
        println!("round {round}: write {:.2}, read {:.2} of bare", write / bare_write, read / bare_read);
    }
    Ok(())
}

/// Prints and gives MiB/s.
fn time(what: &str, run: impl FnOnce() -> Outcome) -> Result<f64, Box<dyn Error + Send + Sync>> {
    let start = Instant::now();
    run()?;
    let seconds = start.elapsed().as_secs_f64();
    let mebibytes = f64::from(PARTS * CHUNKS_PER_PART) * (CHUNK_BYTES >> 20) as f64;
    println!("{what:30} {seconds:6.2} s {:8.0} MiB/s", mebibytes / seconds);
    Ok(mebibytes / seconds)
}

/// Runs `work` for every part, on the threads.
fn for_each_part(work: impl Fn(u32) -> Outcome + Sync) -> Outcome {
    let outcome = Mutex::new(Ok(()));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (work, outcome) = (&work, &outcome);
            scope.spawn(move || {
                let done = (thread..PARTS).step_by(THREADS as usize).try_for_each(work);
                if let (Err(e), Ok(mut outcome)) = (done, outcome.lock()) {
                    *outcome = Err(e);
                }
            });
        }
    });
    outcome.into_inner().map_err(|_| "a thread panicked")?
}

fn write_bare(dir: &Path, chunk: &Chunk) -> Outcome {
    for_each_part(|part| {
        let mut file = File::create_new(dir.join(part.to_string()))?;
        for _ in 0..CHUNKS_PER_PART {
            file.write_all(&chunk.stored()?)?;
        }
        Ok(file.sync_all()?)
    })
}

fn read_bare(dir: &Path) -> Outcome {
    for_each_part(|part| {
        let mut file = File::open(dir.join(part.to_string()))?;
        let mut buffer = vec![0; CHUNK_BYTES];
        for _ in 0..CHUNKS_PER_PART {
            file.read_exact(&mut buffer)?;
        }
        Ok(())
    })
}

fn write_checkpoint(store: &CheckpointStore, chunk: &Chunk) -> Outcome {
    let attempt = store.begin("noise", Spec::new(PARTS, CodecId::POD))?;
    for_each_part(|partition| {
        let mut part = attempt.part(partition)?;
        for _ in 0..CHUNKS_PER_PART {
            part.write(chunk)?;
        }
        Ok(part.finish()?)
    })?;
    attempt.commit()?;
    Ok(())
}

fn read_checkpoint(store: &CheckpointStore) -> Outcome {
    let checkpoint = store.open_generation("noise", 1)?;
    for_each_part(|partition| {
        for chunk in checkpoint.read_part(partition)? {
            chunk?;
        }
        Ok(())
    })
}
