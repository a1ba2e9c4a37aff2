//! `cargo xtask peers`.

use std::fs;

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
    let file = results.join("rows.json");
    project
        .cargo(&["run", "--release", "--locked", "--manifest-path", "benches/peers/Cargo.toml", "--"])
        .arg(&file)
        .env("CARGO_TARGET_DIR", results.join("build"))
        .run()?;

    let bad = || Error::Json { what: file.display().to_string(), problem: "not an array of rows".into() };
    let value = read_json(&file)?;
    let rows = value.as_array().ok_or_else(bad)?;
    let cells: Option<Vec<_>> = rows.iter().map(cells).collect();
    println!();
    let header = ["case", "larder", "peer", "peer's name", "unit", "peer / larder"];
    print_table(&header, cells.ok_or_else(bad)?.into_iter());
    if let Some(json) = &options.json {
        write_json(json, rows.clone())?;
    }
    Ok(())
}

fn cells(row: &Value) -> Option<Vec<String>> {
    let text = |key: &str| Some(row.get(key)?.as_str()?.to_owned());
    let number = |key: &str| row.get(key)?.as_f64();
    Some(vec![
        text("name")?,
        format!("{:.1}", number("larder")?),
        format!("{:.1}", number("peer")?),
        text("peer_name")?,
        text("unit")?,
        ratio_cell(number("ratio")?),
    ])
}
