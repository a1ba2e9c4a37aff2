//! Checkpoints opened again: by name, generation and address, with their partitioner, as the records they were.

use std::fs;
use std::sync::Arc;

use larder_blockstore::codec::{Bincode, CodecId};
use larder_checkpoint::Spec;
use larder_exec::{CheckpointName, Error, Partitioner, PeriodicCheckpointer};

use crate::support::{Done, context};

#[test]
fn a_checkpoint_is_opened_by_name_with_its_partitioner_and_type() -> Done {
    let directory = tempfile::tempdir()?;
    let writer = context(directory.path())?;
    let sums = writer.range(0..100, 4)?.map(|n| (n % 10, *n)).reduce_by_key(|a, b| a + b)?.named("sums");
    sums.checkpoint()?;
    let reader = context(directory.path())?;
    let opened = reader.open_checkpoint::<(i64, i64)>("sums")?;
    assert_eq!(
        (opened.name(), opened.partitioner()),
        ("sums".to_owned(), Some(&Partitioner::Hash { partitions: 4 }))
    );
    // A join with it shuffles the other side only.
    let joined = opened.join(&reader.range(0..5, 2)?.map(|n| (*n, n * n)))?;
    assert_eq!(joined.to_debug_string()?.matches("+-").count(), 1);
    assert_eq!(joined.count()?, 5);
    let wrong = reader.open_checkpoint::<(i64, String)>("sums").map_err(|e| e.to_string());
    assert!(wrong.is_err_and(|m| m.contains("(i64, i64)") && m.contains("String")));
    let missing = reader.open_checkpoint::<i64>("elsewhere").map_err(|e| e.to_string());
    assert!(missing.is_err_and(|m| m.contains("`elsewhere`")));
    assert_eq!(reader.latest_checkpoint("elsewhere")?, None);
    assert!(reader.open_latest_checkpoint::<i64>("elsewhere")?.is_none());
    sums.checkpoint()?;
    assert_eq!(reader.latest_checkpoint("sums")?.map(|info| info.generation), Some(2));
    Ok(())
}

/// The same records, as two programs may call them.
mod yesterday {
    #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    pub(crate) struct Rank(pub(crate) f64);
}
mod today {
    #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    pub(crate) struct Rank(pub(crate) f64);
}

/// The same shape by another name, and the bytes of the same by names that were swapped.
mod elsewhere {
    #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    pub(crate) struct Weight(pub(crate) f64);

    #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
    pub(crate) struct Point {
        pub(crate) x: f64,
        pub(crate) y: f64,
    }

    pub(crate) mod swapped {
        #[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
        pub(crate) struct Point {
            pub(crate) y: f64,
            pub(crate) x: f64,
        }
    }
}

#[test]
fn a_checkpoint_is_opened_as_what_its_records_are_made_of() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let numbers = context.range(0..10, 2)?;
    let expected: Vec<_> = (0..10).map(|n| today::Rank(f64::from(n))).collect();
    numbers.map(|n| yesterday::Rank(*n as f64)).checkpoint_as("ranks")?;
    // It moved to another module.
    assert_eq!(context.open_checkpoint::<today::Rank>("ranks")?.collect()?, expected);
    let refused = context.open_checkpoint::<elsewhere::Weight>("ranks").map(drop);
    assert!(matches!(refused, Err(Error::WrongRecordType { .. })), "{refused:?}");
    let message = refused.map_err(|e| e.to_string());
    assert!(message.is_err_and(|m| m.contains("`Rank(f64)`") && m.contains("`Weight(f64)`")));
    // Who knows better may say so; but the bytes must be right.
    let named = CheckpointName::new("ranks").records(std::any::type_name::<yesterday::Rank>());
    assert_eq!(context.open_checkpoint::<elsewhere::Weight>(named.clone())?.count()?, 10);
    for asked in [CheckpointName::new("ranks"), named] {
        let refused = context.open_checkpoint::<(f64, u64)>(asked).map(drop);
        assert!(matches!(refused, Err(Error::WrongRecordShape { .. })), "{refused:?}");
        let message = refused.map_err(|e| e.to_string());
        assert!(message.is_err_and(|m| m.contains("`Rank(f64)`") && m.contains("`(f64, u64)`")));
    }
    numbers.map(|n| elsewhere::Point { x: *n as f64, y: 0.0 }).checkpoint_as("points")?;
    let swapped = context.open_checkpoint::<elsewhere::swapped::Point>("points").map_err(|e| e.to_string());
    assert!(swapped.is_err_and(|m| m.contains("Point { y: f64, x: f64 }")), "x would become y");
    Ok(())
}

