//! The objects of events other than pushes, pull requests, issues and releases.

use serde::Deserialize;

use super::event::{Commit, Repository};

/// The object of one kind of event: its page, commit and branch.
#[derive(Deserialize)]
pub(super) struct Object {
    #[serde(default)]
    pub(super) html_url: Option<String>,
    #[serde(default)]
    head_sha: Option<String>,
    #[serde(default)]
    sha: Option<String>,
    #[serde(default)]
    head_branch: Option<String>,
    /// `refs/heads/<branch>` that a merge group goes into.
    #[serde(default)]
    base_ref: Option<String>,
    /// The branch, tag or commit of a deployment.
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    check_suite: Option<Box<Object>>,
    /// Where the commit of a workflow run is from: a fork, perhaps.
    #[serde(default)]
    head_repository: Option<Repository>,
}

impl Object {
    /// The commit that it is about.
    pub(super) fn commit(&self) -> Option<&str> {
        self.head_sha.as_deref().or(self.sha.as_deref())
    }

    /// The branch of `repository` that the commit is on, or goes to. Returns `None` for a fork's branch, because anyone can
    /// name one `main`.
    pub(super) fn branch(&self, repository: Option<&str>) -> Option<&str> {
        let head = self.head_repository.as_ref().and_then(|head| head.full_name.as_deref());
        if head.is_some_and(|head| !repository.is_some_and(|repository| repository.eq_ignore_ascii_case(head))) {
            return None;
        }
        let suite = || self.check_suite.as_deref().and_then(|suite| suite.branch(repository));
        let base = || self.base_ref.as_deref();
        let reference = || self.reference.as_deref().filter(|name| Commit::parse(name).is_none());
        let name = self.head_branch.as_deref().or_else(base).or_else(suite).or_else(reference)?;
        Some(name.strip_prefix("refs/heads/").unwrap_or(name)).filter(|name| !name.starts_with("refs/"))
    }
}
