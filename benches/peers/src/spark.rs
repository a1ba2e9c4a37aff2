//! Spark: a first action that computes and keeps, reads again, checkpoints.
//!
//! Records of an `i64`, an `i32`, an `f64` and a short string in 16 partitions, two threads; the action sums the
//! `f64`s. Spark runs in spark-shell, which stays up over the rounds and is warmed up; each of our rounds is a process
//! of its own. RDDs, with Java's serializer and with Kryo, the faster of which is reported; and DataFrames, whose
//! cache keeps columns and reads only the one that is summed. The rows marked `cold` are what a job meets that is
//! submitted for this alone: RDDs, with Kryo, in a spark-shell of their own, which has run nothing before. The
//! first action of a checkpoint writes it and sums: Spark's RDD computes twice for that, its DataFrame writes first and
//! reads it, ours does both in one pass. A checkpoint of ours is synchronised to the disk and read back before it
//! counts; Spark's is neither.
//!
//! Reading again is told twice: `read` makes each record and sums, as Spark's RDDs do; `read_view` sums over views of
//! the records, which steps over the string, as Spark's DataFrames need not. Spark's side of both is the same.

mod install;
pub mod larder;
mod shell;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::shell::{Serializer, Shell};
use crate::Failure;
use crate::child::Task;
use crate::rounds::{in_turn, median};
use crate::rows::Row;

const THREADS: usize = 2;
const PARTITIONS: u32 = 16;

/// What either side does once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Work {
    /// A storage level; none for a checkpoint.
    level: Option<String>,
    records: i64,
    /// How often what was kept is read.
    reads: usize,
    scratch: PathBuf,
}

/// How long it took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Times {
    first_seconds: f64,
    read_seconds: Vec<f64>,
    /// Ours, by views of the records.
    #[serde(default)]
    view_seconds: Vec<f64>,
    /// What each action gave.
    sums: Vec<f64>,
}

/// Where Spark keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Rdd,
    DataFrame,
}

pub fn rows(quick: bool, out: &Path) -> Result<Vec<Row>, Failure> {
    let home = install::spark(out)?;
    let levels: &[&str] = if quick {
        &["MEMORY_ONLY", "MEMORY_AND_DISK_SER", "DISK_ONLY"]
    } else {
        &["MEMORY_ONLY", "MEMORY_ONLY_SER", "MEMORY_AND_DISK", "MEMORY_AND_DISK_SER", "DISK_ONLY", "OFF_HEAP"]
    };
    let scratch = tempfile::tempdir_in(out)?;
    let works: Vec<Work> = levels
        .iter()
        .map(|level| Some((*level).to_owned()))
        .chain([None])
        .map(|level| Work { level, records: 8_000_000, reads: 3, scratch: scratch.path().to_path_buf() })
        .collect();
    let rounds = if quick { 1 } else { 3 };
    // One after the other: a JVM that waits still takes memory.
    let log = out.join("spark-shell.log");
    let kryo = session(&home, &log, Serializer::Kryo, &works, &[Form::Rdd, Form::DataFrame], rounds)?;
    let java = session(&home, &log, Serializer::Java, &works, &[Form::Rdd], rounds)?;
    let cold = cold_sessions(&home, &log, &works)?;
    let rdds = |sides: &[Sides]| sides.iter().filter(|it| it.form == Form::Rdd).cloned().collect::<Vec<_>>();
    let mut rows = Vec::new();
    for (kryo, java) in rdds(&kryo).iter().zip(rdds(&java)) {
        rows.push(faster(kryo.first(), java.first()));
        for (kryo, java) in kryo.rereads().into_iter().zip(java.rereads()) {
            rows.push(faster(kryo, java));
        }
    }
    for sides in kryo.iter().filter(|it| it.form == Form::DataFrame) {
        rows.push(sides.first());
        rows.extend(sides.rereads());
    }
    for mut sides in cold {
        sides.what += "_cold";
        rows.push(sides.first());
        rows.extend(sides.rereads());
    }
    rows.iter().for_each(Row::tell);
    Ok(rows)
}

