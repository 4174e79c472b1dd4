//! CloudEvents: modes, authentication and answers.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::cloud_event::{PULL_REQUEST, binary, structured};
use crate::support::control_plane::shared;
use crate::support::fake_api::{FakeApi, Fault};
use crate::support::http::Reply;
use crate::support::service::{LOGGED, Service, Setup};
use crate::support::webhook::{SECRET, SHA, headers, merged, sha256};

type Headers = Vec<(String, String)>;

fn with(mut headers: Headers, name: &str, value: &str) -> Headers {
    headers.retain(|(kept, _)| kept != name);
    headers.push((name.to_owned(), value.to_owned()));
    headers
}

fn signed(headers: Headers, body: &[u8]) -> Headers {
    with(headers, "x-hub-signature-256", &sha256(SECRET, body))
}

fn payload() -> Vec<u8> {
    merged("acme/web", 5, SHA).to_string().into_bytes()
}

async fn post(service: &Service, headers: &Headers, body: &[u8]) -> Reply {
    service.send(Method::POST, "/", headers, body).await
}

fn trusting() -> Setup {
    Setup::dry_run().arg("--cloudevents-auth=none")
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_one_run_for_one_merge_in_every_format() {
    let Some(plane) = shared() else { return };
    plane.namespace("roads");
    let service = Setup::cluster(&plane.trigger_account("roads")).arg("--cloudevents-auth=none").start();
    let body = payload();
    let (structured_headers, event) = structured("com.github.pull_request.closed", "d1", &merged("acme/web", 5, SHA));
    let roads = [
        (headers("pull_request", "d1", &body), body.clone()),
        (binary(PULL_REQUEST, "d1"), body.clone()),
        (structured_headers, event),
    ];
    for (index, (headers, body)) in roads.iter().enumerate() {
        let reply = post(&service, headers, body).await;
        let expected = if index == 0 { StatusCode::CREATED } else { StatusCode::OK };
        assert_eq!(reply.status, expected, "{index}: {}", service.log.text());
    }
    assert_eq!(plane.runs("roads").len(), 1);
    for via in ["webhook", "cloudevent-binary", "cloudevent-structured"] {
        let line = service.log.wait_for(&format!("via={via}"), LOGGED);
        assert!(line.contains("delivery=d1") && line.contains("event=pull_request"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_success_with_empty_body_and_never_404_or_409() {
    let api = FakeApi::start().await;
    let setup = Setup::cluster(&api.kubeconfig()).arg("--cloudevents-auth=none").arg("--deadline=1");
    let service = setup.start();
    let good = payload();
    let unmerged = merged("acme/web", 5, SHA).to_string().replace("\"merged\":true", "\"merged\":false").into_bytes();
    let empty = [
        (PULL_REQUEST, &good, StatusCode::CREATED),
        (PULL_REQUEST, &good, StatusCode::OK),
        (PULL_REQUEST, &unmerged, StatusCode::OK),
        ("dev.knative.source.github.ping", &b"{\"zen\":\"x\"}".to_vec(), StatusCode::OK),
        ("dev.knative.source.github.workflow_run", &br#"{"workflow_run":{"id":1}}"#.to_vec(), StatusCode::OK),
        ("org.example.other", &b"whatever".to_vec(), StatusCode::OK),
    ];
    for (kind, body, status) in empty {
        let reply = post(&service, &binary(kind, "d1"), body).await;
        assert_eq!((reply.status, reply.body.as_str()), (status, ""), "{kind}");
        assert_eq!(reply.headers.get("content-length").map(|value| value.as_bytes()), Some(&b"0"[..]));
    }
    // Permanent errors, then temporary ones.
    let incomplete = merged("acme/web", 5, "ec26c3e").to_string().into_bytes();
    let other_branch = merged("acme/web", 6, SHA).to_string().replace("\"ref\":\"main\"", "\"ref\":\"$(x)\"");
    let failures = [
        (PULL_REQUEST, b"not json".to_vec(), None, StatusCode::BAD_REQUEST),
        (PULL_REQUEST, incomplete, None, StatusCode::BAD_REQUEST),
        (PULL_REQUEST, other_branch.into_bytes(), None, StatusCode::UNPROCESSABLE_ENTITY),
        (PULL_REQUEST, payload(), Some(Fault::Status(404, "NotFound")), StatusCode::SERVICE_UNAVAILABLE),
        (PULL_REQUEST, payload(), Some(Fault::Status(409, "Conflict")), StatusCode::SERVICE_UNAVAILABLE),
        (PULL_REQUEST, payload(), Some(Fault::Status(403, "Forbidden")), StatusCode::SERVICE_UNAVAILABLE),
        (PULL_REQUEST, payload(), Some(Fault::Status(422, "Invalid")), StatusCode::UNPROCESSABLE_ENTITY),
    ];
    for (kind, body, fault, status) in failures {
        api.fail_always(fault);
        let reply = post(&service, &binary(kind, "d1"), &body).await;
        assert_eq!(reply.status, status, "{}", service.log.text());
        assert_eq!(reply.headers.contains_key("retry-after"), status == StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_events_without_valid_signature() {
    let service = Setup::dry_run().start();
    let body = payload();
    let (structured_headers, event) = structured(PULL_REQUEST, "d1", &merged("acme/web", 5, SHA));
    let forged = [
        (binary(PULL_REQUEST, "d1"), body.clone()),
        (signed(binary(PULL_REQUEST, "d1"), b"another body"), body.clone()),
        (with(binary(PULL_REQUEST, "d1"), "authorization", "Bearer x.y.z"), body.clone()),
        (structured_headers.clone(), event.clone()),
        // Signs only the data, not the whole event.
        (signed(structured_headers.clone(), &body), event.clone()),
    ];
    for (headers, body) in forged {
        let reply = post(&service, &headers, &body).await;
        assert_eq!((reply.status, reply.json()["reason"].as_str()), (StatusCode::UNAUTHORIZED, Some("signature")));
    }
    assert_eq!(service.output.all(), Vec::<String>::new());
    // A valid signature is enough; a token in addition is ignored.
    let proven = [
        (signed(binary(PULL_REQUEST, "d1"), &body), body.clone()),
        (with(signed(binary(PULL_REQUEST, "d1"), &body), "authorization", "Bearer x.y.z"), body.clone()),
        (signed(structured_headers, &event), event),
    ];
    for (headers, body) in proven {
        let reply = post(&service, &headers, &body).await;
        assert_eq!((reply.status, reply.body.as_str()), (StatusCode::CREATED, ""), "{}", service.log.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requires_webhook_signature_although_cloudevents_auth_is_none() {
    let service = trusting().start();
    let body = payload();
    let mut unsigned = headers("pull_request", "d1", &body);
    unsigned.retain(|(name, _)| name != "x-hub-signature-256");
    let reply = post(&service, &unsigned, &body).await;
    assert_eq!((reply.status, reply.json()["reason"].as_str()), (StatusCode::UNAUTHORIZED, Some("signature")));
    assert_eq!(post(&service, &headers("pull_request", "d1", &body), &body).await.status, StatusCode::CREATED);
    let line = service.log.wait_for("--cloudevents-auth=none", LOGGED);
    assert!(line.contains("WARN"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_event_with_wrong_signature_although_cloudevents_auth_is_none() {
    let service = trusting().start();
    let body = payload();
    let (headers, event) = structured(PULL_REQUEST, "d1", &merged("acme/web", 5, SHA));
    let wrong = [
        (signed(binary(PULL_REQUEST, "d1"), b"another body"), body.clone()),
        (with(binary(PULL_REQUEST, "d1"), "x-hub-signature-256", "sha256=00"), body.clone()),
        (with(binary(PULL_REQUEST, "d1"), "x-hub-signature", &format!("sha1={}", "0".repeat(40))), body.clone()),
        (signed(headers, &body), event),
    ];
    for (headers, body) in wrong {
        let reply = post(&service, &headers, &body).await;
        assert_eq!((reply.status, reply.json()["reason"].as_str()), (StatusCode::UNAUTHORIZED, Some("signature")));
    }
    assert_eq!(service.output.all(), Vec::<String>::new());
    let right = post(&service, &signed(binary(PULL_REQUEST, "d1"), &body), &body).await;
    assert_eq!(right.status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_malformed_events_and_creates_no_run() {
    let service = trusting().start();
    let body = payload();
    let event = |data: Value| structured(PULL_REQUEST, "d1", &data);
    let text = String::from_utf8_lossy(&body).into_owned();
    let batch = vec![("content-type".to_owned(), "application/cloudevents-batch+json".to_owned())];
    let announced = |kind: &str| binary(kind, "d1");
    let push = json!({"ref": "refs/heads/main", "after": SHA, "repository": {"full_name": "acme/web"}});
    let cases: Vec<(Headers, Vec<u8>, StatusCode)> = vec![
        (batch, b"[]".to_vec(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (with(announced(PULL_REQUEST), "content-type", "text/xml"), body.clone(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (with(announced(PULL_REQUEST), "ce-specversion", "0.3"), body.clone(), StatusCode::BAD_REQUEST),
        (with(announced(PULL_REQUEST), "ce-id", ""), body.clone(), StatusCode::BAD_REQUEST),
        (with(announced(PULL_REQUEST), "ce-id", "a%0Ab"), body.clone(), StatusCode::BAD_REQUEST),
        (with(announced(PULL_REQUEST), "ce-source", "%00"), body.clone(), StatusCode::BAD_REQUEST),
        (announced(PULL_REQUEST), Vec::new(), StatusCode::BAD_REQUEST),
        (event(json!(text)).0, event(json!(text)).1, StatusCode::BAD_REQUEST),
        (event(Value::Null).0, event(Value::Null).1, StatusCode::BAD_REQUEST),
        (event(json!([1])).0, event(json!([1])).1, StatusCode::BAD_REQUEST),
        // The payload does not match the event type.
        (announced("dev.knative.source.github.push"), body.clone(), StatusCode::BAD_REQUEST),
        (announced("com.github.pull_request.opened"), body.clone(), StatusCode::BAD_REQUEST),
        (announced("com.github.issues.closed"), body.clone(), StatusCode::BAD_REQUEST),
        (announced("dev.knative.source.github.pull_request_review"), body.clone(), StatusCode::BAD_REQUEST),
        (announced(PULL_REQUEST), push.to_string().into_bytes(), StatusCode::BAD_REQUEST),
    ];
    for (headers, body, status) in cases {
        let reply = post(&service, &headers, &body).await;
        assert_eq!(reply.status, status, "{headers:?}: {}", service.log.text());
    }
    assert_eq!(service.output.all(), Vec::<String>::new(), "no run is created");
    for line in service.logged().await {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_with_event_if_sender_prefers_reply() {
    let service = trusting().arg("--reply-events").env("K_SERVICE", "merges").start();
    let asking = |id: &str| with(binary(PULL_REQUEST, id), "prefer", "reply");
    let reply = post(&service, &asking("d1"), &payload()).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    let attribute = |name: &str| reply.headers[name].to_str().expect("text").to_owned();
    assert_eq!(attribute("ce-type"), "dev.github-trigger.pipelinerun.created");
    assert_eq!(attribute("ce-specversion"), "1.0");
    assert_eq!(attribute("ce-id"), "d1.created");
    assert_eq!(attribute("ce-source"), "/apis/serving.knative.dev/v1/namespaces/default/services/merges");
    assert_eq!(attribute("content-type"), "application/json");
    assert_eq!(reply.outcome(), "created");
    assert_eq!(reply.json()["pipelineRuns"].as_array().map(Vec::len), Some(1));

    // No reply event without `Prefer: reply`, and none for an error.
    assert_eq!(post(&service, &binary(PULL_REQUEST, "d2"), &payload()).await.body, "");
    let failed = post(&service, &asking("d3"), b"{").await;
    assert_eq!((failed.status, failed.headers.contains_key("ce-type")), (StatusCode::BAD_REQUEST, false));
    let silent = trusting().start();
    let reply = post(&silent, &asking("d1"), &payload()).await;
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::CREATED, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_event_trace_to_log_and_run() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let service = trusting().start();
    post(&service, &with(binary(PULL_REQUEST, "d1"), "ce-traceparent", PARENT), &payload()).await;
    let line = service.log.wait_for("outcome=created", LOGGED);
    assert!(line.contains("trace_id=4bf92f3577b34da6a3ce929d0e0e4736"), "{line}");
    let stamp = service.output.wait_for("tekton.dev/pipelinerunSpanContext", LOGGED);
    assert!(stamp.contains(r#"{\"traceparent\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-"#), "{stamp}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_cloudevents_webhook_handshake() {
    let service = Setup::dry_run().start();
    let asking = [
        ("webhook-request-origin".to_owned(), "eventemitter.example.com".to_owned()),
        ("webhook-request-rate".to_owned(), "120".to_owned()),
    ];
    let reply = service.send(Method::OPTIONS, "/", &asking, b"").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.headers["webhook-allowed-origin"], "eventemitter.example.com");
    assert_eq!(reply.headers["webhook-allowed-rate"], "*");
    assert!(reply.headers["allow"].to_str().expect("text").contains("POST"));
}

#[test]
fn refuses_to_start_with_incomplete_cloudevents_auth() {
    let start = |args: &[&str]| {
        let mut command = std::process::Command::new(crate::support::service::PROGRAM);
        let output = command.env_clear().args(["--dry-run", "--port", "0"]).args(args).output().expect("the program");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        text
    };
    assert!(start(&["--cloudevents-auth=hmac"]).contains("no webhook secret"));
    assert!(start(&["--cloudevents-auth=oidc"]).contains("needs --oidc-audience"));
    assert!(start(&["--cloudevents-auth=oidc", "--oidc-audience=us"]).contains("needs --oidc-subject"));
    let complete = ["--cloudevents-auth=oidc", "--oidc-audience=us", "--oidc-subject=system:serviceaccount:a:b"];
    assert!(start(&complete).contains("no Kubernetes"));
    assert!(start(&[&complete[..2], &["--oidc-subject=["]].concat()).contains("--oidc-subject"));
}
