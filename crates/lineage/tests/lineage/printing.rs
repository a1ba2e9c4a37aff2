//! Debug string and Graphviz.

use std::fmt;

use larder_lineage::{Dependency, Graph, GraphError, NodeDescription, NodeId, PartitionMap};

use crate::common::{Result, add, narrow, shuffle};

fn debug(graph: &Graph<String>, target: NodeId) -> Result<String> {
    graph.debug_string(target, |_, payload| payload.as_str().into())
}

#[test]
fn the_debug_string_is_the_tree_users_of_rdds_know() -> Result {
    let mut graph = Graph::new();
    let lines = add(&mut graph, "text_file depends.tsv", 4, [])?;
    let edges = add(&mut graph, "edges: flat_map", 4, [Dependency::one_to_one(lines)])?;
    let links = add(&mut graph, "links: group_by_key", 12, [shuffle(edges)])?;
    let ranks = add(&mut graph, "ranks: map_values", 12, [Dependency::one_to_one(links)])?;
    let storage = "Memory And Disk Deserialized / MEMORY_AND_DISK; CachedPartitions: 4; MemorySize: 1.2 MiB; \
                   DiskSize: 0 B";
    let text = graph.debug_string(ranks, |id, payload| NodeDescription {
        text: payload.clone(),
        storage: (id == links).then(|| storage.into()),
    })?;
    let expected = "\
(12) ranks: map_values
 |   links: group_by_key [Memory And Disk Deserialized / MEMORY_AND_DISK; CachedPartitions: 4; MemorySize: 1.2 MiB; DiskSize: 0 B]
 +-(4) edges: flat_map
    |  text_file depends.tsv
";
    assert_eq!(text, expected);
    Ok(())
}

#[test]
fn several_shuffles_of_one_stage_hang_from_its_bar() -> Result {
    let mut graph = Graph::new();
    let a = add(&mut graph, "a", 2, [])?;
    let a2 = add(&mut graph, "a2", 2, [Dependency::one_to_one(a)])?;
    let b = add(&mut graph, "b", 3, [])?;
    let b2 = add(&mut graph, "b2", 1000, [shuffle(b)])?;
    let joined = add(&mut graph, "joined", 4, [shuffle(a2), shuffle(b2)])?;
    let c = add(&mut graph, "c", 1, [])?;
    let range = |child_start, len| PartitionMap::Range { parent_start: 0, child_start, len };
    let union = add(&mut graph, "union", 5, [narrow(joined, range(0, 4)), narrow(c, range(4, 1))])?;
    let expected = "\
(5) union
 |  joined
 +-(2) a2
 |  |  a
 +-(1000) b2
 |   +-(3) b
 |  c
";
    assert_eq!(debug(&graph, union)?, expected);
    Ok(())
}

#[test]
fn a_dataset_reached_again_is_one_line() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 2, [])?;
    let edges = add(&mut graph, "edges", 2, [Dependency::one_to_one(source)])?;
    let left = add(&mut graph, "left", 2, [shuffle(edges)])?;
    let right = add(&mut graph, "right", 2, [Dependency::one_to_one(edges)])?;
    let zipped = add(&mut graph, "zipped", 2, [Dependency::one_to_one(left), Dependency::one_to_one(right)])?;
    let text = graph.debug_string(zipped, |_, payload| NodeDescription {
        text: payload.clone(),
        storage: (payload == "edges").then(|| "MEMORY_ONLY".into()),
    })?;
    let expected = "\
(2) zipped
 |  left
 +-(2) edges [MEMORY_ONLY]
 |  |  source
 |  right
 |  edges (shown above)
";
    assert_eq!(text, expected);
    Ok(())
}

