//! `cargo xtask bench`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::Bench;
use crate::error::Error;
use crate::project::Project;
use crate::servers;
use crate::table::{Unit, print_table, ratio_cell, read_json, write_json};

const MALLOC_VARIABLE: &str = "GLIBC_TUNABLES";
/// As in a process that has run for a while, memory is not taken from the kernel and given back in each iteration:
/// the page faults would cost more than what is measured, on the one side or the other as chance has it.
const MALLOC_KEEPS_MEMORY: &str =
    "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=67108864";

pub(crate) fn run(project: &Project, options: &Bench) -> Result<(), Error> {
    let results = project.target.join("bench-results");
    clear(&results)?;
    let benches = ["--bench", "levels", "--bench", "checkpoints"];
    let mut bench = project
        .cargo(&["bench", "--package", "larder-benches"])
        .args(benches)
        .arg("--")
        .env("CRITERION_HOME", &results);
    let servers = options.servers.then(|| servers::for_tests(project));
    if let Some(servers::ForTests { variables, missing, .. }) = &servers {
        for (variable, value) in variables {
            bench = bench.env(variable, value);
        }
        for (server, e) in missing {
            eprintln!("SKIPPED: checkpoints on {server}: {e}");
        }
    }
    if env::var_os(MALLOC_VARIABLE).is_none() {
        bench = bench.env(MALLOC_VARIABLE, MALLOC_KEEPS_MEMORY);
    }
    if options.quick {
        bench = bench.arg("--quick");
    }
    bench.args(options.filter.iter()).run()?;

    let rows = rows(&results)?;
    if rows.is_empty() {
        return Err(Error::NoBenchmark { filter: options.filter.clone().unwrap_or_default() });
    }
    println!();
    print_table(&["case", "ours", "bare", "unit", "ours / bare"], rows.iter().map(Row::cells));
    if let Some(file) = &options.json {
        write_json(file, rows.iter().map(Row::to_json).collect())?;
    }
    Ok(())
}

/// One case: medians in nanoseconds.
struct Row {
    name: String,
    ours_ns: f64,
    bare_ns: f64,
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let unit = Unit::fitting(self.bare_ns);
        vec![
            self.name.clone(),
            format!("{:.2}", unit.of(self.ours_ns)),
            format!("{:.2}", unit.of(self.bare_ns)),
            unit.name.to_owned(),
            ratio_cell(self.ours_ns / self.bare_ns),
        ]
    }

    fn to_json(&self) -> Value {
        let unit = Unit::fitting(self.bare_ns);
        json!({
            "name": self.name,
            "ours": unit.of(self.ours_ns),
            "bare": unit.of(self.bare_ns),
            "unit": unit.name,
            "ratio": self.ours_ns / self.bare_ns,
        })
    }
}

/// A case is a criterion group of two: `NAME/ours` and `NAME/bare`.
fn rows(results: &Path) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for case in subdirectories(results)? {
        let (ours, bare) = (case.join("ours/new/estimates.json"), case.join("bare/new/estimates.json"));
        // A filter may have picked one of the two; a ratio needs both.
        if ours.is_file() && bare.is_file() {
            let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
            rows.push(Row { name, ours_ns: median_ns(&ours)?, bare_ns: median_ns(&bare)? });
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

fn median_ns(estimates: &Path) -> Result<f64, Error> {
    let value = read_json(estimates)?;
    value.pointer("/median/point_estimate").and_then(Value::as_f64).ok_or_else(|| Error::Json {
        what: estimates.display().to_string(),
        problem: "no median/point_estimate".into(),
    })
}

fn clear(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { action: "clear", path: directory.to_path_buf(), source })
        }
        _ => Ok(()),
    }
}

fn subdirectories(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::File { action: "list", path: directory.to_path_buf(), source };
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(directory).map_err(failed)?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect();
    Ok(paths?.into_iter().filter(|path| path.is_dir()).collect())
}
