//! What GitHub says about a merge.

use serde_json::Value;

use super::{About, State, Step, text};
use crate::github::api::{Attempt, Hook};

/// The pull request, as GitHub's API gives it.
pub(super) fn merged(name: &str, pull: &Value) -> Step {
    const PLACE: &str = "merge";
    let branch = text(pull, "/base/ref");
    if pull["merged"] == true {
        let (time, by) = (text(pull, "/merged_at"), text(pull, "/merged_by/login"));
        let commit = text(pull, "/merge_commit_sha");
        return Step::ok(PLACE, format!("{name} was merged into {branch} at {time} by {by}, as {commit}"));
    }
    if pull["state"] == "open" {
        return Step::with(State::Ended, PLACE, format!("{name} is open"), "only a merge is built: merge it");
    }
    Step::with(
        State::Ended,
        PLACE,
        format!("{name} was closed at {} without a merge", text(pull, "/closed_at")),
        "only a merge is built: reopen it, and merge it",
    )
}

/// The webhook.
pub(super) fn webhook(about: &About, hook: Option<&Hook>) -> Step {
    const PLACE: &str = "webhook";
    let Some(hook) = hook else {
        return Step::with(
            State::Wrong,
            PLACE,
            format!(
                "{} has no webhook for this service, nor has its organisation one that this credential may see",
                about.repository
            ),
            format!("add it on GitHub (Settings, Webhooks), then: {}", about.build()),
        );
    };
    let settings = "on the webhook's page on GitHub (Settings, Webhooks)";
    if !hook.is_active {
        return Step::with(
            State::Wrong,
            PLACE,
            format!("the webhook to {} is not active", hook.url),
            format!("switch it on {settings}, then: {}", about.build()),
        );
    }
    if !hook.has_pull_requests() {
        return Step::with(
            State::Wrong,
            PLACE,
            format!("the webhook to {} delivers {}, and no pull requests", hook.url, hook.events.join(", ")),
            format!("select *Pull requests* {settings}, then: {}", about.build()),
        );
    }
    Step::ok(PLACE, format!("GitHub delivers pull requests to {}", hook.url))
}

