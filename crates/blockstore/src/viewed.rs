//! Records that are looked at in their bytes.

use serde::Deserialize;

/// A record that can be looked at where its bytes lie, without being made: of a text, say, its bytes are borrowed and none
/// are copied.
///
/// The view has the fields of the record in the record's order, and what a field owns it borrows: `&str` for a
/// [`String`], `&[u8]` for bytes, and the view of a record for a record. A text that is only stepped over may be bytes as
/// well: then nobody looks whether it is UTF-8. serde must read a view from what it writes for the
/// record, and that view must be the one that [`view`](Self::view) gives; a block of values is looked at by the one
/// way, a block of bytes by the other.
///
/// ```
/// use larder_blockstore::{BlockStore, HeapSize, StorageLevel, Viewed};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Sale {
///     product: String,
///     price: f64,
/// }
///
/// #[derive(Deserialize)]
/// struct SaleView<'a> {
///     product: &'a str,
///     price: f64,
/// }
///
/// impl Viewed for Sale {
///     type View<'a> = SaleView<'a>;
///
///     fn view(&self) -> SaleView<'_> {
///         SaleView { product: &self.product, price: self.price }
///     }
/// }
/// # impl HeapSize for Sale { fn heap_bytes(&self) -> usize { self.product.heap_bytes() } }
///
/// let store = BlockStore::builder().memory(1 << 20).build()?;
/// let sales = store.dataset::<Sale>("sales").level(StorageLevel::MEMORY_ONLY_SER).build()?;
/// let block = sales.get_or_compute(0, |out| {
///     let sale = |(product, price): (&str, f64)| Sale { product: product.to_owned(), price };
///     [("tea", 3.5), ("jam", 2.0), ("tea", 4.0)].map(sale).into_iter().try_for_each(|sale| out.push(sale))
/// })?;
/// let tea = block.fold_views(0.0, |sum, sale| if sale.product == "tea" { sum + sale.price } else { sum })?;
/// assert_eq!(tea, 7.5);
/// # Ok::<(), larder_blockstore::Error>(())
/// ```
pub trait Viewed: 'static {
    /// What is seen of a record.
    type View<'a>: Deserialize<'a>;

    /// Looks at a record that was made.
    fn view(&self) -> Self::View<'_>;
}

macro_rules! copied {
    ($($type:ty),*) => {$(
        /// Seen as itself.
        impl Viewed for $type {
            type View<'a> = Self;

            #[inline]
            fn view(&self) -> Self {
                *self
            }
        }
    )*};
}

copied!((), bool, char, u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64);

impl Viewed for String {
    type View<'a> = &'a str;

    #[inline]
    fn view(&self) -> &str {
        self
    }
}

impl<T: Viewed> Viewed for Option<T> {
    type View<'a> = Option<T::View<'a>>;

    #[inline]
    fn view(&self) -> Option<T::View<'_>> {
        self.as_ref().map(T::view)
    }
}

macro_rules! tuples {
    ($(($($name:ident $index:tt),+)),*) => {$(
        impl<$($name: Viewed),+> Viewed for ($($name,)+) {
            type View<'a> = ($($name::View<'a>,)+);

            #[inline]
            fn view(&self) -> Self::View<'_> {
                ($(self.$index.view(),)+)
            }
        }
    )*};
}

tuples!(
    (A 0),
    (A 0, B 1),
    (A 0, B 1, C 2),
    (A 0, B 1, C 2, D 3),
    (A 0, B 1, C 2, D 3, E 4),
    (A 0, B 1, C 2, D 3, E 4, F 5),
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6),
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
);
