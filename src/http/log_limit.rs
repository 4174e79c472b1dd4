//! A limit on log lines about unauthenticated requests: millions of wrong signatures or half-sent bodies must not fill a
//! disk or hide other lines. Lines that are left out are counted, and the count is logged.
//!
//! The first line of each source is written even in a flood, so that a mistyped secret is seen during one. Sources can be
//! invented, too; therefore their lines have a limit of their own.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines a second; setting up a webhook by hand makes far fewer.
const LINES: u64 = 20;
/// Further lines a second, each the first one of its source.
const FIRST_LINES: u64 = 20;
const WINDOW: Duration = Duration::from_secs(1);
/// After this time, or so many sources, all are new again.
const MEMORY: Duration = Duration::from_secs(600);
const MAX_SOURCES: usize = 4096;

/// Counts lines in windows of a second.
#[derive(Debug)]
pub(super) struct LogLimit {
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    since: Instant,
    written: u64,
    first_written: u64,
    left_out: u64,
    /// Hashes of the sources that have a line.
    sources: HashSet<u64>,
    sources_since: Instant,
}

impl Default for LogLimit {
    fn default() -> Self {
        let now = Instant::now();
        let (since, sources_since, sources) = (now, now, HashSet::new());
        let state = State { since, written: 0, first_written: 0, left_out: 0, sources, sources_since };
        Self { hasher: RandomState::new(), state: Mutex::new(state) }
    }
}

impl LogLimit {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more line may be written now; it is counted in either case. `source` tells senders and faults apart.
    pub(super) fn allows(&self, source: impl Hash, now: Instant) -> bool {
        let source = self.hasher.hash_one(source);
        self.state().allows(source, now)
    }

    /// Logs the number of lines that were left out since the last report, if any were.
    pub(super) fn report(&self) {
        let left_out = std::mem::take(&mut self.state().left_out);
        if left_out > 0 {
            tracing::warn!(left_out, "log lines about unauthenticated requests were left out");
        }
    }
}

impl State {
    fn allows(&mut self, source: u64, now: Instant) -> bool {
        if now.duration_since(self.since) >= WINDOW {
            (self.since, self.written, self.first_written) = (now, 0, 0);
        }
        if now.duration_since(self.sources_since) >= MEMORY || self.sources.len() >= MAX_SOURCES {
            self.sources_since = now;
            self.sources.clear();
        }
        if self.written < LINES {
            self.written += 1;
        } else if self.first_written < FIRST_LINES && !self.sources.contains(&source) {
            self.first_written += 1;
        } else {
            self.left_out += 1;
            return false;
        }
        self.sources.insert(source);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_counts_the_lines_of_a_second() {
        let limit = LogLimit::default();
        let start = Instant::now();
        let written = (0..1_000).filter(|_| limit.allows("flood", start)).count();
        assert_eq!((written as u64, limit.state().left_out), (LINES, 1_000 - LINES));
        limit.report();
        assert_eq!(limit.state().left_out, 0);
        assert!(limit.allows("flood", start + WINDOW));
    }

    #[test]
    fn writes_the_first_line_of_each_source_in_a_flood() {
        let limit = LogLimit::default();
        let start = Instant::now();
        (0..100).for_each(|_| _ = limit.allows("flood", start));
        assert!(limit.allows("a mistyped secret", start));
        assert!(!limit.allows("a mistyped secret", start));
        let invented = (0..1_000).filter(|index| limit.allows(index, start)).count();
        assert_eq!(invented as u64, FIRST_LINES - 1);
        assert!(limit.state().sources.len() <= MAX_SOURCES);
    }
}
