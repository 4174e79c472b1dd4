//! The service and Tekton Triggers' EventListener, each with all its pods, on one node.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::client::{USUAL, padded};
use crate::event_listener::{MERGES, MODULE, PER_SECOND, commit, listener, programs};
use crate::harness::Cluster;
use crate::harness::assets::{self, TRIGGERS, run};
use crate::harness::manifests;
use crate::harness::names::DOMAIN;
use crate::product::{ingress, install_copy, signed};
use crate::support::go;
use crate::support::http::HttpClient;
use crate::support::process::memory;
use crate::support::webhook::{SECRET, merged};
use crate::{median, row};

const PROGRAMS: [&str; 4] = ["controller", "eventlistenersink", "interceptors", "webhook"];
/// Namespaces of the two.
const THEIRS: &str = "listener";
const OURS: &str = "service";
const PATIENCE: Duration = Duration::from_secs(180);
/// The service's pods.
const SERVICE: &str = "serving.knative.dev/service=github-trigger";

/// What the sandbox sees of Triggers.
fn folder() -> PathBuf {
    assets::folder().join("triggers")
}

/// Builds what runs in Triggers' pods, outside the sandbox.
pub fn build() {
    let folder = folder();
    programs(&folder, &PROGRAMS);
    let config = go::module_folder(Path::new(MODULE), TRIGGERS.1).expect("the module").join("config");
    let _ = fs::remove_dir_all(folder.join("config"));
    // The module cache is read-only.
    run(Command::new("cp").args(["-r", "--no-preserve=mode"]).arg(config).arg(&folder)).expect("the manifests");
}

/// Where merges are posted, and what makes runs of them.
struct Target {
    namespace: &'static str,
    address: SocketAddr,
    host: String,
    secret: String,
    /// Name of the process that is killed, as `/proc` shows it.
    process: &'static str,
    /// Namespace and label of all pods that it needs; those of the process first.
    pods: Vec<(&'static str, &'static str)>,
}

/// Figures of one of the two: memory in MiB.
struct Seen {
    idle: f64,
    acknowledged: BTreeSet<String>,
    when_sent: usize,
    lost: usize,
}

/// One row for each figure.
pub async fn measure(cluster: &Cluster) {
    install(cluster).await;
    let (secret, host) = install_copy(cluster, OURS, "direct");
    let ours = Target {
        namespace: OURS,
        address: ingress(),
        host: host.clone(),
        secret: secret.clone(),
        process: "github-trigger",
        pods: vec![(OURS, SERVICE)],
    };
    let address = ["get", "service", "el-github-listener", "-n", THEIRS, "-o", "jsonpath={.spec.clusterIP}"];
    let address = cluster.kubectl(&address).parse().expect("an address");
    let theirs = Target {
        namespace: THEIRS,
        address: SocketAddr::new(address, 8080),
        host: "el-github-listener".to_owned(),
        secret: SECRET.to_owned(),
        process: "eventlistenersi",
        pods: vec![
            (THEIRS, "eventlistener=github-listener"),
            ("tekton-pipelines", "app.kubernetes.io/part-of=tekton-triggers"),
        ],
    };
    let (theirs, ours) = (play(cluster, &theirs).await, play(cluster, &ours).await);
    let compared = |value: String| format!("{value} (EventListener)");
    let megabytes = |value: f64| format!("{value:.0} MiB");
    row(
        "on a cluster: RSS of all pods that it needs, idle",
        &megabytes(ours.idle),
        &compared(megabytes(theirs.idle)),
        Some(ours.idle / theirs.idle),
        "",
    );
    for (figure, value) in [
        (
            "on a cluster: 300 merges, 20 a second: acknowledged",
            (|seen: &Seen| seen.acknowledged.len()) as fn(&Seen) -> usize,
        ),
        ("on a cluster: runs that exist when the last one was sent", |seen| seen.when_sent),
        ("on a cluster: acknowledged and lost when its process is killed then", |seen| seen.lost),
    ] {
        row(figure, &value(&ours).to_string(), &compared(value(&theirs).to_string()), None, "");
    }
    measure_from_zero(cluster, &host, &secret).await;
}

