//! GitHub's REST API: who we are, one call with its limits and failures, commit statuses, deployments,
//! webhooks with their deliveries, and merged pull requests.
//!
//! Nothing is ever sent to another host than the one that the operator named, whatever a payload, a page or a redirect says.
//!
//! Sources: GitHub's documentation, "Using the REST API" (rate limits, redirects, pagination) and its `OpenAPI` description.

mod app;
mod call;
mod client;
mod credential;
mod deployments;
mod error;
mod hooks;
mod pulls;
mod statuses;

pub(crate) use app::{InstallationToken, Owner, PermissionError, Permissions};
pub(crate) use client::Api;
pub(crate) use credential::Credential;
pub(crate) use deployments::{DeploymentReport, DeploymentState};
pub(crate) use error::ApiError;
pub(crate) use hooks::{Attempt, Hook};
pub(crate) use pulls::{Merge, Repository};
pub(crate) use statuses::{CommitState, StatusReport, state_of, status_below};

/// GitHub's limit for the description of a commit status and of a deployment's status, in characters.
const MAX_DESCRIPTION: usize = 140;

/// A description as long as GitHub accepts it.
fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_DESCRIPTION {
        return text.to_owned();
    }
    let begin: String = text.chars().take(MAX_DESCRIPTION - 3).collect();
    format!("{}...", begin.trim_end())
}

/// Whether something had to be written, or was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was written.
    New,
    /// The same was there.
    Before,
}

/// `owner/name`, safe as part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RepositoryName(String);

impl RepositoryName {
    /// Parses `owner/name`. Returns `None` if it has another form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let legal = |part: &str| {
            !part.is_empty()
                && part.len() <= 100
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
                && !part.bytes().all(|byte| byte == b'.')
        };
        let (owner, name) = text.split_once('/')?;
        (legal(owner) && legal(name)).then(|| Self(text.to_owned()))
    }

    /// `owner/name`.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The owner.
    pub(crate) fn owner(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The part after the owner.
    fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_descriptions_to_githubs_limit() {
        assert_eq!(cut("short"), "short");
        let long = cut(&"ä".repeat(200));
        assert!(long.chars().count() <= MAX_DESCRIPTION && long.ends_with("ä..."), "{long}");
    }

    #[test]
    fn takes_no_repository_that_changes_a_path() {
        assert_eq!(RepositoryName::parse("acme/web.js_x-1").expect("a name").name(), "web.js_x-1");
        for bad in ["", "web", "/web", "acme/", "a/b/c", "acme/..", "../web", "acme/web?x", "acme/we b", "acme/%2e"] {
            assert!(RepositoryName::parse(bad).is_none(), "{bad}");
        }
    }
}
