//! What is known of the fields of GitHub's payloads before an event arrives: their kind, and who chooses their content.

/// The kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Text,
    Number,
    List,
    Map,
    /// Not known.
    Any,
}

/// Fields of GitHub's payloads that are maps, wherever they stand.
#[rustfmt::skip]
const MAPS: &[&str] = &[
    "repository", "sender", "pull_request", "base", "head", "user", "owner", "repo", "head_commit", "pusher",
    "organization", "installation", "enterprise", "release", "issue", "author", "committer", "check_run",
    "check_suite", "workflow_run", "workflow_job", "deployment", "deployment_status", "merge_group", "client_payload",
    "review", "changes",
];
/// Fields that are lists.
#[rustfmt::skip]
const LISTS: &[&str] = &[
    "labels", "assignees", "requested_reviewers", "requested_teams", "commits", "added", "modified", "removed", "pages",
    "branches", "pull_requests", "topics",
];

impl Kind {
    /// The kind with its article, for messages.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Text => "text",
            Self::Number => "a number",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Any => "any value",
        }
    }

    /// The kind of the payload's field at the end of a path.
    pub(super) fn of_path(path: &[impl AsRef<str>]) -> Self {
        let Some((name, above)) = path.split_last() else { return Self::Map };
        if above.iter().any(|field| FREE_FIELDS.contains(&field.as_ref())) {
            return Self::Any;
        }
        match name.as_ref() {
            name if MAPS.contains(&name) => Self::Map,
            name if LISTS.contains(&name) => Self::List,
            "merged" | "draft" | "private" | "prerelease" | "deleted" | "forced" => Self::Bool,
            _ => Self::Any,
        }
    }
}

/// Fields of GitHub's payloads that are hexadecimal, a number, a time or one of a few words, wherever they stand.
#[rustfmt::skip]
pub(super) const SAFE_FIELDS: &[&str] = &[
    "sha", "merge_commit_sha", "head_sha", "after", "before", "id", "node_id", "number", "action", "state", "status",
    "conclusion", "created_at", "updated_at", "merged_at", "closed_at", "pushed_at", "published_at", "merged", "draft",
    "private", "fork", "archived", "prerelease", "deleted", "forced", "additions", "deletions", "changed_files",
    "comments", "review_comments", "commits_count", "size", "full_name", "visibility", "type", "author_association",
];
/// Fields whose content senders choose freely, whatever its own fields are called.
pub(super) const FREE_FIELDS: [&str; 2] = ["client_payload", "inputs"];

/// Whether the value of a path into the payload may be an author's text.
pub(super) fn is_author_path(fields: &[String]) -> bool {
    let is_free = |field: &String| FREE_FIELDS.contains(&field.as_str());
    fields.iter().any(is_free) || fields.last().is_none_or(|last| !SAFE_FIELDS.contains(&last.as_str()))
}
