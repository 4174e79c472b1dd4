//! `deploy` on real Revisions and Routes: what it says when an image is missing, a container exits, a node is full.

use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::Stage;
use crate::harness::Cluster;
use crate::harness::images::{Blob, Content, Layer, Runs};
use crate::harness::names::{DOMAIN, OWN_REGISTRY};
use crate::product::{create_pull_secret, get};
use crate::support::go::say;
use crate::support::http::HttpClient;
use crate::support::service::PROGRAM;

const NAMESPACE: &str = "deployer";
/// Flags of a deployment that fails soon.
const IMPATIENT: &[&str] = &["--wait-timeout", "100", "--failure-window", "10"];

/// How an image of the application behaves, see `modules/pods/app`.
#[derive(Clone, Copy)]
struct App<'a> {
    behaviour: &'a str,
    page: &'a str,
    user: &'a str,
}

impl<'a> App<'a> {
    fn serves(page: &'a str) -> Self {
        Self { behaviour: "serve", page, user: "65532" }
    }

    fn that(behaviour: &'a str) -> Self {
        Self { behaviour, page: behaviour, user: "65532" }
    }

    /// Pushes the image and returns its reference with its digest.
    async fn push(self, cluster: &Cluster) -> String {
        let digest = self.push_as(self.page, cluster).await;
        format!("{OWN_REGISTRY}/app@{digest}")
    }

    /// Pushes the image under a tag. Returns its digest.
    async fn push_as(self, tag: &str, cluster: &Cluster) -> String {
        let program = cluster.folders.assets.programs.join("app");
        let layer = Layer::new().add("app", 0o755, Content::File(program)).bytes();
        let entrypoint = ["/app", self.behaviour, self.page];
        let runs = Runs { entrypoint: &entrypoint, user: self.user, ..Runs::default() };
        cluster.registry().push("app", tag, &[Blob::new(layer)], &runs).await
    }
}

/// An end of `deploy`.
struct Ended {
    succeeded: bool,
    results: String,
    log: String,
    took: Duration,
}

impl Ended {
    fn result(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.results.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default()
    }

    /// Panics unless it failed with all of `words` in its log.
    fn assert_failed(&self, words: &[&str]) {
        assert!(!self.succeeded, "{}\n{}", self.results, self.log);
        for word in words {
            assert!(self.log.contains(word), "no {word:?} in\n{}", self.log);
        }
    }

    fn assert_outcome(&self, outcome: &str) {
        assert!(self.succeeded, "{}", self.log);
        assert_eq!(self.result("outcome"), outcome, "{}\n{}", self.results, self.log);
    }
}

fn command(cluster: &Cluster, service: &str, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env_clear()
        .env("KUBECONFIG", cluster.kubeconfig())
        .args(["deploy", "--namespace", NAMESPACE, "--service-name", service])
        .args(args)
        .stdin(Stdio::null());
    command
}

/// Runs `deploy` to its end.
async fn deploy(cluster: &Cluster, service: &str, args: &[&str]) -> Ended {
    let mut command = command(cluster, service, args);
    let started = Instant::now();
    let output: Output = tokio::task::spawn_blocking(move || command.output().expect("deploy")).await.expect("an end");
    let [results, log] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let ended = Ended { succeeded: output.status.success(), results, log, took: started.elapsed() };
    let last = ended.log.lines().last().unwrap_or_default();
    say(&format!("cluster: deploy {} took {:.1?}: {last}", args.join(" "), ended.took));
    ended
}

fn prepare(cluster: &Cluster) {
    if !cluster.try_kubectl(&["get", "namespace", NAMESPACE]).status.success() {
        cluster.kubectl(&["create", "namespace", NAMESPACE]);
        create_pull_secret(cluster, NAMESPACE, &["default"]);
    }
}

fn service(cluster: &Cluster, name: &str) -> Value {
    cluster.json(&["get", "ksvc", name, "-n", NAMESPACE])
}

async fn page(service: &str) -> String {
    let reply = get(&HttpClient::new(), &format!("{service}.{NAMESPACE}.{DOMAIN}"), "/").await;
    reply.body.trim().to_owned()
}

/// Counts which page `count` requests get.
async fn pages(service: &str, wanted: &str, count: u32) -> u32 {
    let (client, host) = (HttpClient::new(), format!("{service}.{NAMESPACE}.{DOMAIN}"));
    let mut seen = 0;
    for _ in 0..count {
        seen += u32::from(get(&client, &host, "/").await.body.trim() == wanted);
    }
    seen
}

