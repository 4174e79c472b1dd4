//! GitHub's JSON, as little of it as is needed and as tolerant as GitHub is loose.

use serde::Deserialize;

use super::{Commit, Error, Merge, Repository, Subject};
use crate::delivery::EventKind;

/// The fields of all kinds of events; each kind has some of them.
#[derive(Deserialize)]
pub(super) struct Payload {
    #[serde(default)]
    pub(super) action: Option<String>,
    #[serde(default)]
    number: Option<u64>,
    #[serde(default)]
    pub(super) repository: Option<Repository>,
    #[serde(default)]
    pub(super) sender: Option<Sender>,
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
pub(super) struct Sender {
    #[serde(default)]
    pub(super) login: Option<String>,
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
    /// The merge commit once it is merged; before that a test merge, so that it means nothing without `merged`.
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

impl Payload {
    /// Whether the payload can be that of an event announced as `kind`, with `action` where that was announced, too.
    ///
    /// No signature covers a header: what says `push` outside and has a pull request inside is acted on as neither.
    pub(super) fn may_be(&self, kind: &EventKind, action: Option<&str>) -> bool {
        let (pull_request, issue, release) =
            (self.pull_request.is_some(), self.issue.is_some(), self.release.is_some());
        let subject = match kind.as_str() {
            "pull_request" => !(issue || release || self.reference.is_some()),
            "push" => !(pull_request || issue || release),
            "issues" => !(pull_request || release),
            "release" => !(pull_request || issue),
            _ => true,
        };
        subject && action.is_none_or(|action| self.action.as_deref() == Some(action))
    }

    /// `closed` and `merged: true`, never the commit alone: GitHub sends one for unmerged pull requests, too.
    pub(super) fn merge(&self, kind: &EventKind) -> Result<Option<Merge>, Error> {
        let Some(pull_request) = &self.pull_request else { return Ok(None) };
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

    /// What the event is about.
    pub(super) fn subject(&self) -> Subject {
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
