//! Reloads values from mounted files when they change; a rotated secret or a new template needs no restart. Each team's
//! files are a value of their own, so that an invalid one holds back nobody else.

mod metrics;
mod source;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use rustix::time::{ClockId, clock_gettime};

use super::folder::is_atomic;
use super::settings::Settings;
use super::{Fingerprint, Tree};
use crate::team::Team;
pub(crate) use metrics::ReloadMetrics;
pub(crate) use source::{ConfigKind, Faults, Loaded, Reading, Source};

/// Poll interval for mounted files; a poll is a few `stat` calls for each team.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A look at all files on demand is made only if the last one took less than this part of the time since, in processor time:
/// wrong signatures cause them.
const LOOK_SHARE: u32 = 20;

/// The last good values of mounted files.
pub(crate) struct Reloading<S: Source> {
    source: S,
    current: ArcSwap<S::View>,
    state: Mutex<State<S::Value>>,
    metrics: ReloadMetrics,
}

struct State<T> {
    teams: BTreeMap<Team, Loaded<T>>,
    /// The files at the last read, successful or not.
    read: Vec<Fingerprint>,
    /// A change seen by one poll. Files that are edited in place are read after two polls with the same fingerprints.
    pending: Option<Vec<Fingerprint>>,
    /// Time of the last successful read.
    since: SystemTime,
    /// Number of successful reads.
    generation: u32,
    /// Whether the path itself cannot be read.
    unreadable: bool,
    /// End of the last look at the files, and the processor time that it took.
    looked: (Instant, Duration),
}

impl<S: Source> Reloading<S> {
    /// Reads the files for the first time.
    /// Fails if they cannot be read, or the source does not accept them: one line for each fault.
    pub(crate) fn start(source: S, metrics: &ReloadMetrics) -> Result<Self, Faults> {
        let Reading { tree, fingerprints } = source.read().map_err(|error| Faults(vec![error.to_string()]))?;
        let teams = load(&source, tree, &BTreeMap::new());
        source.accept(&teams)?;
        for (team, loaded) in &teams {
            loaded.value.iter().for_each(|value| source.report(team, value));
        }
        let state = State {
            teams,
            read: fingerprints,
            pending: None,
            since: SystemTime::now(),
            generation: 1,
            unreadable: false,
            looked: (Instant::now(), Duration::ZERO),
        };
        Ok(Self {
            current: ArcSwap::from_pointee(source.view(&state.teams)),
            state: Mutex::new(state),
            metrics: metrics.clone(),
            source,
        })
    }

    /// Whether there are files that the values come from.
    pub(crate) fn is_mounted(&self) -> bool {
        !self.source.paths().is_empty()
    }

    /// The last good values.
    pub(crate) fn current(&self) -> Arc<S::View> {
        self.current.load_full()
    }

    /// Like [`Self::refresh`], for a request that may be the first one after a change. Does nothing if looking at the files
    /// takes too much of the time.
    pub(crate) fn refresh_on_demand(&self) -> bool {
        let (end, took) = self.state().looked;
        end.elapsed() >= took * LOOK_SHARE && self.refresh()
    }

