//! A run of several steps, and what is said of it at the end.

use std::fmt;
use std::time::{Duration, Instant};

use crate::error::Error;

/// How many tests ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TestCount {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl TestCount {
    /// Adds a `test result: ok. 3 passed; 0 failed; 1 ignored; ...`; passes over any other line.
    pub(crate) fn add_line(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else { return };
        let words: Vec<&str> = result.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
        for (number, what) in words.iter().zip(words.iter().skip(1)) {
            let Ok(number) = number.parse::<u64>() else { continue };
            match *what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Tests that were run at all.
    pub(crate) fn run(&self) -> u64 {
        self.passed + self.failed
    }
}

impl fmt::Display for TestCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 { write!(f, ", {} skipped", self.ignored) } else { Ok(()) }
    }
}

/// Steps in order, the first failure being the end.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    taken: Vec<(String, String)>,
    total: Duration,
    tests: TestCount,
    skipped: Vec<String>,
}

impl Steps {
    pub(crate) fn take(
        &mut self,
        name: &str,
        step: impl FnOnce(&mut TestCount) -> Result<(), Error>,
    ) -> Result<(), Error> {
        eprintln!("\n== {name}");
        let started = Instant::now();
        let result = step(&mut self.tests);
        let time = started.elapsed();
        self.total += time;
        let mark = if result.is_ok() { "" } else { "  FAILED" };
        self.taken.push((name.to_owned(), format!("{:7.1} s{mark}", time.as_secs_f64())));
        result
    }

    /// A step whose subject is not there.
    pub(crate) fn leave_out(&mut self, name: &str, reason: &str) {
        self.taken.push((name.to_owned(), format!("  left out: {reason}")));
    }

    /// Tests that are run nowhere this time: said in the end, so that nobody takes them for passed.
    pub(crate) fn skip(&mut self, what: &str, reason: &str) {
        self.skipped.push(format!("SKIPPED: {what}, because {reason}"));
    }

    /// Says what happened; the result itself is handed through.
    pub(crate) fn close(self, result: Result<(), Error>) -> Result<(), Error> {
        let width = self.taken.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(5);
        println!();
        for (name, outcome) in &self.taken {
            println!("{name:width$}  {outcome}");
        }
        println!("{:width$}  {:7.1} s", "total", self.total.as_secs_f64());
        for line in &self.skipped {
            println!("{line}");
        }
        if self.tests != TestCount::default() {
            println!("{}", self.tests);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::TestCount;

    #[test]
    fn results_of_several_runs_add_up() {
        let mut count = TestCount::default();
        for line in [
            "running 5 tests",
            "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.02s",
            "test tests::passed ... ok",
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ] {
            count.add_line(line);
        }
        assert_eq!(count.to_string(), "14 passed, 2 failed, 1 skipped");
        assert_eq!(count.run(), 16);
    }
}
