//! The teams of the running service: what is wrong with each, one ERROR line a minute about it, and its metrics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Config;
use super::authentication::CloudEventsAuth;
use super::outcome::Outcome;
use crate::delivery::TeamKey;
use crate::delivery::token::TokenError;
use crate::mounted::reload::ConfigKind;
use crate::team::Team;
use crate::telemetry::metrics::{Counters, Gauges, Labels, Registry};

/// Time between two lines about the same faults of a team.
const REPEAT: Duration = Duration::from_secs(60);

/// What is wrong with one team.
#[derive(Debug, Default)]
struct TeamFaults {
    /// The sentences for the operator.
    sentences: Vec<String>,
    /// Whether deliveries are refused for it.
    is_broken: bool,
}

/// Reports about teams.
pub(super) struct TeamReports {
    broken: Gauges<TeamLabel, 1>,
    stale: Gauges<ConfigLabel, 2>,
    deliveries: Counters<DeliveryLabel, 2>,
    /// The last line about each team.
    reported: Mutex<HashMap<Team, (Instant, String)>>,
    /// The teams that have series.
    known: Mutex<BTreeSet<Team>>,
}

/// A team. There are as many as folders, and their series are made when the folders are known.
struct TeamLabel(Team);
struct ConfigLabel(Team, ConfigKind);
struct DeliveryLabel(Team, Outcome);

