//! A first `map` over stored bytes gets each record where it is decoded, and `map_view` its view. Nobody sees a difference.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use larder_exec::{Cause, Context, Dataset, Error, HeapSize, StorageLevel, Viewed};
use serde::{Deserialize, Deserializer, Serialize};

type Done = Result<(), Error>;

const RECORDS: i64 = 10_000;
const LEVELS: [StorageLevel; 4] = [
    StorageLevel::MEMORY_ONLY_SER,
    StorageLevel::DISK_ONLY,
    StorageLevel::OFF_HEAP,
    // Values, for which nothing is decoded.
    StorageLevel::MEMORY_ONLY,
];

fn context() -> Result<Context, Error> {
    Context::builder().threads(2).progress(false).memory("16MiB").off_heap("4MiB").task_attempts(1).build()
}

fn texts(context: &Context, level: StorageLevel) -> Result<Dataset<String>, Error> {
    let texts = context.range(0..RECORDS, 3)?.map(|n| format!("record {n}")).persist(level)?.named("texts");
    assert_eq!(texts.count()?, RECORDS as u64);
    Ok(texts)
}

#[test]
fn all_that_can_follow_the_map_gets_its_records() -> Done {
    for level in LEVELS {
        let context = context()?;
        let texts = texts(&context, level)?;
        let numbers = |text: &String| text.trim_start_matches("record ").parse::<i64>();
        let parsed = texts.try_map(numbers);
        let expected: Vec<_> = (0..RECORDS).collect();
        assert_eq!(parsed.collect()?, expected, "{level}");
        assert_eq!(parsed.count()?, RECORDS as u64, "{level}");
        assert_eq!(parsed.fold(0, |a, b| a + b)?, expected.iter().sum::<i64>(), "{level}");
        let even = parsed.map(|n| n * 2).filter(|n| n % 4 == 0).flat_map(|n| [*n, *n]);
        let expected: Vec<_> = expected.iter().filter(|n| *n % 2 == 0).flat_map(|n| [n * 2, n * 2]).collect();
        assert_eq!(even.collect()?, expected, "{level}");
        assert_eq!(even.repartition(2)?.count()?, expected.len() as u64, "{level}");
        assert_eq!(texts.map(String::len).zip(&parsed)?.count()?, RECORDS as u64, "{level}");
        assert_eq!(texts.map(String::len).map(|len| *len as u64).cache()?.collect()?.len() as i64, RECORDS);
    }
    Ok(())
}

#[test]
fn the_map_runs_for_the_records_that_are_asked_for_and_is_run_to_count_them() -> Done {
    for level in LEVELS {
        let context = context()?;
        let mapped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&mapped);
        let lengths = texts(&context, level)?.map(move |text| {
            counter.fetch_add(1, Ordering::Relaxed);
            text.len()
        });
        assert_eq!(lengths.take(3)?, [8, 8, 8]);
        assert!(mapped.swap(0, Ordering::Relaxed) <= 3, "{level}");
        assert_eq!(lengths.count()?, RECORDS as u64);
        assert_eq!(mapped.load(Ordering::Relaxed), RECORDS as u64, "{level}");
    }
    Ok(())
}

fn is_at<T: std::fmt::Debug>(result: Result<T, Error>, at: (&str, u32, &str)) -> Result<(), String> {
    match &result {
        Err(Error::Task { dataset, partition, cause, .. })
            if (dataset.split(' ').next(), *partition, cause.to_string().as_str())
                == (Some(at.0), at.1, at.2) =>
        {
            Ok(())
        }
        other => Err(format!("{at:?} was expected, and not {other:?}")),
    }
}

#[test]
fn whoever_fails_is_named() -> Done {
    for level in LEVELS {
        let context = context()?;
        let texts = texts(&context, level)?;
        let is_late = |text: &str| text == "record 8000";
        let refused =
            texts.try_map(move |text| if is_late(text) { Err("late") } else { Ok(1) }).named("refused");
        let at = ("`refused`", 2, "late");
        assert_eq!(is_at(refused.collect(), at), Ok(()), "{level}");
        assert_eq!(is_at(refused.fold(0, |a, b| a + b), at), Ok(()), "{level}");
        let mined = texts.map(move |text| assert!(!is_late(text), "late")).named("mined");
        let at = ("`mined`", 2, "panicked: late");
        assert_eq!(is_at(mined.count(), at), Ok(()), "{level}");
        assert_eq!(is_at(mined.map(|()| 1).named("after").count(), at), Ok(()), "{level}");
        assert_eq!(is_at(mined.aggregate(0, |sum, ()| sum + 1, |a, b| a + b), at), Ok(()), "{level}");

        let fine = texts.map(|text| text == "record 8000").named("fine");
        let behind = fine.map(|is_late| assert!(!*is_late, "late")).named("behind");
        assert_eq!(is_at(behind.count(), ("`behind`", 2, "panicked: late")), Ok(()), "{level}");
        let folded = fine.aggregate((), |(), is_late| assert!(!*is_late, "late"), |(), ()| ());
        assert_eq!(is_at(folded, ("`fine`", 2, "panicked: late")), Ok(()), "{level}");
    }
    Ok(())
}

