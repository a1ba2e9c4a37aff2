//! How the values of a key become one combined value.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::Portable;
use crate::error::TaskError;
use crate::spill::{allocation_bytes, heap_bytes};

/// One input after the other, in order, into a combined value.
pub(crate) trait Step<X: Portable, C: Portable>: 'static {
    /// The combined value of one input.
    fn first(&self, input: X) -> C;

    /// As [`first`](Self::first), of an input that stays where it is.
    fn first_ref(&self, input: &X) -> C {
        self.first(input.clone())
    }

    /// One more input.
    fn add(&self, combined: C, input: X) -> C;

    /// As [`add`](Self::add), of an input that stays where it is.
    fn add_ref(&self, combined: C, input: &X) -> C {
        self.add(combined, input.clone())
    }

    /// What a combined value owns on the heap.
    fn heap_bytes(&self, combined: &C) -> usize {
        heap_bytes(combined)
    }

    /// About how much more it will own after adding `input`. Measured anew before anything is spilled for it.
    fn growth(&self, _combined: &C, input: &X) -> usize {
        if std::mem::needs_drop::<C>() { size_of::<X>() + heap_bytes(input) } else { 0 }
    }

    /// How many parts [`take_apart`](Self::take_apart) makes of it.
    fn parts(&self, _combined: &C) -> u64 {
        1
    }

    /// Takes a combined value apart, as far as that changes no result, so that it can go to disk: adding the parts in
    /// order to nothing gives it again.
    fn take_apart(
        &self,
        combined: C,
        part: &mut dyn FnMut(Part<X, C>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        part(Part::Combined(combined))
    }
}

/// What is on disk of a key.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Part<X, C> {
    /// An input that was not added yet.
    Input(X),
    /// Inputs that were.
    Combined(C),
}

/// How values become a combined value, in two steps.
pub(crate) trait Aggregate<V, C>: Send + Sync + 'static {
    /// The combined value of one value.
    fn first(&self, value: &V) -> C;

    /// One more value.
    fn add(&self, combined: C, value: &V) -> C;

    /// Two combined values, the left one of earlier records.
    fn merge(&self, left: C, right: C) -> C;

    /// As [`first`](Self::first), of a value that may be kept.
    fn first_owned(&self, value: V) -> C {
        self.first(&value)
    }
}

/// Adds single values.
pub(crate) struct Adding<A>(pub(crate) Arc<A>);

impl<V: Portable, C: Portable, A: Aggregate<V, C>> Step<V, C> for Adding<A> {
    fn first(&self, value: V) -> C {
        self.0.first_owned(value)
    }

    fn first_ref(&self, value: &V) -> C {
        self.0.first(value)
    }

    fn add(&self, combined: C, value: V) -> C {
        self.0.add(combined, &value)
    }

    fn add_ref(&self, combined: C, value: &V) -> C {
        self.0.add(combined, value)
    }
}

/// Merges values that were combined elsewhere.
pub(crate) struct Merging<V, A>(pub(crate) Arc<A>, pub(crate) PhantomData<fn(V)>);

impl<V: 'static, C: Portable, A: Aggregate<V, C>> Step<C, C> for Merging<V, A> {
    fn first(&self, combined: C) -> C {
        combined
    }

    fn add(&self, left: C, right: C) -> C {
        self.0.merge(left, right)
    }
}

/// Keeps values in the order in which they come.
pub(crate) struct Grouping;

impl<V: Portable> Step<V, Vec<V>> for Grouping {
    fn first(&self, value: V) -> Vec<V> {
        vec![value]
    }

    fn add(&self, mut values: Vec<V>, value: V) -> Vec<V> {
        values.push(value);
        values
    }

    fn heap_bytes(&self, values: &Vec<V>) -> usize {
        group_bytes(values)
    }

    fn growth(&self, values: &Vec<V>, value: &V) -> usize {
        push_bytes(values) + heap_bytes(value)
    }

    fn parts(&self, values: &Vec<V>) -> u64 {
        values.len() as u64
    }

    fn take_apart(
        &self,
        values: Vec<V>,
        part: &mut dyn FnMut(Part<V, Vec<V>>) -> Result<(), TaskError>,
    ) -> Result<(), TaskError> {
        values.into_iter().try_for_each(|value| part(Part::Input(value)))
    }
}

/// What a vector and its values own.
pub(crate) fn group_bytes<V: Portable>(values: &Vec<V>) -> usize {
    let slots = allocation_bytes(values.capacity().saturating_mul(size_of::<V>()));
    if std::mem::needs_drop::<V>() { slots + values.iter().map(heap_bytes).sum::<usize>() } else { slots }
}

/// By how much a vector grows for one more value.
#[inline]
pub(crate) fn push_bytes<V>(values: &Vec<V>) -> usize {
    let capacity = values.capacity();
    if values.len() < capacity {
        return 0;
    }
    let bytes = |capacity: usize| allocation_bytes(capacity.saturating_mul(size_of::<V>()));
    bytes(capacity.saturating_mul(2).max(4)) - bytes(capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_grow_by_what_was_foretold() {
        let mut values: Vec<String> = Grouping.first("first".to_owned());
        let mut bytes = Grouping.heap_bytes(&values);
        for n in 0..100 {
            let value = "x".repeat(n);
            bytes += Grouping.growth(&values, &value);
            values = Grouping.add(values, value);
            assert_eq!(bytes, Grouping.heap_bytes(&values), "{n} values");
        }
    }
}
