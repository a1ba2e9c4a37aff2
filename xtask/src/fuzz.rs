//! `cargo xtask fuzz`.

use std::path::Path;

use crate::cli::Fuzz;
use crate::error::Error;
use crate::project::Project;
use crate::run::Run;
use crate::steps::Steps;
use crate::tools;

pub(crate) fn run(project: &Project, options: &Fuzz) -> Result<(), Error> {
    let manifest = project.root.join("fuzz/Cargo.toml");
    if !manifest.is_file() {
        return Err(Error::MissingFile { path: manifest, remedy: "there is nothing to fuzz" });
    }
    tools::FUZZ.install_if_missing()?;
    if let (Some(target), Some(input)) = (&options.target, &options.replay) {
        let input = std::path::absolute(input).map_err(|source| Error::File {
            action: "find",
            path: input.clone(),
            source,
        })?;
        return fuzz(project, options, target).arg(input).run();
    }
    let targets = match &options.target {
        Some(target) => vec![target.clone()],
        None => project.cargo(&["fuzz", "list"]).output()?.lines().map(str::to_owned).collect(),
    };
    let mut steps = Steps::default();
    let seconds = format!("-max_total_time={}", options.seconds);
    let result = targets.iter().try_for_each(|target| {
        steps.take(target, |_| {
            let seeds = Path::new("fuzz/seeds").join(target);
            let corpus = Path::new("fuzz/corpus").join(target);
            let mut run = fuzz(project, options, target);
            if project.root.join(&seeds).is_dir() {
                // The first directory is the one that libFuzzer writes to.
                let created = std::fs::create_dir_all(project.root.join(&corpus));
                created.map_err(|source| Error::File { action: "create", path: corpus.clone(), source })?;
                run = run.arg(corpus).arg(seeds);
            }
            run.args(["--", &seconds]).run()
        })
    });
    steps.close(result)
}

/// Coverage feedback needs no nightly; only the sanitizers hide behind an unstable flag.
fn fuzz(project: &Project, options: &Fuzz, target: &str) -> Run {
    let run = project.cargo(&["fuzz", "run", "--target-dir"]).arg(project.target.join("fuzz"));
    if options.asan {
        run.args(["--sanitizer", "address", target]).env("RUSTC_BOOTSTRAP", "1")
    } else {
        run.args(["--sanitizer", "none", target])
    }
}