/// The row in which the peer is faster, where two are of the same.
fn faster(one: Row, other: Row) -> Row {
    if one.peer <= other.peer { one } else { other }
}

/// What both sides took for the same work.
#[derive(Clone, Debug)]
struct Sides {
    form: Form,
    peer_name: &'static str,
    what: String,
    ours: Vec<Times>,
    theirs: Vec<Times>,
}

impl Sides {
    fn first(&self) -> Row {
        let first = |times: &Times| times.first_seconds;
        self.row("first", first, first)
    }

    fn rereads(&self) -> [Row; 2] {
        let read = |times: &Times| median(times.read_seconds.iter().copied());
        let view = |times: &Times| median(times.view_seconds.iter().copied());
        [self.row("read", read, read), self.row("read_view", view, read)]
    }

    fn row(&self, action: &str, ours: fn(&Times) -> f64, theirs: fn(&Times) -> f64) -> Row {
        let form = match self.form {
            Form::Rdd => "rdd",
            Form::DataFrame => "dataframe",
        };
        Row {
            name: format!("spark_{form}_{}_{action}", self.what),
            peer_name: self.peer_name,
            unit: "s",
            larder: median(self.ours.iter().map(ours)),
            peer: median(self.theirs.iter().map(theirs)),
        }
    }
}

/// All works in one spark-shell, ours and theirs in turn.
fn session(
    home: &Path,
    log: &Path,
    serializer: Serializer,
    works: &[Work],
    forms: &[Form],
    rounds: usize,
) -> Result<Vec<Sides>, Failure> {
    let Some(any) = works.first() else { return Ok(Vec::new()) };
    let mut shell = Shell::start(home, serializer, &any.scratch, log.to_path_buf())?;
    for &form in forms {
        for _ in 0..2 {
            shell.run(form, &Work { records: any.records / 8, ..any.clone() })?;
        }
    }
    let mut all = Vec::new();
    for work in works {
        for &form in forms {
            all.push(compared(&mut shell, serializer, form, work, rounds)?);
        }
    }
    shell.quit()?;
    Ok(all)
}

/// Each work once, in a spark-shell that has run nothing before.
fn cold_sessions(home: &Path, log: &Path, works: &[Work]) -> Result<Vec<Sides>, Failure> {
    let session = |work: &Work| {
        let mut shell = Shell::start(home, Serializer::Kryo, &work.scratch, log.to_path_buf())?;
        let sides = compared(&mut shell, Serializer::Kryo, Form::Rdd, work, 1)?;
        shell.quit()?;
        Ok(sides)
    };
    works.iter().map(session).collect()
}

/// One work, ours and theirs in turn.
fn compared(
    shell: &mut Shell,
    serializer: Serializer,
    form: Form,
    work: &Work,
    rounds: usize,
) -> Result<Sides, Failure> {
    let larder = || Task::LevelsLarder(work.clone()).run::<Times>();
    let (ours, theirs) = in_turn(rounds, larder, || shell.run(form, work))?;
    let what = work.level.clone().unwrap_or_else(|| "checkpoint".to_owned());
    same_sums(&what, ours.iter().chain(&theirs))?;
    let peer_name = match (form, serializer) {
        (Form::Rdd, Serializer::Java) => "Spark RDD",
        (Form::Rdd, Serializer::Kryo) => "Spark RDD, Kryo",
        (Form::DataFrame, _) => "Spark DataFrame",
    };
    Ok(Sides { form, peer_name, what, ours, theirs })
}

fn same_sums<'a>(what: &str, all: impl Iterator<Item = &'a Times>) -> Result<(), Failure> {
    let sums: Vec<f64> = all.flat_map(|times| times.sums.iter().copied()).collect();
    // Halves of integers far below 2^53: sums are exact in any order.
    match sums.iter().find(|&sum| Some(sum) != sums.first()) {
        Some(other) => Err(format!("{what}: the sums differ, {:?} and {other}", sums.first()).into()),
        None => Ok(()),
    }
}
