//! Builds of the block store whose threads and locks are someone else's: loom's and shuttle's.

use crate::cli::{Loom, Shuttle};
use crate::error::Error;
use crate::project::Project;
use crate::run::Run;
use crate::steps::TestCount;

const STORE: &str = "larder-blockstore";

impl Loom {
    pub(crate) fn whole() -> Self {
        Self { filter: "loom_".into(), preemptions: None }
    }
}

pub(crate) fn loom(project: &Project, options: &Loom, count: &mut TestCount) -> Result<(), Error> {
    let mut run = build(project, "loom").args(["--lib", &options.filter]);
    if let Some(preemptions) = options.preemptions {
        run = run.env("LOOM_MAX_PREEMPTIONS", preemptions.to_string());
    }
    run.run_tests(count)
}

pub(crate) fn shuttle(project: &Project, options: &Shuttle, count: &mut TestCount) -> Result<(), Error> {
    let mut run = build(project, "shuttle").args(["--test", "shuttle"]).args(&options.filter);
    if let Some(seed) = options.seed {
        run = run.env("SHUTTLE_RANDOM_SEED", seed.to_string());
    }
    run.run_tests(count)
}

/// In release mode, because millions of schedules are run; in a directory of its own, because changed RUSTFLAGS
/// would rebuild everything there is.
fn build(project: &Project, cfg: &str) -> Run {
    project
        .cargo(&["test", "--package", STORE, "--release"])
        .env("CARGO_TARGET_DIR", project.target.join(cfg))
        .env_added("RUSTFLAGS", &format!("--cfg {cfg}"))
}
