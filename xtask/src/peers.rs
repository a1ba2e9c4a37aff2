//! `cargo xtask peers`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::cli::Peers;
use crate::error::Error;
use crate::project::Project;
use crate::table::{print_table, ratio_cell, read_json, write_json};

pub(crate) fn run(project: &Project, options: &Peers) -> Result<(), Error> {
    let results = project.target.join("peers");
    fs::create_dir_all(&results).map_err(|source| Error::File {
        action: "create",
        path: results.clone(),
        source,
    })?;
    let mut peers = project
        .cargo(&["run", "--release", "--locked", "--manifest-path", "benches/peers/Cargo.toml", "--"])
        .arg("--out")
        .arg(&results)
        .env("CARGO_TARGET_DIR", results.join("build"));
    if options.quick {
        peers = peers.arg("--quick");
    }
    peers.args(&options.parts).run()?;

    let file = results.join("rows.json");
    let document = read_json(&file)?;
    let rows = array(&document, "rows", &file)?;
    let bad = || bad(&file, "a row lacks a name or a number");
    let cells: Option<Vec<_>> = rows.iter().map(cells).collect();
    println!();
    let header = ["case", "larder", "peer", "peer's name", "unit", "peer / larder"];
    print_table(&header, cells.ok_or_else(bad)?.into_iter());
    for part in array(&document, "left_out", &file)? {
        let text = |key: &str| part.get(key).and_then(Value::as_str).unwrap_or("?");
        println!("{} was LEFT OUT: {}", text("part"), text("reason"));
    }
    println!("chart: {}", results.join("chart.svg").display());
    if let Some(json) = &options.json {
        write_json(json, rows.clone())?;
    }
    Ok(())
}

fn array<'a>(document: &'a Value, key: &'static str, file: &Path) -> Result<&'a Vec<Value>, Error> {
    document.get(key).and_then(Value::as_array).ok_or_else(|| bad(file, "an array is missing"))
}

fn bad(file: &Path, problem: &str) -> Error {
    Error::Json { what: file.display().to_string(), problem: problem.to_owned() }
}

fn cells(row: &Value) -> Option<Vec<String>> {
    let text = |key: &str| Some(row.get(key)?.as_str()?.to_owned());
    let number = |key: &str| row.get(key)?.as_f64();
    Some(vec![
        text("name")?,
        readable(number("larder")?),
        readable(number("peer")?),
        text("peer_name")?,
        text("unit")?,
        // None where ours is zero.
        row.get("ratio")?.as_f64().map_or_else(|| "-".to_owned(), ratio_cell),
    ])
}

/// Three digits that mean something, or all before the point.
fn readable(number: f64) -> String {
    match number.abs() {
        0.0 | 100.0.. => format!("{number:.0}"),
        10.0.. => format!("{number:.1}"),
        1.0.. => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}
