//! `config/observability` with the OpenTelemetry Collector, Knative's and Tekton's own spans, and Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::Stage;
use crate::harness::Cluster;
use crate::harness::images::{Blob, Content, Layer, Runs};
use crate::harness::names::{NODE, OWN_REGISTRY};
use crate::product::{allow, create_pull_secret, deliver, ingress, install_copy, signed};
use crate::support::go::say;
use crate::support::http::HttpClient;
use crate::support::prometheus::Prometheus;
use crate::support::receiver::Receiver;
use crate::support::webhook::merged;

/// The namespace that the files of `config/observability` name.
const NAMESPACE: &str = "observability";
/// Namespace of the service.
const SERVICE: &str = "observed";
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/observability");
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// The Collector's port with the counted lines.
const LOG_LINES: u16 = 8890;
/// The Collector's port with the series that the service pushes.
const PUSHED: u16 = 8889;
/// Batches of spans and of lines have arrived by then.
const ARRIVED: Duration = Duration::from_secs(90);

/// A merge's trace leads from the sender through Knative and the service to Tekton; the service's log line arrives with
/// time, level and message; three ERROR lines in a minute fire no alert, and the fourth does; the series that the service pushes
/// have the names that rules and dashboard ask for.
pub async fn traces_a_merge_and_alerts_on_lines(stage: Arc<Stage>) {
    let cluster = &stage.cluster;
    stage.product();
    let (loki, tempo) = (Receiver::at(NODE).await, Receiver::at(NODE).await);
    start_collector(cluster, &loki, &tempo).await;
    let prometheus = start_prometheus(cluster);
    let files = ["knative.yaml", "tekton.yaml"].map(|name| format!("{CONFIG}/{name}"));
    for file in &files {
        cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", file]);
    }
    let (secret, host) = install_copy(cluster, SERVICE, "observability");

    let client = HttpClient::new();
    let payload = merged("acme/web", 1, &commit(1)).to_string();
    let mut headers = signed(&host, &secret, "pull_request", &payload);
    headers.push(("traceparent".to_owned(), format!("00-{TRACE}-00f067aa0ba902b7-01")));
    let reply = client.send(Method::POST, ingress(), "/", &headers, payload).await.expect("an answer");
    assert_eq!(reply.status, 201, "{}", reply.body);
    let delivery = headers.iter().find(|(name, _)| name == "x-github-delivery").expect("the header").1.clone();
    assert_is_traced(&tempo).await;
    assert_line_arrives(&loki, &delivery).await;

    // Prometheus knows the Collector for a minute: what it sees for the first time now is new.
    prometheus.wait_for("count(last_over_time(up[10m] offset 1m))", 1.0, ARRIVED).await;
    allow(cluster, SERVICE, false);
    let lines = format!("log_error_lines:delta1m{{k8s_namespace_name=\"{SERVICE}\",service_name=\"github-trigger\"}}");
    let fail = async |number| {
        let reply =
            deliver(&client, &host, &secret, "pull_request", &merged("acme/web", number, &commit(number))).await;
        assert_eq!(reply.expect("an answer").status, 503);
    };
    let mut number = 1;
    let fail = async || {
        number += 1;
        fail(number).await;
    };
    let firing = format!("{{alertname=\"ErrorsInLog\",alertstate=\"firing\",k8s_namespace_name=\"{SERVICE}\"}}");
    prometheus.assert_fires_at_the_fourth(&lines, &firing, fail).await;
    allow(cluster, SERVICE, true);
    for series in [
        "github_trigger_deliveries_total{outcome=\"created\"}",
        "github_trigger_log_events_total{level=\"error\"}",
        "github_trigger_config_stale{config=\"templates\"}",
        "github_trigger_in_flight",
        "process_start_time_seconds",
        "http_server_request_duration_seconds_bucket",
    ] {
        prometheus.wait_for(&format!("count({series}) > bool 0"), 1.0, ARRIVED).await;
    }

    for file in &files {
        unset(cluster, file);
    }
    cluster.node().stop("prometheus");
    cluster.kubectl(&["delete", "namespace", NAMESPACE, SERVICE, "--wait=false"]);
}

fn commit(number: u64) -> String {
    format!("{number:040x}")
}

