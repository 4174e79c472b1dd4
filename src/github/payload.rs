//! GitHub's JSON: the fields that are needed, each of which may be missing or `null`.

use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::event::{Commit, Event, EventError, Merge, Repository, Subject};
use super::object::Object;
use super::shape;
use crate::delivery::{Delivery, EventKind};

/// Longest action in bytes; a `repository_dispatch` may choose its own, of at most 100 characters.
const MAX_ACTION: usize = 400;

/// The fields of all kinds of events; each kind has some of them.
#[derive(Deserialize)]
struct Payload<'p> {
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
    #[serde(borrow, default)]
    branches: Lenient<'p, OnlyBranch>,
    #[serde(borrow, default)]
    merge_group: Lenient<'p, Object>,
    #[serde(borrow, default)]
    check_run: Lenient<'p, Object>,
    #[serde(borrow, default)]
    check_suite: Lenient<'p, Object>,
    #[serde(borrow, default)]
    workflow_run: Lenient<'p, Object>,
    #[serde(borrow, default)]
    workflow_job: Lenient<'p, Object>,
    #[serde(borrow, default)]
    deployment: Lenient<'p, Object>,
    #[serde(borrow, default)]
    deployment_status: Lenient<'p, Object>,
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
/// same names. It is read when it is asked for, because it may be of any size.
struct Lenient<'p, T> {
    raw: Option<&'p RawValue>,
    form: PhantomData<T>,
}

impl<T> Default for Lenient<'_, T> {
    fn default() -> Self {
        Self { raw: None, form: PhantomData }
    }
}

impl<'de: 'p, 'p, T> Deserialize<'de> for Lenient<'p, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { raw: Some(Deserialize::deserialize(deserializer)?), form: PhantomData })
    }
}

impl<'p, T: Deserialize<'p>> Lenient<'p, T> {
    fn get(&self) -> Option<T> {
        serde_json::from_str(self.raw?.get()).ok()
    }
}

/// The branches of a status: the name of the only one.
struct OnlyBranch(Option<String>);

impl<'de> Deserialize<'de> for OnlyBranch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Branches;

        impl<'de> Visitor<'de> for Branches {
            type Value = OnlyBranch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("branches")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut branches: S) -> Result<Self::Value, S::Error> {
                let first = branches.next_element::<Named>()?;
                let mut is_only = true;
                while branches.next_element::<IgnoredAny>()?.is_some() {
                    is_only = false;
                }
                Ok(OnlyBranch(first.filter(|_| is_only).map(|branch| branch.name)))
            }
        }

        deserializer.deserialize_seq(Branches)
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
    #[serde(default)]
    closed_at: Option<String>,
    #[serde(default)]
    commits: Option<u64>,
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
        let payload: Payload<'_> = serde_json::from_slice(&delivery.payload)?;
        if payload.action.as_ref().is_some_and(|action| action.len() > MAX_ACTION) {
            return Err(EventError::LongAction);
        }
        payload.check(&delivery.kind, delivery.action.as_deref(), &delivery.payload)?;
        let merge = payload.merge(&delivery.kind)?;
        if let Some(contradiction) = payload.contradiction() {
            let delivery = delivery.id.as_str();
            tracing::warn!(delivery, "the payload contradicts itself: {contradiction}");
        }
        Ok(Self {
            merge,
            subject: payload.subject(),
            kind: delivery.kind,
            delivery: delivery.id,
            action: payload.action,
            repository: payload.repository.map(Repository::with_legal_name),
            sender: payload.sender.and_then(|sender| sender.login),
            trace: delivery.trace,
            headers: delivery.headers,
            token_subject: delivery.token_subject,
            team: delivery.team,
            payload: delivery.payload,
            deadline: None,
            identity: OnceLock::new(),
            changed_paths: OnceLock::new(),
            value_memory: OnceLock::new(),
        })
    }
}

impl Payload<'_> {
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

    /// Two fields that GitHub would not send together.
    fn contradiction(&self) -> Option<&'static str> {
        let pull_request = self.pull_request.as_ref()?;
        let merged = pull_request.merged == Some(true);
        let differs = |a: Option<u64>, b: Option<u64>| a.is_some() && b.is_some() && a != b;
        if merged && pull_request.state.as_deref() == Some("open") {
            return Some("a merged pull request that is open");
        }
        if merged && matches!(self.action.as_deref(), Some("opened" | "reopened" | "synchronize" | "ready_for_review"))
        {
            return Some("a merged pull request with an action of an open one");
        }
        if differs(self.number, pull_request.number) {
            return Some("two numbers of the pull request");
        }
        if pull_request.merged == Some(false) && pull_request.merged_at.is_some() {
            return Some("a time of the merge of an unmerged pull request");
        }
        None
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
                closed_at: pull_request.closed_at.clone(),
                commits: pull_request.commits,
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
        let only_branch = self.branches.get().and_then(|branches| branches.0);
        Subject {
            number: self.number,
            page: head.and_then(|head| head.url.clone()),
            target_branch: reference.strip_prefix("refs/heads/").map(str::to_owned).or(only_branch),
            commit: commit.and_then(Commit::parse),
            time: head.and_then(|head| head.timestamp.clone()),
            deleted: self.deleted == Some(true)
                || self.after.as_ref().is_some_and(|after| !after.is_empty() && after.bytes().all(|b| b == b'0')),
            ..Subject::default()
        }
    }

    /// The object of a kind that has a commit and a branch of its own.
    fn object(&self) -> Option<Object> {
        let status = self.deployment_status.get().and_then(|_| self.deployment.get());
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
        Repository::is_legal_name(name).then_some(name)
    }
}
