use http::HeaderMap;
use serde_json::json;

use super::event::{Commit, Event, EventError};
use crate::delivery::{Delivery, DeliveryId, EventKind};

fn parse_as(kind: &str, payload: &str) -> Result<Event, EventError> {
    let kind = EventKind::parse(kind).expect("a kind");
    let id = DeliveryId::parse("72d3162e-cc78-11e3-81ab-4c9367dc0958").expect("an id");
    Event::parse(Delivery::from_local_file(id, kind, HeaderMap::new(), payload.to_owned().into()))
}

fn parse(payload: &str) -> Result<Event, EventError> {
    parse_as("pull_request", payload)
}

fn merged(pull_request: &str, rest: &str) -> Result<Event, EventError> {
    parse(&format!(
        r#"{{"action":"closed","repository":{{"full_name":"acme/web"}},"pull_request":{{"merged":true,{pull_request}}}{rest}}}"#
    ))
}

const SHA: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";

#[test]
fn parses_merge_with_commit() {
    let event = merged(&format!(r#""number":2,"merge_commit_sha":"{SHA}""#), "").expect("an event");
    let merge = event.merge.expect("a merge");
    assert_eq!((merge.repository.as_str(), merge.number, merge.commit.as_str()), ("acme/web", 2, SHA));
    assert_eq!(merge.commit.short(), "ec26c3e5");
}

#[test]
fn reads_number_from_top_level() {
    let event = merged(&format!(r#""merge_commit_sha":"{SHA}""#), r#","number":7"#).expect("an event");
    assert_eq!(event.merge.map(|merge| merge.number), Some(7));
    assert_eq!(event.subject.number, Some(7));
}

#[test]
fn rejects_unmerged_pull_request_with_commit() {
    // For a pull request closed without a merge, GitHub sends the commit of a test merge.
    for merged in ["false", "null"] {
        let payload = format!(
            r#"{{"action":"closed","repository":{{"full_name":"acme/web"}},"pull_request":{{"number":2,"merged":{merged},"merge_commit_sha":"{SHA}"}}}}"#
        );
        let event = parse(&payload).expect("an event");
        assert_eq!(event.merge, None);
        assert_eq!(
            event.merge().expect_err("no merge").to_string(),
            "the pull request must be merged, got closed without a merge"
        );
    }
}

#[test]
fn rejects_other_actions_and_events_as_merge() {
    let payload = |action: &str| {
        format!(
            r#"{{"action":"{action}","repository":{{"full_name":"acme/web"}},"pull_request":{{"number":2,"merged":true,"merge_commit_sha":"{SHA}"}}}}"#
        )
    };
    let edited = parse(&payload("edited")).expect("an event");
    assert_eq!(edited.merge().expect_err("no merge").to_string(), "the action must be closed, got edited");
    let review = payload("closed").replace("\"pull_request\":", "\"review\":{\"id\":1},\"pull_request\":");
    let review = parse_as("pull_request_review", &review).expect("an event");
    assert_eq!(
        review.merge().expect_err("no merge").to_string(),
        "the event must be pull_request, got pull_request_review"
    );
    let none = parse(r#"{"pull_request":{}}"#).expect("an event");
    assert_eq!(none.merge().expect_err("no merge").to_string(), "the action must be closed, got none");
    let hostile = parse(r#"{"action":"a\nb","pull_request":{}}"#).expect("an event");
    assert_eq!(hostile.merge().expect_err("no merge").to_string(), "the action must be closed, got ab");
}

#[test]
fn rejects_merge_without_full_commit_or_number() {
    for sha in ["null", "\"\"", "\"ec26c3e5\"", &format!("\"{}\"", "g".repeat(40)), &format!("\"{SHA}0\"")] {
        let error = merged(&format!(r#""number":2,"merge_commit_sha":{sha}"#), "").expect_err("no commit");
        assert!(error.to_string().contains("merge_commit_sha"), "{error}");
    }
    assert!(merged(r#""number":2"#, "").is_err());
    assert!(merged(&format!(r#""merge_commit_sha":"{SHA}""#), "").is_err(), "no number");
}

#[test]
fn accepts_sha256_and_upper_case_commits() {
    assert_eq!(Commit::parse(&SHA.to_uppercase()).expect("a commit").as_str(), SHA);
    assert!(Commit::parse(&"a".repeat(64)).is_some());
}

#[test]
fn rejects_merge_without_valid_repository() {
    for repository in [
        "null",
        "{}",
        r#"{"full_name":null}"#,
        r#"{"full_name":"web"}"#,
        r#"{"full_name":"a/b/c"}"#,
        r#"{"full_name":"a/b\nc"}"#,
    ] {
        let payload = format!(
            r#"{{"action":"closed","repository":{repository},"pull_request":{{"number":2,"merged":true,"merge_commit_sha":"{SHA}"}}}}"#
        );
        assert!(parse(&payload).is_err(), "{repository}");
    }
}

#[test]
fn accepts_nulls_unknown_fields_and_deleted_forks() {
    let event = merged(
        &format!(
            r#""number":2,"merge_commit_sha":"{SHA}","body":null,"html_url":null,"milestone":null,
               "merged_at":null,"base":{{"ref":"release/ü"}},"head":{{"ref":"x","repo":null}},"new":{{"deep":[1]}}"#
        ),
        r#","sender":null,"organization":{},"installation":null"#,
    )
    .expect("an event");
    assert_eq!(event.subject.target_branch.as_deref(), Some("release/ü"));
    assert_eq!(event.subject.source_branch.as_deref(), Some("x"));
    assert_eq!(event.sender, None);
    assert_eq!(event.time(), None);
    assert!(merged(&format!(r#""number":2,"merge_commit_sha":"{SHA}","base":null,"head":null"#), "").is_ok());
}

#[test]
fn rejects_invalid_json_and_wrong_types() {
    for payload in ["", "null", "[]", "{", "\"x\"", "{\"action\":5}", "{\"action\":\"a\",\"action\":\"b\"}", "\u{0}"] {
        assert!(parse(payload).is_err(), "{payload}");
    }
    assert!(parse(&format!("{{\"a\":{}}}", "[".repeat(100_000))).is_err());
}

#[test]
fn parses_branch_commit_and_time_of_push() {
    let payload = |reference: &str, after: &str, deleted: bool| {
        format!(
            r#"{{"ref":"{reference}","after":"{after}","deleted":{deleted},"repository":{{"full_name":"a/b"}},
                "head_commit":{{"timestamp":"2026-11-22T13:46:53Z"}}}}"#
        )
    };
    let push = parse_as("push", &payload("refs/heads/feature/x", SHA, false)).expect("an event");
    assert_eq!(push.subject.target_branch.as_deref(), Some("feature/x"));
    assert_eq!(push.commit().map(Commit::as_str), Some(SHA));
    assert!(push.time().is_some() && !push.is_deletion() && push.merge.is_none());
    let tag = parse_as("push", &payload("refs/tags/v1", SHA, false)).expect("an event");
    assert_eq!(tag.subject.target_branch, None);
    let deletion = parse_as("push", &payload("refs/heads/x", &"0".repeat(40), true)).expect("an event");
    assert!(deletion.is_deletion() && deletion.commit().is_none());
}

#[test]
fn parses_other_events() {
    let opened = format!(r#"{{"action":"labeled","pull_request":{{"number":3,"head":{{"ref":"x","sha":"{SHA}"}}}}}}"#);
    let opened = parse(&opened).expect("an event");
    assert_eq!((opened.subject.number, opened.commit().map(Commit::as_str)), (Some(3), Some(SHA)));
    let release =
        r#"{"action":"published","release":{"target_commitish":"main","published_at":"2026-11-22T13:46:53Z"}}"#;
    let release = parse_as("release", release).expect("an event");
    assert_eq!(release.subject.target_branch.as_deref(), Some("main"));
    assert!(release.time().is_some());
    let comment =
        parse_as("issue_comment", r#"{"action":"created","issue":{"number":9},"comment":{"id":1}}"#).expect("an event");
    assert_eq!(comment.subject.number, Some(9));
}

#[test]
fn rejects_payload_of_another_event_than_the_header_names() {
    let star = r#"{"action":"created","starred_at":"2026-11-22T13:46:53Z","repository":{"full_name":"a/b"}}"#;
    for kind in
        ["pull_request", "push", "create", "deployment", "repository_dispatch", "release", "issues", "status", "watch"]
    {
        assert!(parse_as(kind, star).is_err(), "{kind}");
    }
    assert!(parse_as("star", star).is_ok());
    let watch = r#"{"action":"started","repository":{"full_name":"a/b"}}"#;
    assert!(parse_as("watch", watch).is_ok() && parse_as("star", watch).is_err());
    let comment = r#"{"action":"created","issue":{"number":9},"comment":{"id":1}}"#;
    for kind in ["issues", "commit_comment", "pull_request_review_comment", "pull_request"] {
        assert!(parse_as(kind, comment).is_err(), "{kind}");
    }
    let tag = r#"{"ref":"v1","ref_type":"tag","master_branch":"main"}"#;
    assert!(parse_as("create", tag).is_ok() && parse_as("push", tag).is_err() && parse_as("delete", tag).is_err());
    for payload in ["{}", r#"{"pull_request":null}"#, r#"{"pull_request":[]}"#, r#"{"action":"closed","number":1}"#] {
        assert!(parse(payload).is_err(), "{payload}");
    }
    for value in ["null", "{}", "[]", "7", "\"x\""] {
        let payload = format!(r#"{{"action":"completed","check_run":{value}}}"#);
        assert!(parse_as("check_run", &payload).is_err(), "{payload}");
    }
    let merge =
        format!(r#"{{"action":"closed","pull_request":{{"number":1,"merged":true,"merge_commit_sha":"{SHA}"}}}}"#);
    for kind in ["ping", "watch", "made_up", "push"] {
        assert!(parse_as(kind, &merge).is_err(), "a merge sent as {kind} would be lost");
    }
}

#[test]
fn branch_of_a_fork_is_none_of_the_repository() {
    let run = |head: &str| {
        let payload = format!(
            r#"{{"repository":{{"full_name":"acme/web"}},"workflow_run":{{"head_sha":"{SHA}","head_branch":"main",
                "head_repository":{{"full_name":"{head}"}}}}}}"#
        );
        parse_as("workflow_run", &payload).expect("an event").subject.target_branch
    };
    assert_eq!(run("Acme/web").as_deref(), Some("main"));
    assert_eq!(run("somebody/web"), None);
    let job = format!(r#"{{"workflow_job":{{"head_sha":"{SHA}","head_branch":"main"}}}}"#);
    assert_eq!(parse_as("workflow_job", &job).expect("an event").subject.target_branch, None);
}

#[test]
fn finds_commit_and_branch_of_other_events() {
    let commit = "b".repeat(40);
    for (kind, payload, branch) in [
        ("push", format!(r#"{{"ref":"refs/tags/v1","after":"{SHA}","head_commit":{{"id":"{commit}"}}}}"#), None),
        (
            "push",
            format!(r#"{{"ref":"refs/heads/main","after":"{commit}","head_commit":{{"id":"{commit}"}}}}"#),
            Some("main"),
        ),
        (
            "merge_group",
            format!(r#"{{"merge_group":{{"head_sha":"{commit}","base_ref":"refs/heads/main"}}}}"#),
            Some("main"),
        ),
        (
            "check_run",
            format!(r#"{{"check_run":{{"id":1,"head_sha":"{commit}","check_suite":{{"head_branch":"x"}}}}}}"#),
            Some("x"),
        ),
        ("check_suite", format!(r#"{{"check_suite":{{"head_sha":"{commit}","head_branch":"x"}}}}"#), Some("x")),
        ("workflow_run", format!(r#"{{"workflow_run":{{"head_sha":"{commit}","head_branch":"x"}}}}"#), Some("x")),
        (
            "deployment",
            format!(r#"{{"deployment":{{"sha":"{commit}","ref":"main"}},"workflow_run":{{"head_sha":"{SHA}"}}}}"#),
            Some("main"),
        ),
        (
            "status",
            format!(r#"{{"sha":"{commit}","state":"success","context":"ci","branches":[{{"name":"main"}}]}}"#),
            Some("main"),
        ),
        (
            "status",
            format!(
                r#"{{"sha":"{commit}","state":"success","context":"ci","branches":[{{"name":"a"}},{{"name":"b"}}]}}"#
            ),
            None,
        ),
    ] {
        let event = parse_as(kind, &payload).expect("an event");
        assert_eq!(event.commit().map(Commit::as_str), Some(commit.as_str()), "{payload}");
        assert_eq!(event.subject.target_branch.as_deref(), branch, "{payload}");
    }
}

/// No signature covers the header that names the event.
#[test]
fn rejects_a_body_of_another_kind_under_any_name() {
    let bodies = [
        json!({"action": "created", "starred_at": "2026-11-22T12:00:00Z", "repository": {"full_name": "a/b"}}),
        json!({"ref": "refs/heads/main", "after": SHA, "repository": {"full_name": "a/b"}}),
        json!({"repository": {"full_name": "a/b"}, "sender": {"login": "octo"}}),
    ];
    for kind in [
        "installation",
        "branch_protection_rule",
        "deploy_key",
        "team_add",
        "security_advisory",
        "code_scanning_alert",
        "dependabot_alert",
        "secret_scanning_alert",
        "deployment_protection_rule",
        "deployment_review",
        "meta",
        "sponsorship",
        "team",
        "membership",
        "org_block",
        "organization",
        "sub_issues",
        "custom_property",
        "repository_ruleset",
        "repository_import",
        "repository_vulnerability_alert",
        "security_and_analysis",
        "projects_v2_item",
        "issue_dependencies",
        "branch_protection_configuration",
        "secret_scanning_scan",
        "repository",
        "watch",
    ] {
        for body in &bodies {
            assert!(parse_as(kind, &body.to_string()).is_err(), "{kind}: {body}");
        }
    }
    let label = json!({"action": "created", "label": {"name": "x"}, "repository": {"full_name": "a/b"}});
    for kind in ["public", "watch", "star"] {
        assert!(parse_as(kind, &label.to_string()).is_err(), "{kind}");
    }
    for (kind, body) in [
        ("public", &bodies[2]),
        ("watch", &json!({"action": "started", "repository": {"full_name": "a/b"}})),
        ("deploy_key", &json!({"action": "created", "key": {"id": 1}})),
        ("organization", &json!({"action": "renamed", "organization": {"login": "a"}, "changes": {}})),
    ] {
        assert!(parse_as(kind, &body.to_string()).is_ok(), "{kind}");
    }
}
