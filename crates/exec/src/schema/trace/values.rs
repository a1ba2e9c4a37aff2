//! Fields, elements and entries: as many values as there are to be.

use std::cell::RefCell;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::Trace;
use super::reader::{Reader, Stop};
use crate::schema::shape::{Content, Shape};

/// Reads as many values as there are fields.
pub(super) fn fields<'de, V: Visitor<'de>>(
    trace: &RefCell<Trace>,
    small: bool,
    count: usize,
    visitor: V,
) -> (Vec<Shape>, Result<V::Value, Stop>) {
    let mut shapes = Vec::new();
    let value = visitor.visit_seq(Values { trace, small, left: count, shapes: &mut shapes });
    (shapes, value)
}

pub(super) fn named_fields(names: &'static [&'static str], shapes: Vec<Shape>) -> Content {
    let unseen = std::iter::repeat_with(|| Shape::Unknown);
    Content::NamedFields(names.iter().copied().zip(shapes.into_iter().chain(unseen)).collect())
}

pub(super) struct Values<'a> {
    pub(super) trace: &'a RefCell<Trace>,
    pub(super) small: bool,
    pub(super) left: usize,
    pub(super) shapes: &'a mut Vec<Shape>,
}

impl Values<'_> {
    fn read<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        let mut shape = Shape::Unknown;
        let value = seed.deserialize(Reader { trace: self.trace, shape: &mut shape, small: self.small });
        self.shapes.push(shape);
        value
    }
}

impl<'de> SeqAccess<'de> for Values<'_> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.read(seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for Values<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        self.read(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}
