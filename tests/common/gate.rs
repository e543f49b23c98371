//! A barrier that lets a failing test fail: a thread that panics opens it for all others.

use std::sync::{Condvar, Mutex, PoisonError};

/// What threads panic with that waited for one that panicked before.
pub const OTHER_FAILED: &str = "another rank failed";

pub struct Gate {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: usize,
    passed: u64,
    broken: bool,
}

/// Breaks the gate if its thread panics.
pub struct BreakOnPanic<'a>(&'a Gate);

impl Gate {
    pub fn new(size: usize) -> Self {
        Gate {
            size,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// To be held by every thread that passes the gate.
    pub fn guard(&self) -> BreakOnPanic<'_> {
        BreakOnPanic(self)
    }

    /// Waits until all threads are here.
    pub fn pass(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = state.passed;
        state.waiting += 1;
        if state.waiting == self.size {
            state.waiting = 0;
            state.passed += 1;
            self.changed.notify_all();
        }
        while state.passed == turn && !state.broken {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        let passed = state.passed != turn;
        drop(state);
        if !passed {
            // Not `panic!`: the message of the rank that failed first should stand alone.
            std::panic::resume_unwind(Box::new(OTHER_FAILED));
        }
    }
}

impl Drop for BreakOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let state = self.0.state.lock();
            state.unwrap_or_else(PoisonError::into_inner).broken = true;
            self.0.changed.notify_all();
        }
    }
}
