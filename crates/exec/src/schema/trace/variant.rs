//! One variant of an enum.

use std::cell::RefCell;

use serde::de::value::U32Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, IntoDeserializer, VariantAccess, Visitor};

use super::Trace;
use super::reader::{Reader, Stop};
use super::values::{fields, named_fields};
use crate::schema::shape::{Content, Seen, Shape};

/// Reads one variant of an enum.
pub(super) struct OneVariant<'a> {
    pub(super) trace: &'a RefCell<Trace>,
    pub(super) index: usize,
    pub(super) variant: usize,
    pub(super) small: bool,
}

impl OneVariant<'_> {
    fn note(&self, content: Content, is_read: bool) {
        let mut trace = self.trace.borrow_mut();
        let order = trace.variants_done;
        trace.variants_done += 1;
        if let Some(variant) = trace.variants(self.index).get_mut(self.variant) {
            if is_read && variant.seen == Seen::Begun {
                variant.seen = Seen::Done(order);
                variant.content = content;
            } else if is_read && !self.small {
                variant.content = content;
            }
        }
    }
}

impl<'de, 'a> EnumAccess<'de> for OneVariant<'a> {
    type Error = Stop;
    type Variant = OneVariant<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        let index: U32Deserializer<Stop> = u32::try_from(self.variant).map_err(|_| Stop)?.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for OneVariant<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.note(Content::Unit, true);
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        let mut shape = Shape::Unknown;
        let value = seed.deserialize(Reader { trace: self.trace, shape: &mut shape, small: self.small });
        self.note(Content::Fields(vec![shape]), value.is_ok());
        value
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        let (shapes, value) = fields(self.trace, self.small, len, visitor);
        self.note(Content::Fields(shapes), value.is_ok());
        value
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let (shapes, value) = fields(self.trace, self.small, names.len(), visitor);
        self.note(named_fields(names, shapes), value.is_ok());
        value
    }
}