/// Installs Triggers from its manifests, and an EventListener in a namespace of its own.
async fn install(cluster: &Cluster) {
    let built = folder();
    for name in PROGRAMS {
        cluster.push_controller(TRIGGERS.0, name, &built.join(name)).await;
    }
    cluster.apply_in_order(manifests::triggers(&built.join("config")));
    cluster.wait_for_controllers();
    cluster.kubectl(&["create", "namespace", THEIRS]);
    let mut objects = listener(THEIRS);
    objects[0]["spec"]["serviceAccountName"] = json!("listener");
    let bound = |kind: &str, role: &str| {
        let mut metadata = json!({"name": role});
        if kind == "RoleBinding" {
            metadata["namespace"] = json!(THEIRS);
        }
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "listener", "namespace": THEIRS}]})
    };
    cluster.apply(&[
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "listener", "namespace": THEIRS}}),
        bound("RoleBinding", "tekton-triggers-eventlistener-roles"),
        bound("ClusterRoleBinding", "tekton-triggers-eventlistener-clusterroles"),
    ]);
    // Admission may not answer at once.
    cluster.wait_for("Triggers' admission", || cluster.try_apply(&objects).status.success());
    let ready = ["wait", "-n", THEIRS, "eventlistener/github-listener", "--for=condition=Ready", "--timeout=120s"];
    cluster.kubectl(&ready);
}

/// Sends the merges, kills the process and waits for the next one, and counts the runs.
async fn play(cluster: &Cluster, target: &Target) -> Seen {
    sleep(Duration::from_secs(5)).await;
    let idle = target.pods.iter().map(|(namespace, label)| resident(cluster, namespace, label)).sum();
    let acknowledged = send(target).await;
    let when_sent = commits(cluster, target.namespace).len();
    // No run at all means a wrong setup, not a result.
    assert!(when_sent > 0, "{} creates no runs", target.namespace);
    let (namespace, label) = target.pods[0];
    let victims: Vec<u32> = processes(cluster, namespace, label);
    let victims: Vec<u32> = victims.into_iter().filter(|process| name_of(*process) == target.process).collect();
    assert!(!victims.is_empty(), "no process {}", target.process);
    for process in victims {
        let process = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(process, Signal::KILL).expect("a killed process");
    }
    // The next process may still make what is missing.
    sleep(Duration::from_secs(5)).await;
    cluster.kubectl(&["wait", "pods", "-n", namespace, "-l", label, "--for=condition=Ready", "--timeout=120s"]);
    sleep(Duration::from_secs(10)).await;
    let existing = commits(cluster, target.namespace);
    let lost = acknowledged.difference(&existing).count();
    Seen { idle, acknowledged, when_sent, lost }
}

/// Posts one merge. Returns its status; 0 if there is no answer.
async fn post(address: SocketAddr, host: &str, secret: &str, commit: &str, number: u64) -> u16 {
    let body = padded(merged("acme/web", number, commit), USUAL).to_string();
    let headers = signed(host, secret, "pull_request", &body);
    let reply = HttpClient::new().send(Method::POST, address, "/", &headers, body).await;
    reply.map_or(0, |reply| reply.status.as_u16())
}

/// Sends the merges, and returns the commits of those that were answered with 2xx.
async fn send(target: &Target) -> BTreeSet<String> {
    let mut clock = tokio::time::interval(Duration::from_millis(1000 / PER_SECOND));
    let mut senders = Vec::new();
    for number in 1..=MERGES {
        clock.tick().await;
        let (address, host, secret) = (target.address, target.host.clone(), target.secret.clone());
        senders.push(tokio::spawn(async move {
            let commit = commit(number);
            let status = post(address, &host, &secret, &commit, number).await;
            (200..300).contains(&status).then_some(commit)
        }));
    }
    let answers = futures_util::future::join_all(senders).await;
    answers.into_iter().filter_map(|answer| answer.expect("an answer")).collect()
}

