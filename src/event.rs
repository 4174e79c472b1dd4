//! What happened on GitHub: the typed, tolerant reading of a delivery.

use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;

use crate::delivery::{Delivery, DeliveryId, EventKind};

/// One event of GitHub, as far as templates, names and logs need it.
///
/// Everything is optional that GitHub may leave out or send as `null`; what a merge cannot do without is gathered,
/// checked, in [`Merge`].
#[derive(Debug, Clone)]
pub struct Event {
    /// The event's name (`X-GitHub-Event`).
    pub kind: EventKind,
    /// The delivery that brought it.
    pub delivery: DeliveryId,
    /// What happened to the subject, e.g. `closed`.
    pub action: Option<String>,
    /// Where it happened.
    pub repository: Option<Repository>,
    /// The login of who caused it.
    pub sender: Option<String>,
    /// The pull request, if it is about one.
    pub pull_request: Option<PullRequest>,
    /// Present exactly when a pull request was closed and merged.
    pub merge: Option<Merge>,
}

/// A repository of GitHub.
#[derive(Debug, Clone, Deserialize)]
pub struct Repository {
    /// `owner/name`.
    #[serde(default)]
    pub full_name: Option<String>,
    /// The page of the repository, which `git clone` takes as well.
    #[serde(default)]
    pub html_url: Option<String>,
    /// The address for `git clone`, ending in `.git`.
    #[serde(default)]
    pub clone_url: Option<String>,
}

/// A pull request of GitHub.
#[derive(Debug, Clone, Deserialize)]
pub struct PullRequest {
    /// Its number in the repository.
    #[serde(default)]
    pub number: Option<u64>,
    /// Its page.
    #[serde(default)]
    pub html_url: Option<String>,
    /// Whether it was merged; GitHub sends `null` where it does not know.
    #[serde(default)]
    pub merged: Option<bool>,
    /// When it was merged, RFC 3339.
    #[serde(default)]
    pub merged_at: Option<String>,
    /// The merge commit once it is merged; before that a test merge, so that it means nothing without `merged`.
    #[serde(default)]
    pub merge_commit_sha: Option<String>,
    /// The branch that it was merged into.
    #[serde(default)]
    pub base: Option<Branch>,
    /// The branch that it came from.
    #[serde(default)]
    pub head: Option<Branch>,
}

/// One end of a pull request.
#[derive(Debug, Clone, Deserialize)]
pub struct Branch {
    /// The branch's name without `refs/heads/`.
    #[serde(default, rename = "ref")]
    pub name: Option<String>,
}

/// What makes a merge this merge: one repository, one pull request, one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// `owner/name` as GitHub wrote it.
    pub repository: String,
    /// The pull request's number.
    pub number: u64,
    /// The merge commit.
    pub commit: Commit,
}

/// A full commit id: 40 (SHA-1) or 64 (SHA-256) hex digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit(String);

