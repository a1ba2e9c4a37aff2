//! Bringing threads to rest for a moment.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A place where working threads wait while one other looks around.
#[derive(Debug)]
pub(crate) struct Pause {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    working: usize,
    asked: bool,
}

impl Pause {
    /// For so many working threads.
    pub(crate) fn new(working: usize) -> Self {
        Self { state: Mutex::new(State { working, asked: false }), changed: Condvar::new() }
    }

    /// Called by a working thread between two steps.
    pub(crate) fn rest_if_asked(&self) {
        let mut state = self.lock();
        if !state.asked {
            return;
        }
        state.working -= 1;
        self.changed.notify_all();
        while state.asked {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.working += 1;
    }

    /// Called by a working thread that works no more.
    pub(crate) fn leave(&self) {
        self.lock().working -= 1;
        self.changed.notify_all();
    }

    /// Looks around while all rest.
    pub(crate) fn rest<R>(&self, look: impl FnOnce() -> R) -> R {
        let mut state = self.lock();
        state.asked = true;
        while state.working > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let seen = look();
        self.go_on();
        seen
    }

    pub(crate) fn go_on(&self) {
        self.lock().asked = false;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
