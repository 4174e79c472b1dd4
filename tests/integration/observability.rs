//! Metrics and spans, as Prometheus and an OpenTelemetry collector get them.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::cloud_event::{PULL_REQUEST, binary};
use crate::support::control_plane::shared;
use crate::support::fake_api::{FakeApi, Fault};
use crate::support::http::{HttpClient, read_until};
use crate::support::process::eventually;
use crate::support::receiver::Receiver;
use crate::support::service::{LOGGED, Lines, PROGRAM, Service, Setup, TEMPLATE};
use crate::support::webhook::{SHA, headers, merged};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn parent() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

fn endpoint(collector: &Receiver) -> String {
    format!("http://{}", collector.address)
}

/// The spans that a collector has received, by name.
fn spans(collector: &Receiver) -> BTreeMap<String, Span> {
    let requests = collector.received().into_iter().filter(|request| request.path == "/v1/traces");
    let decoded = requests.map(|request| ExportTraceServiceRequest::decode(request.body).expect("spans"));
    let spans = decoded.flat_map(|request| request.resource_spans).flat_map(|resource| resource.scope_spans);
    spans.flat_map(|scope| scope.spans).map(|span| (span.name.clone(), span)).collect()
}

async fn metrics(service: &Service) -> String {
    let line = service.log.wait_for("serving metrics", LOGGED);
    let address = line.rsplit_once("address=").expect("an address").1.parse().expect("an address");
    HttpClient::new().send(Method::GET, address, "/metrics", &[], "").await.expect("metrics").body
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("{series}\n{text}"));
    line.trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_delivery_and_passes_trace_to_run() {
    let (api, collector) = (FakeApi::start().await, Receiver::start().await);
    let setup = Setup::cluster(&api.kubeconfig()).env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint(&collector));
    let mut service = setup.env("K_SERVICE", "merges").start();
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let mut traced = headers("pull_request", "d1", &body);
    traced.push(("traceparent".to_owned(), parent()));
    assert_eq!(service.send(Method::POST, "/", &traced, &body).await.status, StatusCode::CREATED);
    let line = service.log.wait_for("outcome=created", LOGGED);
    assert!(line.contains(&format!("trace_id={TRACE}")), "{line}");
    // The remaining spans are exported at shutdown.
    service.signal("TERM");
    assert!(service.wait(LOGGED).is_some_and(|status| status.success()));

    let spans = spans(&collector);
    let names: Vec<&str> = spans.keys().map(String::as_str).collect();
    assert_eq!(names, ["POST /", "create", "render", "verify"]);
    let server = &spans["POST /"];
    assert_eq!(hex::encode(&server.trace_id), TRACE);
    assert_eq!(hex::encode(&server.parent_span_id), CALLER);
    for name in ["verify", "render", "create"] {
        let child = &spans[name];
        assert_eq!((&child.trace_id, &child.parent_span_id), (&server.trace_id, &server.span_id), "{name}");
        let inside = server.start_time_unix_nano <= child.start_time_unix_nano
            && child.end_time_unix_nano <= server.end_time_unix_nano;
        assert!(inside, "{name} is outside of the request");
    }
    let call = format!("00-{TRACE}-{}-01", hex::encode(&spans["create"].span_id));
    assert_eq!(api.traces(), [call]);
    let stamp = api.runs()[0]["metadata"]["annotations"]["tekton.dev/pipelinerunSpanContext"].clone();
    let ours = format!("00-{TRACE}-{}-01", hex::encode(&server.span_id));
    assert_eq!(stamp, json!({"traceparent": ours}).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn continues_trace_of_event_and_traces_rejections() {
    let collector = Receiver::start().await;
    let setup = Setup::dry_run().arg("--cloudevents-auth=none");
    let mut service =
        setup.env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("{}/v1/traces", endpoint(&collector))).start();
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let mut traced = binary(PULL_REQUEST, "d1");
    traced.push(("ce-traceparent".to_owned(), parent()));
    service.send(Method::POST, "/", &traced, &body).await;
    service.signal("TERM");
    assert!(service.wait(LOGGED).is_some(), "the program does not end");
    assert_eq!(hex::encode(&spans(&collector)["POST /"].parent_span_id), CALLER);

    let collector = Receiver::start().await;
    let mut service = Setup::dry_run().env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint(&collector)).start();
    let reply = service.send(Method::POST, "/", &[("content-type".into(), "application/json".into())], b"{}").await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    service.signal("TERM");
    assert!(service.wait(LOGGED).is_some(), "the program does not end");
    let spans = spans(&collector);
    assert_eq!(spans.keys().collect::<Vec<_>>(), ["POST /"]);
    assert!(spans["POST /"].attributes.iter().any(|attribute| attribute.key == "github_trigger.reason"));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_collector() {
    let mut service = Setup::dry_run().env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1").start();
    assert_eq!(service.merge("d1", &merged("acme/web", 5, SHA)).await.status, StatusCode::CREATED);
    service.signal("TERM");
    assert!(service.wait(LOGGED).is_some_and(|status| status.success()));
    let endpoint = "https://octocat:hunter2@collector.example.com";
    let unusable = Setup::dry_run().env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).start();
    unusable.log.wait_for("metrics are not exported", LOGGED);
    assert_eq!(unusable.merge("d1", &merged("acme/web", 5, SHA)).await.status, StatusCode::CREATED);
    assert!(!unusable.log.text().contains("hunter2"), "{}", unusable.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_metrics_over_otlp() {
    let collector = Receiver::start().await;
    let setup =
        Setup::dry_run().env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &format!("{}/v1/metrics", endpoint(&collector)));
    let mut service = setup
        .env("OTEL_METRIC_EXPORT_INTERVAL", "100")
        .env("OTEL_SERVICE_NAME", "trigger")
        .env("HOSTNAME", "pod-7")
        .start();
    service.merge("d1", &merged("acme/web", 5, SHA)).await;
    service.signal("TERM");
    assert!(service.wait(LOGGED).is_some(), "the program does not end");
    let last = collector.received().pop().expect("a request");
    assert_eq!((last.path.as_str(), last.header("content-type")), ("/v1/metrics", "application/x-protobuf"));
    let request = ExportMetricsServiceRequest::decode(last.body).expect("metrics");
    let resource = &request.resource_metrics[0];
    let attributes = &resource.resource.as_ref().expect("a resource").attributes;
    for (key, value) in [("service.name", "trigger"), ("service.instance.id", "pod-7")] {
        let found = attributes.iter().find(|attribute| attribute.key == key);
        assert!(found.is_some_and(|found| format!("{found:?}").contains(&format!("{value:?}"))), "{attributes:?}");
    }
    let names: Vec<&str> = resource.scope_metrics[0].metrics.iter().map(|metric| metric.name.as_str()).collect();
    for name in ["http.server.request.duration", "github_trigger_deliveries", "github_trigger_log_events"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_outcomes_and_starts_all_series_at_zero() {
    let api = FakeApi::start().await;
    let setup = Setup::cluster(&api.kubeconfig()).arg("--metrics-addr=127.0.0.1:0").arg("--deadline=1");
    let service = setup.start();
    let before = metrics(&service).await;
    let created = "github_trigger_deliveries_total{event=\"pull_request\",outcome=\"created\",reason=\"created\"}";
    assert_eq!(
        (value(&before, created), value(&before, "github_trigger_log_events_total{level=\"error\"}")),
        (0.0, 0.0)
    );

    let payload = merged("acme/web", 5, SHA);
    service.merge("d1", &payload).await;
    service.merge("d2", &payload).await;
    service.deliver("made_up", "d3", &json!({})).await;
    let body = payload.to_string().into_bytes();
    let mut forged = headers("pull_request", "d4", &body);
    forged.retain(|(name, _)| name != "x-hub-signature-256");
    service.send(Method::POST, "/", &forged, &body).await;
    api.fail_always(Some(Fault::Status(403, "Forbidden")));
    service.merge("d5", &merged("acme/web", 6, SHA)).await;
    let after = metrics(&service).await;
    let delivered = |event: &str, outcome: &str, reason: &str| {
        format!("github_trigger_deliveries_total{{event=\"{event}\",outcome=\"{outcome}\",reason=\"{reason}\"}}")
    };
    for (series, count) in [
        (created.to_owned(), 1.0),
        (delivered("pull_request", "duplicate", "existed"), 1.0),
        (delivered("other", "ignored", "not_a_merge"), 1.0),
        (delivered("pull_request", "rejected", "signature"), 1.0),
        (delivered("pull_request", "unavailable", "forbidden"), 1.0),
        ("github_trigger_signature_checks_total{algorithm=\"sha256\",result=\"ok\"}".to_owned(), 4.0),
        ("github_trigger_signature_checks_total{algorithm=\"none\",result=\"missing\"}".to_owned(), 1.0),
        ("github_trigger_secret_matches_total{secret=\"0\"}".to_owned(), 4.0),
        ("github_trigger_api_calls_total{result=\"ok\"}".to_owned(), 1.0),
        ("github_trigger_api_calls_total{result=\"already_exists\"}".to_owned(), 1.0),
        ("github_trigger_api_calls_total{result=\"forbidden\"}".to_owned(), 1.0),
        ("github_trigger_in_flight".to_owned(), 0.0),
        ("github_trigger_buffered_bytes".to_owned(), 0.0),
        ("github_trigger_config_generation{config=\"templates\"}".to_owned(), 1.0),
        ("github_trigger_log_events_total{level=\"error\"}".to_owned(), 1.0),
        ("github_trigger_log_events_total{level=\"warn\"}".to_owned(), 1.0),
    ] {
        assert_eq!(value(&after, &series), count, "{series}");
    }
    let series =
        |text: &str| text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect::<Vec<_>>();
    assert_eq!(series(&before), series(&after), "every series exists from the start");
}

/// Waits until the lines that contain `needle` and the omitted lines add up to `sent`; returns both counts.
fn all_counted(service: &Service, needle: &str, sent: u64) -> (u64, u64) {
    let counted = || {
        let log = service.log.all();
        let lines = log.iter().filter(|line| line.contains(needle)).count() as u64;
        let left_out = log.iter().filter_map(|line| line.split("left_out=").nth(1)?.trim().parse::<u64>().ok());
        let left_out: u64 = left_out.sum();
        (lines + left_out == sent).then_some((lines, left_out))
    };
    eventually(LOGGED, counted).unwrap_or_else(|| panic!("not {sent} counted:\n{}", service.log.text()))
}

/// Guessing the secret does not flood the log: the lines are limited, and each attempt is counted.
#[tokio::test(flavor = "multi_thread")]
async fn limits_and_counts_log_lines_of_wrong_signatures() {
    const FLOOD: u64 = 3_000;
    let service = Setup::dry_run().arg("--metrics-addr=127.0.0.1:0").start();
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let mut forged = headers("pull_request", "forged", &body);
    forged.retain(|(name, _)| name != "x-hub-signature-256");
    forged.push(("x-hub-signature-256".to_owned(), format!("sha256={}", "0".repeat(64))));
    let send = async || {
        for _ in 0..FLOOD / 10 {
            assert_eq!(service.send(Method::POST, "/", &forged, &body).await.status, StatusCode::UNAUTHORIZED);
        }
    };
    futures_util::future::join_all((0..10).map(|_| send())).await;
    assert_eq!(service.merge("real", &merged("acme/web", 5, SHA)).await.status, StatusCode::CREATED);
    let (lines, _) = all_counted(&service, "delivery=forged", FLOOD);
    assert!(lines < FLOOD / 4, "{lines}");
    let rejected = "github_trigger_deliveries_total{event=\"pull_request\",outcome=\"rejected\",reason=\"signature\"}";
    assert_eq!(value(&metrics(&service).await, rejected), 3_000.0);
}

/// An incomplete body needs no secret either.
#[tokio::test(flavor = "multi_thread")]
async fn limits_and_counts_log_lines_of_incomplete_bodies() {
    const FLOOD: u64 = 200;
    let service = Setup::dry_run().start();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-github-event: push\r\nx-github-delivery: half\r\n\
         x-hub-signature-256: sha256={}\r\ncontent-length: 9\r\n\r\n{{",
        "0".repeat(64)
    );
    let begun = std::time::Instant::now();
    let send = async || {
        let mut stream = TcpStream::connect(service.address).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("a write");
        stream.shutdown().await.expect("half a close");
        let answer = read_until(&mut stream, "").await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    };
    futures_util::future::join_all((0..FLOOD).map(|_| send())).await;
    let (lines, _) = all_counted(&service, "delivery=half", FLOOD);
    let seconds = begun.elapsed().as_secs() + 1;
    assert!(lines <= 20 * seconds, "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deployer_continues_trace_of_pipeline() {
    let Some(plane) = shared() else { return };
    let collector = Receiver::start().await;
    for (name, traceparent) in [("raw", parent()), ("tekton", json!({"traceparent": parent()}).to_string())] {
        let mut deploy = Command::new(PROGRAM);
        deploy.env_clear().env("KUBECONFIG", plane.admin_kubeconfig()).env("TRACEPARENT", traceparent);
        deploy.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint(&collector));
        deploy.args(["deploy", "--image=web:1", "--wait-timeout=0", "--namespace=default", "--service-name"]);
        deploy.arg(format!("traced-{name}"));
        let output = tokio::task::spawn_blocking(move || deploy.output().expect("the program")).await.expect("an end");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let span = spans(&collector).remove("deploy").expect("a span");
        assert_eq!((hex::encode(&span.trace_id), hex::encode(&span.parent_span_id)), (TRACE.into(), CALLER.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_deployment_sends_its_span() {
    let Some(plane) = shared() else { return };
    let collector = Receiver::start().await;
    let mut deploy = Command::new(PROGRAM);
    deploy.env_clear().env("KUBECONFIG", plane.admin_kubeconfig()).env("TRACEPARENT", parent());
    deploy.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint(&collector)).stderr(Stdio::piped());
    deploy.args(["deploy", "--image=web:1", "--namespace=default", "--service-name=traced-interrupted"]);
    let mut child = deploy.spawn().expect("the program");
    let log = Lines::of(child.stderr.take().expect("stderr"));
    log.wait_for("has not observed the", Duration::from_secs(20));
    let killed = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status();
    assert!(killed.expect("kill").success());
    let end = tokio::task::spawn_blocking(move || child.wait().expect("an end")).await.expect("an end");
    assert_eq!(end.code(), Some(143));
    log.wait_for("ERROR interrupted: ", LOGGED);
    let span = spans(&collector).remove("deploy").expect("a span");
    assert_eq!(hex::encode(&span.trace_id), TRACE);
}

/// Every request is counted and leaves a line, also one that is no delivery.
#[tokio::test(flavor = "multi_thread")]
async fn counts_and_logs_other_paths_and_methods() {
    let service = Setup::dry_run().arg("--metrics-addr=127.0.0.1:0").start();
    for (method, path, status, allow) in [
        (Method::GET, "/wp-login.php?x=1", 404, None),
        (Method::POST, "/hooks", 404, None),
        (Method::PUT, "/", 405, Some("POST, OPTIONS")),
        (Method::DELETE, "/", 405, Some("POST, OPTIONS")),
        (Method::POST, "/readyz", 405, Some("GET, HEAD")),
    ] {
        let reply = service.send(method.clone(), path, &[], b"").await;
        let allowed = reply.headers.get("allow").and_then(|value| value.to_str().ok());
        assert_eq!((reply.status.as_u16(), allowed), (status, allow), "{method} {path}");
        let path = path.split('?').next().expect("a path");
        let line = service.log.wait_for(&format!("method={method} path={path}"), LOGGED);
        assert!(line.contains("WARN delivery refused") && line.contains(&format!("status={status}")), "{line}");
    }
    // Knative would send an event again that is answered 404.
    let event = binary(PULL_REQUEST, "d1");
    assert_eq!(service.send(Method::POST, "/events", &event, b"{}").await.status.as_u16(), 400);
    let metrics = metrics(&service).await;
    for (reason, count) in [("path", 2.0), ("method", 3.0), ("event_path", 1.0)] {
        let sum: f64 = metrics
            .lines()
            .filter(|line| line.starts_with("github_trigger_deliveries_total"))
            .filter(|line| line.contains(&format!("reason=\"{reason}\"")))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum();
        assert_eq!(sum, count, "{reason}");
    }
}

/// The line of a mistyped secret says which hook it belongs to, and is written even in a flood of other ones.
#[tokio::test(flavor = "multi_thread")]
async fn shows_a_mistyped_secret_with_its_hook_in_a_flood() {
    let service = Setup::dry_run().start();
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let forged = |hook: Option<&str>| {
        let mut headers = headers("pull_request", "d1", &body);
        headers.retain(|(name, _)| !name.starts_with("x-github-hook"));
        headers.iter_mut().filter(|(name, _)| name == "x-hub-signature-256").for_each(|(_, value)| {
            *value = format!("sha256={}", "0".repeat(64));
        });
        if let Some(hook) = hook {
            for (name, value) in [
                ("x-github-hook-id", hook),
                ("x-github-hook-installation-target-type", "repository"),
                ("x-github-hook-installation-target-id", "79929171"),
            ] {
                headers.push((name.to_owned(), value.to_owned()));
            }
        }
        headers
    };
    let flood = forged(None);
    for round in 0..6 {
        join_all((0..40).map(|_| service.send(Method::POST, "/", &flood, &body))).await;
        if round == 4 {
            service.send(Method::POST, "/", &forged(Some("292430182")), &body).await;
        }
    }
    let line = service.log.wait_for("hook=292430182 hook_target=repository/79929171", LOGGED);
    assert!(line.contains("matches none of the secrets") && line.contains("a relay in between"), "{line}");
    // What is not GitHub's form is not repeated.
    service.send(Method::POST, "/", &forged(Some("1; DROP")), &body).await;
    assert!(!service.logged().await.join("\n").contains("DROP"));
}

/// People of one repository read nothing about another one; the log has it all.
#[tokio::test(flavor = "multi_thread")]
async fn answers_name_only_templates_of_the_event_repository() {
    let template = |name: &str, repository: &str, branch: &str| {
        let named = TEMPLATE.replace("generateName: build-", &format!("generateName: {name}-"));
        named.replace("\"*/*\"", &format!("{repository}\n    github-trigger.dev/on-target-branch: {branch}"))
    };
    let templates =
        [template("web", "acme/web", "release"), template("secret", "acme/secret", "hidden")].join("\n---\n");
    let service = Setup::dry_run().template(&templates).arg("--metrics-addr=127.0.0.1:0").start();
    let reply = service.merge("d1", &merged("acme/web", 1, SHA)).await;
    assert_eq!((reply.outcome().as_str(), reply.reason().as_str()), ("ignored", "no_template"));
    assert!(reply.message().contains("template web: on-target-branch wants release, got main"), "{}", reply.body);
    assert!(!reply.body.contains("secret") && !reply.body.contains("hidden"), "{}", reply.body);
    let line = service.log.wait_for("delivery=d1", LOGGED);
    assert!(line.contains("template web: on-target-branch wants release, got main"), "{line}");
    assert!(line.contains("template secret: on-repository wants acme/secret, got acme/web"), "{line}");

    // A renamed repository: nobody would know.
    let reply = service.merge("d2", &merged("acme/web-renamed", 2, SHA)).await;
    assert_eq!(
        (reply.outcome().as_str(), reply.message().as_str()),
        ("ignored", "no template is for this repository"),
        "{}",
        reply.body
    );
    let line = service.log.wait_for("delivery=d2", LOGGED);
    assert!(line.contains(" WARN ") && line.contains("repository=acme/web-renamed"), "{line}");
    assert!(line.contains("on-repository wants acme/secret, got acme/web-renamed"), "{line}");
    let series = "github_trigger_deliveries_total{event=\"pull_request\",outcome=\"ignored\",\
                  reason=\"unknown_repository\"}";
    assert_eq!(value(&metrics(&service).await, series), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn says_of_a_deletion_that_it_is_one() {
    let template = TEMPLATE.replace("\"*/*\"", "\"*/*\"\n    github-trigger.dev/on-event: push");
    let service = Setup::dry_run().template(&template).start();
    let payload = json!({"ref": "refs/heads/old", "before": SHA, "after": "0".repeat(40), "deleted": true,
        "repository": {"full_name": "acme/web"}, "head_commit": null});
    let reply = service.deliver("push", "d1", &payload).await;
    assert_eq!((reply.outcome().as_str(), reply.reason().as_str()), ("ignored", "deletion"));
    assert!(reply.message().contains("deleted"), "{}", reply.body);
}
