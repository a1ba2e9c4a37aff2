//! The graph itself: nodes, their handles, and what keeps them alive.

use std::borrow::Cow;
use std::fmt;

use hashbrown::{HashMap, HashSet};

use crate::cost::CostTable;
use crate::dependency::{Dependencies, Dependency};
use crate::error::GraphError;
use crate::table::Table;

/// A dataset's node in one [`Graph`]. Ids ascend in the order of [`Graph::add`] and are never reused, so a
/// parent's id is below those of its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node_{}", self.0)
    }
}

/// A dataset to add to a graph.
#[derive(Debug, Clone)]
pub struct NodeSpec<P> {
    /// What users call it; it stands in error messages.
    pub name: Cow<'static, str>,
    /// How many partitions it has.
    pub partitions: u32,
    /// What its partitions are computed from, none for a source.
    pub dependencies: Vec<Dependency>,
    /// What the engine keeps for it.
    pub payload: P,
}

/// What came out of the graph when a node was [truncated](Graph::truncate). Drop it outside any lock: the
/// payloads may own much.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Truncated<P> {
    /// The node's payload before.
    pub previous: P,
    /// The payloads of the ancestors nobody else needed, children before their parents.
    pub freed: Vec<P>,
}

pub(crate) struct Node<P> {
    name: Cow<'static, str>,
    dependencies: Dependencies,
    payload: P,
    handles: u64,
    /// Edges that end here: a child with two dependencies on this node counts twice.
    children: u64,
    partitions: u32,
    truncated: bool,
}

impl<P> Node<P> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(crate) fn dependencies(&self) -> &[Dependency] {
        self.dependencies.as_slice()
    }

    pub(crate) fn payload(&self) -> &P {
        &self.payload
    }

    pub(crate) fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Whether a walk from a descendant may come by more than once. (Some of the children may lie outside
    /// of the walk.)
    pub(crate) fn is_shared(&self) -> bool {
        self.children > 1
    }

    fn is_unreferenced(&self) -> bool {
        self.handles == 0 && self.children == 0
    }
}

/// A graph of datasets, from sources to what was derived from them.
///
/// A node is alive while it has handles or living children. `P` is what the engine keeps for a node; the
/// graph hands it back when the node dies, and never drops one itself while it changes (except those of
/// refused calls), so that an engine may hold a lock around every call and drop payloads after it.
///
/// All walks are iterative and visit a node once, however many paths lead to it.
///
/// A node costs some 85 bytes besides its payload and what its name and dependencies own: the first
/// dependency is inline, further ones (and groups) are on the heap. Nodes that survive alone among their
/// 31 neighbours by id keep the page of all 32.
pub struct Graph<P> {
    nodes: Table<Node<P>>,
    next_id: u64,
    pub(crate) costs: HashMap<NodeId, CostTable>,
}

impl<P> Default for Graph<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> fmt::Debug for Graph<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("nodes", &self.len()).finish_non_exhaustive()
    }
}

impl<P> Graph<P> {
    /// An empty graph.
    pub fn new() -> Self {
        Self { nodes: Table::new(), next_id: 0, costs: HashMap::new() }
    }

    /// How many nodes are alive.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no node is alive.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a dataset and gives its first handle.
    ///
    /// # Errors
    /// [`GraphError::UnknownParent`] and [`GraphError::InvalidMap`]; the specification is dropped then,
    /// payload included.
    pub fn add(&mut self, spec: NodeSpec<P>) -> Result<NodeId, GraphError> {
        for (index, dependency) in spec.dependencies.iter().enumerate() {
            self.check_dependency(&spec, index, dependency)?;
        }
        for dependency in &spec.dependencies {
            if let Some(parent) = self.nodes.get_mut(dependency.parent().0) {
                parent.children += 1;
            }
        }
        let id = NodeId(self.next_id);
        self.next_id += 1;
        let NodeSpec { name, partitions, dependencies, payload } = spec;
        let dependencies = dependencies.into();
        let node =
            Node { name, dependencies, payload, handles: 1, children: 0, partitions, truncated: false };
        self.nodes.insert(id.0, node);
        Ok(id)
    }

