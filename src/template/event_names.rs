//! Names that events of some kinds never have a value for.
//!
//! Source: GitHub's documentation, "Webhook events and payloads". Kinds that are not listed may have one.

use super::expression::Name;
use crate::delivery::EventKind;

/// Kinds without a commit.
#[rustfmt::skip]
const NO_COMMIT: &[&str] = &[
    "branch_protection_rule", "commit_comment", "create", "delete", "discussion", "discussion_comment", "fork", "gollum",
    "issue_comment", "issues", "label", "member", "milestone", "package", "page_build", "ping", "public",
    "registry_package", "release", "repository", "repository_dispatch", "star", "watch", "workflow_dispatch",
];
/// Kinds without a branch that they happened on.
#[rustfmt::skip]
const NO_BRANCH: &[&str] = &[
    "branch_protection_rule", "commit_comment", "create", "delete", "discussion", "discussion_comment", "fork", "gollum",
    "issue_comment", "issues", "label", "member", "milestone", "package", "page_build", "ping", "public",
    "registry_package", "repository", "repository_dispatch", "star", "watch", "workflow_job",
];
/// Kinds about a pull request: only they have a source branch.
const OF_PULL_REQUEST: &[&str] =
    &["pull_request", "pull_request_review", "pull_request_review_comment", "pull_request_review_thread"];
/// Other kinds with a commit, or the number of a pull request, that may be a fork's.
const OF_COMMITS_OF_FORKS: &[&str] =
    &["check_run", "check_suite", "issue_comment", "status", "workflow_job", "workflow_run"];
/// Kinds that belong to an organisation, an App or a user.
#[rustfmt::skip]
const NO_REPOSITORY: &[&str] = &[
    "custom_property", "github_app_authorization", "installation", "installation_repositories", "installation_target",
    "marketplace_purchase", "membership", "org_block", "organization", "personal_access_token_request", "projects_v2",
    "projects_v2_item", "projects_v2_status_update", "security_advisory", "sponsorship",
];
/// Kinds with the time of what happened.
const TIMED: &[&str] = &["pull_request", "push", "release"];

/// Whether the commit of events of `kind` may be one that anyone can make.
pub(super) fn has_commits_of_forks(kind: &EventKind) -> bool {
    [OF_PULL_REQUEST, OF_COMMITS_OF_FORKS].iter().any(|kinds| kinds.contains(&kind.as_str()))
}

/// Whether no event of `kind` belongs to a repository.
pub(super) fn lacks_repository(kind: &EventKind) -> bool {
    NO_REPOSITORY.contains(&kind.as_str())
}

/// Whether no event of `kind` has a value for `name`.
pub(super) fn lacks(kind: &EventKind, name: Name) -> bool {
    let kind = kind.as_str();
    let is_known = NO_COMMIT.contains(&kind) || NO_BRANCH.contains(&kind);
    match name {
        Name::Commitid | Name::ShortCommitid | Name::Revision => NO_COMMIT.contains(&kind),
        Name::Branch | Name::TargetBranch => NO_BRANCH.contains(&kind),
        Name::SourceBranch => !OF_PULL_REQUEST.contains(&kind) && (is_known || TIMED.contains(&kind)),
        Name::TimeString => !TIMED.contains(&kind) && is_known,
        Name::PullRequestNumber => {
            !OF_PULL_REQUEST.contains(&kind)
                && !matches!(kind, "issues" | "issue_comment")
                && (is_known || TIMED.contains(&kind))
        }
        Name::RepoUrl | Name::RepoOwner | Name::Repo | Name::Sender | Name::EventType => false,
    }
}
