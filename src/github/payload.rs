//! GitHub's JSON: the fields that are needed, each of which may be missing or `null`.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::event::{Commit, Event, EventError, Merge, Repository, Subject};
use super::object::Object;
use super::shape;
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
    before: Option<String>,
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    deleted: Option<bool>,
    #[serde(default)]
    head_commit: Option<HeadCommit>,
    #[serde(default)]
    sha: Option<String>,
    #[serde(default)]
    branches: Lenient<Vec<Named>>,
    #[serde(default)]
    label: Lenient<Named>,
    #[serde(default)]
    merge_group: Lenient<Object>,
    #[serde(default)]
    check_run: Lenient<Object>,
    #[serde(default)]
    check_suite: Lenient<Object>,
    #[serde(default)]
    workflow_run: Lenient<Object>,
    #[serde(default)]
    workflow_job: Lenient<Object>,
    #[serde(default)]
    deployment: Lenient<Object>,
    #[serde(default)]
    deployment_status: Lenient<Object>,
    #[serde(default)]
    review: Lenient<Object>,
    #[serde(default)]
    comment: Lenient<Object>,
    #[serde(default)]
    discussion: Lenient<Object>,
}

/// A value of this form, or of any other, which is then as good as none: kinds that are not read here may have fields of the
/// same names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Value(T),
    Other(IgnoredAny),
}

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self::Other(IgnoredAny)
    }
}

impl<T> Lenient<T> {
    fn get(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Other(_) => None,
        }
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
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
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
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
    updated_at: Option<String>,
    #[serde(default)]
    html_url: Option<String>,
}

#[derive(Deserialize)]
struct Release {
    #[serde(default)]
    id: Option<u64>,
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
    id: Option<String>,
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
        payload.check(&delivery.kind, delivery.action.as_deref(), &delivery.payload)?;
        let merge = payload.merge(&delivery.kind)?;
        if merge.is_some()
            && payload.pull_request.as_ref().is_some_and(|pull_request| pull_request.state.as_deref() == Some("open"))
        {
            tracing::warn!(
                delivery = delivery.id.as_str(),
                "the payload contradicts itself: a merged pull request that is open"
            );
        }
        let identity = if merge.is_some() { Vec::new() } else { payload.identity(&delivery.kind, &delivery.payload) };
        Ok(Self {
            merge,
            subject: payload.subject(),
            identity,
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
    /// Fails when the payload is not that of `kind`, or of `action` where a CloudEvent's type names one. No signature covers
    /// the headers, so that the payload must bear them out.
    fn check(&self, kind: &EventKind, action: Option<&str>, payload: &[u8]) -> Result<(), EventError> {
        if action.is_some_and(|action| self.action.as_deref() != Some(action)) {
            return Err(EventError::OtherEvent(format!("{kind}.{}", action.unwrap_or_default())));
        }
        if *kind == EventKind::PullRequest {
            // Most events: without reading the payload a second time.
            let foreign = self.issue.is_some() || self.release.is_some() || self.reference.is_some();
            let foreign = foreign || self.review.get().is_some() || self.comment.get().is_some();
            return match self.pull_request {
                None => Err(EventError::Missing(kind.clone(), "pull_request")),
                Some(_) if foreign => Err(EventError::OtherEvent(kind.to_string())),
                Some(_) => Ok(()),
            };
        }
        shape::check(kind, payload)
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
        if let Some(object) = self.object() {
            return Subject {
                page: object.html_url.clone(),
                target_branch: object.branch().map(str::to_owned),
                commit: object.commit().and_then(Commit::parse),
                ..Subject::default()
            };
        }
        let head = self.head_commit.as_ref();
        let reference = self.reference.as_deref().unwrap_or_default();
        // The `after` of an annotated tag is the tag object, not the commit.
        let tagged = head.filter(|_| reference.starts_with("refs/tags/")).and_then(|head| head.id.as_deref());
        let commit = tagged.or(self.after.as_deref()).or(self.sha.as_deref());
        let only_branch =
            self.branches.get().filter(|branches| branches.len() == 1).and_then(|branches| branches.first());
        Subject {
            number: self.number,
            page: head.and_then(|head| head.url.clone()),
            target_branch: reference
                .strip_prefix("refs/heads/")
                .or(only_branch.map(|branch| branch.name.as_str()))
                .map(str::to_owned),
            commit: commit.and_then(Commit::parse),
            time: head.and_then(|head| head.timestamp.clone()),
            deleted: self.deleted == Some(true),
            ..Subject::default()
        }
    }

    /// The object of a kind that has a commit and a branch of its own.
    fn object(&self) -> Option<&Object> {
        let status = self.deployment_status.get().and(self.deployment.get());
        let objects = [
            &self.merge_group,
            &self.check_run,
            &self.check_suite,
            &self.workflow_job,
            &self.deployment,
            &self.workflow_run,
        ];
        status.or_else(|| objects.into_iter().find_map(Lenient::get))
    }

    /// What tells this event from others of its kind and repository: signed content, the same in every delivery of it.
    fn identity(&self, kind: &EventKind, payload: &[u8]) -> Vec<String> {
        let repository = self.repository.as_ref();
        let pull_request = self.pull_request.as_ref();
        let issue = self.issue.as_ref();
        let number = pull_request.and_then(|pull_request| pull_request.number).or(issue.and_then(|issue| issue.number));
        let mut parts = vec![
            self.action.clone(),
            number.or(self.number).map(|number| number.to_string()),
            self.reference.clone(),
            self.before.clone(),
            self.after.clone().or(self.sha.clone()),
            // The same push may come back after a force push to and fro.
            repository
                .filter(|_| self.after.is_some())
                .and_then(|repository| repository.pushed_at.as_ref())
                .map(Value::to_string),
            pull_request.and_then(|pull_request| pull_request.updated_at.clone()),
            issue.and_then(|issue| issue.updated_at.clone()),
            self.release.as_ref().and_then(|release| release.id).map(|id| id.to_string()),
            self.label.get().map(|label| label.name.clone()),
        ];
        let objects = [
            &self.merge_group,
            &self.check_run,
            &self.check_suite,
            &self.workflow_run,
            &self.workflow_job,
            &self.deployment,
            &self.deployment_status,
            &self.review,
            &self.comment,
            &self.discussion,
        ];
        parts.extend(objects.into_iter().filter_map(Lenient::get).flat_map(Object::identity));
        let known = !matches!(kind, EventKind::Other(_)) || self.object().is_some() || self.comment.get().is_some();
        if !known || parts.iter().skip(1).all(Option::is_none) {
            return vec![hex::encode(Sha256::digest(payload))];
        }
        parts.into_iter().map(Option::unwrap_or_default).collect()
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
