//! Shapes, and how they are written down.

use std::fmt::Write;

/// What serde is asked for when a value is read.
#[derive(Clone, Debug, Default)]
pub(super) enum Shape {
    /// Not seen.
    #[default]
    Unknown,
    Leaf(&'static str),
    Option(Box<Self>),
    Sequence(Box<Self>),
    Map(Box<Self>, Box<Self>),
    Tuple(Vec<Self>),
    /// A type that has a name: this one of the definitions.
    Named(usize),
}

/// A struct or an enum.
#[derive(Debug)]
pub(super) struct Definition {
    /// Which type: its name in Rust, which tells apart what serde calls the same.
    pub(super) rust_type: &'static str,
    /// What serde calls it.
    pub(super) name: &'static str,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    One(Content),
    Enum(Vec<Variant>),
}

#[derive(Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) content: Content,
    pub(super) seen: Seen,
}

/// How far a variant was traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    No,
    Begun,
    /// As how-manieth of its type.
    Done(usize),
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Unit,
    /// One thing without a name, and a tuple.
    Fields(Vec<Shape>),
    NamedFields(Vec<(&'static str, Shape)>),
}

impl Content {
    pub(super) fn shapes(&self) -> Box<dyn Iterator<Item = &Shape> + '_> {
        match self {
            Self::Unit => Box::new(std::iter::empty()),
            Self::Fields(shapes) => Box::new(shapes.iter()),
            Self::NamedFields(fields) => Box::new(fields.iter().map(|(_, shape)| shape)),
        }
    }
}

/// The shape of a type, with all it refers to.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    pub(super) root: Shape,
    pub(super) definitions: Vec<Definition>,
}

impl Shape {
    fn is_whole(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::Leaf(_) | Self::Named(_) => true,
            Self::Option(inner) | Self::Sequence(inner) => inner.is_whole(),
            Self::Map(key, value) => key.is_whole() && value.is_whole(),
            Self::Tuple(shapes) => shapes.iter().all(Self::is_whole),
        }
    }
}

impl Shapes {
    /// Whether nothing in it was left unseen.
    pub(super) fn is_whole(&self) -> bool {
        self.root.is_whole()
            && self.definitions.iter().all(|definition| match &definition.body {
                Body::One(content) => content.shapes().all(Shape::is_whole),
                Body::Enum(variants) => variants.iter().all(|variant| {
                    matches!(variant.seen, Seen::Done(_)) && variant.content.shapes().all(Shape::is_whole)
                }),
            })
    }

    /// With the names of types, fields and variants. A type that came before is written as `^` and its number, in
    /// the order in which they come.
    pub(super) fn named(&self) -> String {
        let mut text = Named { shapes: self, written: Vec::new(), text: String::new() };
        text.shape(&self.root);
        text.text
    }

    /// What decides the bytes of a value: neither names, nor how fields are nested in each other.
    pub(super) fn bare(&self) -> String {
        let mut text = Bare { shapes: self, open: Vec::new(), text: String::new() };
        text.shape(&self.root);
        text.text
    }
}

struct Named<'a> {
    shapes: &'a Shapes,
    /// The definitions in the order in which they were written.
    written: Vec<usize>,
    text: String,
}

impl Named<'_> {
    fn shape(&mut self, shape: &Shape) {
        match shape {
            Shape::Unknown => self.text.push('?'),
            Shape::Leaf(name) => self.text.push_str(name),
            Shape::Option(inner) => self.between("option<", &[inner], ">"),
            Shape::Sequence(inner) => self.between("[", &[inner], "]"),
            Shape::Map(key, value) => {
                self.between("{", &[key], ": ");
                self.between("", &[value], "}");
            }
            Shape::Tuple(shapes) => self.fields(shapes),
            Shape::Named(index) => self.definition(*index),
        }
    }

    fn between(&mut self, before: &str, shapes: &[&Shape], after: &str) {
        self.text.push_str(before);
        for (index, shape) in shapes.iter().enumerate() {
            self.text.push_str(if index > 0 { ", " } else { "" });
            self.shape(shape);
        }
        self.text.push_str(after);
    }

    fn fields(&mut self, shapes: &[Shape]) {
        if let [Shape::Leaf(first), rest @ ..] = shapes
            && rest.len() > 3
            && rest.iter().all(|shape| matches!(shape, Shape::Leaf(leaf) if leaf == first))
        {
            // Writing to a string does not fail.
            let _ = write!(self.text, "({first} * {})", shapes.len());
            return;
        }
        self.between("(", &shapes.iter().collect::<Vec<_>>(), ")");
    }

    fn definition(&mut self, index: usize) {
        if let Some(number) = self.written.iter().position(|written| *written == index) {
            let _ = write!(self.text, "^{number}");
            return;
        }
        self.written.push(index);
        let Some(definition) = self.shapes.definitions.get(index) else { return };
        match &definition.body {
            Body::One(content) => self.content(definition.name, content),
            Body::Enum(variants) => {
                let _ = write!(self.text, "enum {} {{ ", definition.name);
                for (index, variant) in variants.iter().enumerate() {
                    self.text.push_str(if index > 0 { ", " } else { "" });
                    self.content(variant.name, &variant.content);
                }
                self.text.push_str(" }");
            }
        }
    }

    fn content(&mut self, name: &str, content: &Content) {
        self.text.push_str(name);
        match content {
            Content::Unit => {}
            Content::Fields(shapes) => self.fields(shapes),
            Content::NamedFields(fields) => {
                self.text.push_str(" { ");
                for (index, (name, shape)) in fields.iter().enumerate() {
                    let _ = write!(self.text, "{}{name}: ", if index > 0 { ", " } else { "" });
                    self.shape(shape);
                }
                self.text.push_str(" }");
            }
        }
    }
}

struct Bare<'a> {
    shapes: &'a Shapes,
    /// The definitions that are being written, one in the other: a type that contains itself ends here.
    open: Vec<usize>,
    text: String,
}

impl Bare<'_> {
    fn shape(&mut self, shape: &Shape) {
        match shape {
            Shape::Unknown => self.text.push('?'),
            Shape::Leaf("()") => {}
            Shape::Leaf(name) => {
                let _ = write!(self.text, "{name} ");
            }
            Shape::Option(inner) => self.between("<", inner, ">"),
            Shape::Sequence(inner) => self.between("[", inner, "]"),
            Shape::Map(key, value) => {
                self.between("{", key, ":");
                self.between("", value, "}");
            }
            Shape::Tuple(shapes) => shapes.iter().for_each(|shape| self.shape(shape)),
            Shape::Named(index) => self.definition(*index),
        }
    }

    fn between(&mut self, before: &str, shape: &Shape, after: &str) {
        self.text.push_str(before);
        self.shape(shape);
        self.text.push_str(after);
    }

    fn definition(&mut self, index: usize) {
        if let Some(number) = self.open.iter().position(|open| *open == index) {
            let _ = write!(self.text, "^{number}");
            return;
        }
        let Some(definition) = self.shapes.definitions.get(index) else { return };
        self.open.push(index);
        match &definition.body {
            Body::One(content) => content.shapes().for_each(|shape| self.shape(shape)),
            Body::Enum(variants) => {
                self.text.push('(');
                for variant in variants {
                    variant.content.shapes().for_each(|shape| self.shape(shape));
                    self.text.push('|');
                }
                self.text.push(')');
            }
        }
        self.open.pop();
    }
}
