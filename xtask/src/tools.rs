//! Programs that rustup does not bring.

use crate::error::Error;
use crate::run::Run;

/// A subcommand of cargo from the package registry, at the version that the project was last checked with.
pub(crate) struct Tool {
    subcommand: &'static str,
    package: &'static str,
    version: &'static str,
}

pub(crate) const DENY: Tool = Tool { subcommand: "deny", package: "cargo-deny", version: "0.20.2" };
pub(crate) const FUZZ: Tool = Tool { subcommand: "fuzz", package: "cargo-fuzz", version: "0.13.2" };

impl Tool {
    /// Any version that is installed will do.
    pub(crate) fn is_installed(&self) -> bool {
        Run::cargo(&[self.subcommand, "--version"]).succeeds()
    }

    pub(crate) fn install_if_missing(&self) -> Result<(), Error> {
        if self.is_installed() {
            return Ok(());
        }
        Run::cargo(&["install", self.package, "--version", self.version, "--locked"]).run()
    }
}
