//! `cargo xtask lint`.

use crate::cli::Lint;
use crate::error::Error;
use crate::project::Project;
use crate::steps::Steps;
use crate::tools;

/// Packages that are no members of the workspace, so that what they need is not built with it.
const OUTSIDE: [&str; 2] = ["benches/peers/Cargo.toml", "fuzz/Cargo.toml"];

pub(crate) fn run(project: &Project, options: &Lint) -> Result<(), Error> {
    let mut steps = Steps::default();
    let result = all(project, options, &mut steps);
    steps.close(result)
}

fn all(project: &Project, options: &Lint, steps: &mut Steps) -> Result<(), Error> {
    steps.take("formatting", |_| {
        project.cargo(&["fmt", "--all", "--check"]).run()?;
        let outside = OUTSIDE.into_iter().filter(|manifest| project.root.join(manifest).is_file());
        outside
            .into_iter()
            .try_for_each(|manifest| project.cargo(&["fmt", "--check", "--manifest-path", manifest]).run())
    })?;
    steps.take("lints", |_| {
        project.cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).run()
    })?;
    steps.take("documentation", |_| {
        let doc = project.cargo(&["doc", "--workspace", "--no-deps"]);
        doc.env_added("RUSTDOCFLAGS", "-D warnings").run()
    })?;
    if options.deny {
        steps.take("dependencies", |_| deny(project, options))?;
    }
    Ok(())
}

fn deny(project: &Project, options: &Lint) -> Result<(), Error> {
    if options.install {
        tools::DENY.install_if_missing()?;
    } else if !tools::DENY.is_installed() {
        let remedy = "`cargo xtask lint --deny --install` installs it (minutes of compiling).";
        return Err(Error::MissingTool { tool: "cargo-deny", remedy });
    }
    let checks: &[&str] = if options.advisories {
        &["advisories", "bans", "licenses", "sources"]
    } else {
        &["bans", "licenses", "sources"]
    };
    project.cargo(&["deny", "--workspace", "check"]).args(checks).run()
}
