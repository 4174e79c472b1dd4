//! `config/github-source` with a real Broker, Trigger and in-memory channel.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::Stage;
use crate::harness::Cluster;
use crate::harness::names::PRIVATE;
use crate::product::{allow, install_copy, runs};
use crate::serving::wait_for_revision;
use crate::support::cloud_event::{PULL_REQUEST, binary};
use crate::support::go::say;
use crate::support::http::{HttpClient, Reply};
use crate::support::webhook::merged;

const NAMESPACE: &str = "events";
/// A sender's timeout: GitHub's is 10 seconds.
const SENDER: Duration = Duration::from_secs(5);

/// The Broker's address.
fn broker(cluster: &Cluster) -> SocketAddr {
    let address = "jsonpath={.spec.clusterIP}";
    let address = cluster.kubectl(&["get", "service", "broker-ingress", "-n", "knative-eventing", "-o", address]);
    SocketAddr::new(address.parse().expect("an address"), 80)
}

/// Publishes a merge as GitHubSource does.
async fn publish(cluster: &Cluster, number: u64, commit: &str) -> Reply {
    publish_to(cluster, NAMESPACE, None, number, commit).await
}

/// Publishes a merge to the Broker of a namespace, with a token or without.
async fn publish_to(cluster: &Cluster, namespace: &str, token: Option<&str>, number: u64, commit: &str) -> Reply {
    let payload = merged("acme/events", number, commit);
    let mut headers = binary(PULL_REQUEST, &format!("event-{number}"));
    headers.extend(token.map(|token| ("authorization".to_owned(), format!("Bearer {token}"))));
    let path = format!("/{namespace}/github");
    let client = HttpClient::new();
    let sent = client.send(Method::POST, broker(cluster), &path, &headers, payload.to_string());
    timeout(SENDER, sent).await.expect("the Broker answers in the sender's time").expect("an answer")
}

fn commit(number: u64) -> String {
    format!("{number:040x}")
}

/// Installs `config/github-source` in a namespace.
fn install(cluster: &Cluster, namespace: &str) {
    let crd = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/crds/githubsources.yaml");
    cluster.kubectl(&["apply", "--server-side", "-f", &crd.display().to_string()]);
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/githubsources.sources.knative.dev"]);
    install_copy(cluster, namespace, "github-source");
    wait_for_road(cluster, namespace);
}

/// Waits until the Broker, its Trigger and its dead letters are ready.
fn wait_for_road(cluster: &Cluster, namespace: &str) {
    for object in ["broker/github", "trigger/merges", "ksvc/dead-letters"] {
        cluster.kubectl(&["wait", "-n", namespace, object, "--for=condition=Ready", "--timeout=120s"]);
    }
}

/// Whether there is a run for a merge.
fn has_run(cluster: &Cluster, number: u64) -> bool {
    has_run_in(cluster, NAMESPACE, number)
}

fn has_run_in(cluster: &Cluster, namespace: &str, number: u64) -> bool {
    let selector = format!("github-trigger.dev/pull-request={number}");
    let runs = ["get", "pipelineruns", "-n", namespace, "-l", &selector, "-o", "name"];
    !cluster.kubectl(&runs).trim().is_empty()
}

/// Waits until the service has refused a merge's event at least once.
fn wait_for_refusal(cluster: &Cluster, number: u64) {
    let line = format!("delivery=event-{number} ");
    let selector = "serving.knative.dev/service=github-trigger";
    let logs = ["logs", "-n", NAMESPACE, "-l", selector, "-c", "user-container", "--tail=-1"];
    cluster.wait_for("a refusal in the service's log", || {
        let logs = cluster.try_kubectl(&logs).stdout;
        String::from_utf8_lossy(&logs).lines().any(|seen| seen.contains(&line) && seen.contains("status=503"))
    });
}

/// A merge becomes a run; one that the service cannot create is sent again until it can; an invalid one becomes a dead
/// letter; and the sender gets its answer at once each time. What the in-memory channel holds is lost with its pod.
pub async fn delivers_or_keeps_each_event(stage: Arc<Stage>) {
    let cluster = &stage.cluster;
    stage.product();
    install(cluster, NAMESPACE);

    let reply = publish(cluster, 1, &commit(1)).await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    cluster.wait_for("the run of the first merge", || has_run(cluster, 1));

    allow(cluster, NAMESPACE, false);
    let started = Instant::now();
    let reply = publish(cluster, 2, &commit(2)).await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    let answered = started.elapsed();
    wait_for_refusal(cluster, 2);
    assert!(!has_run(cluster, 2), "the service has no right to create it");
    allow(cluster, NAMESPACE, true);
    cluster.wait_for("the run of the second merge", || has_run(cluster, 2));
    say(&format!("cluster: a Broker answered after {answered:.1?} while the service could create nothing"));

    let reply = publish(cluster, 3, "not-a-commit").await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    let selector = "serving.knative.dev/service=dead-letters";
    cluster.wait_for("the dead letter", || {
        let logs = ["logs", "-n", NAMESPACE, "-l", selector, "-c", "user-container", "--tail=-1"];
        String::from_utf8_lossy(&cluster.try_kubectl(&logs).stdout).contains("not-a-commit")
    });

    // As docs/roads.md says: what waits in memory ends with the pod.
    allow(cluster, NAMESPACE, false);
    assert_eq!(publish(cluster, 4, &commit(4)).await.status, 202);
    wait_for_refusal(cluster, 4);
    let dispatcher = ["delete", "pod", "-n", "knative-eventing", "-l", "messaging.knative.dev/role=dispatcher"];
    cluster.kubectl(&[&dispatcher[..], &["--grace-period=0", "--force"]].concat());
    cluster.wait_for("a new dispatcher", || {
        let state = "jsonpath={.items[*].status.containerStatuses[*].ready}";
        let pods =
            ["get", "pods", "-n", "knative-eventing", "-l", "messaging.knative.dev/role=dispatcher", "-o", state];
        cluster.kubectl(&pods).trim() == "true"
    });
    allow(cluster, NAMESPACE, true);
    cluster.wait_for("a later merge", || {
        let published =
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(publish(cluster, 5, &commit(5))));
        published.status == 202 && has_run(cluster, 5)
    });
    // Longer than the pause between two attempts that had begun before.
    sleep(Duration::from_secs(20)).await;
    assert!(!has_run(cluster, 4), "the channel keeps events beyond its pod; docs/roads.md says that it does not");
    assert_eq!(runs(cluster, NAMESPACE).len(), 3);
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
}

