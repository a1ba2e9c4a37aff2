//! The lineage as a Graphviz drawing.

use std::fmt::{self, Write};

use crate::debug::{NodeDescription, OneLine};
use crate::error::GraphError;
use crate::graph::{Graph, NodeId};

impl<P> Graph<P> {
    /// The dataset and all its ancestors in Graphviz's DOT language: a box a dataset, edges from parents to
    /// children, solid where narrow and dashed where a shuffle lies between. Datasets whose lineage was cut
    /// are filled and say so. Draw it with `dot -Tsvg`.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`].
    pub fn to_dot(
        &self,
        target: NodeId,
        describe: impl FnMut(NodeId, &P) -> NodeDescription,
    ) -> Result<String, GraphError> {
        let mut text = String::new();
        self.write_dot(target, &mut text, describe)?;
        Ok(text)
    }

    /// Writes [`to_dot`](Self::to_dot) line by line.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`], and [`GraphError::Write`] where `out` fails.
    pub fn write_dot(
        &self,
        target: NodeId,
        out: &mut impl Write,
        mut describe: impl FnMut(NodeId, &P) -> NodeDescription,
    ) -> Result<(), GraphError> {
        let ancestors = self.ancestors(target)?;
        writeln!(out, "digraph lineage {{")?;
        writeln!(out, "  rankdir=TB;")?;
        writeln!(out, "  node [shape=box];")?;
        for &id in &ancestors {
            let node = self.node(id)?;
            let description = describe(id, node.payload());
            write!(out, "  {id} [label=\"{}", Escaped(&description.text))?;
            let plural = if node.partitions() == 1 { "" } else { "s" };
            write!(out, "\\n{} partition{plural}", node.partitions())?;
            if let Some(storage) = &description.storage {
                write!(out, "\\n{}", Escaped(storage))?;
            }
            if node.is_truncated() {
                write!(out, "\\ncheckpoint, lineage cut\", style=filled, fillcolor=lightgrey")?;
            } else {
                write!(out, "\"")?;
            }
            writeln!(out, "];")?;
        }
        for &id in &ancestors {
            for dependency in self.dependencies(id)? {
                let style = if dependency.is_shuffle() { " [style=dashed]" } else { "" };
                writeln!(out, "  {} -> {id}{style};", dependency.parent())?;
            }
        }
        writeln!(out, "}}")?;
        Ok(())
    }
}

/// Text within a quoted label: quotes, backslashes, and the ampersands that Graphviz would take for HTML
/// entities.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in OneLine(self.0).to_string().chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '&' => f.write_str("&amp;")?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
