//! Finds the shape of a type: reads values of it from nothing and notes what is asked for.
//!
//! A type is asked for what it is made of in the way a codec asks it. An enum shows one variant each time, so a type
//! is read until all have been seen. Where a type contains itself, the inner one is read as small as it can be.

mod reader;
mod values;
mod variant;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserialize;

use self::reader::Reader;
use super::shape::{Body, Definition, Seen, Shape, Shapes, Variant};

/// How often a type is read at most.
const READS_MAX: usize = 1_000;

/// The shape of `T`, if it was seen to its end.
pub(super) fn trace<T: Deserialize<'static>>() -> Option<Shapes> {
    let trace = RefCell::new(Trace::default());
    let mut root = Shape::Unknown;
    for _ in 0..READS_MAX {
        trace.borrow_mut().start();
        let mut shape = Shape::Unknown;
        let reader = Reader { trace: &trace, shape: &mut shape, small: false };
        // The code that reads `T` is the user's.
        let read = catch_unwind(AssertUnwindSafe(|| T::deserialize(reader).is_ok()));
        if !read.unwrap_or_default() {
            return None;
        }
        root = shape;
        let trace = trace.borrow();
        if !trace.reaches_unseen(&root, &mut Vec::new()) {
            break;
        }
        if !trace.saw_something_new {
            return None;
        }
    }
    let shapes = Shapes { root, definitions: trace.into_inner().definitions };
    shapes.is_whole().then_some(shapes)
}

#[derive(Default)]
struct Trace {
    definitions: Vec<Definition>,
    /// The definitions whose values are being read.
    open: Vec<usize>,
    values: u32,
    depth: usize,
    variants_done: usize,
    saw_something_new: bool,
}

impl Trace {
    fn start(&mut self) {
        self.open.clear();
        (self.values, self.depth, self.saw_something_new) = (0, 0, false);
    }

    /// The definition of a type, made if there is none; and whether a value of it is being read already.
    fn define(
        &mut self,
        rust_type: &'static str,
        name: &'static str,
        body: impl FnOnce() -> Body,
    ) -> (usize, bool) {
        let is_it = |definition: &Definition| definition.rust_type == rust_type && definition.name == name;
        let index = match self.definitions.iter().position(is_it) {
            Some(index) => index,
            None => {
                self.definitions.push(Definition { rust_type, name, body: body() });
                self.definitions.len() - 1
            }
        };
        let is_open = self.open.contains(&index);
        self.open.push(index);
        (index, is_open)
    }

    fn variants(&mut self, index: usize) -> &mut [Variant] {
        match self.definitions.get_mut(index).map(|definition| &mut definition.body) {
            Some(Body::Enum(variants)) => variants,
            _ => &mut [],
        }
    }

    /// Which variant to read: one that was not seen, else one in which something was not seen, else the one that
    /// was seen first, because it ends.
    fn choose(&mut self, index: usize, inside_itself: bool) -> Option<usize> {
        let variants = self.variants(index);
        if let Some(unseen) = variants.iter().position(|variant| variant.seen == Seen::No) {
            if let Some(variant) = variants.get_mut(unseen) {
                variant.seen = Seen::Begun;
            }
            self.saw_something_new = true;
            return Some(unseen);
        }
        let done = |variant: &Variant| match variant.seen {
            Seen::Done(order) => Some(order),
            Seen::No | Seen::Begun => None,
        };
        let order: Vec<_> = variants.iter().map(done).collect();
        if !inside_itself {
            for at in 0..order.len() {
                let content = self.variants(index).get(at).map(|variant| variant.content.clone());
                let leads_on = |shape: &Shape| self.reaches_unseen(shape, &mut vec![index]);
                if content.is_some_and(|content| content.shapes().any(leads_on)) {
                    return Some(at);
                }
            }
        }
        let first = order.iter().enumerate().filter_map(|(at, order)| Some(((*order)?, at))).min();
        first.map(|(_, at)| at)
    }

    fn reaches_unseen(&self, shape: &Shape, passed: &mut Vec<usize>) -> bool {
        let index = match shape {
            Shape::Unknown | Shape::Leaf(_) => return false,
            Shape::Option(inner) | Shape::Sequence(inner) => return self.reaches_unseen(inner, passed),
            Shape::Map(key, value) => {
                return self.reaches_unseen(key, passed) || self.reaches_unseen(value, passed);
            }
            Shape::Tuple(shapes) => return shapes.iter().any(|shape| self.reaches_unseen(shape, passed)),
            Shape::Named(index) => *index,
        };
        if passed.contains(&index) {
            return false;
        }
        passed.push(index);
        match self.definitions.get(index).map(|definition| &definition.body) {
            Some(Body::One(content)) => content.shapes().any(|shape| self.reaches_unseen(shape, passed)),
            Some(Body::Enum(variants)) => variants.iter().any(|variant| {
                variant.seen == Seen::No
                    || variant.content.shapes().any(|shape| self.reaches_unseen(shape, passed))
            }),
            None => false,
        }
    }
}
