//! The objects of events other than pushes, pull requests, issues and releases.

use serde::Deserialize;

use super::event::Commit;

/// The object of one kind of event: what it is identified by, and its commit and branch.
#[derive(Deserialize)]
pub(super) struct Object {
    #[serde(default)]
    id: Option<u64>,
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
    state: Option<String>,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    updated_at: Option<String>,
    #[serde(default)]
    submitted_at: Option<String>,
    #[serde(default)]
    check_suite: Option<Box<Object>>,
}

impl Object {
    /// The commit that it is about.
    pub(super) fn commit(&self) -> Option<&str> {
        self.head_sha.as_deref().or(self.sha.as_deref())
    }

    /// The branch that the commit is on, or goes to.
    pub(super) fn branch(&self) -> Option<&str> {
        let suite = || self.check_suite.as_deref().and_then(Object::branch);
        let base = || self.base_ref.as_deref().map(|name| name.strip_prefix("refs/heads/").unwrap_or(name));
        let reference = || self.reference.as_deref().filter(|name| Commit::parse(name).is_none());
        self.head_branch.as_deref().or_else(base).or_else(suite).or_else(reference)
    }

    /// What tells two states of the object apart.
    pub(super) fn identity(&self) -> [Option<String>; 4] {
        let time = self.updated_at.clone().or(self.submitted_at.clone());
        [
            self.id.map(|id| id.to_string()),
            self.commit().map(str::to_owned),
            self.state.clone().or(self.status.clone()),
            time,
        ]
    }
}
