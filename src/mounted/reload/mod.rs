//! Reloads values from mounted files when they change; a rotated secret or a new template needs no restart.

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;

use super::{Fingerprint, is_atomic};
use crate::telemetry::chain;
use crate::telemetry::metrics::{Gauges, Labels, Registry};

/// Poll interval for mounted files; a poll is a few `stat` calls.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);

type Load<T> = dyn Fn() -> Result<T, Box<dyn Error + Send + Sync>> + Send + Sync;

/// A reloadable configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfigKind {
    /// The webhook secrets.
    WebhookSecrets,
    /// The templates.
    Templates,
}

impl ConfigKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::WebhookSecrets => "webhook secrets",
            Self::Templates => "templates",
        }
    }
}

impl Labels<1> for ConfigKind {
    const NAMES: [&'static str; 1] = ["config"];

    fn values(&self) -> [&'static str; 1] {
        [match self {
            Self::WebhookSecrets => "webhook_secrets",
            Self::Templates => "templates",
        }]
    }

    fn all() -> Vec<Self> {
        vec![Self::WebhookSecrets, Self::Templates]
    }
}

/// Metrics of reloaded configurations; cheap to clone.
#[derive(Clone)]
pub(crate) struct ReloadMetrics(Arc<Families>);

struct Families {
    stale: Gauges<ConfigKind, 1>,
    generation: Gauges<ConfigKind, 1>,
    reloaded: Gauges<ConfigKind, 1>,
}

impl ReloadMetrics {
    /// Registers the metrics.
    pub(crate) fn register(registry: &Registry) -> Self {
        let time = "Time of the last successful read of a ConfigMap or Secret, Unix seconds.";
        Self(Arc::new(Families {
            stale: registry.gauges("config_stale", "1 while a changed ConfigMap or Secret is refused, else 0."),
            generation: registry.gauges("config_generation", "Successful reads of a ConfigMap or Secret."),
            reloaded: registry.gauges("config_last_reload_timestamp_seconds", time),
        }))
    }
}

/// The last good value of mounted files.
pub(crate) struct Reloading<T> {
    kind: ConfigKind,
    paths: Vec<PathBuf>,
    load: Box<Load<T>>,
    current: ArcSwap<T>,
    state: Mutex<State>,
    metrics: ReloadMetrics,
}

struct State {
    /// The files at the last read, successful or not.
    read: Vec<Fingerprint>,
    /// A change seen by one poll. Files that are edited in place are read after two polls with the same fingerprints.
    pending: Option<Vec<Fingerprint>>,
    /// Time of the last successful read.
    since: SystemTime,
    /// Number of successful reads.
    generation: u32,
    /// Whether the last change was refused.
    stale: bool,
}

impl<T> Reloading<T> {
    /// Reads the files for the first time.
    /// Fails with the error of `load`; there is no last good value yet.
    pub(crate) fn start<E>(
        kind: ConfigKind,
        paths: Vec<PathBuf>,
        metrics: &ReloadMetrics,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E>
    where
        E: Error + Send + Sync + 'static,
    {
        let read = fingerprints(&paths);
        let current = ArcSwap::from_pointee(load()?);
        let state = State { read, pending: None, since: SystemTime::now(), generation: 1, stale: false };
        Ok(Self {
            kind,
            paths,
            load: Box::new(move || load().map_err(Into::into)),
            current,
            state: Mutex::new(state),
            metrics: metrics.clone(),
        })
    }

    /// Whether there are files that the value comes from.
    pub(crate) fn is_mounted(&self) -> bool {
        !self.paths.is_empty()
    }

    /// The last good value.
    pub(crate) fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// Reads the files if they have changed. Returns true if there is a new value.
    ///
    /// If the change is invalid, it logs one ERROR and keeps the last good value.
    pub(crate) fn refresh(&self) -> bool {
        let seen = fingerprints(&self.paths);
        let mut state = self.state();
        if seen == state.read {
            state.pending = None;
            return false;
        }
        if !self.paths.iter().all(|path| is_atomic(path)) && state.pending.as_ref() != Some(&seen) {
            state.pending = Some(seen);
            return false;
        }
        state.read = seen;
        state.pending = None;
        let loaded = (self.load)();
        state.stale = loaded.is_err();
        match loaded {
            Ok(value) => {
                self.current.store(Arc::new(value));
                state.generation += 1;
                state.since = SystemTime::now();
                tracing::info!("{} changed and are in use", self.kind.as_str());
                true
            }
            Err(error) => {
                let error = chain(&*error);
                tracing::error!(error, "changed {} are refused; the last good ones stay in use", self.kind.as_str());
                false
            }
        }
    }

    /// Sets the metrics to the current state.
    pub(crate) fn update_metrics(&self) {
        let state = self.state();
        let Families { stale, generation, reloaded } = &*self.metrics.0;
        stale.with(&self.kind).set(f64::from(u8::from(state.stale)));
        generation.with(&self.kind).set(f64::from(state.generation));
        let since = state.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        reloaded.with(&self.kind).set(since.as_secs_f64());
    }

    /// Ignores poisoning: no code under the lock can leave the state half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fingerprints(paths: &[PathBuf]) -> Vec<Fingerprint> {
    paths.iter().map(|path| Fingerprint::from_path(path)).collect()
}

#[cfg(test)]
mod tests;
