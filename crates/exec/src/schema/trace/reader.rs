//! One value on its way to whoever asks for it.

use std::any::type_name;
use std::cell::RefCell;
use std::fmt::{self, Display};

use serde::Deserializer;
use serde::de::{self, Visitor};

use super::Trace;
use super::values::{Values, fields, named_fields};
use super::variant::OneVariant;
use crate::schema::shape::{Body, Content, Seen, Shape, Variant};

/// The most values that are read in one go, those inside others counted too.
const VALUES_MAX: u32 = 20_000;
/// How deep they may stand in each other.
const DEPTH_MAX: usize = 100;

/// Why reading ended early.
#[derive(Debug)]
pub(super) struct Stop;

impl Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the type cannot be traced")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<M: Display>(_: M) -> Self {
        Self
    }
}

/// Gives one value and notes its shape.
pub(super) struct Reader<'a> {
    pub(super) trace: &'a RefCell<Trace>,
    pub(super) shape: &'a mut Shape,
    /// Whether the value is inside one of its own type, and so to be as small as it can be.
    pub(super) small: bool,
}

/// Notes that a value was read to its end when it drops.
struct Inside<'a>(&'a RefCell<Trace>);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().depth -= 1;
    }
}

impl<'a> Reader<'a> {
    fn enter(&self) -> Result<Inside<'a>, Stop> {
        let mut trace = self.trace.borrow_mut();
        trace.values += 1;
        if trace.values > VALUES_MAX || trace.depth >= DEPTH_MAX {
            return Err(Stop);
        }
        trace.depth += 1;
        Ok(Inside(self.trace))
    }

    /// Reads a struct: `read` gives its content beside its value.
    fn one<V>(
        self,
        rust_type: &'static str,
        name: &'static str,
        read: impl FnOnce(&'a RefCell<Trace>, bool) -> (Content, Result<V, Stop>),
    ) -> Result<V, Stop> {
        let _inside = self.enter()?;
        let (index, is_open) = self.trace.borrow_mut().define(rust_type, name, || Body::One(Content::Unit));
        *self.shape = Shape::Named(index);
        let (content, value) = read(self.trace, is_open);
        let mut trace = self.trace.borrow_mut();
        trace.open.pop();
        if !is_open && let Some(definition) = trace.definitions.get_mut(index) {
            definition.body = Body::One(content);
        }
        value
    }
}

macro_rules! leaves {
    ($($deserialize:ident $visit:ident $value:expr, $name:literal;)*) => {
        $(fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            let _inside = self.enter()?;
            *self.shape = Shape::Leaf($name);
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Stop;

    // Numbers are 1, because some types refuse 0.
    leaves! {
        deserialize_bool visit_bool false, "bool";
        deserialize_i8 visit_i8 1, "i8";
        deserialize_i16 visit_i16 1, "i16";
        deserialize_i32 visit_i32 1, "i32";
        deserialize_i64 visit_i64 1, "i64";
        deserialize_i128 visit_i128 1, "i128";
        deserialize_u8 visit_u8 1, "u8";
        deserialize_u16 visit_u16 1, "u16";
        deserialize_u32 visit_u32 1, "u32";
        deserialize_u64 visit_u64 1, "u64";
        deserialize_u128 visit_u128 1, "u128";
        deserialize_f32 visit_f32 1.0, "f32";
        deserialize_f64 visit_f64 1.0, "f64";
        deserialize_char visit_char 'a', "char";
        deserialize_str visit_borrowed_str "", "text";
        deserialize_string visit_string String::new(), "text";
        deserialize_bytes visit_borrowed_bytes &[], "bytes";
        deserialize_byte_buf visit_byte_buf Vec::new(), "bytes";
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        *self.shape = Shape::Leaf("()");
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let _inside = self.enter()?;
        if self.small {
            return visitor.visit_none();
        }
        let mut inner = Shape::Unknown;
        let value = visitor.visit_some(Reader { trace: self.trace, shape: &mut inner, small: false });
        *self.shape = Shape::Option(Box::new(inner));
        value
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let _inside = self.enter()?;
        let (mut shapes, value) = fields(self.trace, self.small, usize::from(!self.small), visitor);
        *self.shape = Shape::Sequence(Box::new(shapes.pop().unwrap_or_default()));
        value
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let _inside = self.enter()?;
        let mut shapes = Vec::new();
        let entries = usize::from(!self.small);
        let values = Values { trace: self.trace, small: self.small, left: entries, shapes: &mut shapes };
        let value = visitor.visit_map(values);
        let mut shapes = shapes.into_iter();
        let mut next = || Box::new(shapes.next().unwrap_or_default());
        *self.shape = Shape::Map(next(), next());
        value
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        let _inside = self.enter()?;
        let (shapes, value) = fields(self.trace, self.small, len, visitor);
        *self.shape = Shape::Tuple(shapes);
        value
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.one(type_name::<V::Value>(), name, |_, _| (Content::Unit, visitor.visit_unit()))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.one(type_name::<V::Value>(), name, |trace, small| {
            let mut shape = Shape::Unknown;
            let value = visitor.visit_newtype_struct(Reader { trace, shape: &mut shape, small });
            (Content::Fields(vec![shape]), value)
        })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.one(type_name::<V::Value>(), name, |trace, small| {
            let (shapes, value) = fields(trace, small, len, visitor);
            (Content::Fields(shapes), value)
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.one(type_name::<V::Value>(), name, |trace, small| {
            let (shapes, value) = fields(trace, small, names.len(), visitor);
            (named_fields(names, shapes), value)
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let _inside = self.enter()?;
        let unseen = |name: &&'static str| Variant { name, content: Content::Unit, seen: Seen::No };
        let body = || Body::Enum(names.iter().map(unseen).collect());
        let mut trace = self.trace.borrow_mut();
        let (index, is_open) = trace.define(type_name::<V::Value>(), name, body);
        *self.shape = Shape::Named(index);
        let is_new = |trace: &mut Trace, at: usize| {
            trace.variants(index).get(at).is_some_and(|variant| variant.seen == Seen::Begun)
        };
        let variant = trace.choose(index, is_open).ok_or(Stop)?;
        let small = is_open && !is_new(&mut trace, variant);
        drop(trace);
        let value = visitor.visit_enum(OneVariant { trace: self.trace, index, variant, small });
        self.trace.borrow_mut().open.pop();
        value
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
