//! Payloads and expressions that take much memory: the service stays within its container's limit and answers others.

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::cloud_event;
use crate::support::http::Reply;
use crate::support::process::alone;
use crate::support::service::{LOGGED, Service, Setup};
use crate::support::webhook::{SHA, headers, merged};

/// Memory limit of the container in `service.yaml`, in KiB.
const CONTAINER: u64 = 256 << 10;

/// A template for `event` with an expression as a param, and one as `on-cel`.
fn template(event: &str, param: &str, condition: &str) -> String {
    format!(
        r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  generateName: build-
  annotations:
    github-trigger.dev/on-event: {event}
    github-trigger.dev/on-repository: acme/*
    github-trigger.dev/on-cel: {condition:?}
spec:
  pipelineRef:
    name: build
  params:
    - name: value
      value: {quoted}
"#,
        quoted = json!(format!("{{{{ {param} }}}}")),
    )
}

/// The service with one template, in a process that may not take more memory than the container.
fn start(template: &str) -> Service {
    Setup::dry_run().template(template).memory_limit(CONTAINER).start()
}

/// `json` as a body in which `"filler"` stands for other JSON.
fn filled(json: &Value, filler: &str) -> Vec<u8> {
    json.to_string().replacen("\"filler\"", filler, 1).into_bytes()
}

/// A list of `count` items.
fn list(item: &str, count: usize) -> String {
    format!("[{}]", vec![item; count].join(","))
}

/// A signed merge with a filler as the labels.
fn merge_with_labels(number: u64, filler: &str) -> Vec<u8> {
    let mut payload = merged("acme/web", number, SHA);
    payload["pull_request"]["labels"] = "filler".into();
    filled(&payload, filler)
}

async fn send(service: &Service, event: &str, body: &[u8]) -> Reply {
    service.send(Method::POST, "/", &headers(event, "d1", body), body).await
}

/// A merge as small as usual must be answered, and memory must be within the limit.
async fn is_well(service: &Service) {
    let mut payload = merged("acme/web", 1, SHA);
    payload["pull_request"]["labels"] = json!([{"name": "deploy"}]);
    let reply = service.merge("small", &payload).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", service.log.text());
    let peak = service.memory("VmHWM");
    assert!(peak <= CONTAINER, "{peak} KiB");
}

const LABELS: &str = r#"body.pull_request.labels.exists(label, label.name == "deploy")"#;
const NAMES: &str = "body.pull_request.labels.map(label, label.name)";

#[tokio::test(flavor = "multi_thread")]
async fn refuses_expressions_over_payloads_of_many_values() {
    let _alone = alone().await;
    let service = start(&template("merged", NAMES, LABELS));
    for (item, count) in
        [("0", 11 << 20), ("{\"\":0}", 3 << 20), ("{\"\":0}", 1 << 20), ("[]", 2 << 20), ("{\"name\":\"x\"}", 1 << 20)]
    {
        let reply = send(&service, "pull_request", &merge_with_labels(7, &list(item, count))).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{item}: {}", service.log.text());
        service.log.wait_for("too large for an expression", LOGGED);
        is_well(&service).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_memory_for_an_unsigned_large_event() {
    let _alone = alone().await;
    let setup = Setup::dry_run().template(&template("merged", NAMES, LABELS)).memory_limit(CONTAINER);
    let service = setup.arg("--cloudevents-auth=none").start();
    let headers = cloud_event::binary(cloud_event::PULL_REQUEST, "d1");
    let body = merge_with_labels(7, &list("{\"name\":\"deploy\"}", 1_400_000));
    assert!(body.len() > 23 << 20);
    let replies = join_all((0..4).map(|_| service.send(Method::POST, "/", &headers, &body))).await;
    for reply in replies {
        let busy = reply.status == StatusCode::SERVICE_UNAVAILABLE;
        assert!(busy || reply.status == StatusCode::UNPROCESSABLE_ENTITY, "{}", reply.status);
    }
    is_well(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_memory_for_large_pushes_at_the_same_time() {
    let _alone = alone().await;
    let expression = "body.commits.exists(c, c.added.exists(f, f.startsWith('api/')))";
    let both =
        template("push", "revision", expression) + "---" + &template("merged", NAMES, LABELS).replace("build-", "b-");
    let service = start(&both);
    let push = json!({
        "ref": "refs/heads/main", "after": SHA, "before": SHA, "commits": "filler",
        "repository": {"full_name": "acme/web"}, "head_commit": {"id": SHA}
    });
    for (size, allowed) in [(90_000, 422), (20_000, 201)] {
        let body =
            filled(&push, &list(&json!({"id": SHA, "added": ["api/x", "web/y"], "message": "m"}).to_string(), size));
        let replies = join_all((0..4).map(|_| send(&service, "push", &body))).await;
        for reply in replies {
            let status = reply.status.as_u16();
            assert!(status == allowed || status == 503, "{} bytes: {status}\n{}", body.len(), service.log.text());
        }
        is_well(&service).await;
    }
}

/// Each is accepted when it is compiled, and grows while it is evaluated.
#[tokio::test(flavor = "multi_thread")]
async fn stops_expressions_that_grow_or_never_end() {
    let _alone = alone().await;
    for (param, text) in [
        ("body.text.split('').map(a, body.text.split('').size()).size()", "x".repeat(200_000)),
        ("body.text.split('').map(a, body.text).size()", "x".repeat(100_000)),
        ("body.text.split('').map(a, body.text + body.text).join('').size()", "x".repeat(50_000)),
        ("body.text.split(' ').all(a, body.text.split(' ').all(b, a != b + 'x')) ? 'a' : 'b'", "x ".repeat(100_000)),
        (
            "[body.text, body.text, body.text].map(t, t.replace('x', 'xxxxxxxxxx').replace('x', 'xxxxxx')).join('')",
            "x".repeat(2 << 20),
        ),
        ("body.text.split('').filter(a, body.text.matches('(a?){50}')).size()", "x".repeat(50_000)),
        ("body.text.split(',').map(a, body.text.split(',').map(b, a + b)).size()", "x,".repeat(20_000)),
    ] {
        let service = start(&template("merged", param, "has(body.text) || true"));
        let mut payload = merged("acme/web", 7, SHA);
        payload["text"] = text.into();
        let reply = service.merge("d1", &payload).await;
        let ended = reply.status == StatusCode::UNPROCESSABLE_ENTITY || reply.reason() == "deadline";
        assert!(ended, "{param}: {} {}", reply.body, service.log.text());
        let peak = service.memory("VmHWM");
        assert!(peak <= CONTAINER, "{param}: {peak} KiB");
        // It ends with the answer: the next evaluation has the processor to itself.
        payload["text"] = "x".into();
        let reply = service.merge("d2", &payload).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{param}: {}", service.log.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_a_value_once_for_all_turns_of_a_loop() {
    let _alone = alone().await;
    let service =
        start(&template("merged", "body.text.split(' ').exists(a, a + body.after == 'y') ? 'a' : 'b'", "true"));
    let mut payload = merged("acme/web", 7, SHA);
    payload["text"] = "x ".repeat(10_000).into();
    payload["filling"] = "y".repeat(6 << 20).into();
    payload["after"] = "z".into();
    let reply = service.merge("d1", &payload).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", service.log.text());
}

/// `exists` and `all` go on after an error of an item; the evaluation ends all the same, and gives its memory back.
#[tokio::test(flavor = "multi_thread")]
async fn ends_nested_loops_over_values_of_another_kind() {
    let _alone = alone().await;
    for expression in [
        "string(body.l.exists(x, body.l.exists(y, y.foo == 'z')))",
        "string(body.l.all(x, body.l.all(y, x.size() > 0)))",
        "string(body.l.exists(x, body.l.all(y, x + y + body.action != '')))",
        "string(body.l.exists_one(x, body.l.exists_one(y, x == y)))",
    ] {
        let service = start(&template("merged", expression, "has(body.l) || true"));
        let mut payload = merged("acme/web", 7, SHA);
        payload["l"] = "filler".into();
        let body = filled(&payload, &list("0", 60_000));
        let reply = send(&service, "pull_request", &body).await;
        // By its work, or by the deadline on a slow machine.
        let ended = reply.status == StatusCode::UNPROCESSABLE_ENTITY || reply.reason() == "deadline";
        assert!(ended, "{expression}: {} {}", reply.body, service.log.text());
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let used = service.processor_time();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let more = service.processor_time() - used;
        assert!(more < std::time::Duration::from_millis(100), "{expression}: {more:?} after the answer");
        payload["l"] = json!([]);
        let reply = service.merge("small", &payload).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{expression}: {}", reply.body);
    }
}

/// Payloads that take much memory before any expression sees them.
#[tokio::test(flavor = "multi_thread")]
async fn bounds_memory_for_payloads_of_any_shape() {
    let _alone = alone().await;
    let both =
        template("push", "body.ref", "true") + "---" + &template("merged", NAMES, LABELS).replace("build-", "b-");
    let service = start(&both);
    let many_fields: String = (0..2_000_000).map(|index| format!("\"{index:x}\":0,")).collect();
    let base = json!({"ref": "refs/heads/main", "after": SHA, "repository": {"full_name": "acme/web"}, "x": "filler"});
    let large: Vec<(&str, Vec<u8>)> = vec![
        ("push", base.to_string().replacen('{', &format!("{{{many_fields}"), 1).into_bytes()),
        ("push", filled(&base, &list("{\"\":0}", 3 << 20))),
        (
            "status",
            filled(
                &json!({"sha": SHA, "state": "success", "context": "x", "branches": "filler"}),
                &list("0", 11 << 20),
            ),
        ),
        (
            "check_run",
            filled(&json!({"action": "completed", "check_run": {"x": "filler"}}), &list("{\"\":0}", 3 << 20)),
        ),
        ("check_suite", filled(&json!({"action": "x", "check_suite": "filler"}), &list("{\"\":0}", 3 << 20))),
        (
            "push",
            filled(
                &json!({"ref": "refs/heads/main", "after": SHA, "repository": {"full_name": "acme/web", "pushed_at": "filler"}}),
                &list("0", 11 << 20),
            ),
        ),
        ("push", filled(&json!({"ref": "filler", "after": SHA}), &json!("r".repeat(24 << 20)).to_string())),
        (
            "issues",
            filled(&json!({"action": "filler", "issue": {"number": 1}}), &json!("r".repeat(24 << 20)).to_string()),
        ),
    ];
    for (event, body) in large {
        send(&service, event, &body).await;
        is_well(&service).await;
        assert!(service.log.all().iter().all(|line| line.len() < 8 << 10), "a line is too long");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_the_values_of_all_runs_together() {
    let _alone = alone().await;
    let params: String =
        (0..40).map(|index| format!("    - name: p{index}\n      value: \"{{{{ body.text }}}}\"\n")).collect();
    let service = start(&(template("merged", "revision", "true") + &params));
    let mut payload = merged("acme/web", 7, SHA);
    payload["text"] = "x".repeat(20 << 20).into();
    let reply = service.merge("d1", &payload).await;
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", service.log.text());
    let peak = service.memory("VmHWM");
    assert!(peak <= CONTAINER, "{peak} KiB");
}

/// As large as is just accepted, and as many at the same time as there can be.
#[tokio::test(flavor = "multi_thread")]
async fn bounds_memory_for_the_largest_accepted_payloads_at_the_same_time() {
    let _alone = alone().await;
    let service = start(&template("merged", "string(size(body.pull_request.labels))", "body.action == 'closed'"));
    for (item, count) in [("{\"\":0}", 45_000), ("[]", 350_000), ("{\"name\":\"deploy\"}", 44_000)] {
        let body = merge_with_labels(7, &list(item, count));
        let replies = join_all((0..16).map(|_| send(&service, "pull_request", &body))).await;
        let created = replies.iter().filter(|reply| reply.status == StatusCode::CREATED).count();
        let busy = replies.iter().filter(|reply| reply.status == StatusCode::SERVICE_UNAVAILABLE).count();
        assert!(created > 0 && created + busy == 16, "{item}: {created} {busy}\n{}", service.log.text());
        is_well(&service).await;
    }
}