impl Labels<1> for TeamLabel {
    const NAMES: [&'static str; 1] = ["team"];

    fn values(&self) -> [&str; 1] {
        [self.0.name().unwrap_or_default()]
    }

    fn all() -> Vec<Self> {
        Vec::new()
    }
}

impl Labels<2> for ConfigLabel {
    const NAMES: [&'static str; 2] = ["team", "config"];

    fn values(&self) -> [&str; 2] {
        [self.0.name().unwrap_or_default(), self.1.label()]
    }

    fn all() -> Vec<Self> {
        Vec::new()
    }
}

impl Labels<2> for DeliveryLabel {
    const NAMES: [&'static str; 2] = ["team", "outcome"];

    fn values(&self) -> [&str; 2] {
        [self.0.name().unwrap_or_default(), self.1.as_str()]
    }

    fn all() -> Vec<Self> {
        Vec::new()
    }
}

impl TeamReports {
    /// Registers the metrics.
    pub(super) fn register(registry: &Registry) -> Self {
        let help = "1 while deliveries of a team are refused because its secrets or templates are not valid, else 0.";
        Self {
            broken: registry.gauges("team_broken", help),
            stale: registry.gauges("team_config_stale", "1 while a team's changed files are refused, else 0."),
            deliveries: registry.counters("team_deliveries_total", "Authenticated deliveries by team and outcome."),
            reported: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// Counts the answer to a delivery that a team's secret or subject has proven.
    pub(super) fn answered(&self, team: &Team, outcome: Outcome) {
        if team.name().is_some() {
            self.deliveries.with(&DeliveryLabel(team.clone(), outcome)).inc();
        }
    }

    /// Logs what is wrong with each team, at most once a minute unless it changes.
    pub(super) fn log(&self, config: &Config, now: Instant) {
        let faulty = faults(config);
        let mut reported = lock(&self.reported);
        reported.retain(|team, _| faulty.get(team).is_some_and(|faults| !faults.sentences.is_empty()));
        for (team, faults) in faulty.iter().filter(|(_, faults)| !faults.sentences.is_empty()) {
            let error = faults.sentences.join("; ");
            if let Some((when, last)) = reported.get(team)
                && now.saturating_duration_since(*when) < REPEAT
                && *last == error
            {
                continue;
            }
            let state =
                if faults.is_broken { "is broken, and its deliveries are refused" } else { "has unusable files" };
            tracing::error!(team = team.name(), error, "{team} {state}");
            reported.insert(team.clone(), (now, error));
        }
    }

    /// Sets the metrics to the current state; teams that are gone have none.
    pub(super) fn update_metrics(&self, config: &Config) {
        let faulty = faults(config);
        let (secrets, templates) = (config.secrets.current(), config.templates.current());
        let teams: BTreeSet<Team> = faulty.keys().filter(|team| team.name().is_some()).cloned().collect();
        let mut known = lock(&self.known);
        for gone in known.difference(&teams) {
            self.broken.remove(&TeamLabel(gone.clone()));
            for kind in [ConfigKind::Templates, ConfigKind::WebhookSecrets] {
                self.stale.remove(&ConfigLabel(gone.clone(), kind));
            }
            for outcome in Outcome::ALL {
                self.deliveries.remove(&DeliveryLabel(gone.clone(), *outcome));
            }
        }
        for team in &teams {
            let is_broken = faulty.get(team).is_some_and(|faults| faults.is_broken);
            let stale_secrets = secrets.teams.get(team).is_some_and(|status| status.is_stale);
            let stale_templates = templates.get(team).is_some_and(|loaded| loaded.error.is_some());
            let number = |is: bool| f64::from(u8::from(is));
            self.broken.with(&TeamLabel(team.clone())).set(number(is_broken));
            self.stale.with(&ConfigLabel(team.clone(), ConfigKind::WebhookSecrets)).set(number(stale_secrets));
            self.stale.with(&ConfigLabel(team.clone(), ConfigKind::Templates)).set(number(stale_templates));
            for outcome in Outcome::ALL {
                self.deliveries.with(&DeliveryLabel(team.clone(), *outcome));
            }
        }
        *known = teams;
    }
}

impl Config {
    /// Number of valid templates.
    pub(crate) fn template_count(&self) -> usize {
        let templates = self.templates.current();
        templates.values().filter_map(|loaded| loaded.value.as_ref()).map(|team| team.set.len()).sum()
    }

    /// Number of teams that have a folder.
    pub(crate) fn team_count(&self) -> usize {
        let (secrets, templates) = (self.secrets.current(), self.templates.current());
        let teams: BTreeSet<&Team> = secrets.teams.keys().chain(templates.keys()).collect();
        teams.into_iter().filter(|team| team.name().is_some()).count()
    }
}

/// What is wrong with each team; empty if there are no teams' folders. The top level counts as one if it has any file.
fn faults(config: &Config) -> BTreeMap<Team, TeamFaults> {
    let (secrets, templates) = (config.secrets.current(), config.templates.current());
    let teams: BTreeSet<&Team> = secrets.teams.keys().chain(templates.keys()).collect();
    if teams.iter().all(|team| team.name().is_none()) {
        return BTreeMap::new();
    }
    let examine = |team: &Team| {
        let status = secrets.teams.get(team);
        let mut faults = TeamFaults::default();
        match templates.get(team) {
            Some(loaded) if loaded.value.is_some() => {}
            loaded => {
                let error = loaded.and_then(|loaded| loaded.error.clone());
                let absent =
                    || "it has no templates; mount them in a folder of its name in --trigger-config".to_owned();
                faults.sentences.push(error.unwrap_or_else(absent));
                faults.is_broken = true;
            }
        }
        let keys = secrets.keyring.of_team(team);
        faults.sentences.extend(status.into_iter().flat_map(|status| status.faults.iter().cloned()));
        let is_shared = |key: &TeamKey| key.same_as().is_some();
        if keys.iter().any(is_shared) {
            faults.is_broken = true;
        }
        if keys.is_empty() && !takes_events(config, team) {
            let absent = "it has no usable webhook secret; mount one in a folder of its name in --webhook-secret-file";
            faults.sentences.push(absent.to_owned());
            faults.is_broken = true;
        }
        faults
    };
    teams.into_iter().map(|team| (team.clone(), examine(team))).collect()
}

/// Whether events without a signature reach the team.
fn takes_events(config: &Config, team: &Team) -> bool {
    match &config.cloud_events {
        CloudEventsAuth::Hmac => false,
        CloudEventsAuth::None(_) => *team == Team::TOP,
        CloudEventsAuth::Oidc { .. } => *team == Team::TOP || has_subjects(config, team),
    }
}

fn has_subjects(config: &Config, team: &Team) -> bool {
    let of_secrets = config.secrets.current().teams.get(team).is_some_and(|status| status.subjects.is_some());
    let of_templates = config
        .templates
        .current()
        .get(team)
        .is_some_and(|loaded| loaded.value.as_ref().is_some_and(|templates| templates.subjects.is_some()));
    of_secrets || of_templates
}

/// The team whose own subject it is, else the top level if it accepts the subject.
/// Fails when nobody does, or several teams do.
pub(super) fn team_of_subject(config: &Config, subject: &str, top: impl Fn(&str) -> bool) -> Result<Team, TokenError> {
    let (secrets, templates) = (config.secrets.current(), config.templates.current());
    let of_secrets = secrets.teams.iter().map(|(team, status)| (team, status.subjects.as_ref()));
    let of_templates =
        templates.iter().map(|(team, loaded)| (team, loaded.value.as_ref().and_then(|value| value.subjects.as_ref())));
    let owners: BTreeSet<&Team> = of_secrets
        .chain(of_templates)
        .filter(|(_, subjects)| subjects.is_some_and(|subjects| subjects.contain(subject)))
        .map(|(team, _)| team)
        .collect();
    let mut others = owners.iter();
    match (others.next(), others.next()) {
        (None, _) if top(subject) => Ok(Team::TOP),
        (None, _) => Err(TokenError::Subject(subject.to_owned())),
        (Some(team), None) => Ok((*team).clone()),
        (Some(one), Some(two)) => Err(TokenError::Ambiguous(subject.to_owned(), format!("{one} and {two}"))),
    }
}

/// Whether at least one team's deliveries can be accepted.
pub(super) fn any_is_ready(config: &Config) -> bool {
    let (secrets, templates) = (config.secrets.current(), config.templates.current());
    templates.iter().filter(|(_, loaded)| loaded.value.is_some()).any(|(team, _)| {
        let has_key = secrets.keyring.of_team(team).iter().any(|key| key.same_as().is_none());
        has_key || takes_events(config, team)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
