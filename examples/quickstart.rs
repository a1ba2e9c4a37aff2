//! Persist, reuse, checkpoint, reopen: who depends on whom among Debian's packages.
//!
//! `cargo run --release --example quickstart`

use larder::prelude::*;

const EDGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/debian-depends.tsv.lz4");

fn main() -> Result<(), Error> {
    let checkpoints = std::env::temp_dir().join(format!("larder-quickstart-{}", std::process::id()));
    let context = Context::builder().threads(2).memory("64MiB").checkpoints(&checkpoints).build()?;

    // Nothing is read yet: a dataset is a plan.
    let edges = context
        .text_file(EDGES, 1)?
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split_once('\t').map(|(from, to)| (from.to_owned(), to.to_owned())))
        .repartition(4)?;

    // The first action computes the Rust libraries' edges and keeps them, the second one reads what was kept.
    let rust = edges.filter(|(package, _)| package.starts_with("librust-")).named("rust").cache()?;
    println!("{} dependencies of Rust libraries", rust.count()?);
    println!("for example {:?}", rust.first()?);

    // Another level: serialized in memory, on disk what does not fit.
    let popular = rust
        .map(|(_, dependency)| (dependency.clone(), 1_u64))
        .reduce_by_key(|a, b| a + b)?
        .named("popular")
        .persist(StorageLevel::MEMORY_AND_DISK_SER)?;
    for (package, count) in popular.top_by(3, |a, b| a.1.cmp(&b.1))? {
        println!("{count:>6}  {package}");
    }
    println!("\n{}", popular.to_debug_string()?);

    // A checkpoint outlives the process, and cuts the plan behind it.
    let committed = popular.checkpoint()?;
    println!("checkpoint {}: {} records, {} bytes", committed.generation, committed.records, committed.bytes);
    println!("\n{}", popular.to_debug_string()?);

    let reopened = context.open_checkpoint::<(String, u64)>("popular")?;
    assert_eq!(reopened.collect()?, popular.collect()?);
    std::fs::remove_dir_all(&checkpoints).ok();
    Ok(())
}
