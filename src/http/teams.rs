//! The teams of the running service: what is wrong with each, one ERROR line a minute about it, and its metrics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::config::{CloudEventsAuth, Config};
use super::outcome::Outcome;
use crate::delivery::token::{TokenError, TokenPolicy};
use crate::mounted::reload::{ConfigKind, Faults};
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

/// The label of a team; the one of the top level is no legal name of a folder.
fn label(team: &Team) -> &str {
    team.name().unwrap_or("(top)")
}

/// A team. There are as many as folders, and their series are made when the folders are known.
struct TeamLabel(Team);
struct ConfigLabel(Team, ConfigKind);
struct DeliveryLabel(Team, Outcome);

impl Labels<1> for TeamLabel {
    const NAMES: [&'static str; 1] = ["team"];

    fn values(&self) -> [&str; 1] {
        [label(&self.0)]
    }

    fn all() -> Vec<Self> {
        Vec::new()
    }
}

impl Labels<2> for ConfigLabel {
    const NAMES: [&'static str; 2] = ["team", "config"];

    fn values(&self) -> [&str; 2] {
        [label(&self.0), self.1.label()]
    }

    fn all() -> Vec<Self> {
        Vec::new()
    }
}

impl Labels<2> for DeliveryLabel {
    const NAMES: [&'static str; 2] = ["team", "outcome"];

    fn values(&self) -> [&str; 2] {
        [label(&self.0), self.1.as_str()]
    }

    fn all() -> Vec<Self> {
        Vec::new()
    }
}

impl TeamReports {
    /// Registers the metrics.
    pub(super) fn register(registry: &Registry) -> Self {
        let help = "1 while no delivery of a team is accepted, because its secrets or templates are not valid, else 0.";
        Self {
            broken: registry.gauges("team_broken", help),
            stale: registry.gauges("team_config_stale", "1 while files of a team are refused, else 0."),
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
        let teams: BTreeSet<Team> = faulty.keys().cloned().collect();
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
            let stale_secrets = secrets.teams.get(team).is_some_and(|status| !status.faults.is_empty());
            let stale_templates = templates.get(team).is_some_and(|in_force| in_force.is_stale);
            let number = |is: bool| f64::from(u8::from(is));
            self.broken.with(&TeamLabel(team.clone())).set(number(is_broken));
            self.stale.with(&ConfigLabel(team.clone(), ConfigKind::WebhookSecrets)).set(number(stale_secrets));
            self.stale.with(&ConfigLabel(team.clone(), ConfigKind::Templates)).set(number(stale_templates));
            if team.name().is_some() {
                for outcome in Outcome::ALL {
                    self.deliveries.with(&DeliveryLabel(team.clone(), *outcome));
                }
            }
        }
        *known = teams;
    }
}

impl Config {
    /// Fails if there are teams, and none of them can be served: with what is wrong, a line for each team.
    pub(crate) fn check_teams(&self) -> Result<(), Faults> {
        let faulty = faults(self);
        if faulty.is_empty() || any_is_ready(self) {
            return Ok(());
        }
        let line = |(team, faults): (&Team, &TeamFaults)| format!("{team}: {}", faults.sentences.join("; "));
        Err(Faults(faulty.iter().map(line).collect()))
    }

    /// Number of valid templates.
    pub(crate) fn template_count(&self) -> usize {
        let templates = self.templates.current();
        templates.values().filter_map(|in_force| in_force.templates.as_ref()).map(|templates| templates.set.len()).sum()
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
        let mut sentences: Vec<String> = Vec::new();
        let in_force = templates.get(team);
        match in_force {
            Some(in_force) => sentences.extend(in_force.faults.iter().cloned()),
            None => {
                sentences.push("it has no templates; mount them in a folder of its name in --trigger-config".into())
            }
        }
        sentences.extend(secrets.teams.get(team).into_iter().flat_map(|status| status.faults.iter().cloned()));
        let keys = secrets.keyring.of_team(team);
        if keys.is_empty() && team.check().is_ok() && !takes_events(config, team) {
            let absent = "it has no usable webhook secret; mount one in a folder of its name in --webhook-secret-file";
            sentences.push(absent.to_owned());
        }
        let mut seen = BTreeSet::new();
        sentences.retain(|sentence| seen.insert(sentence.clone()));
        TeamFaults { is_broken: !is_ready(config, team), sentences }
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
    of_secrets || config.templates.current().get(team).is_some_and(|in_force| in_force.subjects.is_some())
}

/// Whether deliveries of the team can be accepted.
fn is_ready(config: &Config, team: &Team) -> bool {
    let has_templates = config.templates.current().get(team).is_some_and(|in_force| in_force.templates.is_some());
    let secrets = config.secrets.current();
    let has_key = secrets.keyring.of_team(team).iter().any(|key| key.same_as().is_none());
    has_templates && !secrets.has_invalid_settings(team) && (has_key || takes_events(config, team))
}

/// The team whose own subject it is, else the top level if it accepts the subject.
/// Fails when nobody does, or several do: two teams, or a team and `--oidc-subject` by its full name.
pub(super) fn team_of_subject(config: &Config, subject: &str, policy: &TokenPolicy) -> Result<Team, TokenError> {
    let (secrets, templates) = (config.secrets.current(), config.templates.current());
    let of_secrets = secrets.teams.iter().map(|(team, status)| (team, status.subjects.as_ref()));
    let of_templates = templates.iter().map(|(team, in_force)| (team, in_force.subjects.as_ref()));
    let owners: BTreeSet<&Team> = of_secrets
        .chain(of_templates)
        .filter(|(_, subjects)| subjects.is_some_and(|subjects| subjects.contain(subject)))
        .map(|(team, _)| team)
        .collect();
    let mut others = owners.iter();
    match (others.next(), others.next()) {
        (None, _) if policy.subjects().contain(subject) => Ok(Team::TOP),
        (None, _) => Err(TokenError::Subject(subject.to_owned())),
        (Some(team), None) if policy.names(subject) => {
            Err(TokenError::Ambiguous(subject.to_owned(), format!("{team}, and is given by --oidc-subject")))
        }
        (Some(team), None) => Ok((*team).clone()),
        (Some(one), Some(two)) => Err(TokenError::Ambiguous(subject.to_owned(), format!("{one} and {two}"))),
    }
}

/// Whether at least one team's deliveries can be accepted.
pub(super) fn any_is_ready(config: &Config) -> bool {
    config.templates.current().keys().any(|team| is_ready(config, team))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