/// With Eventing's OIDC, as docs/roads.md sets it up: the Trigger sends its token, and the service takes no event without one
/// and none with another account's.
pub async fn sends_tokens_that_the_service_checks(stage: Arc<Stage>) {
    const NAMESPACE: &str = "tokens";
    let cluster = &stage.cluster;
    stage.product();
    let set_feature = |value: &str| {
        let patch = json!({"data": {"authentication-oidc": value}}).to_string();
        cluster.kubectl(&[
            "patch",
            "configmap",
            "config-features",
            "-n",
            "knative-eventing",
            "--type=merge",
            "-p",
            &patch,
        ]);
    };
    set_feature("enabled");
    install(cluster, NAMESPACE);
    let (trigger, arguments) = tokens_of_the_page(NAMESPACE);
    cluster.kubectl(&["patch", "trigger", "merges", "-n", NAMESPACE, "--type=merge", "-p", &trigger.to_string()]);
    let arguments = [&[json!("--trigger-config=/app/config")], arguments.as_slice()].concat();
    let patch =
        json!([{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments}]).to_string();
    cluster.kubectl(&["patch", "ksvc", "github-trigger", "-n", NAMESPACE, "--type=json", "-p", &patch]);
    wait_for_revision(cluster, NAMESPACE);
    wait_for_road(cluster, NAMESPACE);

    cluster.kubectl(&["create", "serviceaccount", "sender", "-n", NAMESPACE]);
    let token = |audience: &str| {
        let audience = format!("--audience={audience}");
        cluster.kubectl(&["create", "token", "sender", "-n", NAMESPACE, &audience]).trim().to_owned()
    };
    let address = ["get", "broker", "github", "-n", NAMESPACE, "-o", "jsonpath={.status.address.audience}"];
    let for_broker = token(&cluster.kubectl(&address));
    let refused = publish_to(cluster, NAMESPACE, None, 1, &commit(1)).await;
    assert_eq!(refused.status, 401, "a Broker with OIDC wants a token, as the page says: {}", refused.body);
    let reply = publish_to(cluster, NAMESPACE, Some(&for_broker), 1, &commit(1)).await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    cluster.wait_for("the run", || has_run_in(cluster, NAMESPACE, 1));

    // Past the Broker: without a token, and with one of another account.
    let host = format!("github-trigger.{NAMESPACE}.svc.cluster.local");
    for (token, status) in [(None, 401), (Some(token("github-trigger")), 403)] {
        let mut headers = binary(PULL_REQUEST, "event-2");
        headers.push(("host".to_owned(), host.clone()));
        headers.extend(token.map(|token| ("authorization".to_owned(), format!("Bearer {token}"))));
        let body = merged("acme/events", 2, &commit(2)).to_string();
        let direct = SocketAddr::new(PRIVATE, 80);
        let reply = HttpClient::new().send(Method::POST, direct, "/", &headers, body).await.expect("an answer");
        assert_eq!(reply.status, status, "{}", reply.body);
    }
    assert_eq!(runs(cluster, NAMESPACE).len(), 1);
    set_feature("disabled");
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
}

/// The Trigger's patch and the service's arguments of docs/roads.md, for a namespace.
fn tokens_of_the_page(namespace: &str) -> (Value, Vec<Value>) {
    const PAGE: &str = include_str!("../../docs/roads.md");
    let section = PAGE.split("### Tokens").nth(1).expect("the section");
    let block = section.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the settings");
    let block = block.replace("serviceaccount:github-trigger:", &format!("serviceaccount:{namespace}:"));
    let mut documents = serde_saphyr::from_multiple::<Value>(&block).expect("YAML").into_iter();
    let trigger = documents.next().expect("the Trigger");
    (trigger, documents.next().and_then(|list| list.as_array().cloned()).expect("the arguments"))
}
