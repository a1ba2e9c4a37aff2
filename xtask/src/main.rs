//! `cargo xtask`: the one entry point for the project's tools.

#![forbid(unsafe_code)]

mod bench;
mod cli;
mod error;
mod fuzz;
mod lint;
mod models;
mod peers;
mod project;
mod run;
mod servers;
mod smoke;
mod soak;
mod steps;
mod table;
mod tests;
mod tools;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Task};
use crate::error::Error;
use crate::project::Project;

fn main() -> ExitCode {
    match dispatch(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> Result<(), Error> {
    let project = Project::find()?;
    match task {
        Task::Test(options) => tests::run(&project, &options),
        Task::Servers(options) => servers::run(&project, &options),
        Task::Lint(options) => lint::run(&project, &options),
        Task::Smoke => smoke::run(&project),
        Task::Loom(options) => models::loom(&project, &options, &mut steps::TestCount::default()),
        Task::Shuttle(options) => models::shuttle(&project, &options, &mut steps::TestCount::default()),
        Task::Fuzz(options) => fuzz::run(&project, &options),
        Task::Bench(options) => bench::run(&project, &options),
        Task::Soak(options) => soak::run(&project, &options),
        Task::Peers(options) => peers::run(&project, &options),
    }
}
