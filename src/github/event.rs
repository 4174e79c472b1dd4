//! The typed event.

use std::fmt;
use std::sync::OnceLock;
use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::delivery::{DeliveryId, EventKind, Headers};
use crate::json;
use crate::team::Team;
use crate::telemetry::trace::TraceContext;

/// Longest name of an owner or a repository.
const MAX_NAME: usize = 100;
/// Longest action that a message quotes; GitHub's longest has some 25 characters.
const MAX_QUOTED_ACTION: usize = 40;

/// One event of GitHub, as far as templates, names and logs need it.
///
/// Everything is optional that GitHub may leave out or send as `null`. The parts that a merge needs are checked and
/// gathered in [`Merge`].
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// The event's name (`X-GitHub-Event`).
    pub(crate) kind: EventKind,
    /// The delivery that brought it.
    pub(crate) delivery: DeliveryId,
    /// The action, for example `closed`.
    pub(crate) action: Option<String>,
    /// The repository it happened in.
    pub(crate) repository: Option<Repository>,
    /// Login of the user who caused it.
    pub(crate) sender: Option<String>,
    /// The pull request, push, release or issue it is about.
    pub(crate) subject: Subject,
    /// Present exactly when a pull request was closed and merged.
    pub(crate) merge: Option<Merge>,
    /// The trace that it belongs to.
    pub(crate) trace: Option<TraceContext>,
    /// The delivery's headers.
    pub(crate) headers: Headers,
    /// Subject of the token that its sender, in the cluster, proved itself with.
    pub(crate) token_subject: Option<String>,
    /// The team that its sender is proven to send for; its templates decide.
    pub(crate) team: Team,
    /// The payload as GitHub sent it.
    pub(crate) payload: Bytes,
    /// Time by which the delivery must be answered; expressions stop then. `None` for no limit.
    pub(crate) deadline: Option<Instant>,
    /// See [`Event::identity`]; computed once for all templates.
    pub(super) identity: OnceLock<Vec<String>>,
    /// See [`Event::changed_paths`]; computed once for all templates.
    pub(super) changed_paths: OnceLock<Option<Vec<String>>>,
    /// See [`Event::value_memory`]; computed once for all templates.
    pub(super) value_memory: OnceLock<u64>,
}

/// A repository of GitHub.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Repository {
    /// `owner/name`.
    #[serde(default)]
    pub(crate) full_name: Option<String>,
    /// URL of the repository's page, which `git clone` takes as well.
    #[serde(default)]
    html_url: Option<String>,
    /// URL for `git clone`, ending in `.git`.
    #[serde(default)]
    clone_url: Option<String>,
    /// Time of the last push.
    #[serde(default, deserialize_with = "pushed_at")]
    pushed_at: Option<Timestamp>,
}

/// Reads seconds since 1970, as GitHub sends in a push, or RFC 3339, as elsewhere. Returns `None` for any other value, whatever its size.
fn pushed_at<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    let text = raw.get();
    let seconds = || Timestamp::from_second(text.parse().ok()?).ok();
    Ok(seconds().or_else(|| text.trim_matches('"').parse().ok()))
}

/// The object that an event is about: a pull request, a push, a release or an issue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    /// Number of the pull request or issue.
    pub(crate) number: Option<u64>,
    /// URL of its page.
    pub(crate) page: Option<String>,
    /// The branch merged into or pushed to.
    pub(crate) target_branch: Option<String>,
    /// The branch that a pull request comes from.
    pub(crate) source_branch: Option<String>,
    /// The commit pushed, or the head of a pull request. For the merge commit see [`Merge`].
    pub(super) commit: Option<Commit>,
    /// Time of the merge, commit or publication, RFC 3339.
    pub(super) time: Option<String>,
    /// Time when the pull request was closed, RFC 3339.
    pub(super) closed_at: Option<String>,
    /// Number of commits of a pull request.
    pub(crate) commits: Option<u64>,
    /// Whether the push deleted a branch or tag.
    pub(super) deleted: bool,
}

/// The identity of a merge: repository, pull request and commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merge {
    /// `owner/name` as GitHub wrote it.
    pub(crate) repository: String,
    /// Number of the pull request.
    pub(crate) number: u64,
    /// The merge commit.
    pub(crate) commit: Commit,
}

/// A full commit id: 40 (SHA-1) or 64 (SHA-256) hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit(String);