/// Panics when it is read, if it is 8,000.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Unreadable(i64);

impl HeapSize for Unreadable {
    fn heap_bytes(&self) -> usize {
        0
    }
}

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(numbers: D) -> Result<Self, D::Error> {
        let n = i64::deserialize(numbers)?;
        assert!(n != 8_000, "8,000 cannot be read");
        Ok(Self(n))
    }
}

impl Viewed for Unreadable {
    type View<'a> = Self;

    fn view(&self) -> Self {
        self.clone()
    }
}

#[test]
fn a_record_that_panics_while_it_is_decoded_is_the_stored_datasets() -> Done {
    let context = context()?;
    let level = StorageLevel::MEMORY_ONLY_SER;
    let stored = context.range(0..RECORDS, 3)?.map(|n| Unreadable(*n)).persist(level)?.named("stored");
    assert_eq!(stored.count()?, RECORDS as u64);
    let mapped = stored.map(|n| n.0).named("mapped");
    let at = ("`stored`", 2, "panicked: 8,000 cannot be read");
    assert_eq!(is_at(mapped.collect(), at), Ok(()));
    assert_eq!(is_at(mapped.fold(0, |a, b| a + b), at), Ok(()));
    Ok(())
}

#[test]
fn a_map_over_a_checkpoint_that_fails_is_named_too() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let context = Context::builder()
        .threads(2)
        .progress(false)
        .memory("16MiB")
        .task_attempts(1)
        .checkpoints(dir.path())
        .build()?;
    let texts = context.range(0..RECORDS, 3)?.map(|n| format!("record {n}")).named("texts");
    texts.checkpoint()?;
    let lengths = texts.map(String::len);
    assert_eq!(lengths.collect()?, (0..RECORDS).map(|n| format!("record {n}").len()).collect::<Vec<_>>());
    let failing =
        texts.try_map(|text| if text == "record 8000" { Err("late") } else { Ok(()) }).named("failing");
    let error = failing.count().map_err(|e| {
        matches!(&e, Error::Task { dataset, partition: 2, cause, .. }
        if dataset.starts_with("`failing`") && matches!(&**cause, Cause::User { .. }))
    });
    assert_eq!(error, Err(true));
    Ok(())
}

#[test]
fn views_are_mapped_as_records_are() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    for level in LEVELS.map(Some).into_iter().chain([None]) {
        let context = Context::builder().threads(2).progress(false).memory("16MiB").off_heap("4MiB");
        let context = context.checkpoints(dir.path()).build()?;
        let pairs = context.range(0..RECORDS, 3)?.map(|n| (*n, format!("record {n}")));
        let pairs = match level {
            Some(level) => pairs.persist(level)?,
            None => pairs.named("pairs"),
        };
        // Before there are bytes, and after.
        for _ in 0..2 {
            let lengths = pairs.map_view(|(n, text)| (n, text.len() as i64))?;
            let expected: Vec<_> = (0..RECORDS).map(|n| (n, format!("record {n}").len() as i64)).collect();
            assert_eq!(lengths.collect()?, expected, "{level:?}");
            assert_eq!(lengths.take(2)?, [(0, 8), (1, 8)], "{level:?}");
            assert_eq!(lengths.count()?, RECORDS as u64, "{level:?}");
            let sum = expected.iter().map(|(_, len)| len).sum::<i64>();
            assert_eq!(lengths.aggregate(0, |sum, (_, len)| sum + len, |a, b| a + b)?, sum, "{level:?}");
            assert_eq!(lengths.map(|(_, len)| *len).fold(0, |a, b| a + b)?, sum, "{level:?}");
            let behind = pairs.filter(|(n, _)| n % 2 == 0).map_view(|(n, _)| n)?;
            assert_eq!(behind.count()?, RECORDS as u64 / 2, "{level:?}");
            if level.is_none() {
                pairs.checkpoint()?;
            }
        }
    }
    Ok(())
}

