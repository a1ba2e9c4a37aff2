//! `larder checkpoint rm`.

use std::io::{self, Write};

use larder_checkpoint::{CheckpointStore, Error};

use crate::cli::Rm;
use crate::failure::Failure;
use crate::out::Out;
use crate::safe::safe;
use crate::selection::no_checkpoint;
use crate::units::{bytes, count};

pub(crate) fn run(options: &Rm, out: &mut Out) -> Result<(), Failure> {
    let store = CheckpointStore::open(&options.address)?;
    let name = &options.name;
    let generations = store.generations(name)?;
    let asked: Vec<u64> = match (options.generation, options.keep_last) {
        (Some(generation), _) => generations.into_iter().filter(|&listed| listed == generation).collect(),
        (None, keep) => {
            if generations.is_empty() {
                return Err(no_checkpoint(&store, Some(name)));
            }
            let keep = keep.map_or(usize::MAX, std::num::NonZeroUsize::get);
            let surplus = generations.len().saturating_sub(keep);
            generations.into_iter().take(surplus).collect()
        }
    };
    if asked.is_empty() {
        if let Some(generation) = options.generation {
            let problem = format!("there is no generation {generation} of {name} in {}", store.address());
            return Err(Failure::NotFound(problem));
        }
        return out.line("nothing to remove");
    }
    if !options.yes && !confirmed(&store, name, &asked)? {
        return Err(Failure::Declined);
    }
    let removed = match options.keep_last {
        // Opens the newest first, and removes nothing when that fails.
        Some(keep) => store.keep_last(name, keep.get())?,
        None => {
            asked.iter().try_for_each(|&generation| store.remove_generation(name, generation))?;
            asked
        }
    };
    removed.iter().try_for_each(|generation| out.line(&format!("removed {name} generation {generation}")))
}

/// Shows what is to go, and asks.
fn confirmed(store: &CheckpointStore, name: &str, generations: &[u64]) -> Result<bool, Failure> {
    let mut question = String::new();
    for &generation in generations {
        let what = match store.open_generation(name, generation) {
            Ok(opened) => format!("{} records, {}", count(opened.records()), bytes(opened.bytes())),
            Err(Error::Manifest { .. }) => "damaged".to_owned(),
            Err(e) => e.to_string(),
        };
        question += &safe(&format!("{name} generation {generation}: {what}"));
        question.push('\n');
    }
    question += &safe(&format!("Remove from {}? [y/N] ", store.address()));
    let asked = io::stderr().write_all(question.as_bytes()).and_then(|()| io::stderr().flush());
    asked.map_err(Failure::Output)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(Failure::Input)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
