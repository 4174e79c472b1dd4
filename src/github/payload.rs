//! GitHub's JSON: the fields that are needed, each of which may be missing or `null`.

use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

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
    #[serde(default, deserialize_with = "object")]
    pull_request: Option<PullRequest>,
    #[serde(default, deserialize_with = "object")]
    issue: Option<Issue>,
    #[serde(default, deserialize_with = "object")]
    release: Option<Release>,
    #[serde(default, rename = "ref")]
    reference: Option<String>,
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
    review: Option<IgnoredAny>,
    #[serde(default)]
    comment: Option<IgnoredAny>,
    #[serde(default)]
    thread: Option<IgnoredAny>,
}

/// An object, or none. serde alone would read an array as the fields in order.
fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    struct Fields<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object or null")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<M: MapAccess<'de>>(self, fields: M) -> Result<Self::Value, M::Error> {
            T::deserialize(MapAccessDeserializer::new(fields)).map(Some)
        }
    }

    deserializer.deserialize_any(Fields(PhantomData))
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
        Ok(Self {
            merge,
            subject: payload.subject(),
            kind: delivery.kind,
            delivery: delivery.id,
            action: payload.action,
            repository: payload.repository,
            sender: payload.sender.and_then(|sender| sender.login),
            trace: delivery.trace,
            headers: delivery.headers,
            payload: delivery.payload,
            identity: OnceLock::new(),
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
            let foreign = foreign || self.review.is_some() || self.comment.is_some() || self.thread.is_some();
            return match self.pull_request {
                None => Err(EventError::Missing(kind.clone(), "pull_request")),
                Some(_) if foreign => Err(EventError::OtherEvent(kind.to_string())),
                Some(_) => Ok(()),
            };
        }
        if self.is_merge() && shape::is_unknown(kind) {
            // Answered 2xx, a merge under another name would be lost.
            return Err(EventError::OtherEvent(kind.to_string()));
        }
        shape::check(kind, payload)
    }

    /// The merge, if the action is `closed` and `merged` is true; the commit alone proves nothing, because GitHub sends one
    /// for unmerged pull requests, too.
    fn merge(&self, kind: &EventKind) -> Result<Option<Merge>, EventError> {
        let Some(pull_request) = &self.pull_request else { return Ok(None) };
        if *kind != EventKind::PullRequest || !self.is_merge() {
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

    fn is_merge(&self) -> bool {
        let merged = self.pull_request.as_ref().and_then(|pull_request| pull_request.merged);
        self.action.as_deref() == Some("closed") && merged == Some(true)
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
                // A workflow's job does not say whether its branch is a fork's.
                target_branch: match self.workflow_job.get() {
                    Some(_) => None,
                    None => object.branch(self.repository_name()).map(str::to_owned),
                },
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

    fn repository_name(&self) -> Option<&str> {
        let name = self.repository.as_ref()?.full_name.as_deref()?;
        let (owner, repository) = name.split_once('/')?;
        let legal = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        (legal(owner) && legal(repository)).then_some(name)
    }
}
