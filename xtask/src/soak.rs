//! `cargo xtask soak`.

use crate::cli::Soak;
use crate::error::Error;
use crate::project::Project;

pub(crate) fn run(project: &Project, options: &Soak) -> Result<(), Error> {
    let soak = project.cargo(&["run", "--release", "--package", "larder-benches", "--bin", "soak", "--"]);
    let (minutes, seed) = (options.minutes.to_string(), options.seed.to_string());
    soak.args(["--minutes", &minutes, "--seed", &seed]).run()
}
