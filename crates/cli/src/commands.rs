//! What is done.

mod cat;
mod cleanup;
mod cp;
mod ls;
mod rm;
mod show;
mod verify;

use crate::cli::Action;
use crate::failure::Failure;
use crate::out::Out;

pub(crate) fn run(action: &Action, out: &mut Out) -> Result<(), Failure> {
    match action {
        Action::Ls(options) => ls::run(options, out),
        Action::Show(options) => show::run(options, out),
        Action::Verify(options) => verify::run(options, out),
        Action::Cat(options) => cat::run(options, out),
        Action::Cleanup(options) => cleanup::run(options, out),
        Action::Rm(options) => rm::run(options, out),
        Action::Cp(options) => cp::run(options, out),
    }
}
