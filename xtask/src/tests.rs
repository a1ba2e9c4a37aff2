//! `cargo xtask test`.

use crate::cli::{Loom, Shuttle, Test};
use crate::error::Error;
use crate::models;
use crate::project::Project;
use crate::servers;
use crate::steps::Steps;

pub(crate) fn run(project: &Project, options: &Test) -> Result<(), Error> {
    let mut steps = Steps::default();
    let result = all(project, options, &mut steps);
    steps.close(result)
}

fn all(project: &Project, options: &Test, steps: &mut Steps) -> Result<(), Error> {
    with_servers(project, options, steps)?;
    steps.take("loom models", |count| models::loom(project, &Loom::whole(), count))?;
    steps.take("shuttle schedules", |count| models::shuttle(project, &Shuttle::default(), count))
}

/// All tests but the models; what is started for them ends with them.
fn with_servers(project: &Project, options: &Test, steps: &mut Steps) -> Result<(), Error> {
    let mut servers = None;
    steps.take("servers for tests", |_| {
        let found = servers.insert(servers::for_tests(project));
        if options.require_servers && !found.missing.is_empty() {
            let missing = found.missing.iter().map(|(server, e)| format!("{server} ({e})")).collect();
            return Err(Error::Required { missing });
        }
        Ok(())
    })?;
    // All of a package's targets at once: with some of them named, cargo would not build the examples that the
    // end-to-end tests run.
    let mut run = project.cargo(&["test", "--workspace"]);
    if options.require_servers {
        run = run.env(servers::REQUIRE, "1");
    }
    if let Some(servers::ForTests { variables, missing, .. }) = &servers {
        for (variable, value) in variables {
            run = run.env(variable, value);
        }
        for (server, e) in missing {
            steps.skip(&format!("tests that need a server of {server}"), &e.to_string());
        }
    }
    steps.take("unit, integration, doc and seeded fuzz tests", |count| run.run_tests(count))
}