#[test]
fn whoever_fails_on_views_is_named() -> Done {
    for level in LEVELS {
        let context = context()?;
        let mined = texts(&context, level)?.map_view(|text| assert!(text != "record 8000", "late"))?;
        let mined = mined.named("mined");
        let at = ("`mined`", 2, "panicked: late");
        assert_eq!(is_at(mined.count(), at), Ok(()), "{level}");
        assert_eq!(is_at(mined.aggregate(0, |sum, ()| sum + 1, |a, b| a + b), at), Ok(()), "{level}");
    }
    let context = context()?;
    let level = StorageLevel::MEMORY_ONLY_SER;
    let stored = context.range(0..RECORDS, 3)?.map(|n| Unreadable(*n)).persist(level)?.named("stored");
    assert_eq!(stored.count()?, RECORDS as u64);
    let at = ("`stored`", 2, "panicked: 8,000 cannot be read");
    assert_eq!(is_at(stored.map_view(|n| n.0)?.named("mapped").collect(), at), Ok(()));
    Ok(())
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Person {
    name: String,
    born: u32,
    photo: Vec<u8>,
}

impl Viewed for Person {
    type View<'a> = (&'a str, u32, &'a [u8]);

    fn view(&self) -> Self::View<'_> {
        (&self.name, self.born, &self.photo)
    }
}

/// The same with its fields in another order.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Misread(Person);

impl Viewed for Misread {
    type View<'a> = (u32, &'a str, &'a [u8]);

    fn view(&self) -> Self::View<'_> {
        (self.0.born, &self.0.name, &self.0.photo)
    }
}

/// The same with a name that is not looked at.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Dated(Person);

impl HeapSize for Dated {
    fn heap_bytes(&self) -> usize {
        self.0.name.heap_bytes() + self.0.photo.heap_bytes()
    }
}

impl Viewed for Dated {
    type View<'a> = (&'a [u8], u32, &'a [u8]);

    fn view(&self) -> Self::View<'_> {
        (self.0.name.as_bytes(), self.0.born, &self.0.photo)
    }
}

#[test]
fn a_text_that_is_stepped_over_is_viewed_as_bytes() -> Done {
    let context = context()?;
    let dated = context.range(0..100, 2)?.map(|n| {
        Dated(Person { name: "ö".repeat(*n as usize % 3), born: *n as u32, photo: vec![0; *n as usize % 2] })
    });
    for level in LEVELS {
        let dated = dated.map(Clone::clone).persist(level)?;
        assert_eq!(dated.count()?, 100);
        let seen = dated.map_view(|(name, born, photo)| (name.len(), born, photo.len()))?.collect()?;
        let expected = |n: u32| (2 * (n as usize % 3), n, n as usize % 2);
        assert_eq!(seen, (0..100).map(expected).collect::<Vec<_>>(), "{level}");
    }
    Ok(())
}

#[test]
fn a_view_that_is_not_the_records_is_refused_before_anything_runs() -> Done {
    let context = context()?;
    let person = |n: u32| Person { name: n.to_string(), born: 2000 + n, photo: vec![1, 2, 3] };
    let people = context.parallelize((0..10).map(person).collect::<Vec<_>>(), 2)?;
    let born = people.map_view(|(name, born, photo)| (name.len(), born, photo.len()))?;
    assert_eq!(born.take(2)?, [(1, 2000, 3), (1, 2001, 3)]);

    let misread = people.map(|person| Misread(person.clone()));
    let Err(error) = misread.map_view(|(born, _, _)| born) else { panic!("it is not the view") };
    let text = error.to_string();
    for part in
        ["map_view", "(u32, &str, &[u8]) is no view of", "Misread", "(u32, text, bytes)", "name: text"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    Ok(())
}

#[test]
fn long_chains_over_stored_bytes_do_not_nest() -> Done {
    let deep = || -> Result<i64, Error> {
        let context = Context::builder().threads(1).progress(false).memory("1MiB").build()?;
        let texts = context.range(0..10, 2)?.map(i64::to_string).persist(StorageLevel::MEMORY_ONLY_SER)?;
        assert_eq!(texts.count()?, 10);
        let mut dataset = texts.map(|text| text.parse().unwrap_or(0));
        for _ in 0..100_000 {
            dataset = dataset.map(|n| n + 1);
        }
        dataset.fold(0, |a, b| a + b)
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(deep);
    let sum = thread.map(std::thread::JoinHandle::join);
    assert!(matches!(sum, Ok(Ok(Ok(1_000_045)))), "{sum:?}");
    Ok(())
}
