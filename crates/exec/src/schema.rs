//! What records are made of: their shape as serde sees it, so that a checkpoint is opened as what it was written.

mod shape;
mod trace;

use std::any::type_name;

use larder_blockstore::Viewed;
use larder_checkpoint::RecordSchema;
use serde::de::DeserializeOwned;
use twox_hash::XxHash3_64;

use self::shape::Shapes;
use self::trace::trace;

/// The most bytes of a description that a manifest takes in; the fingerprint is of all of it.
const DESCRIPTION_BYTES_MAX: usize = 2 << 10;

/// The schema of `T`; none where its shape cannot be traced to its end, because `T` refuses the values it is tried
/// with or asks to be told its type by the bytes.
pub(crate) fn schema<T: DeserializeOwned>() -> Option<RecordSchema> {
    let shapes = trace::<T>()?;
    let (named, bare) = (shapes.named(), shapes.bare());
    let mut description = named.clone();
    if description.len() > DESCRIPTION_BYTES_MAX {
        description.truncate(named.floor_char_boundary(DESCRIPTION_BYTES_MAX));
        description.push_str("...");
    }
    Some(RecordSchema {
        rust_type: type_name::<T>().to_owned(),
        description,
        fingerprint: XxHash3_64::oneshot(named.as_bytes()),
        layout: XxHash3_64::oneshot(bare.as_bytes()),
    })
}

