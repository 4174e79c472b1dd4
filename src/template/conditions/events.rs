//! GitHub's events and their actions.
//!
//! Source: GitHub's documentation, "Webhook events and payloads".

use super::super::nearest::nearest;

/// Actions of one event.
enum Actions {
    /// The event has none.
    None,
    /// These.
    Of(&'static [&'static str]),
    /// Any: senders choose them, or GitHub adds some often.
    Any,
}

use Actions::{Any, None as No, Of};

#[rustfmt::skip]
const EVENTS: &[(&str, Actions)] = &[
    ("branch_protection_configuration", Of(&["disabled", "enabled"])),
    ("branch_protection_rule", Of(&["created", "deleted", "edited"])),
    ("check_run", Of(&["completed", "created", "requested_action", "rerequested"])),
    ("check_suite", Of(&["completed", "requested", "rerequested"])),
    ("code_scanning_alert", Any),
    ("commit_comment", Of(&["created"])),
    ("create", No),
    ("custom_property", Any),
    ("custom_property_values", Any),
    ("delete", No),
    ("dependabot_alert", Any),
    ("deploy_key", Of(&["created", "deleted"])),
    ("deployment", Of(&["created"])),
    ("deployment_protection_rule", Of(&["requested"])),
    ("deployment_review", Of(&["approved", "rejected", "requested"])),
    ("deployment_status", Of(&["created"])),
    ("discussion", Of(&["answered", "category_changed", "closed", "created", "deleted", "edited", "labeled", "locked",
        "pinned", "reopened", "transferred", "unanswered", "unlabeled", "unlocked", "unpinned"])),
    ("discussion_comment", Of(&["created", "deleted", "edited"])),
    ("fork", No),
    ("github_app_authorization", Of(&["revoked"])),
    ("gollum", No),
    ("installation", Of(&["created", "deleted", "new_permissions_accepted", "suspend", "unsuspend"])),
    ("installation_repositories", Of(&["added", "removed"])),
    ("installation_target", Of(&["renamed"])),
    ("issue_comment", Of(&["created", "deleted", "edited", "pinned", "unpinned"])),
    ("issue_dependencies", Any),
    ("issues", Of(&["assigned", "closed", "deleted", "demilestoned", "edited", "labeled", "locked", "milestoned", "opened",
        "pinned", "reopened", "transferred", "typed", "unassigned", "unlabeled", "unlocked", "unpinned", "untyped"])),
    ("label", Of(&["created", "deleted", "edited"])),
    ("marketplace_purchase", Any),
    ("member", Of(&["added", "edited", "removed"])),
    ("membership", Of(&["added", "removed"])),
    ("merge_group", Of(&["checks_requested", "destroyed"])),
    ("meta", Of(&["deleted"])),
    ("milestone", Of(&["closed", "created", "deleted", "edited", "opened"])),
    ("org_block", Of(&["blocked", "unblocked"])),
    ("organization", Of(&["deleted", "member_added", "member_invited", "member_removed", "renamed"])),
    ("package", Of(&["published", "updated"])),
    ("page_build", No),
    ("personal_access_token_request", Of(&["approved", "cancelled", "created", "denied"])),
    ("ping", No),
    ("project", Any),
    ("project_card", Any),
    ("project_column", Any),
    ("projects_v2", Any),
    ("projects_v2_item", Any),
    ("projects_v2_status_update", Any),
    ("public", No),
    ("pull_request", Of(&["assigned", "auto_merge_disabled", "auto_merge_enabled", "closed", "converted_to_draft",
        "demilestoned", "dequeued", "edited", "enqueued", "labeled", "locked", "milestoned", "opened", "ready_for_review",
        "reopened", "review_request_removed", "review_requested", "synchronize", "unassigned", "unlabeled", "unlocked"])),
    ("pull_request_review", Of(&["dismissed", "edited", "submitted"])),
    ("pull_request_review_comment", Of(&["created", "deleted", "edited"])),
    ("pull_request_review_thread", Of(&["resolved", "unresolved"])),
    ("push", No),
    ("registry_package", Of(&["published", "updated"])),
    ("release", Of(&["created", "deleted", "edited", "prereleased", "published", "released", "unpublished"])),
    ("repository", Of(&["archived", "created", "deleted", "edited", "privatized", "publicized", "renamed", "transferred",
        "unarchived"])),
    ("repository_advisory", Of(&["published", "reported"])),
    ("repository_dispatch", Any),
    ("repository_import", No),
    ("repository_ruleset", Of(&["created", "deleted", "edited"])),
    ("repository_vulnerability_alert", Any),
    ("secret_scanning_alert", Any),
    ("secret_scanning_alert_location", Any),
    ("secret_scanning_scan", Any),
    ("security_advisory", Any),
    ("security_and_analysis", No),
    ("sponsorship", Any),
    ("star", Of(&["created", "deleted"])),
    ("status", No),
    ("sub_issues", Any),
    ("team", Of(&["added_to_repository", "created", "deleted", "edited", "removed_from_repository"])),
    ("team_add", No),
    ("watch", Of(&["started"])),
    ("workflow_dispatch", No),
    ("workflow_job", Of(&["completed", "in_progress", "queued", "waiting"])),
    ("workflow_run", Of(&["completed", "in_progress", "requested"])),
];

/// Words that people write for a merge.
const MERGES: [&str; 8] = [
    "merge",
    "merges",
    "merged_pull_request",
    "pull_request.merge",
    "pull_request.merged",
    "pull_request_merged",
    "pr_merged",
    "closed",
];

/// What is wrong with an event of GitHub, with or without an action; `None` if GitHub sends it.
pub(super) fn fault(event: &str, action: Option<&str>) -> Option<String> {
    let written = action.map_or_else(|| event.to_owned(), |action| format!("{event}.{action}"));
    if MERGES.contains(&written.to_ascii_lowercase().as_str()) {
        return Some(format!("`{written}` is not an event of GitHub; write `merged`"));
    }
    if event == "ping" {
        return Some("a `ping` is answered with `pong` and starts no run; write `merged`, or another event".to_owned());
    }
    let Some((_, actions)) = EVENTS.iter().find(|(name, _)| *name == event) else {
        let names = EVENTS.iter().map(|(name, _)| *name).chain(["merged"]);
        let help = nearest(event, names).map_or_else(
            || "write `merged`, or a GitHub event such as `push` or `release.published`".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        return Some(format!("`{event}` is not an event of GitHub; {help}"));
    };
    let action = action?;
    match actions {
        Any => None,
        No => Some(format!("`{event}` has no actions; write `{event}`")),
        Of(actions) if actions.contains(&action) => None,
        Of(actions) => {
            let help = nearest(action, actions.iter().copied()).map_or_else(
                || format!("its actions are {}", actions.join(", ")),
                |near| format!("did you mean `{event}.{near}`?"),
            );
            Some(format!("`{event}` has no action `{action}`; {help}"))
        }
    }
}
