//! `larder`: looks at checkpoints, verifies, copies and removes them.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod failure;
mod out;
mod parallel;
mod safe;
mod selection;
mod units;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::out::Out;

fn main() -> ExitCode {
    let Command::Checkpoint { action } = Cli::parse().command;
    let mut out = Out::stdout();
    let done = commands::run(&action, &mut out);
    match done.and_then(|()| out.finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.say();
            ExitCode::from(failure.code())
        }
    }
}
