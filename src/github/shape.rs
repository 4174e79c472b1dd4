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
    // These have no field of their own.
    shape("ping", &[], OF_OTHERS),
    shape("watch", &[], OF_OTHERS),
    shape("public", &[], OF_OTHERS),
    shape("repository", &[], OF_OTHERS),
];

/// Fields that are another kind's own wherever they stand in a kind that has none.
const OF_OTHERS: &[&str] = &[
    "ref",
    "sha",
    "pull_request",
    "issue",
    "release",
    "comment",
    "review",
    "discussion",
    "check_run",
    "check_suite",
    "workflow_run",
    "workflow_job",
    "deployment",
    "client_payload",
    "merge_group",
    "forkee",
    "starred_at",
];

/// A kind's own fields that are not objects with fields.
const OBJECTLESS: &[&str] = &[
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
    if json::fields(payload, shape.foreign)?.iter().any(Option::is_some) {
        return Err(EventError::OtherEvent(kind.to_string()));
    }
    Ok(())
}