/// The commits of a namespace's runs.
fn commits(cluster: &Cluster, namespace: &str) -> BTreeSet<String> {
    let runs = cluster.json(&["get", "pipelineruns", "-n", namespace]);
    let commit = |run: &Value| {
        let mut params = run["spec"]["params"].as_array()?.iter();
        params.find(|param| param["name"] == "revision")?["value"].as_str().map(str::to_owned)
    };
    runs["items"].as_array().into_iter().flatten().filter_map(commit).collect()
}

/// The processes in pods, without those that hold their namespaces.
fn processes(cluster: &Cluster, namespace: &str, label: &str) -> Vec<u32> {
    let uids = ["get", "pods", "-n", namespace, "-l", label, "-o", "jsonpath={.items[*].metadata.uid}"];
    let uids = cluster.kubectl(&uids);
    let uids: Vec<&str> = uids.split_whitespace().collect();
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_pods = all.filter(|process| {
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
        uids.iter().any(|uid| groups.contains(uid))
    });
    of_pods.filter(|process| name_of(*process) != "pause").collect()
}

fn name_of(process: u32) -> String {
    fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default().trim().to_owned()
}

/// Resident memory of all processes in pods, in MiB.
fn resident(cluster: &Cluster, namespace: &str, label: &str) -> f64 {
    let sizes = processes(cluster, namespace, label).into_iter().map(|process| memory(process, "VmRSS"));
    sizes.map(|kib| f64::from(u32::try_from(kib).expect("a size")) / 1024.0).sum()
}

/// The time of an answer when there is no pod: the service, and an EventListener that Triggers runs as a Knative Service.
async fn measure_from_zero(cluster: &Cluster, host: &str, secret: &str) {
    let annotations = json!({"autoscaling.knative.dev/min-scale": "0"});
    let minimum = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}).to_string();
    cluster.kubectl(&["patch", "ksvc", "github-trigger", "-n", OURS, "--type=merge", "-p", &minimum]);
    let mut objects = listener(THEIRS);
    objects[0]["metadata"]["name"] = json!("from-zero");
    objects[0]["spec"]["serviceAccountName"] = json!("listener");
    objects[0]["spec"]["resources"] = json!({"customResource": {"apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "spec": {"template": {"spec": {"serviceAccountName": "listener", "containers": [{"resources": {}}]}}}}});
    cluster.apply(&objects);
    cluster.wait_for("the EventListener's Service", || {
        let ready = ["wait", "-n", THEIRS, "ksvc/el-from-zero", "--for=condition=Ready", "--timeout=5s"];
        cluster.try_kubectl(&ready).status.success()
    });
    let their_host = format!("el-from-zero.{THEIRS}.{DOMAIN}");
    let ours = from_zero(cluster, OURS, SERVICE, host, secret).await;
    let theirs = from_zero(cluster, THEIRS, "serving.knative.dev/service=el-from-zero", &their_host, SECRET).await;
    row(
        "on a cluster: answer when there is no pod",
        &format!("{ours:.2} s"),
        &format!("{theirs:.2} s (EventListener as a Knative Service)"),
        Some(ours / theirs),
        "",
    );
}

/// The median of three answers, in seconds.
async fn from_zero(cluster: &Cluster, namespace: &str, label: &str, host: &str, secret: &str) -> f64 {
    let mut took = Vec::new();
    let pods = ["get", "pods", "-n", namespace, "-l", label];
    for number in 1000..1003 {
        // One that is about to end gets no requests.
        cluster.wait_for("no pod", || {
            let pods = cluster.json(&pods);
            let mut pods = pods["items"].as_array().into_iter().flatten();
            pods.all(|pod| !pod["metadata"]["deletionTimestamp"].is_null())
        });
        let began = Instant::now();
        let status = tokio::time::timeout(PATIENCE, post(ingress(), host, secret, &commit(number), number)).await;
        let status = status.expect("an answer");
        assert!((200..300).contains(&status), "{host}: {status}");
        took.push(began.elapsed().as_secs_f64());
    }
    median(&mut took)
}
