//! The service as Knative runs it: behind queue-proxy and activator, from zero pods, through new revisions, killed pods and
//! changed mounts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::Stage;
use crate::harness::Cluster;
use crate::product::{deliver, deliver_text, install_copy, runs};
use crate::support::go::say;
use crate::support::http::HttpClient;
use crate::support::webhook::{merged, now};

/// GitHub's timeout for a delivery.
const GITHUB: Duration = Duration::from_secs(10);

/// Label that selects the service's pods.
const PODS: &str = "serving.knative.dev/service=github-trigger";

fn set_template_annotations(cluster: &Cluster, namespace: &str, annotations: &serde_json::Value) {
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}).to_string();
    cluster.kubectl(&["patch", "ksvc", "github-trigger", "-n", namespace, "--type=merge", "-p", &patch]);
}

/// Waits until the newest revision of the service is the ready one.
pub fn wait_for_revision(cluster: &Cluster, namespace: &str) {
    cluster.wait_for("a new revision", || {
        let service = cluster.json(&["get", "ksvc", "github-trigger", "-n", namespace]);
        let (metadata, status) = (&service["metadata"], &service["status"]);
        metadata["generation"] == status["observedGeneration"]
            && status["latestReadyRevisionName"] == status["latestCreatedRevisionName"]
            && status["conditions"].as_array().into_iter().flatten().all(|condition| condition["status"] == "True")
    });
}

/// The service's pods that are not about to end.
fn pods(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let pods = cluster.json(&["get", "pods", "-n", namespace, "-l", PODS]);
    let pods = pods["items"].as_array().into_iter().flatten().map(|pod| &pod["metadata"]);
    let staying = pods.filter(|metadata| metadata["deletionTimestamp"].is_null());
    staying.filter_map(|metadata| metadata["name"].as_str().map(str::to_owned)).collect()
}

/// A delivery that finds no pod is answered within GitHub's timeout, and makes its run.
pub async fn answers_from_zero_pods(stage: Arc<Stage>) {
    const NAMESPACE: &str = "zero";
    let cluster = &stage.cluster;
    stage.product();
    let (secret, host) = install_copy(cluster, NAMESPACE, "direct");
    set_template_annotations(cluster, NAMESPACE, &json!({"autoscaling.knative.dev/min-scale": "0"}));
    wait_for_revision(cluster, NAMESPACE);
    let mut took = Vec::new();
    for number in 1..=3 {
        cluster.wait_for("zero pods", || pods(cluster, NAMESPACE).is_empty());
        let payload = merged("acme/zero", number, &format!("{number:040x}"));
        let started = Instant::now();
        let reply = deliver(&HttpClient::new(), &host, &secret, "pull_request", &payload).await.expect("an answer");
        took.push(started.elapsed());
        assert_eq!(reply.status, 201, "{}", reply.body);
        assert!(started.elapsed() < GITHUB, "answered after {:?}", started.elapsed());
    }
    assert_eq!(runs(cluster, NAMESPACE).len(), 3);
    say(&format!("cluster: deliveries at zero pods were answered after {took:.1?}"));
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
}

/// Senders that post merges until they are stopped.
struct Senders {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Sent>>,
}

/// What senders were told.
#[derive(Default)]
struct Sent {
    /// Names of the runs of acknowledged merges.
    acknowledged: BTreeSet<String>,
    /// Answers that say that the merge is not built, and missing answers.
    refused: Vec<String>,
}

impl Senders {
    fn start(host: &str, secret: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let number = Arc::new(AtomicU64::new(1));
        let tasks = (0..4).map(|_| {
            let (stop, number) = (Arc::clone(&stop), Arc::clone(&number));
            let (host, secret) = (host.to_owned(), secret.to_owned());
            tokio::spawn(async move {
                let client = HttpClient::new();
                let mut sent = Sent::default();
                while !stop.load(Ordering::Relaxed) {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    let mut payload = merged("acme/load", number, &format!("{number:040x}"));
                    payload["pull_request"]["merged_at"] = now().into();
                    match deliver(&client, &host, &secret, "pull_request", &payload).await {
                        Ok(reply) if reply.status.is_success() => {
                            let name = reply.json()["pipelineRuns"][0]["name"].as_str().map(str::to_owned);
                            sent.acknowledged.insert(name.unwrap_or_else(|| panic!("no run: {}", reply.body)));
                        }
                        Ok(reply) => sent.refused.push(format!("{} {}", reply.status, reply.body)),
                        Err(error) => sent.refused.push(error.to_string()),
                    }
                    sleep(Duration::from_millis(100)).await;
                }
                sent
            })
        });
        Self { tasks: tasks.collect(), stop }
    }

    async fn stop(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for task in self.tasks {
            let sent = task.await.expect("a sender");
            all.acknowledged.extend(sent.acknowledged);
            all.refused.extend(sent.refused);
        }
        all
    }
}