/// Is what serde writes for a record what it reads as its view? If not, or if that cannot be seen, says why.
pub(crate) fn check_view<T: DeserializeOwned + Viewed>() -> Result<(), String> {
    let (of_record, of_view) = (trace::<T>(), trace::<T::View<'static>>());
    let (record, view) = (type_name::<T>(), type_name::<T::View<'static>>());
    let (Some(of_record), Some(of_view)) = (of_record.as_ref(), of_view.as_ref()) else {
        let untraced = if of_record.is_none() { record } else { view };
        return Err(format!("the shape of {untraced} cannot be seen from its type: use `map`"));
    };
    // All three are written as a length and so many bytes.
    let layout = |shapes: &Shapes| shapes.bare().replace("[u8 ]", "bytes ").replace("text ", "bytes ");
    if layout(of_record) == layout(of_view) {
        return Ok(());
    }
    let (of_record, of_view) = (of_record.named(), of_view.named());
    Err(format!("{view} is no view of {record}: it has the shape {of_view}, and not {of_record}"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::num::NonZeroU32;
    use std::time::Duration;

    use serde::{Deserialize, Serialize};

    use super::*;

    fn described<T: DeserializeOwned>() -> String {
        schema::<T>().map_or("untraced".to_owned(), |schema| schema.description)
    }

    #[derive(Serialize, Deserialize)]
    struct Rank {
        value: f64,
        iterations: u32,
    }

    #[derive(Serialize, Deserialize)]
    struct Wrapped<T>(T);

    #[derive(Serialize, Deserialize)]
    struct Marker;

    #[derive(Serialize, Deserialize)]
    enum Event {
        Started,
        Moved(i64, i64),
        Named { name: String, state: Option<State> },
        Nested(State),
    }

    #[derive(Serialize, Deserialize)]
    enum State {
        On,
        Off(Vec<u8>),
        Broken { since: Duration },
    }

    #[derive(Serialize, Deserialize)]
    struct Tree {
        value: i32,
        children: Vec<Tree>,
        parent: Option<Box<Tree>>,
    }

    #[derive(Serialize, Deserialize)]
    enum Expression {
        Add(Box<Self>, Box<Self>),
        Negative(Box<Self>),
        Number(i64),
    }

    #[test]
    fn shapes_are_described_to_their_ends() {
        for (described, expected) in [
            (described::<i64>(), "i64"),
            (described::<(String, f64)>(), "(text, f64)"),
            (described::<Option<Vec<(u8, bool)>>>(), "option<[(u8, bool)]>"),
            (described::<BTreeMap<String, HashSet<char>>>(), "{text: [char]}"),
            (described::<[u8; 16]>(), "(u8 * 16)"),
            (described::<((), Marker)>(), "((), Marker)"),
            (described::<Rank>(), "Rank { value: f64, iterations: u32 }"),
            (described::<Wrapped<Wrapped<u8>>>(), "Wrapped(Wrapped(u8))"),
            (described::<NonZeroU32>(), "u32"),
            (described::<(Rank, Rank)>(), "(Rank { value: f64, iterations: u32 }, ^0)"),
            (
                described::<Event>(),
                "enum Event { Started, Moved(i64, i64), Named { name: text, state: option<enum State { On, \
                 Off([u8]), Broken { since: Duration { secs: u64, nanos: u32 } } }> }, Nested(^1) }",
            ),
            (described::<Tree>(), "Tree { value: i32, children: [^0], parent: option<^0> }"),
            (
                described::<Option<Box<Tree>>>(),
                "option<Tree { value: i32, children: [^0], parent: option<^0> }>",
            ),
            (described::<Expression>(), "enum Expression { Add(^0, ^0), Negative(^0), Number(i64) }"),
        ] {
            assert_eq!(described, expected);
        }
    }

    /// Not in the first variant: the way to what is nested has to be found again.
    #[derive(Serialize, Deserialize)]
    enum Late {
        Plain,
        Deep(Option<State>),
    }

    #[test]
    fn every_variant_is_found_wherever_it_is_nested() {
        assert!(described::<Vec<Late>>().contains("Deep(option<enum State { On, Off([u8]), Broken {"));
    }

    mod other {
        use super::{Deserialize, Serialize};

        /// The same in another place.
        #[derive(Serialize, Deserialize)]
        pub(super) struct Rank {
            value: f64,
            iterations: u32,
        }

        pub(super) mod swapped {
            use super::{Deserialize, Serialize};

            #[derive(Serialize, Deserialize)]
            pub(in crate::schema) struct Rank {
                iterations: f64,
                value: u32,
            }
        }
    }

    #[test]
    fn what_differs_by_name_alone_has_the_same_layout_and_what_moved_is_the_same() {
        let both = |schema: Option<RecordSchema>| schema.map(|schema| (schema.fingerprint, schema.layout));
        let rank = both(schema::<Rank>()).unwrap();
        assert_eq!(both(schema::<other::Rank>()), Some(rank));
        for (other, same_layout) in [
            (schema::<other::swapped::Rank>(), true),
            (schema::<(f64, u32)>(), true),
            (schema::<Wrapped<(f64, u32)>>(), true),
            (schema::<(f64, i32)>(), false),
            (schema::<(u32, f64)>(), false),
            (schema::<(f64, Option<u32>)>(), false),
            (schema::<(f64, u32, u8)>(), false),
            (schema::<Vec<(f64, u32)>>(), false),
        ] {
            let (fingerprint, layout) = both(other.clone()).unwrap();
            assert_ne!(fingerprint, rank.0, "{other:?}");
            assert_eq!(layout == rank.1, same_layout, "{other:?}");
        }
        assert_ne!(both(schema::<Event>()), both(schema::<State>()));
    }

    /// Manifests hold them: another way to write a shape down would need another name in the manifest.
    #[test]
    fn fingerprints_stay_what_they_were() {
        let schema = schema::<Rank>().unwrap();
        let hashes = [schema.fingerprint, schema.layout].map(|hash| format!("{hash:016x}"));
        assert_eq!(hashes, ["d67a320e093c2fd3", "b4469f921ae20e1b"]);
    }

    /// Refuses whatever it is tried with.
    #[derive(Serialize)]
    struct Picky;

    impl<'de> Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
            let text = String::deserialize(input)?;
            if text == "magic" { Ok(Self) } else { Err(serde::de::Error::custom("no magic")) }
        }
    }

    #[test]
    fn what_cannot_be_traced_to_its_end_has_no_schema() {
        assert!(schema::<(i64, Picky)>().is_none());
        assert!(schema::<serde::de::IgnoredAny>().is_none());
    }

    #[test]
    fn a_long_description_is_cut_and_its_fingerprint_is_not() {
        type Long<A> = ([A; 32], Tree, Event, Expression, Late, (Rank, BTreeMap<String, A>));
        type Longer<A> = (Long<A>, Wrapped<Long<(A, A)>>, Wrapped<Long<(A, A, A)>>, Vec<Long<Option<A>>>);
        type Longest<A> = (Longer<A>, Longer<(A, String)>, Longer<Wrapped<A>>, Longer<(A, Vec<A>)>);
        let (signed, unsigned) = (schema::<(Longest<u8>, i64)>(), schema::<(Longest<u8>, u64)>());
        let (signed, unsigned) = (signed.unwrap(), unsigned.unwrap());
        assert!(signed.description.len() <= DESCRIPTION_BYTES_MAX + 3 && signed.description.ends_with("..."));
        assert_eq!(signed.description, unsigned.description);
        assert_ne!(signed.fingerprint, unsigned.fingerprint);
    }
}
