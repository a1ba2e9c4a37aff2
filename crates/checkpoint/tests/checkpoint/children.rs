//! Runs one of this binary's tests as a process of its own.

use std::process::{Command, Stdio};

/// A test that does nothing unless it is run by [`command`] is a child; this is what it was told.
pub(crate) fn told(variable: &str) -> Option<Vec<String>> {
    let value = std::env::var(variable).ok()?;
    Some(value.split('\n').map(str::to_owned).collect())
}

/// Runs the child `test`, and tells it `words` through `variable`.
pub(crate) fn command(test: &str, variable: &str, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(variable, words.join("\n")).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}
