//! How much heap a record owns.

use get_size2::GetSize;

/// The bytes a record owns on the heap, beyond its own `size_of`: what a block of values is charged for.
///
/// Exact, by capacity, for strings, vectors, options, boxes, tuples and nested structs of them. Derive it with
/// the [`get-size2`](https://docs.rs/get-size2) crate (`#[derive(GetSize)]`), or write it by hand:
///
/// ```
/// use larder_blockstore::HeapSize;
///
/// struct Edge {
///     from: String,
///     to: Option<String>,
/// }
///
/// impl HeapSize for Edge {
///     fn heap_bytes(&self) -> usize {
///         self.from.heap_bytes() + self.to.heap_bytes()
///     }
/// }
///
/// let edge = Edge { from: String::with_capacity(10), to: None };
/// assert_eq!(edge.heap_bytes(), 10);
/// ```
pub trait HeapSize {
    /// Bytes owned on the heap, not counting `size_of::<Self>()`. Called once for each record that is kept.
    fn heap_bytes(&self) -> usize;
}

impl<T: GetSize> HeapSize for T {
    #[inline]
    fn heap_bytes(&self) -> usize {
        self.get_heap_size()
    }
}

#[cfg(test)]
mod tests {
    use super::HeapSize;

    #[test]
    fn nested_records_are_measured_by_capacity() {
        let mut names = Vec::with_capacity(4);
        names.push((String::with_capacity(100), 7_i32));
        let per_slot = size_of::<(String, i32)>();
        assert_eq!(names.heap_bytes(), 4 * per_slot + 100);
        assert_eq!((1_i64, Some(names), Option::<String>::None).heap_bytes(), 4 * per_slot + 100);
        assert_eq!((1_u8, [2.5_f64; 4], 'x').heap_bytes(), 0);
    }
}