/// New revisions, canaries, previews, promotion and rollback send users where they say.
pub async fn sends_users_where_it_says(stage: Arc<Stage>) {
    const NAME: &str = "modes";
    let cluster = &stage.cluster;
    prepare(cluster);
    let [first, second, third] = [App::serves("first"), App::serves("second"), App::serves("third")];
    let [first, second, third] = [first.push(cluster).await, second.push(cluster).await, third.push(cluster).await];

    deploy(cluster, NAME, &["--image", &first]).await.assert_outcome("deployed");
    assert_eq!(page(NAME).await, "first");
    deploy(cluster, NAME, &["--image", &first]).await.assert_outcome("unchanged");

    let canary = deploy(cluster, NAME, &["--image", &second, "--canary", "10", "--tag", "next"]).await;
    canary.assert_outcome("deployed");
    assert_eq!(canary.result("percent"), "10");
    let seen = pages(NAME, "second", 400).await;
    assert!((15..=75).contains(&seen), "{seen} of 400 requests saw the canary of 10 %");
    assert_eq!(page(&format!("next-{NAME}")).await, "second", "the tag's URL");

    deploy(cluster, NAME, &["--image", &second, "--to-latest"]).await.assert_outcome("deployed");
    assert_eq!(pages(NAME, "second", 50).await, 50);

    let preview = deploy(cluster, NAME, &["--image", &third, "--no-traffic", "--tag", "preview"]).await;
    preview.assert_outcome("deployed");
    assert_eq!(preview.result("percent"), "0");
    assert!(preview.log.contains("WARN"), "users do not see it: {}", preview.log);
    assert_eq!((page(NAME).await, page(&format!("preview-{NAME}")).await), ("second".into(), "third".into()));

    let back = deploy(cluster, NAME, &["--rollback"]).await;
    back.assert_outcome("rolled-back");
    assert_eq!(page(NAME).await, "first");
    // A merge after a rollback does not undo it.
    let fourth = App::serves("fourth").push(cluster).await;
    let merge = deploy(cluster, NAME, &["--image", &fourth]).await;
    merge.assert_outcome("deployed");
    assert_eq!((merge.result("percent"), page(NAME).await), ("0", "first".into()));
    deploy(cluster, NAME, &["--image", &fourth, "--to-latest"]).await.assert_outcome("deployed");
    assert_eq!(page(NAME).await, "fourth");

    // A tag that is asked for is made although the image is the same.
    let tagged = deploy(cluster, NAME, &["--image", &fourth, "--no-traffic", "--tag", "pr-7"]).await;
    tagged.assert_outcome("deployed");
    assert!(tagged.result("tag-url").contains("pr-7-modes"), "{}", tagged.results);
    assert_eq!((page(&format!("pr-7-{NAME}")).await, page(NAME).await), ("fourth".into(), "fourth".into()));
}

/// A tag that moves may stand for another image: each deployment makes a new revision, and says why a digest is better.
pub async fn deploys_a_moving_tag_each_time(stage: Arc<Stage>) {
    const NAME: &str = "moving";
    let cluster = &stage.cluster;
    prepare(cluster);
    let image = format!("{OWN_REGISTRY}/app:latest");
    App::serves("moving-1").push_as("latest", cluster).await;
    deploy(cluster, NAME, &["--image", &image]).await.assert_outcome("deployed");
    assert_eq!(page(NAME).await, "moving-1");
    App::serves("moving-2").push_as("latest", cluster).await;
    let again = deploy(cluster, NAME, &["--image", &image]).await;
    again.assert_outcome("deployed");
    assert_eq!((again.result("revision"), page(NAME).await), ("moving-00002", "moving-2".into()));
    assert!(again.log.contains("WARN the image has a tag that moves"), "{}", again.log);
}

/// Revisions that cannot work on a Service that works: the reason is said, and users stay where they are.
pub async fn says_why_a_revision_fails(stage: Arc<Stage>) {
    let cluster = &stage.cluster;
    prepare(cluster);
    let good = App::serves("good").push(cluster).await;
    let digest = format!("{OWN_REGISTRY}/app@sha256:{}", "0".repeat(64));
    let tag = format!("{OWN_REGISTRY}/app:none");
    let root = App { user: "", ..App::that("root") }.push(cluster).await;
    let (exit, port) = (App::that("exit").push(cluster).await, App::that("port").push(cluster).await);
    let cases = [
        ("no-tag", &tag, &["none"][..]),
        ("no-digest", &digest, &["not found"]),
        ("exits", &exit, &["cannot read the configuration"]),
        ("is-root", &root, &["runAsNonRoot"]),
        ("other-port", &port, &["timed out progressing"]),
    ];
    // Each at its own Service: they wait for Serving at the same time.
    join_all(cases.map(|(name, image, words)| fail(cluster, name, &good, image, words))).await;
    // What failed is made anew when it is tried again, and may work then.
    let name = "other-port";
    let failed = service(cluster, name)["status"]["latestCreatedRevisionName"].clone();
    let again = deploy(cluster, name, &[&["--image", port.as_str()], IMPATIENT].concat()).await;
    again.assert_failed(&["timed out progressing"]);
    assert_ne!(service(cluster, name)["status"]["latestCreatedRevisionName"], failed);
    // With the good image again all is well.
    deploy(cluster, name, &["--image", &good]).await.assert_outcome("deployed");
    // Other tests need the room.
    let all = cases.map(|(name, ..)| name);
    cluster.kubectl(&[&["delete", "ksvc", "-n", NAMESPACE, "--wait=false"], &all[..]].concat());
}

