//! Which fields make a payload that of its kind of event.

use serde_json::value::RawValue;

use super::event::EventError;
use crate::delivery::EventKind;
use crate::json;

/// A kind's own top-level fields in GitHub's payloads, and fields of other kinds that have these fields, too.
struct Shape {
    kind: &'static str,
    own: &'static [&'static str],
    foreign: &'static [&'static str],
}

const fn shape(kind: &'static str, own: &'static [&'static str], foreign: &'static [&'static str]) -> Shape {
    Shape { kind, own, foreign }
}

/// Source: GitHub's documentation, "Webhook events and payloads", and its `OpenAPI` description.
const SHAPES: &[Shape] = &[
    shape(
        "push",
        &["ref"],
        &["ref_type", "inputs", "alert", "deployment_callback_url", "pull_request", "issue", "release"],
    ),
    shape("create", &["ref", "ref_type", "master_branch"], &["pusher"]),
    shape("delete", &["ref", "ref_type"], &["master_branch", "pusher"]),
    shape("issues", &["issue"], &["comment", "pull_request", "release"]),
    shape("issue_comment", &["issue", "comment"], &[]),
    shape("release", &["release"], &["pull_request", "issue"]),
    shape("pull_request_review", &["pull_request", "review"], &["comment", "thread"]),
    shape("pull_request_review_comment", &["pull_request", "comment"], &[]),
    shape("pull_request_review_thread", &["pull_request", "thread"], &[]),
    shape("commit_comment", &["comment"], &["issue", "pull_request", "discussion"]),
    shape("discussion", &["discussion"], &["comment"]),
    shape("discussion_comment", &["discussion", "comment"], &[]),
    shape("check_run", &["check_run"], &["deployment", "deployment_status"]),
    shape("check_suite", &["check_suite"], &[]),
    shape("workflow_run", &["workflow_run"], &["deployment", "approver", "reviewers", "requestor"]),
    shape("workflow_job", &["workflow_job"], &[]),
    shape("workflow_dispatch", &["workflow", "inputs"], &[]),
    shape("repository_dispatch", &["action", "client_payload"], &[]),
    shape("deployment", &["deployment"], &["deployment_status", "workflow_job", "deployment_callback_url"]),
    shape("deployment_status", &["deployment_status"], &[]),
    shape("status", &["sha", "state", "context"], &[]),
    shape("merge_group", &["merge_group"], &[]),
    shape("fork", &["forkee"], &[]),
    shape("star", &["starred_at"], &[]),
    shape("label", &["label"], &["issue", "pull_request", "discussion"]),
    shape("milestone", &["milestone"], &["issue", "pull_request"]),
    shape("member", &["member"], &["team", "scope"]),
    shape("gollum", &["pages"], &[]),
    shape("page_build", &["build"], &[]),
    shape("package", &["package"], &[]),
    shape("registry_package", &["registry_package"], &[]),
    shape("branch_protection_rule", &["rule"], OF_OTHERS),
    shape("code_scanning_alert", &["alert", "commit_oid"], &[]),
    shape("custom_property", &["definition"], OF_OTHERS),
    shape("custom_property_values", &["new_property_values"], OF_OTHERS),
    shape("dependabot_alert", &["alert"], &["location", "commit_oid", "ref"]),
    shape("deploy_key", &["key"], OF_OTHERS),
    shape("deployment_protection_rule", &["deployment_callback_url", "environment"], &[]),
    shape("deployment_review", &["since", "action"], &[]),
    shape("github_app_authorization", &["action"], OF_OTHERS),
    shape("installation", &["installation", "action"], OF_OTHERS),
    shape("installation_repositories", &["installation", "repositories_added"], OF_OTHERS),
    shape("installation_target", &["account", "target_type"], OF_OTHERS),
    shape("marketplace_purchase", &["marketplace_purchase"], OF_OTHERS),
    shape("membership", &["team", "member", "scope"], &[]),
    shape("meta", &["hook"], &["zen"]),
    shape("org_block", &["blocked_user"], OF_OTHERS),
    shape("organization", &["organization", "action"], OF_OTHERS),
    shape("personal_access_token_request", &["personal_access_token_request"], OF_OTHERS),
    shape("project", &["project"], OF_OTHERS),
    shape("project_card", &["project_card"], OF_OTHERS),
    shape("project_column", &["project_column"], OF_OTHERS),
    shape("projects_v2", &["projects_v2"], OF_OTHERS),
    shape("projects_v2_item", &["projects_v2_item"], OF_OTHERS),
    shape("projects_v2_status_update", &["projects_v2_status_update"], OF_OTHERS),
    shape("repository_advisory", &["repository_advisory"], OF_OTHERS),
    shape("repository_import", &["status"], OF_OTHERS),
    shape("repository_ruleset", &["repository_ruleset"], OF_OTHERS),
    shape("repository_vulnerability_alert", &["alert"], &["location", "commit_oid", "ref"]),
    shape("secret_scanning_alert", &["alert"], &["location", "commit_oid", "ref"]),
    shape("secret_scanning_alert_location", &["alert", "location"], &[]),
    shape("security_advisory", &["security_advisory"], OF_OTHERS),
    shape("security_and_analysis", &["changes"], OF_OTHERS),
    shape("sponsorship", &["sponsorship"], OF_OTHERS),
    shape("team", &["team", "action"], &["member", "scope", "pull_request", "issue"]),
    shape("team_add", &["team"], &["action", "member", "scope"]),
    // These have no object of their own.
    shape("ping", &[], OF_OTHERS),
    shape("watch", &["action"], OF_OTHERS),
    shape("public", &[], OF_OTHERS),
    shape("repository", &["action"], OF_OTHERS),
    shape("branch_protection_configuration", &["action"], OF_OTHERS),
    shape("issue_dependencies", &["action"], OF_MERGES),
    shape("sub_issues", &["action"], OF_MERGES),
    shape("secret_scanning_scan", &["action"], OF_OTHERS),
];

/// Fields of payloads that start builds.
const OF_MERGES: &[&str] =
    &["pull_request", "ref", "sha", "release", "check_run", "workflow_run", "deployment", "starred_at"];

/// Fields that are another kind's own wherever they stand in a kind that has none of them.
#[rustfmt::skip]
const OF_OTHERS: &[&str] = &[
    "ref", "sha", "pull_request", "issue", "release", "comment", "review", "discussion", "check_run", "check_suite",
    "workflow_run", "workflow_job", "workflow", "deployment", "client_payload", "merge_group", "forkee", "starred_at",
    "label", "milestone", "member", "pages", "build", "package", "registry_package", "alert",
];

/// A kind's own fields that are not objects with fields.
const OBJECTLESS: &[&str] = &[
    "commit_oid",
    "deployment_callback_url",
    "environment",
    "new_property_values",
    "repositories_added",
    "scope",
    "since",
    "status",
    "target_type",
    "action",
    "after",
    "client_payload",
    "context",
    "inputs",
    "master_branch",
    "pages",
    "ref",
    "ref_type",
    "sha",
    "starred_at",
    "state",
    "workflow",
];

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{') && value.get() != "{}"
}

/// Whether the kind is not in the table.
pub(super) fn is_unknown(kind: &EventKind) -> bool {
    SHAPES.iter().all(|shape| shape.kind != kind.as_str())
}

/// Fails when the payload lacks a field of its kind, or has one of another kind. Kinds that are not in the table pass.
pub(super) fn check(kind: &EventKind, payload: &[u8]) -> Result<(), EventError> {
    let Some(shape) = SHAPES.iter().find(|shape| shape.kind == kind.as_str()) else { return Ok(()) };
    let own = json::fields(payload, shape.own)?;
    let is_own = |name: &str, value: &RawValue| OBJECTLESS.contains(&name) || is_object(value);
    let mut fields = shape.own.iter().zip(own);
    if let Some((missing, _)) = fields.find(|(name, value)| !value.is_some_and(|value| is_own(name, value))) {
        return Err(EventError::Missing(kind.clone(), missing));
    }
    // Of all kinds without an object of their own, this one alone has no action.
    let has_action = || Ok::<_, EventError>(json::fields(payload, &["action"])?.iter().any(Option::is_some));
    let foreign_action = kind.as_str() == "public" && has_action()?;
    if foreign_action || json::fields(payload, shape.foreign)?.iter().any(Option::is_some) {
        return Err(EventError::OtherEvent(kind.to_string()));
    }
    Ok(())
}