/// Starts the Collector with the project's configuration, whose exporters lead to the two receivers.
async fn start_collector(cluster: &Cluster, loki: &Receiver, tempo: &Receiver) {
    let program = cluster.folders.assets.collector.clone();
    let layer = Layer::new().add("otelcol", 0o755, Content::File(program)).bytes();
    let runs = Runs { entrypoint: &["/otelcol", "--config=/config/otel-collector.yaml"], ..Runs::default() };
    let digest = cluster.registry().push("otelcol", "1", &[Blob::new(layer)], &runs).await;
    cluster.kubectl(&["create", "namespace", NAMESPACE]);
    create_pull_secret(cluster, NAMESPACE, &["otel-collector"]);
    let file = format!("--from-file={CONFIG}/otel-collector.yaml");
    cluster.kubectl(&["-n", NAMESPACE, "create", "configmap", "otel-collector", &file]);
    let mut objects = vec![
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "otel-collector"},
            "rules": [
                {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["get", "list", "watch"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "otel-collector"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "otel-collector"},
            "subjects": [{"kind": "ServiceAccount", "name": "otel-collector", "namespace": NAMESPACE}]}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "otel-collector", "namespace": NAMESPACE},
            "spec": {"selector": {"app": "otel-collector"}, "ports": [
                {"name": "otlp", "port": 4318}, {"name": "log-lines", "port": LOG_LINES}, {"name": "pushed", "port": PUSHED}]}}),
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "otel-collector", "namespace": NAMESPACE},
            "spec": {"selector": {"matchLabels": {"app": "otel-collector"}}, "template": {
                "metadata": {"labels": {"app": "otel-collector"}},
                "spec": {
                    "serviceAccountName": "otel-collector",
                    "containers": [{
                        "name": "otel-collector", "image": format!("{OWN_REGISTRY}/otelcol@{digest}"),
                        "ports": [{"name": "log-lines", "containerPort": LOG_LINES}],
                        "readinessProbe": {"tcpSocket": {"port": 4318}},
                        "volumeMounts": [{"name": "config", "mountPath": "/config"},
                            {"name": "logs", "mountPath": "/var/log/pods", "readOnly": true}]}],
                    "volumes": [{"name": "config", "configMap": {"name": "otel-collector"}},
                        {"name": "logs", "hostPath": {"path": cluster.folders.run.join("pod-logs")}}]}}}}),
    ];
    for (name, port, receiver) in [("loki", 3100, loki), ("tempo", 4318, tempo)] {
        objects.extend(service_outside(name, port, receiver.address));
    }
    cluster.apply(&objects);
    let rollout = ["-n", NAMESPACE, "rollout", "status", "daemonset/otel-collector", "--timeout=120s"];
    let ended = cluster.try_kubectl(&rollout);
    let log = cluster.try_kubectl(&["-n", NAMESPACE, "logs", "daemonset/otel-collector", "--tail=40"]);
    let log = [log.stdout, log.stderr].concat();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&log));
}

/// A Service that leads to an address outside the pods' network.
fn service_outside(name: &str, port: u16, to: SocketAddr) -> [Value; 2] {
    let address: IpAddr = to.ip();
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"ports": [{"name": "http", "port": port}]}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "http", "port": to.port()}], "endpoints": [{"addresses": [address]}]}),
    ]
}

/// Starts Prometheus with the project's rules, which scrapes the Collector.
fn start_prometheus(cluster: &Cluster) -> Prometheus {
    let address = "jsonpath={.spec.clusterIP}";
    let address = cluster.kubectl(&["-n", NAMESPACE, "get", "service", "otel-collector", "-o", address]);
    let job = |name: &str, port: u16| json!({"job_name": name, "static_configs": [{"targets": [format!("{address}:{port}")]}]});
    let folder = cluster.folders.run.join("prometheus");
    fs::create_dir_all(&folder).expect("a folder");
    let config = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [format!("{CONFIG}/prometheus-rules.yaml")],
        "scrape_configs": [job("log-lines", LOG_LINES), job("pushed", PUSHED)],
    });
    let file = folder.join("prometheus.yaml");
    fs::write(&file, config.to_string()).expect("a file");
    let listen = "127.0.0.1:9090";
    let mut program = std::process::Command::new(&cluster.folders.assets.prometheus);
    program.args([
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", folder.display()),
        format!("--web.listen-address={listen}"),
    ]);
    cluster.node().start("prometheus", &mut program);
    let log = cluster.folders.run.join("logs/prometheus.log");
    Prometheus { address: listen.parse().expect("an address"), log }
}