    fn check_dependency(
        &self,
        spec: &NodeSpec<P>,
        index: usize,
        dependency: &Dependency,
    ) -> Result<(), GraphError> {
        let parent = dependency.parent();
        let Some(parent_node) = self.nodes.get(parent.0) else {
            let name = spec.name.to_string();
            return Err(GraphError::UnknownParent { name, dependency: index, parent });
        };
        let Dependency::Narrow { map, .. } = dependency else { return Ok(()) };
        map.check(spec.partitions, parent_node.partitions).map_err(|source| GraphError::InvalidMap {
            name: spec.name.to_string(),
            dependency: index,
            parent,
            parent_name: parent_node.name.to_string(),
            source,
        })
    }

    /// Gives one more handle to a living node, also to one that only its children kept alive.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`].
    pub fn retain(&mut self, id: NodeId) -> Result<(), GraphError> {
        self.node_mut(id)?.handles += 1;
        Ok(())
    }

    /// Takes one handle back, and returns the payloads of all nodes that died by it, children before their
    /// parents. Cost is linear in those.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`] and [`GraphError::NoHandle`].
    #[must_use = "the payloads are to be dropped outside of the lock around the graph"]
    pub fn release(&mut self, id: NodeId) -> Result<Vec<P>, GraphError> {
        let node = self.node_mut(id)?;
        let Some(handles) = node.handles.checked_sub(1) else {
            return Err(GraphError::NoHandle { node: id, name: node.name.to_string() });
        };
        node.handles = handles;
        let mut freed = Vec::new();
        self.free_if_unreferenced(vec![id], &mut freed);
        Ok(freed)
    }

    /// Puts a checkpoint in the place of a dataset's dependencies, in one step: the node keeps its id, name
    /// and partitions, gets `payload`, and loses its parents and measured costs; ancestors that nobody else
    /// needs die. Call it when the checkpoint is durable and verified.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`]; the payload is dropped then.
    pub fn truncate(&mut self, id: NodeId, payload: P) -> Result<Truncated<P>, GraphError> {
        let node = self.node_mut(id)?;
        let previous = std::mem::replace(&mut node.payload, payload);
        let dependencies = std::mem::replace(&mut node.dependencies, Dependencies::None);
        node.truncated = true;
        self.costs.remove(&id);
        let parents = self.detach(&dependencies);
        let mut freed = Vec::new();
        self.free_if_unreferenced(parents, &mut freed);
        Ok(Truncated { previous, freed })
    }

