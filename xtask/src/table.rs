//! Measured rows: on the terminal, and as JSON.

use std::fs;
use std::path::Path;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;

use crate::error::Error;

/// A unit of time that makes a number readable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unit {
    pub(crate) name: &'static str,
    ns: f64,
}

impl Unit {
    pub(crate) fn fitting(time_ns: f64) -> Self {
        match time_ns {
            ns if ns < 1e4 => Self { name: "ns", ns: 1.0 },
            ns if ns < 1e7 => Self { name: "us", ns: 1e3 },
            ns if ns < 1e10 => Self { name: "ms", ns: 1e6 },
            _ => Self { name: "s", ns: 1e9 },
        }
    }

    pub(crate) fn of(self, time_ns: f64) -> f64 {
        time_ns / self.ns
    }
}

pub(crate) fn ratio_cell(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// The first column is a name; all others are numbers or short words, set to the right.
pub(crate) fn print_table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

pub(crate) fn read_json(path: &Path) -> Result<Value, Error> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|source| Error::File { action: "read", path: path.to_path_buf(), source })?;
    serde_json::from_str(&text)
        .map_err(|e| Error::Json { what: path.display().to_string(), problem: e.to_string() })
}

/// An array, one row a line.
pub(crate) fn write_json(path: &Path, rows: Vec<Value>) -> Result<(), Error> {
    let rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(path, format!("[\n{}\n]\n", rows.join(",\n"))).map_err(|source| Error::File {
        action: "write",
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::Unit;

    #[test]
    fn a_time_is_shown_in_the_unit_that_fits() {
        for (time_ns, name, number) in
            [(350.0, "ns", 350.0), (25_000.0, "us", 25.0), (13e6, "ms", 13.0), (42e9, "s", 42.0)]
        {
            let unit = Unit::fitting(time_ns);
            assert_eq!((unit.name, unit.of(time_ns)), (name, number));
        }
    }
}
