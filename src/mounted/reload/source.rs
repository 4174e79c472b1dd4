//! What can be reloaded: where its files are, and what is made of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use crate::mounted::settings::Settings;
use crate::mounted::{Files, Fingerprint, ReadError, Tree};
use crate::team::Team;

/// A reloadable configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConfigKind {
    /// The webhook secrets.
    WebhookSecrets,
    /// The templates.
    Templates,
}

impl ConfigKind {
    /// Its name in a sentence.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::WebhookSecrets => "webhook secrets",
            Self::Templates => "templates",
        }
    }

    /// The label value in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::WebhookSecrets => "webhook_secrets",
            Self::Templates => "templates",
        }
    }
}

/// What was read of the mounted paths.
pub(crate) struct Reading {
    /// The files.
    pub(crate) tree: Tree,
    /// What each of [`Source::paths`] looked like then, in their order.
    pub(crate) fingerprints: Vec<Fingerprint>,
}

/// Why the service does not start with what is mounted.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct Faults(
    /// A sentence for each fault.
    pub(crate) Vec<String>,
);

/// Mounted files, and the values that are made of them.
pub(crate) trait Source: Send + Sync + 'static {
    /// The value of one team.
    type Value: Send + Sync;
    /// Why there is no value: a line for each fault.
    type Error: Error;
    /// What is made of the values of all teams; requests read it.
    type View: Send + Sync;
    /// What it is, for logs and metrics.
    const KIND: ConfigKind;

    /// The mounted paths; none if the value never changes.
    fn paths(&self) -> &[PathBuf];

    /// Reads the files of all teams.
    /// Fails when the path cannot be read, or keeps changing; then everything stays as it is.
    fn read(&self) -> Result<Reading, ReadError>;

    /// Makes a team's value.
    /// Fails when the files are not valid.
    fn load(&self, team: &Team, files: Files, settings: &Settings) -> Result<Self::Value, Self::Error>;

    /// Decides whether the service may start with the first values.
    /// Fails with all that is wrong.
    fn accept(&self, teams: &BTreeMap<Team, Loaded<Self::Value>>) -> Result<(), Faults> {
        if teams.values().any(|team| team.value.is_some()) {
            return Ok(());
        }
        Err(Faults(teams.values().filter_map(|team| team.error.clone()).collect()))
    }

    /// Logs what is odd about a value. Called once for each that comes into use.
    fn report(&self, _team: &Team, _value: &Self::Value) {}

    /// Logs what is odd about all values together. Called after a change, when each new value has been reported.
    fn report_all(&self, _view: &Self::View) {}

    /// Makes the view. Called after each change, in the order of teams.
    fn view(&self, teams: &BTreeMap<Team, Loaded<Self::Value>>) -> Self::View;
}

/// The last good value of a team.
#[derive(Debug)]
pub(crate) struct Loaded<T> {
    /// The last good value; `None` if there has been none.
    pub(crate) value: Option<Arc<T>>,
    /// Why the files that are mounted now are refused.
    pub(crate) error: Option<String>,
    /// The team's settings that are mounted now; the subjects of the last good ones if they are invalid.
    pub(crate) settings: Settings,
    /// Tells whether a team's files have changed.
    pub(super) digest: [u8; 32],
}

impl<T> Clone for Loaded<T> {
    fn clone(&self) -> Self {
        let (value, error, settings) = (self.value.clone(), self.error.clone(), self.settings.clone());
        Self { value, error, settings, digest: self.digest }
    }
}