/// While merges arrive: a new revision, five pods of which each is killed, and new templates through the kubelet. Each
/// acknowledged merge has its run; a new revision refuses nothing.
pub async fn loses_no_acknowledged_merge(stage: Arc<Stage>) {
    const NAMESPACE: &str = "load";
    let cluster = &stage.cluster;
    stage.product();
    let (secret, host) = install_copy(cluster, NAMESPACE, "direct");
    let senders = Senders::start(&host, &secret);
    set_template_annotations(cluster, NAMESPACE, &json!({"test": "second"}));
    wait_for_revision(cluster, NAMESPACE);
    sleep(Duration::from_secs(5)).await;
    let sent = senders.stop().await;
    assert_eq!(sent.refused, Vec::<String>::new(), "a new revision refuses nothing");
    let first = sent.acknowledged.len();

    set_template_annotations(cluster, NAMESPACE, &json!({"autoscaling.knative.dev/min-scale": "5"}));
    wait_for_revision(cluster, NAMESPACE);
    cluster.wait_for("five pods", || pods(cluster, NAMESPACE).len() >= 5);
    let senders = Senders::start(&host, &secret);
    for pod in pods(cluster, NAMESPACE) {
        let _ = cluster.try_kubectl(&["delete", "pod", &pod, "-n", NAMESPACE, "--grace-period=0", "--force"]);
        sleep(Duration::from_secs(2)).await;
    }
    // The kubelet brings the new template to the pods within a minute or so.
    let templates = cluster.kubectl(&["get", "configmap", "github-trigger-templates", "-n", NAMESPACE, "-o", "yaml"]);
    let file = cluster.folders.run.join("templates.yaml");
    std::fs::write(&file, templates.replace("name: tekton-kn-sample", "name: renamed")).expect("a file");
    cluster.kubectl(&[
        "apply",
        "-n",
        NAMESPACE,
        "--server-side",
        "--force-conflicts",
        "-f",
        &file.display().to_string(),
    ]);
    cluster.wait_for("a run of the new template", || {
        runs(cluster, NAMESPACE).iter().any(|name| name.starts_with("renamed-"))
    });
    let sent = senders.stop().await;
    let there = runs(cluster, NAMESPACE);
    let lost: Vec<&String> = sent.acknowledged.iter().filter(|name| !there.contains(*name)).collect();
    assert!(lost.is_empty(), "acknowledged, but no run: {lost:?}");
    say(&format!(
        "cluster: {first} merges at a new revision, {} while pods were killed, of which {} were refused",
        sent.acknowledged.len() + sent.refused.len(),
        sent.refused.len()
    ));
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
}

/// A rotated secret reaches the pods through the kubelet; the old one ends with it.
pub async fn follows_a_rotated_secret(stage: Arc<Stage>) {
    const NAMESPACE: &str = "rotation";
    let cluster = &stage.cluster;
    stage.product();
    let (old, host) = install_copy(cluster, NAMESPACE, "direct");
    let client = HttpClient::new();
    let ping = json!({"zen": "Keep it logically awesome.", "hook_id": 1});
    let new = "the new secret of the webhook";
    let data = json!({"stringData": {"github": new}}).to_string();
    cluster.kubectl(&["patch", "secret", "github-trigger-webhook", "-n", NAMESPACE, "-p", &data]);
    let end = Instant::now() + Duration::from_secs(180);
    while deliver(&client, &host, new, "ping", &ping).await.expect("an answer").status != 200 {
        assert!(Instant::now() < end, "the new secret is not accepted after 180 s");
        sleep(Duration::from_millis(500)).await;
    }
    let reply = deliver(&client, &host, &old, "ping", &ping).await.expect("an answer");
    assert_eq!(reply.status, 401, "{}", reply.body);
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
}

/// The largest bodies, forged and signed, from many senders at once: the pod with the shipped memory limit is not killed, and
/// builds the next merge.
pub async fn survives_hostile_load_within_its_memory(stage: Arc<Stage>) {
    const NAMESPACE: &str = "hostile";
    let cluster = &stage.cluster;
    stage.product();
    let (secret, host) = install_copy(cluster, NAMESPACE, "direct");
    // One pod, so that all of the load is its own.
    set_template_annotations(cluster, NAMESPACE, &json!({"autoscaling.knative.dev/max-scale": "1"}));
    wait_for_revision(cluster, NAMESPACE);
    let filler = "x".repeat(24_000_000);
    let mut large = merged("acme/hostile", 1, &"a".repeat(40));
    large["pull_request"]["body"] = filler.clone().into();
    // Millions of small values take more memory than the same text in one.
    let mut many = merged("acme/hostile", 2, &"b".repeat(40));
    many["pull_request"]["labels"] = json!(vec![json!({}); 6_000_000]);
    let bodies = Arc::new([
        (secret.clone(), large.to_string()),
        (secret.clone(), many.to_string()),
        ("forged".to_owned(), filler),
    ]);
    let until = Instant::now() + Duration::from_secs(25);
    let senders = (0..24).map(|index| {
        let (bodies, host) = (Arc::clone(&bodies), host.clone());
        tokio::spawn(async move {
            let client = HttpClient::new();
            let mut answers = BTreeSet::new();
            while Instant::now() < until {
                let (secret, body) = &bodies[index % bodies.len()];
                let reply = deliver_text(&client, &host, secret, "pull_request", body.clone()).await;
                answers.insert(reply.map_or(0, |reply| reply.status.as_u16()));
            }
            answers
        })
    });
    let mut answers = BTreeSet::new();
    for sender in senders.collect::<Vec<_>>() {
        answers.extend(sender.await.expect("a sender"));
    }
    say(&format!("cluster: hostile load was answered with {answers:?}"));
    let pods = cluster.json(&["get", "pods", "-n", NAMESPACE, "-l", PODS]);
    for pod in pods["items"].as_array().into_iter().flatten() {
        for container in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            assert_eq!(container["restartCount"], 0, "{}", container);
        }
    }
    let payload = merged("acme/hostile", 3, &"c".repeat(40));
    let reply = deliver(&HttpClient::new(), &host, &secret, "pull_request", &payload).await.expect("an answer");
    assert_eq!(reply.status, 201, "{}", reply.body);
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
}
