//! How much heap a record owns, asked of serde: records of a shuffle need not implement `HeapSize`.

use std::fmt;

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// About how many bytes `record` owns on the heap, with what the allocator adds. Nothing, without a look at it, for
/// types that own nothing.
///
/// What lies in an allocation is as large as its parts are, which serde tells one by one. So only what a type hides
/// from serde is missed, and capacity that is not used.
#[inline]
pub(crate) fn heap_bytes<T: Serialize>(record: &T) -> usize {
    if !std::mem::needs_drop::<T>() {
        return 0;
    }
    let mut measure = Measure::default();
    // An error is the codec's to report, should the record ever be encoded.
    let _ = record.serialize(&mut measure);
    // What is behind a `Box` looks as if it were inline, but it is more than fits.
    measure.heap + measure.inline.saturating_sub(size_of::<T>())
}

/// What an allocation of so many bytes takes: glibc rounds up to 16, adds 8, and gives no less than 32.
#[inline]
pub(crate) fn allocation_bytes(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes.saturating_add(8 + 15) & !15).max(32) }
}

#[derive(Default)]
struct Measure {
    /// Bytes of allocations.
    heap: usize,
    /// Bytes of the parts of the value itself, without padding.
    inline: usize,
}

/// A string, a vector or a map has about this size itself.
const OWNER_BYTES: usize = size_of::<Vec<u8>>();

impl Measure {
    #[inline]
    fn leaf(&mut self, bytes: usize) -> Result<(), fmt::Error> {
        self.inline += bytes;
        Ok(())
    }

    #[inline]
    fn text(&mut self, bytes: usize) -> Result<(), fmt::Error> {
        self.inline += OWNER_BYTES;
        self.heap += allocation_bytes(bytes);
        Ok(())
    }
}

macro_rules! leaves {
    ($($method:ident: $type:ty),*) => {$(
        #[inline]
        fn $method(self, _: $type) -> Result<(), fmt::Error> {
            self.leaf(size_of::<$type>())
        }
    )*};
}

impl<'a> Serializer for &'a mut Measure {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = Inline<'a>;
    type SerializeTupleStruct = Inline<'a>;
    type SerializeTupleVariant = Inline<'a>;
    type SerializeMap = Elements<'a>;
    type SerializeStruct = Inline<'a>;
    type SerializeStructVariant = Inline<'a>;

    leaves!(
        serialize_bool: bool, serialize_char: char, serialize_f32: f32, serialize_f64: f64,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128
    );

    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), fmt::Error> {
        self.text(text.len())
    }

    #[inline]
    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), fmt::Error> {
        self.text(bytes.len())
    }

    fn serialize_none(self) -> Result<(), fmt::Error> {
        self.leaf(8)
    }

    #[inline]
    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), fmt::Error> {
        self.inline += 1;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), fmt::Error> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), fmt::Error> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), fmt::Error> {
        self.leaf(1)
    }

    #[inline]
    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_seq(self, _: Option<usize>) -> Result<Elements<'a>, fmt::Error> {
        Ok(Elements::new(self))
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Inline<'a>, fmt::Error> {
        Ok(Inline(self))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Inline<'a>, fmt::Error> {
        Ok(Inline(self))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Inline<'a>, fmt::Error> {
        Ok(Inline(self))
    }

    #[inline]
    fn serialize_map(self, _: Option<usize>) -> Result<Elements<'a>, fmt::Error> {
        Ok(Elements::new(self))
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Inline<'a>, fmt::Error> {
        Ok(Inline(self))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Inline<'a>, fmt::Error> {
        Ok(Inline(self))
    }

    fn collect_str<T: ?Sized + fmt::Display>(self, value: &T) -> Result<(), fmt::Error> {
        // Made for the encoding: the value itself may own nothing, and nothing tells.
        self.leaf(size_of_val(value))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Elements in an allocation of their own.
struct Elements<'a> {
    measure: &'a mut Measure,
    /// What was inline before.
    outside: usize,
    count: usize,
    /// Of the largest element.
    element_bytes: usize,
}