    /// Which nodes [`truncate`](Self::truncate) of `id` would free now, in ascending order.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`].
    pub fn cut_off(&self, id: NodeId) -> Result<Vec<NodeId>, GraphError> {
        let mut dying = Vec::new();
        let mut edges_cut: HashMap<NodeId, u64> = HashMap::new();
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            for parent in self.parents(id)? {
                let node = self.node(parent)?;
                let cut = if node.is_shared() {
                    let cut = edges_cut.entry(parent).or_default();
                    *cut += 1;
                    *cut
                } else {
                    1
                };
                if node.handles == 0 && cut == node.children {
                    dying.push(parent);
                    pending.push(parent);
                }
            }
        }
        dying.sort_unstable();
        Ok(dying)
    }

    /// Frees those of the candidates, and of their ancestors, that nothing refers to.
    fn free_if_unreferenced(&mut self, mut candidates: Vec<NodeId>, freed: &mut Vec<P>) {
        while let Some(id) = candidates.pop() {
            if !self.nodes.get(id.0).is_some_and(Node::is_unreferenced) {
                continue;
            }
            if let Some(node) = self.nodes.remove(id.0) {
                self.costs.remove(&id);
                candidates.extend(self.detach(&node.dependencies));
                freed.push(node.payload);
            }
        }
    }

    /// Counts the edges to the parents as gone, and returns the parents.
    fn detach(&mut self, dependencies: &Dependencies) -> Vec<NodeId> {
        let parents: Vec<NodeId> = dependencies.as_slice().iter().map(Dependency::parent).collect();
        for parent in &parents {
            if let Some(parent) = self.nodes.get_mut(parent.0) {
                parent.children -= 1;
            }
        }
        parents
    }

    /// Whether the node is alive.
    pub fn contains(&self, id: NodeId) -> bool {
        self.nodes.get(id.0).is_some()
    }

    /// How many handles the node has; it may be none, when its children keep it alive.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`], as for all questions about one node.
    pub fn handles(&self, id: NodeId) -> Result<u64, GraphError> {
        Ok(self.node(id)?.handles)
    }

    /// What the engine keeps for the node.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`].
    pub fn payload(&self, id: NodeId) -> Result<&P, GraphError> {
        Ok(&self.node(id)?.payload)
    }

    /// The node's name.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`].
    pub fn name(&self, id: NodeId) -> Result<&str, GraphError> {
        Ok(self.node(id)?.name())
    }

    /// How many partitions the node has.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`].
    pub fn partitions(&self, id: NodeId) -> Result<u32, GraphError> {
        Ok(self.node(id)?.partitions)
    }

    /// The node's dependencies; none for a source and after [`truncate`](Self::truncate).
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`].
    pub fn dependencies(&self, id: NodeId) -> Result<&[Dependency], GraphError> {
        Ok(self.node(id)?.dependencies())
    }

    /// The parents of the node's dependencies, in their order. A parent of several stands here several times.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`].
    pub fn parents(&self, id: NodeId) -> Result<impl Iterator<Item = NodeId> + '_, GraphError> {
        Ok(self.dependencies(id)?.iter().map(Dependency::parent))
    }

    /// Whether a checkpoint stands in for the node's dependencies.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`].
    pub fn is_truncated(&self, id: NodeId) -> Result<bool, GraphError> {
        Ok(self.node(id)?.truncated)
    }

    /// The node and all its ancestors, each once, in ascending order: parents before their children.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`].
    pub fn ancestors(&self, id: NodeId) -> Result<Vec<NodeId>, GraphError> {
        self.node(id)?;
        let mut found = vec![id];
        let mut shared: HashSet<NodeId> = HashSet::new();
        let mut looked_at = 0;
        while let Some(&id) = found.get(looked_at) {
            looked_at += 1;
            for parent in self.parents(id)? {
                if !self.node(parent)?.is_shared() || shared.insert(parent) {
                    found.push(parent);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    pub(crate) fn node(&self, id: NodeId) -> Result<&Node<P>, GraphError> {
        self.nodes.get(id.0).ok_or(GraphError::UnknownNode { node: id })
    }

    fn node_mut(&mut self, id: NodeId) -> Result<&mut Node<P>, GraphError> {
        self.nodes.get_mut(id.0).ok_or(GraphError::UnknownNode { node: id })
    }

    /// The node, if it has all of these partitions.
    pub(crate) fn node_with_partitions(&self, id: NodeId, wanted: &[u32]) -> Result<&Node<P>, GraphError> {
        let node = self.node(id)?;
        match wanted.iter().find(|&&partition| partition >= node.partitions) {
            Some(&partition) => Err(GraphError::NoSuchPartition {
                node: id,
                name: node.name.to_string(),
                partition,
                partitions: node.partitions,
            }),
            None => Ok(node),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_node_stays_small() {
        type Slot = Option<Node<Arc<dyn Send + Sync>>>;
        let payload = size_of::<Arc<dyn Send + Sync>>();
        assert!(size_of::<Slot>() - payload <= 88, "{} bytes", size_of::<Slot>() - payload);
    }
}
