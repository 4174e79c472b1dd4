//! GitHub's JSON: the fields that are needed, each of which may be missing or `null`.

use serde::Deserialize;

use super::event::{Commit, Event, EventError, Merge, Repository, Subject};
use crate::delivery::{Delivery, EventKind};

/// The fields of all kinds of events; each kind has some of them.
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
    #[serde(default)]
    issue: Option<Issue>,
    #[serde(default)]
    release: Option<Release>,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    deleted: Option<bool>,
    #[serde(default)]
    head_commit: Option<HeadCommit>,
}

#[derive(Deserialize)]
struct Sender {
    #[serde(default)]
    login: Option<String>,
}

#[derive(Deserialize)]
struct PullRequest {
    #[serde(default)]
    number: Option<u64>,
    #[serde(default)]
    html_url: Option<String>,
    /// GitHub sends `null` where it does not know.
    #[serde(default)]
    merged: Option<bool>,
    #[serde(default)]
    merged_at: Option<String>,
    /// The merge commit if `merged` is true; else the commit of GitHub's test merge.
    #[serde(default)]
    merge_commit_sha: Option<String>,
    #[serde(default)]
    base: Option<End>,
    #[serde(default)]
    head: Option<End>,
}

/// One end of a pull request.
#[derive(Deserialize)]
struct End {
    #[serde(default, rename = "ref")]
    branch: Option<String>,
    #[serde(default)]
    sha: Option<String>,
}

#[derive(Deserialize)]
struct Issue {
    #[serde(default)]
    number: Option<u64>,
    #[serde(default)]
    html_url: Option<String>,
}

#[derive(Deserialize)]
struct Release {
    #[serde(default)]
    html_url: Option<String>,
    #[serde(default)]
    target_commitish: Option<String>,
    #[serde(default)]
    published_at: Option<String>,
}

#[derive(Deserialize)]
struct HeadCommit {
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default)]
    url: Option<String>,
}

impl Event {
    /// Parses the event that a verified delivery carries.
    /// Fails when the payload is not GitHub's JSON, belongs to another event, or says `merged` without repository, number or
    /// full commit.
    pub(crate) fn parse(delivery: Delivery) -> Result<Self, EventError> {
        // serde would read an array as the fields in order.
        if delivery.payload.trim_ascii_start().first() != Some(&b'{') {
            return Err(EventError::NotAnObject);
        }
        let payload: Payload = serde_json::from_slice(&delivery.payload)?;
        if !payload.may_be(&delivery.kind, delivery.action.as_deref()) {
            let action = delivery.action.map(|action| format!(".{action}")).unwrap_or_default();
            return Err(EventError::OtherEvent(format!("{}{action}", delivery.kind)));
        }
        Ok(Self {
            merge: payload.merge(&delivery.kind)?,
            subject: payload.subject(),
            kind: delivery.kind,
            delivery: delivery.id,
            action: payload.action,
            repository: payload.repository,
            sender: payload.sender.and_then(|sender| sender.login),
            trace: delivery.trace,
            headers: delivery.headers,
            payload: delivery.payload,
        })
    }
}

impl Payload {
    /// Whether the payload can be that of `kind`, and of `action` where a CloudEvent's type names one. No signature covers
    /// the headers, so that the payload must bear them out.
    fn may_be(&self, kind: &EventKind, action: Option<&str>) -> bool {
        let (pull_request, issue, release) =
            (self.pull_request.is_some(), self.issue.is_some(), self.release.is_some());
        let subject = match kind {
            EventKind::PullRequest => !(issue || release || self.reference.is_some()),
            EventKind::Push => !(pull_request || issue || release),
            EventKind::Issues => !(pull_request || release),
            EventKind::Release => !(pull_request || issue),
            EventKind::Ping | EventKind::Other(_) => true,
        };
        subject && action.is_none_or(|action| self.action.as_deref() == Some(action))
    }

    /// The merge, if the action is `closed` and `merged` is true; the commit alone proves nothing, because GitHub sends one
    /// for unmerged pull requests, too.
    fn merge(&self, kind: &EventKind) -> Result<Option<Merge>, EventError> {
        let Some(pull_request) = &self.pull_request else { return Ok(None) };
        if *kind != EventKind::PullRequest
            || self.action.as_deref() != Some("closed")
            || pull_request.merged != Some(true)
        {
            return Ok(None);
        }
        let commit = pull_request.merge_commit_sha.as_deref().and_then(Commit::parse);
        Ok(Some(Merge {
            repository: self
                .repository_name()
                .ok_or(EventError::Incomplete("repository.full_name (owner/name)"))?
                .to_owned(),
            number: pull_request.number.or(self.number).ok_or(EventError::Incomplete("a number"))?,
            commit: commit.ok_or(EventError::Incomplete("a full hexadecimal merge_commit_sha"))?,
        }))
    }

    fn subject(&self) -> Subject {
        let branch = |end: &Option<End>| end.as_ref().and_then(|end| end.branch.clone());
        if let Some(pull_request) = &self.pull_request {
            let head = pull_request.head.as_ref().and_then(|head| head.sha.as_deref());
            return Subject {
                number: pull_request.number.or(self.number),
                page: pull_request.html_url.clone(),
                target_branch: branch(&pull_request.base),
                source_branch: branch(&pull_request.head),
                commit: head.and_then(Commit::parse),
                time: pull_request.merged_at.clone(),
                ..Subject::default()
            };
        }
        if let Some(issue) = &self.issue {
            return Subject { number: issue.number, page: issue.html_url.clone(), ..Subject::default() };
        }
        if let Some(release) = &self.release {
            return Subject {
                page: release.html_url.clone(),
                target_branch: release.target_commitish.clone(),
                time: release.published_at.clone(),
                ..Subject::default()
            };
        }
        let head = self.head_commit.as_ref();
        Subject {
            number: self.number,
            page: head.and_then(|head| head.url.clone()),
            target_branch: self
                .reference
                .as_deref()
                .and_then(|name| name.strip_prefix("refs/heads/"))
                .map(str::to_owned),
            commit: self.after.as_deref().and_then(Commit::parse),
            time: head.and_then(|head| head.timestamp.clone()),
            deleted: self.deleted == Some(true),
            ..Subject::default()
        }
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