/// A text of digits, which no other text is.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
struct Digits(String);

impl<'de> serde::Deserialize<'de> for Digits {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_digits { Ok(Self(text)) } else { Err(serde::de::Error::custom("no digits")) }
    }
}

#[test]
fn records_whose_shape_is_unknown_are_opened_by_what_they_are_called() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let info = context.range(0..10, 2)?.map(|n| Digits(n.to_string())).checkpoint_as("digits")?;
    assert!(!fs::read_to_string(info.address)?.contains("schema"));
    assert_eq!(context.open_checkpoint::<Digits>("digits")?.count()?, 10);
    let refused = context.open_checkpoint::<String>("digits").map(drop);
    assert!(matches!(refused, Err(Error::WrongRecordType { .. })), "{refused:?}");
    Ok(())
}

#[test]
fn a_checkpoint_is_opened_by_what_its_records_were_called() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let ranks = || context.range(0..10, 2).map(|numbers| numbers.map(|n| yesterday::Rank(*n as f64)));
    let expected: Vec<_> = (0..10).map(|n| today::Rank(f64::from(n))).collect();
    let (plain, found) = (CheckpointName::new("ranks"), "rank, 1");
    let named = plain.clone().records(found);
    let info = ranks()?.checkpoint_as(named.clone())?;
    assert_eq!(info.record_type, found);
    assert_eq!(context.latest_checkpoint("ranks")?, Some(info.clone()));
    assert!(fs::read_to_string(&info.address)?.contains("\"record_type\": \"rank, 1\""));

    for refused in [
        context.open_checkpoint::<today::Rank>("ranks").map(drop),
        context.open_latest_checkpoint::<today::Rank>(plain.records("rank, 2")).map(drop),
        context.open_checkpoint_at::<yesterday::Rank>(&info.address).map(drop),
    ] {
        let message = refused.map_err(|e| e.to_string());
        assert!(message.is_err_and(|m| m.contains("`CheckpointName::new(..).records(\"rank, 1\")`")));
    }
    assert_eq!(context.open_checkpoint::<today::Rank>(named.clone())?.collect()?, expected);
    let latest = context.open_latest_checkpoint::<today::Rank>(named.clone())?.ok_or("none")?;
    assert_eq!(latest.collect()?, expected);
    let at = CheckpointName::new(info.address).records(found);
    assert_eq!(context.open_checkpoint_at::<today::Rank>(at)?.collect()?, expected);

    let numbers = CheckpointName::new("numbers").records("number, 1");
    let mut checkpointer = PeriodicCheckpointer::new(&context, 1, numbers.clone())?;
    let info = checkpointer.update(&context.range(0..10, 1)?)?.ok_or("its turn")?;
    assert_eq!((&*info.name, &*info.record_type), ("numbers", "number, 1"));
    assert_eq!(context.open_checkpoint::<i64>(numbers)?.count()?, 10);
    Ok(())
}

#[test]
fn an_older_generation_is_opened_by_its_number() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    for generation in 1..=3 {
        context.range(0..generation, 1)?.checkpoint_as("numbers")?;
    }
    for generation in 1..=3 {
        let opened = context.open_checkpoint_generation::<i64>("numbers", generation)?;
        assert_eq!(opened.count()?, generation);
    }
    assert!(context.open_checkpoint_generation::<u64>("numbers", 1).is_err());
    let missing = context.open_checkpoint_generation::<i64>("numbers", 4).map_err(|e| e.to_string());
    assert!(missing.is_err_and(|m| m.contains("00000000000000000004.json")));
    Ok(())
}

#[test]
fn a_partitioner_that_contradicts_the_parts_is_refused() -> Done {
    let directory = tempfile::tempdir()?;
    let context = context(directory.path())?;
    let partitioner = larder_checkpoint::Partitioner { kind: "larder-hash-1".to_owned(), partitions: 3 };
    let spec = Spec::new(2, CodecId::BINCODE).record_type("pair").partitioner(partitioner);
    let attempt = context.checkpoints().ok_or("none")?.begin("pairs", spec)?;
    for partition in 0..2 {
        attempt.part(partition)?.records::<(i64, i64)>(Arc::new(Bincode))?.finish()?;
    }
    attempt.commit()?;
    let pairs = CheckpointName::new("pairs").records("pair");
    let message = context.open_checkpoint::<(i64, i64)>(pairs).map_err(|e| e.to_string());
    assert!(
        message.is_err_and(|m| m.contains("`larder-hash-1`") && m.contains("over 3") && m.contains("has 2"))
    );
    Ok(())
}