#[test]
fn a_long_row_of_shuffles_goes_on_in_trees_of_its_own() -> Result {
    let mut graph = Graph::new();
    let mut last = add(&mut graph, "source", 2, [])?;
    for index in 0..1000 {
        last = add(&mut graph, &format!("s{index}"), 2, [shuffle(last)])?;
    }
    let text = debug(&graph, last)?;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.iter().all(|line| line.len() < 140), "the text would be quadratic");
    assert_eq!(lines[..2], ["(2) s999", " +-(2) s998"]);
    let below = lines.iter().position(|line| line.ends_with(" (shown below)")).unwrap();
    let name = lines[below].trim_start().trim_start_matches("+-(2) ").trim_end_matches(" (shown below)");
    assert_eq!(lines[below + 1], format!("(2) {name}"));
    for name in (0..1000).map(|index| format!("s{index}")) {
        let shown = lines.iter().filter(|line| line.ends_with(&format!(") {name}"))).count();
        assert_eq!(shown, 1, "{name}");
    }
    assert!(text.ends_with("+-(2) source\n"));
    Ok(())
}

#[test]
fn below_and_above_are_where_they_are_said_to_be() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 1, [])?;
    let mut deep = add(&mut graph, "shared", 1, [Dependency::one_to_one(source)])?;
    let shared = deep;
    for _ in 0..33 {
        deep = add(&mut graph, "deep", 1, [shuffle(deep)])?;
    }
    let range = |child_start| PartitionMap::Range { parent_start: 0, child_start, len: 1 };
    let union = add(&mut graph, "union", 2, [narrow(deep, range(0)), narrow(shared, range(1))])?;
    let text = debug(&graph, union)?;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 33 + 1 + 1 + 2);
    assert!(lines[34].ends_with("+-(1) shared (shown below)"), "{}", lines[34]);
    assert_eq!(lines[35..], [" |  shared (shown below)", "(1) shared", " |  source"]);
    Ok(())
}

#[test]
fn names_cannot_break_a_line() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "two\nlines\tand \u{7f}ü\"\\", 1, [])?;
    assert_eq!(debug(&graph, source)?, "(1) two\\nlines\\tand \\u{7f}ü\"\\\n");
    Ok(())
}

#[test]
fn the_drawing_tells_narrow_from_shuffle_and_marks_what_was_cut() -> Result {
    let mut graph = Graph::new();
    let lines = add(&mut graph, "lines", 4, [])?;
    let edges = add(&mut graph, "edges", 4, [Dependency::one_to_one(lines)])?;
    let unrelated = add(&mut graph, "unrelated", 4, [Dependency::one_to_one(edges)])?;
    let names = add(&mut graph, "the \"names\" & C:\\new\nline", 1, [])?;
    let ranks = add(&mut graph, "ranks", 1, [shuffle(edges), Dependency::one_to_one(names), shuffle(edges)])?;
    let _old = graph.truncate(edges, "edges".into())?;
    let text = graph.to_dot(ranks, |id, payload| NodeDescription {
        text: payload.clone(),
        storage: (id == ranks).then(|| "DISK_ONLY".into()),
    })?;
    let expected = r#"digraph lineage {
  rankdir=TB;
  node [shape=box];
  node_1 [label="edges\n4 partitions\ncheckpoint, lineage cut", style=filled, fillcolor=lightgrey];
  node_3 [label="the \"names\" &amp; C:\\new\\nline\n1 partition"];
  node_4 [label="ranks\n1 partition\nDISK_ONLY"];
  node_1 -> node_4 [style=dashed];
  node_3 -> node_4;
  node_1 -> node_4 [style=dashed];
}
"#;
    assert_eq!(text, expected);
    assert_eq!(graph.ancestors(ranks)?, [edges, names, ranks]);
    assert!(!text.contains(&unrelated.to_string()));
    Ok(())
}

/// A writer that is full after some bytes.
struct Full(usize);

impl fmt::Write for Full {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[test]
fn an_error_of_the_writer_comes_back() -> Result {
    let mut graph = Graph::new();
    let source = add(&mut graph, "source", 1, [])?;
    let describe = |_, payload: &String| payload.as_str().into();
    assert_eq!(graph.write_debug(source, &mut Full(100), describe), Ok(()));
    let full = Err(GraphError::Write(fmt::Error));
    assert_eq!(graph.write_debug(source, &mut Full(5), describe), full);
    assert_eq!(graph.write_dot(source, &mut Full(5), describe), full);
    Ok(())
}
