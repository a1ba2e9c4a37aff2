//! What one task evaluates: the blocks reached through narrow dependencies, in an order that works.

use std::fmt;
use std::iter::FusedIterator;

use hashbrown::HashMap;

use crate::dependency::Dependency;
use crate::error::GraphError;
use crate::graph::{Graph, NodeId};

/// The blocks one task evaluates, each once, inputs before what reads them.
///
/// It is a depth-first order: all that one input needs comes before the next input, so few results are in
/// waiting at a time. The last step is the block the task is for. A step of one narrow input takes 24 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct NarrowOrder {
    steps: Vec<PackedStep>,
    /// For each step one word a dependency, [`SHUFFLE`] or the number of inputs, and then those inputs.
    /// [`STOPPED`] alone for a leaf at which the walk was stopped.
    words: Vec<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct PackedStep {
    node: NodeId,
    partition: u32,
    /// End of this step's words. They begin where the previous step's end.
    words_end: u32,
}

const SHUFFLE: u32 = u32::MAX;
const STOPPED: u32 = u32::MAX - 1;
/// So that counts and positions differ from the two marks.
const WORDS_MAX: usize = (u32::MAX - 2) as usize;

/// One block of a [`NarrowOrder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// The dataset of the block.
    pub node: NodeId,
    /// Its partition.
    pub partition: u32,
    /// Whether the walk was stopped here: the block is to be read, not computed.
    pub stopped: bool,
    words: &'a [u32],
}

impl<'a> Step<'a> {
    /// What the block is computed from: one input a dependency, in their order. Empty for a source, a
    /// truncated dataset, and where the walk was [stopped](Self::stopped).
    pub fn inputs(&self) -> Inputs<'a> {
        Inputs { words: self.words }
    }
}

/// What one dependency gives to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// The blocks that the dependency's map names, as indices of earlier steps, in the map's order. Empty
    /// where the dependency has no parent for this partition.
    Narrow(&'a [u32]),
    /// The step's slice of every map output of the shuffle.
    Shuffle,
}

/// Iterator over the [inputs](Step::inputs) of a step.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    words: &'a [u32],
}

impl<'a> Iterator for Inputs<'a> {
    type Item = Input<'a>;

    fn next(&mut self) -> Option<Input<'a>> {
        let (&word, rest) = self.words.split_first()?;
        if word == SHUFFLE {
            self.words = rest;
            return Some(Input::Shuffle);
        }
        let (steps, rest) = rest.split_at_checked(word as usize)?;
        self.words = rest;
        Some(Input::Narrow(steps))
    }
}

impl FusedIterator for Inputs<'_> {}

