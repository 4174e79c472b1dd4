//! A limit on log lines about unauthenticated requests: millions of wrong signatures or half-sent bodies must not fill a
//! disk or hide other lines. Lines that are left out are counted, and the count is logged.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines a second; setting up a webhook by hand makes far fewer.
const LINES: u64 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// Counts lines in windows of a second.
#[derive(Debug)]
pub(super) struct LogLimit(Mutex<State>);

#[derive(Debug)]
struct State {
    since: Instant,
    written: u64,
    left_out: u64,
}

impl Default for LogLimit {
    fn default() -> Self {
        Self(Mutex::new(State { since: Instant::now(), written: 0, left_out: 0 }))
    }
}

impl LogLimit {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more line may be written now; it is counted in either case.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let mut state = self.state();
        if now.duration_since(state.since) >= WINDOW {
            state.since = now;
            state.written = 0;
        }
        let allowed = state.written < LINES;
        if allowed {
            state.written += 1;
        } else {
            state.left_out += 1;
        }
        allowed
    }

    /// Logs the number of lines that were left out since the last report, if any were.
    pub(super) fn report(&self) {
        let left_out = std::mem::take(&mut self.state().left_out);
        if left_out > 0 {
            tracing::warn!(left_out, "log lines about unauthenticated requests were left out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_counts_the_lines_of_a_second() {
        let limit = LogLimit::default();
        let start = Instant::now();
        let written = (0..1_000).filter(|_| limit.allows(start)).count();
        assert_eq!((written as u64, limit.state().left_out), (LINES, 1_000 - LINES));
        limit.report();
        assert_eq!(limit.state().left_out, 0);
        assert!(limit.allows(start + WINDOW));
    }
}