/// The last attempt to deliver the merge, and the service's answer to it.
pub(super) fn delivered(about: &About, attempt: Option<&Attempt>, answer: &Value) -> Step {
    const PLACE: &str = "delivery";
    let Some(attempt) = attempt else {
        if about.is_old() {
            let message = "GitHub keeps deliveries for three days, and this merge is older";
            return Step::with(State::Unknown, PLACE, message, format!("if it was never built: {}", about.build()));
        }
        return Step::with(
            State::Wrong,
            PLACE,
            "GitHub knows of no delivery of this merge (it keeps them for three days)",
            about.build(),
        );
    };
    let code = attempt.status_code.unwrap_or_default();
    let (id, reason) = (&attempt.guid, text(answer, "/reason"));
    let said = match (reason, text(answer, "/message")) {
        ("", message) => message.to_owned(),
        (reason, message) => format!("({reason}) {message}"),
    };
    let was = format!("{id} of {} was answered with {}", attempt.delivered_at, attempt.end());
    let wrong = |message: String, advice: &str| {
        Step::with(State::Wrong, PLACE, message.trim_end(), format!("{advice}; then: {}", about.redeliver()))
    };
    let log = format!("the service's log line with delivery={id} says why");
    match (code, text(answer, "/outcome")) {
        (200..300, "ignored") if reason == "too_old" => Step::with(
            State::Ended,
            PLACE,
            format!("{was}, ignored: {said}"),
            format!(
                "if it should be built, start the service with a larger --max-merge-age (0: any), then: {}",
                about.build_again()
            ),
        ),
        (200..300, "ignored") => Step::with(
            State::Ended,
            PLACE,
            format!("{was}, ignored: {said}"),
            format!("if it should be built, change the template's conditions ({log}), then: {}", about.build_again()),
        ),
        (200..300, "created" | "duplicate") => Step::ok(PLACE, format!("{was}: {}", text(answer, "/outcome"))),
        (200..300, _) => Step::ok(PLACE, format!("{was}, not by this service itself (GitHubSource, or a relay)")),
        (0, _) => wrong(
            format!("{id} of {} got {} within GitHub's ten seconds", attempt.delivered_at, attempt.end()),
            "check the webhook's URL, its certificate, and the service: kubectl get ksvc",
        ),
        (400, _) => wrong(format!("{was}: {said}"), "a relay in between changes the request: remove it"),
        (401, _) => wrong(
            format!("{was}: the signature does not match"),
            &format!("make the webhook's secret on GitHub and the mounted one the same ({log})"),
        ),
        (403, _) => wrong(format!("{was}: {said}"), "allow the sender: --oidc-subject, or what stands in front"),
        (404 | 405, _) => wrong(was, "correct the webhook's URL: the service takes POST /"),
        (413, _) => wrong(was, "raise --max-body-bytes, or what limits bodies in front of the service"),
        (415, _) => wrong(was, "set the webhook's content type to application/json"),
        (422, _) => wrong(
            format!("{was}: {said}"),
            &format!("mend the template; {log}, and github-trigger render reproduces it"),
        ),
        (503, _) if !reason.is_empty() => wrong(format!("{was}: {said}"), &format!("{log}; mend that")),
        (300..400, _) => wrong(was, "correct the webhook's URL: GitHub follows no redirect"),
        _ => wrong(was, "what stands in front of the service answered for it: kubectl get ksvc, and the ingress' log"),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_merge_goes_on() {
        for (pull, state, text) in [
            (json!({"merged": true, "base": {"ref": "main"}, "merge_commit_sha": "0a"}), State::Ok, "merged into main"),
            (json!({"merged": false, "state": "open"}), State::Ended, "is open"),
            (json!({"merged": false, "state": "closed", "merge_commit_sha": "0a"}), State::Ended, "without a merge"),
        ] {
            let step = merged("acme/web#5", &pull);
            assert!(step.state == state && step.message.contains(text), "{step:?}");
        }
    }

    #[test]
    fn each_answer_says_what_to_do() {
        let about = About { repository: "acme/web".to_owned(), number: 5, hours: 1, hook_url: None, api_url: None };
        let attempt = |code: u64| {
            let item = json!({"id": 1, "guid": "g1", "delivered_at": "2026-11-22T12:00:00Z", "status": "failed to connect",
                "status_code": code, "event": "pull_request", "action": "closed"});
            Attempt::deserialize(item).expect("an attempt")
        };
        for (code, answer, state, advice) in [
            (201, json!({"outcome": "created"}), State::Ok, ""),
            (200, json!({"outcome": "duplicate"}), State::Ok, ""),
            (202, Value::Null, State::Ok, ""),
            (200, json!({"outcome": "ignored", "reason": "no_template", "message": "m"}), State::Ended, "conditions"),
            (0, Value::Null, State::Wrong, "kubectl get ksvc"),
            (302, Value::Null, State::Wrong, "follows no redirect"),
            (400, json!({"reason": "payload"}), State::Wrong, "relay"),
            (401, json!({"reason": "signature"}), State::Wrong, "secret"),
            (403, json!({"reason": "subject"}), State::Wrong, "--oidc-subject"),
            (404, Value::Null, State::Wrong, "webhook's URL"),
            (413, Value::Null, State::Wrong, "--max-body-bytes"),
            (415, Value::Null, State::Wrong, "content type"),
            (422, json!({"reason": "template"}), State::Wrong, "render"),
            (503, json!({"reason": "forbidden"}), State::Wrong, "delivery=g1"),
            (503, Value::Null, State::Wrong, "ingress"),
            (502, Value::Null, State::Wrong, "ingress"),
        ] {
            let step = delivered(&about, Some(&attempt(code)), &answer);
            assert_eq!(step.state, state, "{code}: {step:?}");
            let said = step.advice.unwrap_or_default();
            assert!(said.contains(advice), "{code}: {said}");
            assert_eq!(state == State::Wrong, said.contains("Redeliver") && said.contains("recover"), "{code}: {said}");
        }
        let advice =
            |hours: i64| delivered(&About { hours, ..about.clone() }, None, &Value::Null).advice.unwrap_or_default();
        assert!(advice(30).contains("recover --repository acme/web --since 31h"), "{}", advice(30));
        assert!(
            advice(100).contains("gh api repos/acme/web/pulls/5 >") && !advice(100).contains("old"),
            "{}",
            advice(100)
        );
        assert!(advice(200).contains("--max-merge-age=0"), "{}", advice(200));
        let elsewhere = About {
            hook_url: Some("https://hook.example.com".to_owned()),
            api_url: Some("https://ghes.example.com/api/v3".to_owned()),
            ..about
        };
        let advice = delivered(&elsewhere, None, &Value::Null).advice.unwrap_or_default();
        let flags = " --hook-url https://hook.example.com --github-api-url https://ghes.example.com/api/v3 ";
        assert!(format!("{advice} ").contains(flags), "{advice}");
    }
}
