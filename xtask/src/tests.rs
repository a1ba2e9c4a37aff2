//! `cargo xtask test`.

use crate::cli::{Loom, Shuttle};
use crate::error::Error;
use crate::models;
use crate::project::Project;
use crate::steps::Steps;

pub(crate) fn run(project: &Project) -> Result<(), Error> {
    let mut steps = Steps::default();
    let result = all(project, &mut steps);
    steps.close(result)
}

fn all(project: &Project, steps: &mut Steps) -> Result<(), Error> {
    // All of a package's targets at once: with some of them named, cargo would not build the examples that the
    // end-to-end tests run.
    steps.take("unit, integration, doc and seeded fuzz tests", |count| {
        project.cargo(&["test", "--workspace"]).run_tests(count)
    })?;
    steps.take("loom models", |count| models::loom(project, &Loom::whole(), count))?;
    steps.take("shuttle schedules", |count| models::shuttle(project, &Shuttle::default(), count))
}
