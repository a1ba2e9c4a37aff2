//! Finds the shape of a type: reads values of it from nothing and notes what is asked for.
//!
//! A type is asked for what it is made of in the way a codec asks it. An enum shows one variant each time, so a type
//! is read until all have been seen. Where a type contains itself, the inner one is read as small as it can be.

use std::any::type_name;
use std::cell::RefCell;
use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Deserializer;
use serde::de::value::U32Deserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::shape::{Body, Content, Definition, Seen, Shape, Shapes, Variant};

/// The most values that are read in one go, those inside others counted too.
const VALUES_MAX: u32 = 20_000;
/// How deep they may stand in each other.
const DEPTH_MAX: usize = 100;
/// How often a type is read at most.
const READS_MAX: usize = 1_000;

/// The shape of `T`, if it was seen to its end.
pub(super) fn trace<T: DeserializeOwned>() -> Option<Shapes> {
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

/// Why reading ended early.
#[derive(Debug)]
struct Stop;

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
struct Reader<'a> {
    trace: &'a RefCell<Trace>,
    shape: &'a mut Shape,
    /// Whether the value is inside one of its own type, and so to be as small as it can be.
    small: bool,
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

/// Reads as many values as there are fields.
fn fields<'de, V: Visitor<'de>>(
    trace: &RefCell<Trace>,
    small: bool,
    count: usize,
    visitor: V,
) -> (Vec<Shape>, Result<V::Value, Stop>) {
    let mut shapes = Vec::new();
    let value = visitor.visit_seq(Values { trace, small, left: count, shapes: &mut shapes });
    (shapes, value)
}

fn named_fields(names: &'static [&'static str], shapes: Vec<Shape>) -> Content {
    let unseen = std::iter::repeat_with(|| Shape::Unknown);
    Content::NamedFields(names.iter().copied().zip(shapes.into_iter().chain(unseen)).collect())
}

struct Values<'a> {
    trace: &'a RefCell<Trace>,
    small: bool,
    left: usize,
    shapes: &'a mut Vec<Shape>,
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

/// Reads one variant of an enum.
struct OneVariant<'a> {
    trace: &'a RefCell<Trace>,
    index: usize,
    variant: usize,
    small: bool,
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
        deserialize_str visit_str "", "text";
        deserialize_string visit_string String::new(), "text";
        deserialize_bytes visit_bytes &[], "bytes";
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
