//! Larder beside other engines, on the same records in the same run.
//!
//! `cargo xtask peers` runs it and prints the table. Each case measures both in turn, several rounds of each, and
//! reports the medians, so that a busy spell of the machine falls on both.

#![forbid(unsafe_code)]

mod chart;
mod child;
mod hits;
mod hybrid;
mod random;
mod rounds;
mod rows;
mod spark;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use serde_json::json;

use crate::rows::Row;

type Failure = Box<dyn Error>;

#[derive(Debug, Parser)]
struct Options {
    /// Who to compare with; all of them when none is named.
    parts: Vec<Part>,
    /// Fewer cases and rounds.
    #[arg(long)]
    quick: bool,
    /// Where the rows, the chart and what is installed go.
    #[arg(long, value_name = "DIR", required_unless_present = "child")]
    out: Option<PathBuf>,
    /// Measure one side of one case and print it as JSON: what the processes are told that this one starts.
    #[arg(long, hide = true)]
    child: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Part {
    QuickCache,
    Moka,
    Foyer,
    Spark,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    if let Some(task) = &options.child {
        return child::run(task);
    }
    let out = options.out.ok_or("no directory for the results")?;
    fs::create_dir_all(&out).map_err(|e| format!("cannot create {}: {e}", out.display()))?;
    let parts = if options.parts.is_empty() { Part::value_variants() } else { &options.parts };
    let mut report = Report::default();
    for &part in parts {
        report.take(part, options.quick, &out);
    }
    report.write(&out)
}

#[derive(Default)]
struct Report {
    rows: Vec<Row>,
    left_out: Vec<(String, String)>,
}

impl Report {
    /// Measures a part. One that cannot be measured does not stop the others.
    fn take(&mut self, part: Part, quick: bool, out: &Path) {
        let rows = match part {
            Part::QuickCache => hits::quick_cache(quick),
            Part::Moka => hits::moka(quick),
            Part::Foyer => hits::foyer(quick).and_then(|mut rows| {
                rows.extend(hybrid::rows(quick, out)?);
                Ok(rows)
            }),
            Part::Spark => spark::rows(quick, out),
        };
        match rows {
            Ok(rows) => self.rows.extend(rows),
            Err(reason) => {
                let name = part.to_possible_value().map(|value| value.get_name().to_owned());
                let name = name.unwrap_or_default();
                eprintln!("\n*** {name} is LEFT OUT: {reason}\n");
                self.left_out.push((name, reason.to_string()));
            }
        }
    }

    fn write(&self, out: &Path) -> Result<(), Failure> {
        let left_out = self.left_out.iter().map(|(part, reason)| json!({ "part": part, "reason": reason }));
        let document = json!({
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
            "left_out": left_out.collect::<Vec<_>>(),
        });
        let file = out.join("rows.json");
        fs::write(&file, document.to_string())
            .map_err(|e| format!("cannot write {}: {e}", file.display()))?;
        chart::draw(&self.rows, &out.join("chart.svg"))
    }
}
