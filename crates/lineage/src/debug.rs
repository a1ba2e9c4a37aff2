//! The lineage as an indented tree, as users of RDDs know it.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::rc::Rc;

use hashbrown::{HashMap, hash_map};

use crate::error::GraphError;
use crate::graph::{Graph, Node, NodeId};

/// How an engine describes one of its datasets in [`Graph::debug_string`] and [`Graph::to_dot`].
/// Line breaks and other control characters are escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeDescription {
    /// Name and operation, such as `links: group_by_key`.
    pub text: String,
    /// If it is stored: level, cached partitions and sizes, shown in brackets.
    pub storage: Option<String>,
}

impl<T: Into<String>> From<T> for NodeDescription {
    fn from(text: T) -> Self {
        Self { text: text.into(), storage: None }
    }
}

/// Shuffles inside each other that are shown by indentation. Deeper stages follow as trees of their own, so
/// that the text stays linear in the graph.
const INDENTED_SHUFFLES_MAX: u32 = 32;

impl<P> Graph<P> {
    /// The dataset and all its ancestors as an indented tree, each line ended by a line break:
    ///
    /// ```text
    /// (4) links: group_by_key [MEMORY_AND_DISK; CachedPartitions: 4; MemorySize: 1.2 MiB]
    ///  +-(4) edges: flat_map
    ///     |  text_file depends.tsv
    /// ```
    ///
    /// A stage begins with its number of partitions in parentheses; `|` goes on in the same stage, `+-` crosses
    /// a shuffle. A dataset that is reached again is one line, `(shown above)`, without its ancestors. What lies
    /// beyond 32 nested shuffles stands as `(shown below)` and follows as a tree of its own. So the text and
    /// the time for it are linear in the graph.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`].
    pub fn debug_string(
        &self,
        target: NodeId,
        describe: impl FnMut(NodeId, &P) -> NodeDescription,
    ) -> Result<String, GraphError> {
        let mut text = String::new();
        self.write_debug(target, &mut text, describe)?;
        Ok(text)
    }

    /// Writes [`debug_string`](Self::debug_string) line by line.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`], and [`GraphError::Write`] where `out` fails.
    pub fn write_debug(
        &self,
        target: NodeId,
        out: &mut impl Write,
        mut describe: impl FnMut(NodeId, &P) -> NodeDescription,
    ) -> Result<(), GraphError> {
        let mut tree = Tree { lines: Vec::new(), roots: VecDeque::from([target]), shown: HashMap::new() };
        while let Some(root) = tree.roots.pop_front() {
            tree.lines.push(Line { node: root, edge: Edge::Root, margin: Margin::default() });
            while let Some(line) = tree.lines.pop() {
                let node = self.node(line.node)?;
                let description = describe(line.node, node.payload());
                let continues = tree.continues(&line.margin);
                line.margin.write(out, line.edge, node.partitions())?;
                let place = tree.place(&line, node);
                write_description(out, &description, place)?;
                if place == Place::Here {
                    let margin = line.margin.of_parents(line.edge, node.partitions(), continues);
                    tree.push_parents(node, &margin);
                }
            }
        }
        Ok(())
    }
}

fn write_description(out: &mut impl Write, description: &NodeDescription, place: Place) -> fmt::Result {
    write!(out, "{}", OneLine(&description.text))?;
    match (place, &description.storage) {
        (Place::Here, Some(storage)) => writeln!(out, " [{}]", OneLine(storage)),
        (Place::Here, None) => writeln!(out),
        (Place::Above, _) => writeln!(out, " (shown above)"),
        (Place::Below, _) => writeln!(out, " (shown below)"),
    }
}

struct Tree {
    /// Lines still to be written, the next one last.
    lines: Vec<Line>,
    /// Trees still to be written.
    roots: VecDeque<NodeId>,
    /// Where the datasets stand that may be reached again.
    shown: HashMap<NodeId, Place>,
}

struct Line {
    node: NodeId,
    edge: Edge,
    margin: Margin,
}

/// How a line is reached from the line of the child.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Root,
    Narrow,
    Shuffle,
}

/// Where a dataset and its ancestors stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Here,
    Above,
    Below,
}

impl Tree {
    /// Whether lines are still to come at this margin, so that its bar must go on.
    fn continues(&self, margin: &Margin) -> bool {
        self.lines.last().is_some_and(|next| Rc::ptr_eq(&next.margin.left, &margin.left))
    }

    /// Where the dataset of this line is shown, and from now on was.
    fn place<P>(&mut self, line: &Line, node: &Node<P>) -> Place {
        let here = match line.edge {
            Edge::Shuffle if line.margin.shuffles >= INDENTED_SHUFFLES_MAX => Place::Below,
            _ => Place::Here,
        };
        if node.is_shared() {
            match self.shown.entry(line.node) {
                hash_map::Entry::Occupied(mut shown) if line.edge == Edge::Root => {
                    shown.insert(Place::Above);
                }
                hash_map::Entry::Occupied(shown) => return *shown.get(),
                hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(if here == Place::Here { Place::Above } else { Place::Below });
                }
            }
        }
        if here == Place::Below {
            self.roots.push_back(line.node);
        }
        here
    }

    fn push_parents<P>(&mut self, node: &Node<P>, margin: &Margin) {
        self.lines.extend(node.dependencies().iter().rev().map(|dependency| Line {
            node: dependency.parent(),
            edge: if dependency.is_shuffle() { Edge::Shuffle } else { Edge::Narrow },
            margin: margin.clone(),
        }));
    }
}

/// What stands left of the lines of one stage: `left`, the bar, and `pad` spaces.
#[derive(Clone)]
struct Margin {
    left: Rc<str>,
    pad: usize,
    shuffles: u32,
}

impl Default for Margin {
    fn default() -> Self {
        Self { left: "".into(), pad: 0, shuffles: 0 }
    }
}

impl Margin {
    fn write(&self, out: &mut impl Write, edge: Edge, partitions: u32) -> fmt::Result {
        match edge {
            Edge::Root => write!(out, "({partitions}) "),
            Edge::Narrow => write!(out, "{}|{:pad$}", self.left, "", pad = self.pad),
            Edge::Shuffle => write!(out, "{}+-({partitions}) ", self.left),
        }
    }

    /// The margin for the parents of a line that was written at this one; the bar of a new stage stands
    /// below the middle of its partition count.
    fn of_parents(&self, edge: Edge, partitions: u32, continues: bool) -> Self {
        let between = match edge {
            Edge::Narrow => return self.clone(),
            Edge::Root => "",
            Edge::Shuffle if continues => "| ",
            Edge::Shuffle => "  ",
        };
        let width = format!("({partitions})").len();
        let middle = (width - 1) / 2;
        Self {
            left: format!("{}{between}{:middle$}", self.left, "").into(),
            pad: width - middle,
            shuffles: self.shuffles + u32::from(edge == Edge::Shuffle),
        }
    }
}

/// Text with its control characters escaped.
pub(crate) struct OneLine<'a>(pub(crate) &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plain_from = 0;
        for (at, control) in self.0.char_indices().filter(|(_, c)| c.is_control()) {
            f.write_str(self.0.get(plain_from..at).unwrap_or_default())?;
            write!(f, "{}", control.escape_default())?;
            plain_from = at + control.len_utf8();
        }
        f.write_str(self.0.get(plain_from..).unwrap_or_default())
    }
}
