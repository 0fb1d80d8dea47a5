//! Waiting for a state.

use std::thread;
use std::time::{Duration, Instant};

/// How often a state is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `state` gives something, and returns that.
///
/// # Panics
/// If it has given nothing after `patience`: the message says `what` was waited for.
#[track_caller]
pub fn until<T>(what: &str, patience: Duration, mut state: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = state() {
            return found;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} in vain for {what}");
        thread::sleep(LOOK_EVERY);
    }
}

/// Asserts that `broken` gives nothing for all of `span`: for states that must not come.
///
/// # Panics
/// As soon as it gives something.
#[track_caller]
pub fn never<T: std::fmt::Debug>(what: &str, span: Duration, mut broken: impl FnMut() -> Option<T>) {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Some(found) = broken() {
            panic!("{what}: {found:?}");
        }
        thread::sleep(LOOK_EVERY);
    }
}
