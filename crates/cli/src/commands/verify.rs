//! `larder checkpoint verify`.

use indicatif::ProgressBar;
use larder_checkpoint::Error;
use serde_json::{Value, json};

use crate::cli::Verify;
use crate::failure::{DAMAGED, Failure, code};
use crate::out::Out;
use crate::parallel::{for_each_partition, progress};
use crate::selection::Found;
use crate::units::{bytes, count};

pub(crate) fn run(options: &Verify, out: &mut Out) -> Result<(), Failure> {
    let found = options.selected.open_all(options.newest)?;
    let bytes = |found: &Found| found.opened.as_ref().map_or(0, |checkpoint| checkpoint.bytes());
    let bar = progress(found.iter().map(bytes).fold(0, u64::saturating_add));
    let verdicts: Vec<_> = found.into_iter().map(|found| verify(found, options, &bar)).collect();
    bar.finish_and_clear();

    if options.json {
        out.pretty_json(&verdicts.iter().map(Verdict::json).collect())?;
    } else {
        verdicts.iter().flat_map(Verdict::lines).try_for_each(|line| out.line(&line))?;
    }
    let codes: Vec<u8> = verdicts.iter().filter_map(Verdict::code).collect();
    if codes.is_empty() {
        return Ok(());
    }
    // What is known to be damaged matters more than what could not be looked at.
    let code =
        codes.iter().copied().find(|&code| code == DAMAGED).or(codes.first().copied()).unwrap_or(DAMAGED);
    let summary = format!("{} of {} checkpoints cannot be vouched for", codes.len(), verdicts.len());
    Err(Failure::Reported { summary, code })
}

/// What was found of one checkpoint.
struct Verdict {
    found: Found,
    /// Parts that are not what was written, or cannot be read.
    bad_parts: Vec<(u32, Error)>,
}

fn verify(found: Found, options: &Verify, bar: &ProgressBar) -> Verdict {
    let mut bad_parts = Vec::new();
    if let Ok(checkpoint) = &found.opened {
        let parts = &checkpoint.manifest().parts;
        let results = for_each_partition(checkpoint.partitions(), options.threads, |partition| {
            let result = checkpoint.verify_part(partition);
            let part = usize::try_from(partition).ok().and_then(|index| parts.get(index));
            bar.inc(part.map_or(0, |part| part.bytes));
            result
        });
        bad_parts = (0..).zip(results).filter_map(|(part, result)| Some((part, result.err()?))).collect();
    }
    Verdict { found, bad_parts }
}

impl Verdict {
    fn errors(&self) -> impl Iterator<Item = &Error> {
        self.found.opened.as_ref().err().into_iter().chain(self.bad_parts.iter().map(|(_, error)| error))
    }

    /// None when it is intact.
    fn code(&self) -> Option<u8> {
        let mut codes = self.errors().map(code).peekable();
        let first = *codes.peek()?;
        Some(codes.find(|&code| code == DAMAGED).unwrap_or(first))
    }

    fn lines(&self) -> Vec<String> {
        let Found { dataset, generation, opened } = &self.found;
        let mut line = format!("{dataset} generation {generation}: ");
        if let Ok(checkpoint) = opened {
            let (parts, records) = (count(u64::from(checkpoint.partitions())), count(checkpoint.records()));
            line += &format!("{parts} parts, {records} records, {}: ", bytes(checkpoint.bytes()));
        }
        line += match self.code() {
            None => "intact",
            Some(DAMAGED) => "DAMAGED",
            Some(_) => "CANNOT BE READ",
        };
        let errors = self.errors().map(|error| format!("  {error}"));
        std::iter::once(line).chain(errors).collect()
    }

    fn json(&self) -> Value {
        let Found { dataset, generation, opened } = &self.found;
        let error = |error: &Error| json!({"error": error.to_string(), "is_damage": code(error) == DAMAGED});
        let bad_part = |(partition, bad): &(u32, Error)| {
            let mut value = error(bad);
            if let Value::Object(members) = &mut value {
                members.insert("partition".to_owned(), (*partition).into());
            }
            value
        };
        json!({
            "dataset": dataset,
            "generation": generation,
            "is_intact": self.code().is_none(),
            "parts": opened.as_ref().ok().map(|checkpoint| checkpoint.partitions()),
            "records": opened.as_ref().ok().map(|checkpoint| checkpoint.records()),
            "bytes": opened.as_ref().ok().map(|checkpoint| checkpoint.bytes()),
            "manifest": opened.as_ref().err().map(error),
            "bad_parts": self.bad_parts.iter().map(bad_part).collect::<Vec<_>>(),
        })
    }
}
