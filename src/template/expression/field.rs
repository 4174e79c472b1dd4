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
    "installation", "enterprise", "release", "issue", "author", "committer", "check_run", "check_suite", "workflow_run",
    "workflow_job", "deployment", "deployment_status", "merge_group", "client_payload", "review", "changes",
];
/// Fields that are lists, wherever they stand.
#[rustfmt::skip]
const LISTS: &[&str] = &[
    "labels", "assignees", "requested_reviewers", "requested_teams", "added", "modified", "removed", "pull_requests",
    "topics",
];
/// Fields that are lists at the top of a payload, and numbers elsewhere.
const TOP_LISTS: &[&str] = &["commits", "pages", "branches"];

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
            name if above.is_empty() && TOP_LISTS.contains(&name) => Self::List,
            // That of a push's repository is text.
            "organization" if above.is_empty() => Self::Map,
            "merged" | "draft" | "private" | "prerelease" | "deleted" | "forced" => Self::Bool,
            _ => Self::Any,
        }
    }
}

/// Fields of GitHub's payloads that are hexadecimal, a number, a time or one of a few words, wherever they stand.
#[rustfmt::skip]
const SAFE_FIELDS: &[&str] = &[
    "sha", "merge_commit_sha", "head_sha", "after", "before", "id", "node_id", "number", "action", "state", "status",
    "conclusion", "created_at", "updated_at", "merged_at", "closed_at", "pushed_at", "published_at", "merged", "draft",
    "private", "fork", "archived", "prerelease", "deleted", "forced", "additions", "deletions", "changed_files",
    "comments", "review_comments", "commits_count", "size", "full_name", "visibility", "type", "author_association",
];
/// Fields whose content is chosen freely, whatever its own fields are called: by senders, by the creator of a deployment, by
/// administrators, by a package.
#[rustfmt::skip]
pub(super) const FREE_FIELDS: &[&str] = &[
    "client_payload", "inputs", "payload", "custom_properties", "rule", "metadata", "container_metadata",
    "docker_metadata", "npm_metadata", "nuget_metadata", "rubygems_metadata",
];
/// Top-level fields whose text only people with write access choose, or GitHub.
#[rustfmt::skip]
const TRUSTED_FIELDS: &[&str] = &[
    "action", "after", "base_ref", "before", "branches", "client_payload", "compare", "context", "created", "deleted",
    "deployment", "deployment_status", "description", "enterprise", "environment", "event", "forced", "hook", "hook_id",
    "inputs", "installation", "label", "master_branch", "merge_group", "milestone", "name", "number", "organization",
    "package", "pusher", "pusher_type", "ref", "ref_type", "registry_package", "release", "repository", "requested_team",
    "rule", "sha", "state", "target_url", "team", "workflow",
];
/// Fields with text of a commit's author, wherever they stand.
const COMMIT_TEXTS: &[&str] = &["commit", "commits", "head_commit"];
/// Fields with the hash of a commit.
const COMMITS: &[&str] = &["sha", "head_sha", "merge_commit_sha", "after", "before"];

/// The place that a text is put into, as far as its author could do harm there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Code, in a template for these events: some characters do harm.
    Code(EventScope),
    /// A field that chooses what runs, or with which rights: any text of a person without write access does harm.
    Choice,
    /// The reference to a Pipeline, Task or `StepAction`, in a template for pull requests: a commit does harm, because a
    /// fork's commit can be fetched from the repository that it was forked from.
    Reference,
}

/// The events that a template is for, as far as they decide who chooses a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventScope {
    /// Merges only. Their target branch was there before.
    Merges,
    /// Others, too.
    Others,
    /// Among them `repository_dispatch`, whose sender chooses the action.
    Dispatches,
}

impl Place {
    /// Every place.
    pub(super) const ALL: [Self; 5] = [
        Self::Code(EventScope::Merges),
        Self::Code(EventScope::Others),
        Self::Code(EventScope::Dispatches),
        Self::Choice,
        Self::Reference,
    ];
}

/// Whether a field's name alone says that its value does no harm in a place.
pub(super) fn is_safe_field(name: &str, place: Place) -> bool {
    match place {
        Place::Code(_) => SAFE_FIELDS.contains(&name),
        // The name of a fork is harmless as text, and chooses another repository.
        Place::Choice => SAFE_FIELDS.contains(&name) && name != "full_name",
        Place::Reference => !COMMITS.contains(&name),
    }
}

/// Whether the value of a path into the payload may be an author's text that does harm in a place.
pub(super) fn is_author_path(fields: &[impl AsRef<str>], place: Place) -> bool {
    let fields: Vec<&str> = fields.iter().map(AsRef::as_ref).collect();
    let has_any = |names: &[&str]| fields.iter().any(|field| names.contains(field));
    let is_harmful = |last: &&str| has_any(FREE_FIELDS) || !is_safe_field(last, place);
    match (fields.as_slice(), place) {
        ([], _) => place != Place::Reference,
        (["action"], _) => place == Place::Code(EventScope::Dispatches),
        // The repository that was merged into.
        (["pull_request", "base", ..], Place::Choice | Place::Reference) => false,
        ([first, .., last] | [first @ last], Place::Choice) => {
            (!TRUSTED_FIELDS.contains(first) || has_any(COMMIT_TEXTS)) && is_harmful(last)
        }
        ([.., "head_commit", "id"], Place::Reference) => true,
        ([.., last], Place::Reference) => !is_safe_field(last, place),
        ([.., last], Place::Code(_)) => is_harmful(last),
    }
}