/// Why a verified delivery is not an event that can be acted on. The sender is told with 400.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The payload is not JSON, or not the JSON that GitHub sends.
    #[error("the payload is not a GitHub event: {0}")]
    Payload(#[from] serde_json::Error),
    /// The payload is something else than a JSON object.
    #[error("the payload is not a GitHub event: it must be a JSON object")]
    NotAnObject,
    /// A merged pull request lacks what makes it one.
    #[error("a merged pull request without {0}")]
    Incomplete(&'static str),
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    action: Option<String>,
    #[serde(default)]
    number: Option<u64>,
    #[serde(default)]
    repository: Option<Repository>,
    #[serde(default)]
    sender: Option<Sender>,
    #[serde(default)]
    pull_request: Option<PullRequest>,
}

#[derive(Deserialize)]
struct Sender {
    #[serde(default)]
    login: Option<String>,
}

impl Event {
    /// Reads the event that a verified delivery carries.
    ///
    /// # Errors
    /// When the payload is not GitHub's JSON, or says `merged` without repository, number or full commit.
    pub fn parse(delivery: &Delivery) -> Result<Self, Error> {
        // serde would read an array as the fields in order, which is nothing that GitHub sends.
        if delivery.payload().trim_ascii_start().first() != Some(&b'{') {
            return Err(Error::NotAnObject);
        }
        let payload: Payload = serde_json::from_slice(delivery.payload())?;
        let merge = payload.merge(delivery.kind())?;
        let mut pull_request = payload.pull_request;
        if let Some(pull_request) = &mut pull_request {
            pull_request.number = pull_request.number.or(payload.number);
        }
        Ok(Self {
            kind: delivery.kind().clone(),
            delivery: delivery.id().clone(),
            action: payload.action,
            repository: payload.repository,
            sender: payload.sender.and_then(|sender| sender.login),
            pull_request,
            merge,
        })
    }

    /// The merge, or which condition of one does not hold: what it wanted, what it got.
    ///
    /// # Errors
    /// The reason, in words for a person.
    pub fn merge_or_reason(&self) -> Result<&Merge, String> {
        if let Some(merge) = &self.merge {
            return Ok(merge);
        }
        if !self.kind.is_pull_request() {
            return Err(format!("the event must be pull_request, got {}", self.kind));
        }
        match self.action.as_deref() {
            Some("closed") => Err("the pull request must be merged, got closed without a merge".to_owned()),
            Some(action) => {
                let shown: String = action.chars().filter(|c| !c.is_control()).take(40).collect();
                Err(format!("the action must be closed, got {shown}"))
            }
            None => Err("the action must be closed, got none".to_owned()),
        }
    }

    /// `owner/name`, where the event has one.
    pub fn repository_name(&self) -> Option<&str> {
        self.repository.as_ref()?.full_name.as_deref()
    }

    /// The branch that the pull request was merged into or asks to be.
    pub fn target_branch(&self) -> Option<&str> {
        self.pull_request.as_ref()?.base.as_ref()?.name.as_deref()
    }

    /// The branch that the pull request comes from.
    pub fn source_branch(&self) -> Option<&str> {
        self.pull_request.as_ref()?.head.as_ref()?.name.as_deref()
    }

    /// The moment of the merge, UTC.
    pub fn merged_at(&self) -> Option<Timestamp> {
        self.pull_request.as_ref()?.merged_at.as_deref()?.parse().ok()
    }

    /// Event and action in GitHub's own notation, e.g. `pull_request.closed`.
    pub fn qualified_kind(&self) -> String {
        match &self.action {
            Some(action) => format!("{}.{action}", self.kind),
            None => self.kind.to_string(),
        }
    }
}

impl Payload {
    /// `closed` and `merged: true`, never the commit alone: GitHub sends one for unmerged pull requests, too.
    fn merge(&self, kind: &EventKind) -> Result<Option<Merge>, Error> {
        let Some(pull_request) = &self.pull_request else {
            return Ok(None);
        };
        if !kind.is_pull_request() || self.action.as_deref() != Some("closed") || pull_request.merged != Some(true) {
            return Ok(None);
        }
        let commit = pull_request.merge_commit_sha.as_deref().and_then(Commit::parse);
        Ok(Some(Merge {
            repository: self
                .repository_name()
                .ok_or(Error::Incomplete("repository.full_name (owner/name)"))?
                .to_owned(),
            number: pull_request.number.or(self.number).ok_or(Error::Incomplete("a number"))?,
            commit: commit.ok_or(Error::Incomplete("a full hexadecimal merge_commit_sha"))?,
        }))
    }

    fn repository_name(&self) -> Option<&str> {
        let name = self.repository.as_ref()?.full_name.as_deref()?;
        let (owner, repository) = name.split_once('/')?;
        let legal = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        (legal(owner) && legal(repository)).then_some(name)
    }
}

impl Commit {
    /// Takes a full commit id in either case; anything shorter is ambiguous and refused.
    pub fn parse(text: &str) -> Option<Self> {
        let full = matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit());
        full.then(|| Self(text.to_ascii_lowercase()))
    }

    /// All digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight digits, as the seed's `{{.ShortCommitid}}`.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