/// Deploys an image that fails to a Service with a good one. The log must have all `words`.
async fn fail(cluster: &Cluster, name: &str, good: &str, image: &str, words: &[&str]) {
    deploy(cluster, name, &["--image", good]).await.assert_outcome("deployed");
    // Serving's own patience is ten minutes, unless a Service says otherwise.
    let patch =
        json!({"spec": {"template": {"metadata": {"annotations": {"serving.knative.dev/progress-deadline": "20s"}}}}});
    cluster.kubectl(&["patch", "ksvc", name, "-n", NAMESPACE, "--type=merge", "-p", &patch.to_string()]);
    let ended = deploy(cluster, name, &[&["--image", image], IMPATIENT].concat()).await;
    ended.assert_failed(words);
    assert!(ended.log.contains(name), "no revision is named: {}", ended.log);
    assert_eq!(page(name).await, "good", "users stay on the revision that works");
}

/// Before Serving has given up, its conditions may not say why: then the message names the revision, and the command whose
/// output does.
pub async fn names_the_command_to_look_with(stage: Arc<Stage>) {
    let cluster = &stage.cluster;
    prepare(cluster);
    let root = App { user: "", ..App::that("root") }.push(cluster).await;
    let ended = deploy(cluster, "look", &["--image", &root, "--wait-timeout", "10"]).await;
    ended.assert_failed(&["look-00001"]);
    if !ended.log.contains("runAsNonRoot") {
        let (_, rest) = ended.log.split_once("kubectl ").expect("a command");
        let (command, _) = rest.split_once(" may show why").expect("the end of the command");
        let output = cluster.kubectl(&command.split(' ').collect::<Vec<_>>());
        assert!(output.contains("image will run as root"), "{command}:\n{output}");
    }
}

/// A container that exits once, and a node that has no room for a while, are waited for.
pub async fn waits_while_knative_may_recover(stage: Arc<Stage>) {
    let cluster = &stage.cluster;
    prepare(cluster);
    let once = App::that("exit-once").push(cluster).await;
    deploy(cluster, "once", &["--image", &once]).await.assert_outcome("deployed");
    assert_eq!(page("once").await, "exit-once");

    let first = App::serves("room-1").push(cluster).await;
    deploy(cluster, "room", &["--image", &first]).await.assert_outcome("deployed");
    let wants = |cpu: &str| {
        let container = json!({"image": first, "resources": {"requests": {"cpu": cpu}}});
        json!({"spec": {"template": {"spec": {"containers": [container]}}}}).to_string()
    };
    // The next revision needs most of the node, which another pod has.
    let node = cluster.json(&["get", "node", "node"]);
    let cpus = node["status"]["allocatable"]["cpu"].as_str().and_then(|cpu| cpu.parse::<u32>().ok()).expect("cpus");
    let most = format!("{}m", cpus * 1000 - 700);
    let filler = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "filler", "namespace": NAMESPACE},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "filler", "image": first,
            "env": [{"name": "PORT", "value": "8080"}], "resources": {"requests": {"cpu": most}}}]}});
    cluster.apply(&[filler]);
    cluster.kubectl(&["wait", "pod/filler", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=60s"]);
    cluster.kubectl(&["patch", "ksvc", "room", "-n", NAMESPACE, "--type=merge", "-p", &wants(&most)]);
    let second = App::serves("room-2").push(cluster).await;
    let waiting = tokio::spawn({
        let (cluster, second) = (Arc::clone(cluster), second.clone());
        async move { deploy(&cluster, "room", &["--image", &second]).await }
    });
    cluster.wait_for("a pod without room", || {
        let pods = cluster.json(&["get", "pods", "-n", NAMESPACE, "-l", "serving.knative.dev/service=room"]);
        let conditions =
            pods["items"].as_array().into_iter().flatten().flat_map(|pod| pod["status"]["conditions"].as_array());
        conditions.flatten().any(|condition| condition["reason"] == "Unschedulable")
    });
    assert!(!waiting.is_finished(), "it waits for room");
    cluster.kubectl(&["delete", "pod", "filler", "-n", NAMESPACE]);
    let ended = waiting.await.expect("an end");
    ended.assert_outcome("deployed");
    assert_eq!(page("room").await, "room-2");
}

/// Traffic to a revision that was deleted is mended by one deployment.
pub async fn mends_traffic_to_a_deleted_revision(stage: Arc<Stage>) {
    const NAME: &str = "gone";
    let cluster = &stage.cluster;
    prepare(cluster);
    let [first, second] = [App::serves("gone-1").push(cluster).await, App::serves("gone-2").push(cluster).await];
    deploy(cluster, NAME, &["--image", &first]).await.assert_outcome("deployed");
    deploy(cluster, NAME, &["--image", &second, "--no-traffic", "--tag", "next"]).await.assert_outcome("deployed");
    cluster.kubectl(&["delete", "revision", "gone-00001", "-n", NAMESPACE]);
    cluster.wait_for("a route that misses its revision", || {
        let conditions = service(cluster, NAME)["status"]["conditions"].clone();
        let mut conditions = conditions.as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == "RoutesReady" && condition["reason"] == "RevisionMissing")
    });
    let third = App::serves("gone-3").push(cluster).await;
    let refused = deploy(cluster, NAME, &["--image", &third]).await;
    refused.assert_failed(&["gone-00001", "--to-latest"]);
    assert!(refused.took < Duration::from_secs(10), "{:?}", refused.took);
    deploy(cluster, NAME, &["--image", &third, "--to-latest"]).await.assert_outcome("deployed");
    assert_eq!(page(NAME).await, "gone-3");
}

