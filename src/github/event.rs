//! What happened on GitHub: the typed, tolerant reading of a delivery.

mod payload;

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;

use crate::delivery::{Delivery, DeliveryId, EventKind};
use crate::trace::TraceContext;
use payload::Payload;

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
    /// What it happened to.
    pub subject: Subject,
    /// Present exactly when a pull request was closed and merged.
    pub merge: Option<Merge>,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
    headers: HeaderMap,
    payload: Bytes,
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

/// What an event is about, whichever kind it is: a pull request, a push, a release, an issue.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// The pull request's or issue's number.
    pub number: Option<u64>,
    /// The subject's page.
    pub page: Option<String>,
    /// The branch merged into or pushed to.
    pub target_branch: Option<String>,
    /// The branch that a pull request comes from.
    pub source_branch: Option<String>,
    /// The commit pushed, or the head of a pull request; of a merge, see [`Merge`].
    commit: Option<Commit>,
    /// When it was merged, committed or published, RFC 3339.
    time: Option<String>,
    /// A push that deleted a branch or tag.
    deleted: bool,
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
    /// The payload belongs to another event than the one it was announced as.
    #[error("the payload is not that of {0}")]
    OtherEvent(String),
}

impl Event {
    /// Reads the event that a verified delivery carries.
    ///
    /// # Errors
    /// When the payload is not GitHub's JSON, is that of another event, or says `merged` without repository, number or
    /// full commit.
    pub fn parse(delivery: Delivery) -> Result<Self, Error> {
        // serde would read an array as the fields in order, which is nothing that GitHub sends.
        if delivery.payload().trim_ascii_start().first() != Some(&b'{') {
            return Err(Error::NotAnObject);
        }
        let payload: Payload = serde_json::from_slice(delivery.payload())?;
        if !payload.may_be(delivery.kind(), delivery.action()) {
            let action = delivery.action().map(|action| format!(".{action}")).unwrap_or_default();
            return Err(Error::OtherEvent(format!("{}{action}", delivery.kind())));
        }
        let merge = payload.merge(delivery.kind())?;
        let subject = payload.subject();
        let (kind, id, trace, headers, bytes) = delivery.into_parts();
        Ok(Self {
            kind,
            delivery: id,
            action: payload.action,
            repository: payload.repository,
            sender: payload.sender.and_then(|sender| sender.login),
            subject,
            merge,
            trace,
            headers,
            payload: bytes,
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

    /// The commit to build: of a merge the merge commit.
    pub fn commit(&self) -> Option<&Commit> {
        self.merge.as_ref().map(|merge| &merge.commit).or(self.subject.commit.as_ref())
    }

    /// The moment of the merge, of the pushed commit or of the publication, UTC; never the time of delivery, so that a
    /// redelivery renders the same object.
    pub fn moment(&self) -> Option<Timestamp> {
        self.subject.time.as_deref()?.parse().ok()
    }

    /// Whether a branch or tag was deleted: there is nothing to build.
    pub fn is_deletion(&self) -> bool {
        self.subject.deleted
    }

    /// The payload as GitHub sent it.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The delivery's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

impl Repository {
    /// The address of the repository, fit for people and for `git clone`.
    pub fn url(&self) -> Option<&str> {
        self.html_url.as_deref().or(self.clone_url.as_deref())
    }
}

impl Commit {
    /// Takes a full commit id in either case; anything shorter is ambiguous and refused.
    ///
    /// All zeros is what GitHub sends where there is no commit, after a branch was deleted for example.
    pub fn parse(text: &str) -> Option<Self> {
        let full = matches!(text.len(), 40 | 64)
            && text.bytes().all(|b| b.is_ascii_hexdigit())
            && text.bytes().any(|b| b != b'0');
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