    /// Reads the files if they have changed. Returns true if there is a new value.
    ///
    /// If a team's change is invalid, it logs one ERROR and keeps the last good value.
    pub(crate) fn refresh(&self) -> bool {
        let paths = self.source.paths();
        let begun = processor_time();
        let seen: Vec<Fingerprint> = paths.iter().map(|path| Fingerprint::from_path(path)).collect();
        let mut state = self.state();
        state.looked = (Instant::now(), processor_time().saturating_sub(begun));
        if seen == state.read {
            state.pending = None;
            return false;
        }
        if !paths.iter().all(|path| is_atomic(path)) && state.pending.as_ref() != Some(&seen) {
            state.pending = Some(seen);
            return false;
        }
        state.read = seen;
        state.pending = None;
        let kind = S::KIND.as_str();
        let reading = self.source.read();
        state.unreadable = reading.is_err();
        let teams = match reading {
            Ok(Reading { tree, fingerprints }) => {
                state.read = fingerprints;
                load(&self.source, tree, &state.teams)
            }
            Err(error) => {
                let error = error.to_string();
                tracing::error!(error, "changed {kind} are refused; the last good ones stay in use");
                return false;
            }
        };
        let view = Arc::new(self.source.view(&teams));
        // In use before a line says so.
        self.current.store(Arc::clone(&view));
        let is_new = log_changes(&self.source, &state.teams, &teams);
        if is_new {
            self.source.report_all(&view);
            state.generation += 1;
            state.since = SystemTime::now();
        }
        state.teams = teams;
        is_new
    }

    /// Sets the metrics to the current state.
    pub(crate) fn update_metrics(&self) {
        let state = self.state();
        let is_stale = state.unreadable || state.teams.values().any(|team| team.error.is_some());
        self.metrics.set(S::KIND, is_stale, state.generation, state.since);
    }

    /// Ignores poisoning: no code under the lock can leave the state half changed.
    fn state(&self) -> MutexGuard<'_, State<S::Value>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Processor time of this thread. On a busy machine, a look at the files lasts long and costs as little as on another.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// Logs what has changed for each team. Returns whether a value is new or gone.
fn log_changes<S: Source>(
    source: &S,
    before: &BTreeMap<Team, Loaded<S::Value>>,
    after: &BTreeMap<Team, Loaded<S::Value>>,
) -> bool {
    let kind = S::KIND.as_str();
    let mut is_new = false;
    for (team, loaded) in after {
        if before.get(team).is_some_and(|before| before.digest == loaded.digest) {
            continue;
        }
        let name = team.name();
        match (&loaded.error, &loaded.value) {
            (None, value) => {
                is_new = true;
                value.iter().for_each(|value| source.report(team, value));
                // With invalid settings a team is broken, and reported as such.
                if loaded.settings.faults.is_empty() {
                    tracing::info!(team = name, "{kind} changed and are in use");
                }
            }
            (Some(error), Some(_)) => {
                tracing::error!(team = name, error, "changed {kind} are refused; the last good ones stay in use");
            }
            // A team without a value is reported as long as it has none.
            (Some(_), None) => {}
        }
    }
    for team in before.keys().filter(|team| !after.contains_key(*team)) {
        is_new = true;
        tracing::info!(team = team.name(), "the folder of {kind} is gone, and they are no longer in use");
    }
    is_new
}

/// Makes the value of each team whose files have changed, and keeps all others.
fn load<S: Source>(
    source: &S,
    tree: Tree,
    before: &BTreeMap<Team, Loaded<S::Value>>,
) -> BTreeMap<Team, Loaded<S::Value>> {
    let mut teams = BTreeMap::new();
    for (team, mut files) in tree {
        let (digest, last) = (files.digest(), before.get(&team));
        if let Some(last) = last.filter(|last| last.digest == digest) {
            teams.insert(team, last.clone());
            continue;
        }
        let mut settings = Settings::default();
        if team.name().is_some() {
            settings = Settings::take(&mut files);
            if !settings.faults.is_empty() && settings.subjects.is_none() {
                settings.subjects = last.and_then(|last| last.settings.subjects.clone());
            }
        }
        let text = |error: &dyn Error| error.to_string();
        let checked = team.check().map_err(|error| text(&error));
        let loaded = checked.and_then(|()| source.load(&team, files, &settings).map_err(|error| text(&error)));
        let (value, error) = match loaded {
            Ok(value) => (Some(Arc::new(value)), None),
            Err(error) => (last.and_then(|last| last.value.clone()), Some(error)),
        };
        teams.insert(team, Loaded { value, error, settings, digest });
    }
    teams
}

#[cfg(test)]
mod tests;