/// Serving moves users little by little; a wait that ends before that ends well, and says how many there are.
pub async fn ends_well_while_users_are_moved(stage: Arc<Stage>) {
    const NAME: &str = "gradual";
    let cluster = &stage.cluster;
    prepare(cluster);
    let [first, second] = [App::serves("gradual-1").push(cluster).await, App::serves("gradual-2").push(cluster).await];
    deploy(cluster, NAME, &["--image", &first]).await.assert_outcome("deployed");
    let gradual = r#"{"metadata":{"annotations":{"serving.knative.dev/rollout-duration":"300s"}}}"#;
    cluster.kubectl(&["patch", "ksvc", NAME, "-n", NAMESPACE, "--type=merge", "-p", gradual]);
    let ended = deploy(cluster, NAME, &["--image", &second, "--wait-timeout", "40"]).await;
    ended.assert_outcome("deployed");
    let percent: u32 = ended.result("percent").parse().expect("a percentage");
    assert!(percent < 100 && ended.log.contains("WARN"), "{} {}", ended.results, ended.log);
    cluster.kubectl(&["delete", "ksvc", NAME, "-n", NAMESPACE, "--wait=false"]);
}

/// A Service that is being deleted is refused at once.
pub async fn refuses_a_service_that_is_being_deleted(stage: Arc<Stage>) {
    const NAME: &str = "deleted";
    let cluster = &stage.cluster;
    prepare(cluster);
    let image = App::serves("deleted").push(cluster).await;
    deploy(cluster, NAME, &["--image", &image]).await.assert_outcome("deployed");
    let finalizer = r#"{"metadata":{"finalizers":["example.com/wait"]}}"#;
    cluster.kubectl(&["patch", "ksvc", NAME, "-n", NAMESPACE, "--type=merge", "-p", finalizer]);
    cluster.kubectl(&["delete", "ksvc", NAME, "-n", NAMESPACE, "--wait=false"]);
    let other = App::serves("other").push(cluster).await;
    let ended = deploy(cluster, NAME, &["--image", &other]).await;
    ended.assert_failed(&["being deleted"]);
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    cluster.kubectl(&["patch", "ksvc", NAME, "-n", NAMESPACE, "--type=merge", "-p", patch]);
}

/// Merges whose builds end in another order: the newest is deployed, and none is red.
pub async fn deploys_the_newest_merge(stage: Arc<Stage>) {
    const NAME: &str = "order";
    let cluster = &stage.cluster;
    prepare(cluster);
    let mut tasks = Vec::new();
    // The order in which the builds of five merges end.
    for merge in [2, 5, 1, 4, 3] {
        let name = format!("order-{merge}");
        let image = App::serves(&name).push(cluster).await;
        let cluster = Arc::clone(cluster);
        tasks.push(tokio::spawn(async move {
            let (commit, time) = (format!("{merge:040x}"), format!("2026-11-22T12:00:0{merge}Z"));
            let args = ["--image", &image, "--commit", &commit, "--merged-at", &time];
            deploy(&cluster, NAME, &args).await
        }));
        sleep(Duration::from_millis(700)).await;
    }
    for task in tasks {
        let ended = task.await.expect("an end");
        assert!(ended.succeeded, "{}", ended.log);
        assert!(["deployed", "superseded"].contains(&ended.result("outcome")), "{}", ended.results);
    }
    assert_eq!(page(NAME).await, "order-5");
    let annotations = &service(cluster, NAME)["metadata"]["annotations"];
    assert_eq!(annotations["github-trigger.dev/commit"], format!("{:040x}", 5));
}
