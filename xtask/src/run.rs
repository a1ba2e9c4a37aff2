//! Running other programs.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::error::Error;
use crate::steps::TestCount;

/// A command line that is shown when it runs and named when it fails.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// None is the cargo that runs us.
    program: Option<OsString>,
    args: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    dir: Option<PathBuf>,
}

impl Run {
    /// The cargo that runs us.
    pub(crate) fn cargo(args: &[&str]) -> Self {
        let args = args.iter().map(OsString::from).collect();
        Self { program: None, args, variables: Vec::new(), dir: None }
    }

    /// Any other program.
    pub(crate) fn program(program: impl AsRef<OsStr>) -> Self {
        Self { program: Some(program.as_ref().to_owned()), ..Self::cargo(&[]) }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, variable: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((variable, value.as_ref().to_owned()));
        self
    }

    /// Adds to a space-separated variable such as RUSTFLAGS what its user did not put there.
    pub(crate) fn env_added(self, variable: &'static str, value: &str) -> Self {
        let mut flags = env::var_os(variable).unwrap_or_default();
        if !flags.is_empty() {
            flags.push(" ");
        }
        flags.push(value);
        self.env(variable, flags)
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_path_buf());
        self
    }

    /// Runs it with our output.
    pub(crate) fn run(&self) -> Result<(), Error> {
        self.show();
        let status = self.command().status().map_err(|source| self.start_error(source))?;
        self.check(status)
    }

    /// Runs it with all of its output on our standard error: ours is for what was asked for.
    pub(crate) fn run_aside(&self) -> Result<(), Error> {
        self.show();
        let status = self.command().stdin(Stdio::null()).stdout(std::io::stderr()).status();
        self.check(status.map_err(|source| self.start_error(source))?)
    }

    /// Runs it with our output, and adds up the results that test runners print.
    pub(crate) fn run_tests(&self, count: &mut TestCount) -> Result<(), Error> {
        self.show();
        let before = count.run();
        let mut child =
            self.command().stdout(Stdio::piped()).spawn().map_err(|source| self.start_error(source))?;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line.map_err(|source| self.start_error(source))?;
                let line = String::from_utf8_lossy(&line);
                // Nobody may be reading us any more; the tests go on all the same.
                let _ = writeln!(std::io::stdout(), "{line}");
                count.add_line(&line);
            }
        }
        self.check(child.wait().map_err(|source| self.start_error(source))?)?;
        if count.run() == before {
            return Err(Error::NoTest { command: self.to_string() });
        }
        Ok(())
    }

    /// Runs it unseen and gives back its output.
    pub(crate) fn output(&self) -> Result<String, Error> {
        let output = self.command().stderr(Stdio::inherit()).output();
        let output = output.map_err(|source| self.start_error(source))?;
        self.check(output.status)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it unseen; whether it succeeded.
    pub(crate) fn succeeds(&self) -> bool {
        let status = self.command().stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    fn command(&self) -> Command {
        let cargo = || env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(self.program.clone().unwrap_or_else(cargo));
        command.args(&self.args).envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    fn show(&self) {
        eprintln!("\n$ {self}");
    }

    fn check(&self, status: ExitStatus) -> Result<(), Error> {
        if status.success() { Ok(()) } else { Err(Error::Failed { command: self.to_string(), status }) }
    }

    fn start_error(&self, source: std::io::Error) -> Error {
        Error::Start { command: self.to_string(), source }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.variables {
            write!(f, "{name}={} ", quoted(value))?;
        }
        write!(f, "{}", self.program.as_ref().map_or("cargo".to_owned(), quoted))?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

/// As a shell would take it.
pub(crate) fn quoted(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::Run;
    use crate::error::Error;
    use crate::steps::TestCount;

    #[test]
    fn a_command_prints_as_a_shell_would_take_it() {
        let run = Run::cargo(&["test", "-p", "a"]).env("X", "--cfg loom").args(["it's", ""]);
        assert_eq!(run.to_string(), r"X='--cfg loom' cargo test -p a 'it'\''s' ''");
    }

    #[test]
    fn a_failure_names_the_command_and_its_status() {
        let error = Run::cargo(&["no-such-subcommand"]).run().unwrap_err().to_string();
        assert_eq!(error, "`cargo no-such-subcommand` failed: exit status: 101");
    }

    #[test]
    fn a_run_without_tests_is_an_error() {
        let run = Run::cargo(&["--version"]);
        assert!(matches!(run.run_tests(&mut TestCount::default()), Err(Error::NoTest { .. })));
    }
}
