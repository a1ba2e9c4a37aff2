//! Our side.

use std::time::Instant;

use get_size2::GetSize;
use larder::Viewed;
use larder::prelude::*;
use serde::{Deserialize, Serialize};

use super::{PARTITIONS, THREADS, Times, Work};
use crate::Failure;

#[derive(Clone, Debug, Serialize, Deserialize, GetSize)]
struct Reading {
    id: i64,
    key: i32,
    value: f64,
    name: String,
}

impl Viewed for Reading {
    type View<'a> = (i64, i32, f64, &'a [u8]);

    fn view(&self) -> Self::View<'_> {
        (self.id, self.key, self.value, self.name.as_bytes())
    }
}

impl Reading {
    fn number(id: i64) -> Self {
        Self { id, key: (id % 1_000) as i32, value: id as f64 / 2.0, name: format!("name-{}", id % 100) }
    }
}

pub fn run(work: &Work) -> Result<Times, Failure> {
    let scratch = tempfile::tempdir_in(&work.scratch)?;
    let context = Context::builder()
        .threads(THREADS)
        .memory("2GiB")
        .off_heap("1GiB")
        .disk(scratch.path())
        .checkpoints(scratch.path().join("checkpoints"))
        .build()?;
    let records = work.records;
    let readings = context.generate(PARTITIONS, move |partition| {
        let bound = |partition: i64| records * partition / i64::from(PARTITIONS);
        (bound(partition.into())..bound(i64::from(partition) + 1)).map(Reading::number)
    })?;
    let readings = match &work.level {
        Some(level) => readings.persist(level.parse::<StorageLevel>()?)?,
        None => readings,
    };
    let sum = || readings.aggregate(0.0, |sum, reading| sum + reading.value, |a, b| a + b);
    let started = Instant::now();
    let checkpoint = if work.level.is_none() { Some(readings.checkpoint_lazily()?) } else { None };
    let mut sums = vec![sum()?];
    if let Some(checkpoint) = checkpoint {
        checkpoint.wait()?;
    }
    let first_seconds = started.elapsed().as_secs_f64();
    let values = readings.map_view(|(_, _, value, _)| value)?;
    let view_sum = || values.aggregate(0.0, |sum, value| sum + value, |a, b| a + b);
    let mut timed = |sum: &dyn Fn() -> Result<f64, larder::Error>| -> Result<Vec<f64>, Failure> {
        let mut seconds = Vec::new();
        for _ in 0..work.reads {
            let started = Instant::now();
            sums.push(sum()?);
            seconds.push(started.elapsed().as_secs_f64());
        }
        Ok(seconds)
    };
    let (read_seconds, view_seconds) = (timed(&sum)?, timed(&view_sum)?);
    Ok(Times { first_seconds, read_seconds, view_seconds, sums })
}