impl NarrowOrder {
    /// How many blocks the task evaluates or reads.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Never: there is at least the block the task is for.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The step at this index.
    pub fn get(&self, index: usize) -> Option<Step<'_>> {
        let step = self.steps.get(index)?;
        let start = match index.checked_sub(1) {
            Some(previous) => self.steps.get(previous)?.words_end,
            None => 0,
        };
        let words = self.words.get(start as usize..step.words_end as usize)?;
        let stopped = words.first() == Some(&STOPPED);
        let words = if stopped { &[] } else { words };
        Some(Step { node: step.node, partition: step.partition, stopped, words })
    }

    /// The steps, inputs before what reads them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Step<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl fmt::Debug for NarrowOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<P> Graph<P> {
    /// The blocks that one task evaluates for this partition of `target`: all that is reached through narrow
    /// dependencies. Where `stop` answers true (the block is resident, or to be fetched through the store)
    /// the step has no inputs and nothing above it is visited for it; `stop` is asked once for each block,
    /// `target`'s included.
    ///
    /// Cost is linear in the steps and their inputs; only blocks that several steps may read are looked up.
    ///
    /// # Errors
    /// [`GraphError::UnknownNode`], [`GraphError::NoSuchPartition`] and [`GraphError::OrderTooLong`].
    pub fn narrow_order(
        &self,
        target: NodeId,
        partition: u32,
        mut stop: impl FnMut(NodeId, u32) -> bool,
    ) -> Result<NarrowOrder, GraphError> {
        let name = self.node_with_partitions(target, &[partition])?.name();
        let too_long = || GraphError::OrderTooLong { node: target, name: name.to_owned(), partition };

        let mut order = OrderBuilder::default();
        let mut pending = vec![Pending { node: target, partition, shared: false, inputs_done: false }];
        while let Some(block) = pending.pop() {
            if block.inputs_done {
                order.emit(block, self.node(block.node)?.dependencies()).ok_or_else(too_long)?;
            } else if block.shared && order.read_again(block) {
                // Its step is there already.
            } else if stop(block.node, block.partition) {
                order.emit_stopped(block).ok_or_else(too_long)?;
            } else {
                pending.push(Pending { inputs_done: true, ..block });
                self.push_inputs(block, &mut pending)?;
            }
        }
        Ok(order.finish())
    }

    /// Pushes the inputs of a block so that the first one is popped first.
    fn push_inputs(&self, block: Pending, pending: &mut Vec<Pending>) -> Result<(), GraphError> {
        for dependency in self.node(block.node)?.dependencies().iter().rev() {
            let Dependency::Narrow { parent, map } = dependency else { continue };
            let shared = !map.is_injective() || self.node(*parent)?.is_shared();
            pending.extend(map.parents_of(block.partition).rev().map(|partition| Pending {
                node: *parent,
                partition,
                shared,
                inputs_done: false,
            }));
        }
        Ok(())
    }
}

/// A block on the stack of the depth-first walk.
#[derive(Clone, Copy)]
struct Pending {
    node: NodeId,
    partition: u32,
    /// Whether the walk may come by again, by another edge or another child partition.
    shared: bool,
    /// Whether its inputs have been emitted, so that it is its own turn.
    inputs_done: bool,
}

/// Writes steps as an evaluator of postfix notation would: an emitted step takes its inputs from the top of
/// `operands` and leaves its own index there.
#[derive(Default)]
struct OrderBuilder {
    steps: Vec<PackedStep>,
    words: Vec<u32>,
    operands: Vec<u32>,
    shared: HashMap<(NodeId, u32), u32>,
}

impl OrderBuilder {
    /// Gives the step of this block, if there is one, to whom reads it next.
    fn read_again(&mut self, block: Pending) -> bool {
        let step = self.shared.get(&(block.node, block.partition));
        self.operands.extend(step);
        step.is_some()
    }

    fn emit_stopped(&mut self, block: Pending) -> Option<()> {
        self.words.push(STOPPED);
        self.finish_step(block)
    }

    /// `None` if the order gets too long.
    fn emit(&mut self, block: Pending, dependencies: &[Dependency]) -> Option<()> {
        let count = |dependency: &Dependency| match dependency {
            Dependency::Narrow { map, .. } => map.parents_of(block.partition).count(),
            Dependency::Shuffle { .. } => 0,
        };
        let inputs: usize = dependencies.iter().map(count).sum();
        let mut operands = self.operands.drain(self.operands.len().saturating_sub(inputs)..);
        for dependency in dependencies {
            if dependency.is_shuffle() {
                self.words.push(SHUFFLE);
            } else {
                let inputs = count(dependency);
                self.words.push(u32::try_from(inputs).ok()?);
                self.words.extend(operands.by_ref().take(inputs));
            }
        }
        drop(operands);
        self.finish_step(block)
    }

    fn finish_step(&mut self, block: Pending) -> Option<()> {
        if self.words.len() > WORDS_MAX || self.steps.len() >= WORDS_MAX {
            return None;
        }
        let index = self.steps.len() as u32;
        let words_end = self.words.len() as u32;
        self.steps.push(PackedStep { node: block.node, partition: block.partition, words_end });
        if block.shared {
            self.shared.insert((block.node, block.partition), index);
        }
        self.operands.push(index);
        Some(())
    }

    fn finish(mut self) -> NarrowOrder {
        self.steps.shrink_to_fit();
        self.words.shrink_to_fit();
        NarrowOrder { steps: self.steps, words: self.words }
    }
}
