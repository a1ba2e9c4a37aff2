//! Standard output, which the reader may close at any time.

use std::io::{self, BufWriter, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;

use crate::failure::Failure;
use crate::safe::{safe, safe_json};

/// Prints lines. Once the reader is gone, as `head` is after its last line, nothing more is printed and that is no error.
pub(crate) struct Out {
    to: BufWriter<Box<dyn Write>>,
    is_closed: bool,
}

impl Out {
    pub(crate) fn stdout() -> Self {
        Self { to: BufWriter::new(Box::new(io::stdout().lock())), is_closed: false }
    }

    /// Has the reader gone? Then there is no use in going on for the sake of what is printed.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// A line, its control characters escaped.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        let line = safe(line);
        self.attempt(|to| writeln!(to, "{line}"))
    }

    /// JSON on one line.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        let json = safe_json(value.to_string());
        self.attempt(|to| writeln!(to, "{json}"))
    }

    /// JSON for people too.
    pub(crate) fn pretty_json(&mut self, value: &Value) -> Result<(), Failure> {
        let json = safe_json(format!("{value:#}"));
        self.attempt(|to| writeln!(to, "{json}"))
    }

    /// The first column and those named are text, and set to the left.
    pub(crate) fn table(
        &mut self,
        header: &[&str],
        text: &[usize],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header(header);
        table.add_rows(
            rows.into_iter().map(|row| row.iter().map(|cell| safe(cell).into_owned()).collect::<Vec<_>>()),
        );
        for (index, column) in table.column_iter_mut().enumerate() {
            if index > 0 && !text.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.attempt(|to| writeln!(to, "{table}"))
    }

    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.attempt(Write::flush)
    }

    fn attempt(
        &mut self,
        print: impl FnOnce(&mut BufWriter<Box<dyn Write>>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        if self.is_closed {
            return Ok(());
        }
        match print(&mut self.to) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            printed => printed.map_err(Failure::Output),
        }
    }
}