/// Removes the settings of ConfigMaps in a file.
fn unset(cluster: &Cluster, file: &str) {
    let text = fs::read_to_string(Path::new(file)).expect("a file");
    for object in serde_saphyr::from_multiple::<Value>(&text).expect("YAML") {
        let keys = object["data"].as_object().expect("settings").keys();
        let nothing: Value = keys.map(|key| (key.clone(), Value::Null)).collect();
        let patch = json!({"data": nothing}).to_string();
        let [name, namespace] = ["name", "namespace"].map(|key| object["metadata"][key].as_str().expect("a name"));
        cluster.kubectl(&["-n", namespace, "patch", "configmap", name, "--type=merge", "-p", &patch]);
    }
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> &'a str {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        _ => "",
    }
}

/// The trace's spans that have arrived, each with the names of its service and of the library that made it.
fn spans(tempo: &Receiver) -> Vec<(String, Span)> {
    let mut found = Vec::new();
    for request in tempo.received() {
        let request = ExportTraceServiceRequest::decode(request.content().as_slice()).expect("spans");
        for resource in request.resource_spans {
            let of = text(resource.resource.as_ref().map_or(&[], |of| &of.attributes), "service.name").to_owned();
            for scope in resource.scope_spans {
                let of = format!("{of} ({})", scope.scope.unwrap_or_default().name);
                let spans = scope.spans.into_iter().filter(|span| hex::encode(&span.trace_id) == TRACE);
                found.extend(spans.map(|span| (of.clone(), span)));
            }
        }
    }
    found
}

/// Knative's spans, the service's and Tekton's are of the sender's trace, and the service's is below Knative's.
async fn assert_is_traced(tempo: &Receiver) {
    let end = Instant::now() + ARRIVED;
    loop {
        let spans = spans(tempo);
        let names: BTreeSet<String> = spans.iter().map(|(of, span)| format!("{of}: {}", span.name)).collect();
        let ours = spans.iter().find(|(_, span)| span.name == "POST /");
        let parent = ours.and_then(|(_, ours)| spans.iter().find(|(_, span)| span.span_id == ours.parent_span_id));
        let tekton = spans.iter().any(|(of, _)| of.starts_with("pipelinerun-reconciler "));
        if let (Some((of, parent)), true) = (parent, tekton) {
            assert!(
                !of.ends_with("(github-trigger)"),
                "the service's span has no parent of another program: {names:?}"
            );
            say(&format!("cluster: a merge's trace: {names:?}; the service's is below {of}: {}", parent.name));
            return;
        }
        assert!(Instant::now() < end, "spans: {names:#?}");
        sleep(Duration::from_millis(500)).await;
    }
}

/// The line of a delivery arrives as it was written, with what the expression finds in it.
async fn assert_line_arrives(loki: &Receiver, delivery: &str) {
    let end = Instant::now() + ARRIVED;
    loop {
        let requests = loki.received();
        for request in &requests {
            assert_eq!(request.path, "/otlp/v1/logs");
            let request = ExportLogsServiceRequest::decode(request.content().as_slice()).expect("lines");
            for resource in request.resource_logs {
                let of = resource.resource.unwrap_or_default().attributes;
                for line in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
                    let body = line.body.as_ref().and_then(|body| body.value.as_ref());
                    let Some(any_value::Value::StringValue(body)) = body else { continue };
                    if !body.contains(&format!("delivery={delivery}")) {
                        continue;
                    }
                    assert_eq!(text(&of, "k8s.namespace.name"), SERVICE, "{of:?}");
                    assert_eq!(text(&of, "k8s.container.name"), "user-container", "{of:?}");
                    assert_eq!(text(&of, "service.name"), "github-trigger", "{of:?}");
                    assert!(text(&of, "k8s.pod.name").starts_with("github-trigger-"), "{of:?}");
                    let [time, level, message] =
                        ["time", "level", "message"].map(|field| text(&line.attributes, field));
                    assert_eq!(*body, format!("{time} {level} {message}"));
                    assert_eq!((level, line.severity_text.as_str(), line.severity_number), ("INFO", "INFO", 9));
                    let written: jiff::Timestamp = format!("{}Z", time.replace(' ', "T")).parse().expect("a time");
                    assert_eq!(i128::from(line.time_unix_nano), written.as_nanosecond(), "{line:?}");
                    assert!(message.starts_with("delivery outcome=created status=201 "), "{message}");
                    return;
                }
            }
        }
        assert!(Instant::now() < end, "no line of {delivery} in {} requests", requests.len());
        sleep(Duration::from_millis(500)).await;
    }
}
