//! Ctrl-C.

use std::sync::{Mutex, PoisonError, Weak};

use crate::context::Inner;
use crate::error::Error;

/// The contexts whose jobs Ctrl-C cancels. One signal handler serves the whole process.
static CONTEXTS: Mutex<Option<Vec<Weak<Inner>>>> = Mutex::new(None);

/// Lets Ctrl-C cancel the jobs of this context. When none runs, Ctrl-C ends the process as it always did.
///
/// # Errors
/// [`Error::Setting`] if the process has a handler of its own.
pub(crate) fn on_ctrl_c(context: Weak<Inner>) -> Result<(), Error> {
    let mut contexts = CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
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
