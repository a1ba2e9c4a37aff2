//! `cargo xtask smoke`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::error::Error;
use crate::project::Project;
use crate::steps::Steps;
use crate::table::read_json;

/// Ranks may differ by this much: the order of additions is the same, so it is all but zero.
const RANK_DIFFERENCE_MAX: f64 = 1e-12;

const ITERATIONS: &str = "6";
const PLENTY: &[&str] = &["--level", "MEMORY_ONLY"];
/// Off the heap, in less memory than it takes, and losing blocks.
const SCARCE: &[&str] = &["--level", "OFF_HEAP", "--off-heap", "4MiB", "--memory", "16MiB", "--lose", "3"];
const DISK: &[&str] = &["--level", "DISK_ONLY", "--memory", "16MiB"];

pub(crate) fn run(project: &Project) -> Result<(), Error> {
    let mut steps = Steps::default();
    let result = all(project, &mut steps);
    steps.close(result)
}

fn all(project: &Project, steps: &mut Steps) -> Result<(), Error> {
    match project.package_with_example("quickstart") {
        Some(package) => steps.take("quickstart", |_| example(project, package, "quickstart", &[]))?,
        None => steps.leave_out("quickstart", "no such example"),
    }
    match project.package_with_example("pagerank") {
        Some(package) => steps.take("pagerank", |_| pagerank(project, package)),
        None => {
            steps.leave_out("pagerank", "no such example");
            Ok(())
        }
    }
}

fn example(project: &Project, package: &str, name: &str, args: &[&str]) -> Result<(), Error> {
    let run = project.cargo(&["run", "--release", "--package", package, "--example", name, "--"]);
    run.args(args).run()
}

/// The same ranks, whatever the storage level, the memory, the blocks that are lost and the checkpoint it goes on from.
fn pagerank(project: &Project, package: &str) -> Result<(), Error> {
    let directory = project.target.join("smoke");
    clear(&directory)?;
    let ranks = |iterations: &str, args: &[&str]| {
        let file = directory.join("pagerank.json");
        let path = file.to_string_lossy();
        let fixed = ["--top", "100", "--iterations", iterations, "--json", &path];
        example(project, package, "pagerank", &[&fixed, args].concat())?;
        top(&file)
    };
    let expected = ranks(ITERATIONS, PLENTY)?;
    let same = |args: &[&str]| match difference(&expected, &ranks(ITERATIONS, args)?) {
        None => Ok(()),
        Some(difference) => Err(Error::Disagree {
            example: "pagerank",
            left: PLENTY.join(" "),
            right: args.join(" "),
            difference,
        }),
    };
    same(SCARCE)?;
    same(DISK)?;
    let checkpoints = directory.join("checkpoints");
    let checkpoints = checkpoints.to_string_lossy();
    let keep = ["--checkpoint", &checkpoints, "--checkpoint-every", "2"];
    ranks("4", &keep)?;
    same(&[&keep[..], &["--resume"]].concat())?;
    println!("{} ranks are the same in four runs", expected.len());
    Ok(())
}

fn clear(directory: &Path) -> Result<(), Error> {
    let failed = |action| move |source| Error::File { action, path: directory.to_path_buf(), source };
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(failed("clear"))?;
    }
    fs::create_dir_all(directory).map_err(failed("create"))
}

/// Packages with their ranks, the highest first.
fn top(file: &Path) -> Result<Vec<(String, f64)>, Error> {
    let value = read_json(file)?;
    let row = |row: &Value| Some((row.get("package")?.as_str()?.to_owned(), row.get("rank")?.as_f64()?));
    let rows: Option<Vec<_>> =
        value.get("top").and_then(Value::as_array).and_then(|top| top.iter().map(row).collect());
    rows.filter(|rows| !rows.is_empty()).ok_or_else(|| Error::Json {
        what: file.display().to_string(),
        problem: "no `top` with packages and ranks".into(),
    })
}

fn difference(left: &[(String, f64)], right: &[(String, f64)]) -> Option<String> {
    if left.len() != right.len() {
        return Some(format!("{} ranks and {}", left.len(), right.len()));
    }
    let differs = |((a, x), (b, y)): &(&(String, f64), &(String, f64))| {
        a != b || x.is_nan() || y.is_nan() || (x - y).abs() > RANK_DIFFERENCE_MAX
    };
    let ((a, x), (b, y)) = left.iter().zip(right).find(differs)?;
    Some(format!("{a} with rank {x:e}, {b} with rank {y:e}"))
}

#[cfg(test)]
mod tests {
    use super::difference;

    fn ranks(ranks: &[(&str, f64)]) -> Vec<(String, f64)> {
        ranks.iter().map(|(package, rank)| ((*package).to_owned(), *rank)).collect()
    }

    #[test]
    fn ranks_are_compared_by_place_name_and_value() {
        let left = ranks(&[("libc6", 0.1), ("perl", 0.05)]);
        assert_eq!(difference(&left, &ranks(&[("libc6", 0.1 + 1e-14), ("perl", 0.05)])), None);
        for other in [
            ranks(&[("libc6", 0.1)]),
            ranks(&[("libc6", 0.1 + 1e-11), ("perl", 0.05)]),
            ranks(&[("libc6", f64::NAN), ("perl", 0.05)]),
            ranks(&[("perl", 0.1), ("libc6", 0.05)]),
        ] {
            assert!(difference(&left, &other).is_some(), "{other:?}");
        }
    }
}
