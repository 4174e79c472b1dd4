//! `config/github-source` with a real Broker, Trigger and in-memory channel.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use tokio::time::{sleep, timeout};

use crate::Stage;
use crate::harness::Cluster;
use crate::product::{install_copy, runs};
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
    let payload = merged("acme/events", number, commit);
    let headers = binary(PULL_REQUEST, &format!("event-{number}"));
    let path = format!("/{NAMESPACE}/github");
    let client = HttpClient::new();
    let sent = client.send(Method::POST, broker(cluster), &path, &headers, payload.to_string());
    timeout(SENDER, sent).await.expect("the Broker answers in the sender's time").expect("an answer")
}

fn commit(number: u64) -> String {
    format!("{number:040x}")
}

/// Whether there is a run for a merge.
fn has_run(cluster: &Cluster, number: u64) -> bool {
    let selector = format!("github-trigger.dev/pull-request={number}");
    let runs = ["get", "pipelineruns", "-n", NAMESPACE, "-l", &selector, "-o", "name"];
    !cluster.kubectl(&runs).trim().is_empty()
}

/// Takes the right to create runs from the service, or gives it back, and waits until that has an effect.
fn allow(cluster: &Cluster, allowed: bool) {
    let verb = if allowed { "create" } else { "get" };
    let patch = format!(r#"[{{"op":"replace","path":"/rules/0/verbs","value":["{verb}"]}}]"#);
    cluster.kubectl(&["patch", "role", "github-trigger", "-n", NAMESPACE, "--type=json", "-p", &patch]);
    let user = format!("--as=system:serviceaccount:{NAMESPACE}:github-trigger");
    let question = ["auth", "can-i", "create", "pipelineruns.tekton.dev", "-n", NAMESPACE, &user];
    cluster.wait_for("the changed right", || cluster.try_kubectl(&question).status.success() == allowed);
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
    let crd = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/crds/githubsources.yaml");
    cluster.kubectl(&["apply", "--server-side", "-f", &crd.display().to_string()]);
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/githubsources.sources.knative.dev"]);
    install_copy(cluster, NAMESPACE, "github-source");
    for object in ["broker/github", "trigger/merges", "ksvc/dead-letters"] {
        cluster.kubectl(&["wait", "-n", NAMESPACE, object, "--for=condition=Ready", "--timeout=120s"]);
    }

    let reply = publish(cluster, 1, &commit(1)).await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    cluster.wait_for("the run of the first merge", || has_run(cluster, 1));

    allow(cluster, false);
    let started = Instant::now();
    let reply = publish(cluster, 2, &commit(2)).await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    let answered = started.elapsed();
    wait_for_refusal(cluster, 2);
    assert!(!has_run(cluster, 2), "the service has no right to create it");
    allow(cluster, true);
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
    allow(cluster, false);
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
    allow(cluster, true);
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
