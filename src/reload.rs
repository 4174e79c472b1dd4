//! Values that are read from mounted files and read again when these change, so that neither a rotated secret nor a
//! new template needs a restart.

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use crate::mounted::{self, Fingerprint};
use crate::telemetry::metrics::ConfigState;

/// How often mounted files are looked at; a look is a handful of `stat` calls.
pub const INTERVAL: Duration = Duration::from_secs(1);

type Load<T> = dyn Fn() -> Result<T, Box<dyn Error + Send + Sync>> + Send + Sync;

/// The last good value of mounted files.
pub struct Reloading<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    load: Box<Load<T>>,
    current: ArcSwap<T>,
    stale: AtomicBool,
    generation: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// What the files looked like when they were last read, well or not.
    read: Vec<Fingerprint>,
    /// A change that was seen once; files that are edited in place are read when they have stood still.
    pending: Option<Vec<Fingerprint>>,
    /// When the current value was taken up.
    since: SystemTime,
}

impl<T> Reloading<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// What `load` says: at the start there is no last good value to fall back on.
    pub fn start<E>(
        what: &'static str,
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E>
    where
        E: Error + Send + Sync + 'static,
    {
        let read = fingerprints(&paths);
        let current = ArcSwap::from_pointee(load()?);
        Ok(Self {
            what,
            paths,
            load: Box::new(move || load().map_err(Into::into)),
            current,
            stale: AtomicBool::new(false),
            generation: AtomicU64::new(1),
            state: Mutex::new(State { read, pending: None, since: SystemTime::now() }),
        })
    }

    /// Whether the files have changed to something that is refused, and how fresh the last good value is.
    pub fn state(&self) -> ConfigState {
        let since = self.state.lock().unwrap_or_else(PoisonError::into_inner).since;
        let generation = self.generation.load(Ordering::Relaxed);
        ConfigState { stale: self.stale.load(Ordering::Relaxed), generation, since }
    }

    /// The last good value.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Looks at the files and reads them if they have changed; true if there is a new value.
    ///
    /// A broken change is refused with one ERROR line, and the last good value stays.
    pub fn refresh(&self) -> bool {
        let seen = fingerprints(&self.paths);
        // Nothing in here leaves the state half changed, so that a poisoned lock is as good as another.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if seen == state.read {
            state.pending = None;
            return false;
        }
        if !self.paths.iter().all(|path| mounted::is_atomic(path)) && state.pending.as_ref() != Some(&seen) {
            state.pending = Some(seen);
            return false;
        }
        state.read = seen;
        state.pending = None;
        let loaded = (self.load)();
        self.stale.store(loaded.is_err(), Ordering::Relaxed);
        match loaded {
            Ok(value) => {
                self.current.store(Arc::new(value));
                self.generation.fetch_add(1, Ordering::Relaxed);
                state.since = SystemTime::now();
                tracing::info!("{} changed and are in use", self.what);
                true
            }
            Err(error) => {
                tracing::error!(reason = %error, "changed {} are refused, the last good ones stay", self.what);
                false
            }
        }
    }
}

fn fingerprints(paths: &[PathBuf]) -> Vec<Fingerprint> {
    paths.iter().map(|path| Fingerprint::of(path)).collect()
}

#[cfg(test)]
mod tests;