/// Why a verified delivery is not an event that can be acted on. The sender gets 400.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventError {
    /// The payload is not JSON, or not the JSON that GitHub sends.
    #[error("the payload is not a GitHub event: {0}")]
    Payload(#[from] serde_json::Error),
    /// The payload is JSON, but not an object.
    #[error("the payload is not a GitHub event: it must be a JSON object")]
    NotAnObject,
    /// The action is longer than any of GitHub's.
    #[error("the payload is not a GitHub event: its action is too long")]
    LongAction,
    /// A merged pull request lacks a part of its identity.
    #[error("a merged pull request without {0}")]
    Incomplete(&'static str),
    /// The payload lacks the object of the event that the headers name.
    #[error("the payload is not that of {0}: `{1}` is missing")]
    Missing(EventKind, &'static str),
    /// The payload belongs to another event than the headers name.
    #[error("the payload is not that of {0}")]
    OtherEvent(String),
}

/// Which condition of a merge an event does not meet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAMerge {
    /// Another kind of event.
    #[error("the event must be pull_request, got {0}")]
    Kind(EventKind),
    /// A pull request was closed without a merge.
    #[error("the pull request must be merged, got closed without a merge")]
    Unmerged,
    /// Another action.
    #[error("the action must be closed, got {}", .0.as_deref().unwrap_or("none"))]
    Action(Option<String>),
}

impl Event {
    /// The merge.
    /// Fails when the event is not a merge.
    pub(crate) fn merge(&self) -> Result<&Merge, NotAMerge> {
        if let Some(merge) = &self.merge {
            return Ok(merge);
        }
        if self.kind != EventKind::PullRequest {
            return Err(NotAMerge::Kind(self.kind.clone()));
        }
        if self.action.as_deref() == Some("closed") {
            return Err(NotAMerge::Unmerged);
        }
        let quoted = |action: &String| action.chars().filter(|c| !c.is_control()).take(MAX_QUOTED_ACTION).collect();
        Err(NotAMerge::Action(self.action.as_ref().map(quoted)))
    }

    /// `owner/name` of the repository.
    pub(crate) fn repository_name(&self) -> Option<&str> {
        self.repository.as_ref()?.full_name.as_deref()
    }

    /// Memory in bytes that the payload's values take once they are built, an upper bound.
    pub(crate) fn value_memory(&self) -> u64 {
        *self.value_memory.get_or_init(|| json::memory(&self.payload))
    }

    /// The commit to build; of a merge the merge commit.
    pub(crate) fn commit(&self) -> Option<&Commit> {
        self.merge.as_ref().map(|merge| &merge.commit).or(self.subject.commit.as_ref())
    }

    /// Time of the merge, or of the push, on GitHub's clock; never a commit's own time, which its author chooses. Orders
    /// deployments.
    pub(crate) fn merged_at(&self) -> Option<Timestamp> {
        match (&self.merge, &self.kind) {
            (Some(_), _) => self.time(),
            (None, EventKind::Push) => self.repository.as_ref()?.pushed_at,
            _ => None,
        }
    }

    /// Time of the merge, of the pushed commit or of the publication. Never the time of delivery, so that a redelivery
    /// renders the same object.
    pub(crate) fn time(&self) -> Option<Timestamp> {
        self.subject.time.as_deref()?.parse().ok()
    }

    /// Time when the pull request was closed, which is that of its merge.
    pub(crate) fn closed_at(&self) -> Option<Timestamp> {
        self.subject.closed_at.as_deref()?.parse().ok()
    }

    /// How many commits before the merge commit there was nothing of the pull request, if its commits were squashed or rebased.
    /// `None` for another event, and where that is not certain: the head of a branch that was pushed forward is itself the
    /// merge commit, and may have the target branch as its second parent.
    pub(crate) fn commits_before_merge(&self) -> Option<u64> {
        let merge = self.merge.as_ref()?;
        self.subject.commits.filter(|commits| *commits > 0 && self.subject.commit.as_ref() != Some(&merge.commit))
    }

    /// Whether a branch or tag was deleted, so that there is nothing to build.
    pub(crate) fn is_deletion(&self) -> bool {
        self.subject.deleted
    }
}

impl Repository {
    /// Without a name that GitHub does not allow.
    pub(super) fn with_legal_name(self) -> Self {
        Self { full_name: self.full_name.filter(|name| Self::is_legal_name(name)), ..self }
    }

    /// Whether a text is `owner/name`, with the characters that GitHub allows.
    pub(super) fn is_legal_name(name: &str) -> bool {
        let legal = |part: &str| {
            (1..=MAX_NAME).contains(&part.len())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        name.split_once('/').is_some_and(|(owner, repository)| legal(owner) && legal(repository))
    }

    /// URL of the repository, for people and for `git clone`.
    pub(crate) fn url(&self) -> Option<&str> {
        self.html_url.as_deref().or(self.clone_url.as_deref())
    }
}

impl Commit {
    /// Parses a full commit id in upper or lower case. Returns `None` for anything shorter, which is ambiguous, and for
    /// all zeros, which GitHub sends where there is no commit, for example after a branch was deleted.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let full = matches!(text.len(), 40 | 64)
            && text.bytes().all(|b| b.is_ascii_hexdigit())
            && text.bytes().any(|b| b != b'0');
        full.then(|| Self(text.to_ascii_lowercase()))
    }

    /// All digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight digits.
    pub(crate) fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