impl<'a> Elements<'a> {
    fn new(measure: &'a mut Measure) -> Self {
        Self { outside: measure.inline, measure, count: 0, element_bytes: 0 }
    }

    #[inline]
    fn part<T: ?Sized + Serialize>(&mut self, part: &T) -> Result<(), fmt::Error> {
        part.serialize(&mut *self.measure)
    }

    #[inline]
    fn end_element(&mut self) {
        self.count += 1;
        self.element_bytes = self.element_bytes.max(self.measure.inline - self.outside);
        self.measure.inline = self.outside;
    }

    /// Ends an allocation with so many slots an element.
    fn end(self, slots: usize) {
        let element_bytes = match self.element_bytes {
            0 => 0,
            few @ 1..8 => few.next_power_of_two(),
            many => many.next_multiple_of(8),
        };
        self.measure.heap += allocation_bytes(self.count.saturating_mul(element_bytes).saturating_mul(slots));
        self.measure.inline = self.outside + OWNER_BYTES;
    }
}

impl SerializeSeq for Elements<'_> {
    type Ok = ();
    type Error = fmt::Error;

    #[inline]
    fn serialize_element<T: ?Sized + Serialize>(&mut self, element: &T) -> Result<(), fmt::Error> {
        self.part(element)?;
        self.end_element();
        Ok(())
    }

    #[inline]
    fn end(self) -> Result<(), fmt::Error> {
        Elements::end(self, 1);
        Ok(())
    }
}

impl SerializeMap for Elements<'_> {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), fmt::Error> {
        self.part(key)
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), fmt::Error> {
        self.part(value)?;
        self.end_element();
        Ok(())
    }

    /// Maps leave about half of their slots empty.
    fn end(self) -> Result<(), fmt::Error> {
        Elements::end(self, 2);
        Ok(())
    }
}

/// Fields that lie in their owner.
struct Inline<'a>(&'a mut Measure);

macro_rules! inline {
    ($($trait:ident $method:ident),*) => {$(
        impl $trait for Inline<'_> {
            type Ok = ();
            type Error = fmt::Error;

            #[inline]
            fn $method<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), fmt::Error> {
                value.serialize(&mut *self.0)
            }

            #[inline]
            fn end(self) -> Result<(), fmt::Error> {
                Ok(())
            }
        }
    )*};
}

macro_rules! inline_fields {
    ($($trait:ident),*) => {$(
        impl $trait for Inline<'_> {
            type Ok = ();
            type Error = fmt::Error;

            #[inline]
            fn serialize_field<T: ?Sized + Serialize>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), fmt::Error> {
                value.serialize(&mut *self.0)
            }

            #[inline]
            fn end(self) -> Result<(), fmt::Error> {
                Ok(())
            }
        }
    )*};
}

inline!(
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);
inline_fields!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_measured_by_what_they_own() {
        assert_eq!(heap_bytes(&(7_i64, [2.5_f64; 4], 'x', Some(1_u8))), 0);
        assert_eq!(heap_bytes(&("a".to_owned(), 1)), 32);
        assert_eq!(heap_bytes(&"x".repeat(1_000)), 1_008);
        assert_eq!(heap_bytes(&String::new()), 0);
        assert_eq!(heap_bytes(&vec![1_i64; 100]), 816);
        assert_eq!(heap_bytes(&vec![String::new(); 100]), 2_416, "empty strings have slots all the same");
        assert_eq!(heap_bytes(&vec![vec![1_u8; 100]; 10]), 256 + 10 * 112);
        assert_eq!(heap_bytes(&vec![Some(1_i64), None]), 48, "as large as the largest");
        assert_eq!(heap_bytes(&vec![(1_i64, true); 10]), 176);
        assert_eq!(heap_bytes(&Box::new([7_u64; 32])), 248);
    }
}
