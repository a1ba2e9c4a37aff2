//! What comes back when a block is refused: behaviour 11.

use larder_blockstore::{Computed, Error, Finished, StorageLevel};

use crate::support::{World, keep, memory_levels, off_heap_only, put, read, record, stored, vacant};

fn numbers(count: u64) -> impl Iterator<Item = Result<Vec<u8>, Error>> {
    (0..count).map(|i| Ok(record(i, 100)))
}

#[test]
fn the_remainder_holds_each_record_once_in_order_and_releases_its_reservation_when_it_is_drained() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let dataset = world.dataset("d", level);
        let computed = dataset.get_or_compute_iter(0, || Ok::<_, Error>(numbers(1_000))).unwrap();
        let Computed::Uncached(mut uncached) = computed else { panic!("100,000 bytes fit into 12,000") };
        assert!(world.charged() > 6_000, "what was kept is charged: {level}");
        assert!(!dataset.contains(0), "{level}");
        for i in 0..1_000 {
            assert_eq!(uncached.next().unwrap().unwrap(), record(i, 100), "{level}");
        }
        assert_eq!(world.charged(), 0, "drained: {level}");
        assert!(uncached.next().is_none());
    }
}

#[test]
fn a_remainder_dropped_half_read_releases_its_reservation() {
    for level in memory_levels() {
        for taken in [0, 1, 20, 500] {
            let world = World::new(12_000);
            let dataset = world.dataset("d", level);
            let computed = dataset.get_or_compute_iter(0, || Ok::<_, Error>(numbers(1_000))).unwrap();
            let Computed::Uncached(mut uncached) = computed else { panic!("100,000 bytes fit into 12,000") };
            assert_eq!(uncached.by_ref().take(taken).count(), taken);
            drop(uncached);
            assert_eq!(world.charged(), 0, "{level} after {taken}");
        }
    }
}

#[test]
fn a_remainder_outlives_its_dataset() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let dataset = world.dataset("d", level);
        let computed = dataset.get_or_compute_iter(0, || Ok::<_, Error>(numbers(300))).unwrap();
        drop(dataset);
        let Computed::Uncached(uncached) = computed else { panic!("30,000 bytes fit into 12,000") };
        assert_eq!(uncached.map(Result::unwrap).collect::<Vec<_>>(), read_all(300), "{level}");
    }
}

fn read_all(count: u64) -> Vec<Vec<u8>> {
    numbers(count).map(Result::unwrap).collect()
}

#[test]
fn the_rest_of_the_computation_is_pulled_only_as_it_is_read_and_its_error_comes_in_its_place() {
    let world = World::new(12_000);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    let pulled = std::cell::Cell::new(0_u64);
    let records = (0..1_000).map(|i| {
        pulled.set(i + 1);
        if i == 900 { Err(String::from("record 900 is bad")) } else { Ok(record(i, 100)) }
    });
    let computed = dataset.get_or_compute_iter(0, || Ok::<_, Failed>(records.map(|r| r.map_err(Failed))));
    let Computed::Uncached(uncached) = computed.unwrap() else { panic!("100,000 bytes fit into 12,000") };
    assert!(pulled.get() < 200, "{} were pulled", pulled.get());
    let read: Vec<_> = uncached.collect();
    assert_eq!(read.len(), 1_000);
    assert!(read[900].as_ref().unwrap_err().0.contains("record 900"));
    assert_eq!(read[999].as_ref().unwrap(), &record(999, 100));
}

#[derive(Debug)]
struct Failed(String);

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

#[test]
fn an_error_before_memory_is_short_comes_at_once_and_stores_nothing() {
    for level in memory_levels() {
        let world = World::new(12_000);
        let dataset = world.dataset("d", level);
        let records = (0..10).map(|i| if i == 7 { Err(Failed("seven".into())) } else { Ok(record(i, 10)) });
        let error = dataset.get_or_compute_iter(0, || Ok(records)).unwrap_err();
        assert_eq!(error.0, "seven");
        assert!(!dataset.contains(0) && world.charged() == 0, "{level}");
        assert!(stored(&dataset, 0, [record(1, 10)]), "and the next may compute it: {level}");
    }
}

#[test]
fn a_refused_block_that_is_returned_whole_is_charged_for_what_was_granted_until_it_drops() {
    let world = World::new(12_000);
    let dataset = world.dataset("d", StorageLevel::MEMORY_ONLY);
    let block = put(&dataset, 0, read_all(300)).unwrap();
    assert_eq!(read(&block), read_all(300));
    assert!((6_000..=12_000).contains(&world.charged()));
    let clone = block.clone();
    drop(block);
    assert!(world.charged() > 0);
    drop(clone);
    assert_eq!(world.charged(), 0);
}

#[test]
fn a_writer_gives_back_what_it_has_kept_so_far() {
    for level in memory_levels().into_iter().chain([StorageLevel::MEMORY_AND_DISK, StorageLevel::DISK_ONLY]) {
        let world = World::new(1 << 20);
        let dataset = world.dataset("d", level);
        let mut writer = vacant(&dataset, 0);
        (0..50).for_each(|i| keep(&mut writer, record(i, 100)));
        let unrolled = writer.into_unrolled();
        assert!(matches!(dataset.entry(0).unwrap(), larder_blockstore::Entry::Vacant(_)), "{level}");
        assert_eq!(unrolled.map(Result::unwrap).collect::<Vec<_>>(), read_all(50), "{level}");
        let mut unrolled = vacant(&dataset, 0).into_unrolled();
        assert!(unrolled.next().is_none() && unrolled.next_batch().unwrap().is_none(), "{level}");
    }
}

#[test]
fn a_refused_block_may_be_pushed_on_for_nothing_and_finishes_as_refused() {
    for level in [StorageLevel::MEMORY_ONLY, off_heap_only()] {
        let world = World::new(12_000);
        let dataset = world.dataset("d", level);
        let mut writer = vacant(&dataset, 0);
        let mut kept = 0;
        for i in 0..200 {
            kept += usize::from(writer.push(record(i, 100)).unwrap() == larder_blockstore::Pushed::Kept);
        }
        assert!(kept < 200, "{level}");
        let Finished::Refused(unrolled) = writer.finish().unwrap() else {
            panic!("20,000 bytes fit into 12,000")
        };
        assert_eq!(unrolled.map(Result::unwrap).collect::<Vec<_>>(), read_all(kept as u64), "{level}");
        assert_eq!(dataset.status().counters.refused, 1, "{level}");
    }
}
