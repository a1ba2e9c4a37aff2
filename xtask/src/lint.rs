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
        OUTSIDE
            .into_iter()
            .try_for_each(|manifest| project.cargo(&["fmt", "--check", "--manifest-path", manifest]).run())
    })?;
    steps.take("lints", |_| {
        project.cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]).run()
    })?;
    // Nothing else builds them until someone fuzzes or measures. Their lock files must fit what they depend on here.
    steps.take("lints outside of the workspace", |_| {
        OUTSIDE.into_iter().try_for_each(|manifest| {
            let clippy = project.cargo(&["clippy", "--locked", "--all-targets", "--manifest-path", manifest]);
            clippy.args(["--", "-D", "warnings"]).env("CARGO_TARGET_DIR", &project.target).run()
        })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::OUTSIDE;
    use crate::project::Project;

    /// The manifests below a directory, but for those of build directories and of hidden ones.
    fn manifests(directory: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && !path.join("CACHEDIR.TAG").exists() {
                manifests(&path, found);
            } else if name == "Cargo.toml" {
                found.insert(path);
            }
        }
    }

    #[test]
    fn every_package_is_checked() {
        let project = Project::find().unwrap();
        let mut found = BTreeSet::new();
        manifests(&project.root, &mut found);
        let mut checked: BTreeSet<PathBuf> = project.manifests().map(PathBuf::from).collect();
        checked.extend(OUTSIDE.map(|manifest| project.root.join(manifest)));
        assert_eq!(found, checked);
    }
}
