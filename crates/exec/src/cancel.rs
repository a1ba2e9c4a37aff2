//! Ctrl-C.

use std::sync::{Mutex, PoisonError, Weak};

use crate::context::Inner;
use crate::error::Error;

/// The contexts whose jobs Ctrl-C cancels. One signal handler serves the whole process.
static CONTEXTS: Mutex<Option<Vec<Weak<Inner>>>> = Mutex::new(None);

/// Lets Ctrl-C cancel the jobs of this context. When none runs, Ctrl-C ends the process as it always did. A process that
/// was started to ignore Ctrl-C, as `nohup` and shell scripts start what runs in the background, goes on ignoring it.
///
/// # Errors
/// [`Error::Setting`] if the process has a handler of its own.
pub(crate) fn on_ctrl_c(context: Weak<Inner>) -> Result<(), Error> {
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if contexts.is_none() && is_ignored() {
        return Ok(());
    }
    if contexts.is_none() {
        ctrlc::try_set_handler(interrupt).map_err(|e| Error::Setting {
            setting: "cancel_on_ctrl_c",
            problem: format!("no handler could be set ({e}); the process may have one of its own"),
        })?;
    }
    let contexts = contexts.get_or_insert_default();
    contexts.retain(|context| context.strong_count() > 0);
    contexts.push(context);
    Ok(())
}

const SIGINT: u32 = 2;

fn is_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, SIGINT))
}

/// By what Linux says of a process: a mask in hexadecimal, signal 1 lowest.
fn ignores(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The exit status of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

fn interrupt() {
    let contexts: Vec<_> = {
        let contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
        contexts.iter().flatten().filter_map(Weak::upgrade).collect()
    };
    let cancelled = contexts.iter().filter(|context| context.cancel_jobs()).count();
    if cancelled == 0 {
        std::process::exit(INTERRUPTED);
    }
}

#[cfg(test)]
mod tests {
    use super::{SIGINT, ignores};

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status =
            |mask: &str| format!("SigBlk:\t0000000000000002\nSigIgn:\t{mask}\nSigCgt:\t0000000000000002\n");
        assert!(ignores(&status("0000000000000006"), SIGINT));
        assert!(!ignores(&status("0000000000001005"), SIGINT));
        assert!(!ignores("", SIGINT) && !ignores(&status("what"), SIGINT));
    }
}
