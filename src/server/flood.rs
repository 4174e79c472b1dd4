//! A bound on the log lines of strangers: whoever sends wrong signatures or half a body by the million must not fill a
//! disk, nor hide anybody else's line. What is left out is counted, and the count is logged.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines a second; a person who sets up a webhook is far below.
const LINES: u64 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// Which lines are written.
#[derive(Debug)]
pub struct Flood(Mutex<State>);

#[derive(Debug)]
struct State {
    since: Instant,
    written: u64,
    left_out: u64,
}

impl Default for Flood {
    fn default() -> Self {
        Self(Mutex::new(State { since: Instant::now(), written: 0, left_out: 0 }))
    }
}

impl Flood {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more line may be written now.
    pub(super) fn admits(&self, now: Instant) -> bool {
        let mut state = self.state();
        if now.duration_since(state.since) >= WINDOW {
            state.since = now;
            state.written = 0;
        }
        let admitted = state.written < LINES;
        if admitted {
            state.written += 1;
        } else {
            state.left_out += 1;
        }
        admitted
    }

    /// Logs how many lines were left out since it was last asked, if any were.
    pub(super) fn report(&self) {
        let left_out = std::mem::take(&mut self.state().left_out);
        if left_out > 0 {
            tracing::warn!(left_out, "more deliveries that nobody proved were turned away than are logged one by one");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_ends_with_its_second() {
        let flood = Flood::default();
        let start = Instant::now();
        let written = (0..1_000).filter(|_| flood.admits(start)).count();
        assert_eq!((written as u64, flood.state().left_out), (LINES, 1_000 - LINES));
        flood.report();
        assert_eq!(flood.state().left_out, 0);
        assert!(flood.admits(start + WINDOW));
    }
}
