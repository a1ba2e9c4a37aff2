//! PageRank over the dependencies of Debian's packages: an iterative job whose datasets are persisted at any storage
//! level, lose blocks, get them back, and survive a restart through a checkpoint.
//!
//! `cargo run --release --example pagerank -- --help`

mod options;
mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use get_size2::GetSize;
use larder::PeriodicCheckpointer;
use larder::prelude::*;
use serde::{Deserialize, Serialize};

use options::Options;
use report::Report;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const DAMPING: f64 = 0.85;
/// The name of the checkpoints.
const RANKS: &str = "ranks";

/// A package's rank, and after how many iterations it has it: so a checkpoint knows where to resume.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, GetSize)]
struct Rank {
    value: f64,
    iterations: u32,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let started = Instant::now();
    let context = options.context()?;
    let graph = Graph::read(&context, &options)?;
    let mut report = Report::new(&graph);

    let mut ranks = graph.first_ranks(&context, &options)?;
    let done = ranks.first()?.map_or(0, |(_, rank)| rank.iterations);
    if done > 0 {
        println!("resumed after {done} iterations");
    }
    let mut checkpointer = match &options.checkpoint {
        Some(_) => {
            Some(PeriodicCheckpointer::new(&context, options.checkpoint_every, RANKS)?.level(options.level))
        }
        None => None,
    };
    let mut dice = fastrand::Rng::with_seed(options.seed);
    for iteration in done..options.iterations {
        lose_blocks(&context, options.lose, &mut dice);
        let next = graph.next_ranks(&ranks, iteration + 1, &options)?;
        if let Some(checkpointer) = &mut checkpointer {
            report.checkpoints.extend(checkpointer.update(&next)?.map(report::Checkpoint::from));
        }
        // Computes and keeps the new ranks while the old ones, which leave with their last handle, are still there.
        next.count()?;
        report.observe(&context.storage());
        ranks = next;
    }

    let top = ranks.top_by(options.top, |(a, x), (b, y)| x.value.total_cmp(&y.value).then(b.cmp(a)))?;
    report.iterations = options.iterations.max(done);
    report.top = top.into_iter().map(|(id, rank)| graph.ranked(id, rank.value)).collect();
    report.observe(&context.storage());
    report.seconds = started.elapsed().as_secs_f64();
    report.print();
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    Ok(())
}

/// Who depends on whom, by number of package.
struct Graph {
    names: Arc<Vec<String>>,
    edges: u64,
    /// Every package with the packages it depends on.
    links: Dataset<(u32, Vec<u32>)>,
}

impl Graph {
    fn read(context: &Context, options: &Options) -> Result<Self, Failure> {
        let partitions = options.partitions;
        let edges = context
            .text_file(&options.edges, partitions)?
            .filter(|line| !line.starts_with('#'))
            .flat_map(|line| line.split_once('\t').map(|(from, to)| (from.to_owned(), to.to_owned())))
            .distinct_with_partitions(partitions)?
            .named("edges");
        let both = edges.flat_map(|(from, to)| [from.clone(), to.clone()]);
        let mut names = both.distinct()?.collect()?;
        names.sort_unstable();
        let names = Arc::new(names);

        let ids: HashMap<String, u32> = names.iter().cloned().zip(0..).collect();
        let by_id = edges.map(move |(from, to)| (ids.get(from).copied(), ids.get(to).copied()));
        let by_id = by_id.flat_map(|(from, to)| from.zip(*to));
        let packages = context.range(0..names.len() as i64, partitions)?.map(|id| (*id as u32, ()));
        let links = packages
            .co_group_with_partitions(partitions, &by_id)?
            .map_values(|(_, dependencies)| dependencies.clone())
            .named("links");
        let links = persisted(links, options.level)?;
        let edges = links.aggregate(0, |sum, (_, to)| sum + to.len() as u64, |a, b| a + b)?;
        Ok(Self { names, edges, links })
    }

    fn first_ranks(&self, context: &Context, options: &Options) -> Result<Dataset<(u32, Rank)>, Failure> {
        if options.resume {
            if context.latest_checkpoint(RANKS)?.is_some() {
                return Ok(context.open_checkpoint(RANKS)?);
            }
            println!("no checkpoint to resume from: starting anew");
        }
        let value = 1.0 / self.names.len() as f64;
        Ok(self.links.map_values(move |_| Rank { value, iterations: 0 }).named(RANKS))
    }

    /// r' = (1 - d) / N + d * (the sum over in-neighbours u of r(u) / out(u), + D / N), D the ranks of the packages
    /// that depend on none.
    fn next_ranks(
        &self,
        ranks: &Dataset<(u32, Rank)>,
        iterations: u32,
        options: &Options,
    ) -> Result<Dataset<(u32, Rank)>, Failure> {
        let packages = self.names.len() as f64;
        let linked = self.links.join(ranks)?;
        let dangling =
            |(_, (to, rank)): &(u32, (Vec<u32>, Rank))| if to.is_empty() { rank.value } else { 0.0 };
        let dangling = linked.aggregate(0.0, move |sum, record| sum + dangling(record), |a, b| a + b)?;

        let given = linked.flat_map(|(_, (to, rank))| {
            let share = rank.value / to.len() as f64;
            to.clone().into_iter().map(move |package| (package, share))
        });
        let received = given.reduce_by_key_with_partitions(options.partitions, |a, b| a + b)?;
        let base = (1.0 - DAMPING) / packages + DAMPING * dangling / packages;
        let next = self
            .links
            .left_outer_join(&received)?
            .map_values(move |(_, sum)| Rank { value: base + DAMPING * sum.unwrap_or(0.0), iterations })
            .named(RANKS);
        persisted(next, options.level)
    }

    fn ranked(&self, id: u32, rank: f64) -> report::Ranked {
        report::Ranked { package: self.names.get(id as usize).cloned().unwrap_or_default(), rank }
    }
}

/// Persisted at the level; a level of NONE leaves it as it is.
fn persisted<T: larder::Record + Clone>(
    dataset: Dataset<T>,
    level: StorageLevel,
) -> Result<Dataset<T>, Failure> {
    Ok(if level.is_stored() { dataset.persist(level)? } else { dataset })
}

/// Drops random blocks of persisted datasets from all tiers, as if a machine had been lost.
fn lose_blocks(context: &Context, count: u32, dice: &mut fastrand::Rng) {
    let storage = context.storage();
    for _ in 0..count {
        if let Some(dataset) = dice.choice(&storage) {
            context.drop_block(dataset.id, dice.u32(..dataset.partitions.max(1)));
        }
    }
}
