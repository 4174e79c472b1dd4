//! From a merge to the new page: the shipped pipeline, and one that clones into a volume and builds from it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::Cluster;
use crate::harness::names::DOMAIN;
use crate::product::{Merge, NAMESPACE, Product, Repository, ingress, seconds};
use crate::support::go::say;
use crate::support::http::HttpClient;
use crate::{median, row};

const REPOSITORY: &str = "acme/small";
/// Merges of each pipeline, in turn. The first of each is not counted.
const ROUNDS: u64 = 6;
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(50);
/// A pipeline as many write it, with the same images and commands.
const WITH_A_VOLUME: &str = include_str!("with-a-volume.yaml");

/// Seconds of each part of the way from a merge to its page.
type Parts = BTreeMap<&'static str, f64>;

/// One row for the whole way, and one for each part.
pub async fn measure(cluster: &Cluster, product: &Product) {
    let repository = small(cluster);
    let file = cluster.folders.run.join("with-a-volume.yaml");
    fs::write(&file, WITH_A_VOLUME).expect("a file");
    cluster.kubectl(&["apply", "-f", &file.display().to_string()]);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let number = 2 * round + 1;
        let (merge, page) = change(&repository, number);
        let (parts, run) = ship(cluster, product, &merge, &page).await;
        ours.push(parts);
        let (merge, page) = change(&repository, number + 1);
        theirs.push(ship_with_a_volume(cluster, &run, &merge, &page, number + 1).await);
        say(&format!("bench: {:?} / {:?}", ours.last(), theirs.last()));
    }
    for part in ["run to page", "run to first pod", "tasks", "clone", "build and push", "deploy"] {
        let [ours, theirs] = [&ours, &theirs].map(|all| {
            let mut values: Vec<f64> = all.iter().skip(1).filter_map(|parts| parts.get(part).copied()).collect();
            median(&mut values)
        });
        let compared = format!("{theirs:.1} s (clone and build in two pods, with a volume)");
        // Kubernetes' times are whole seconds.
        let ratio = (ours > 5.0).then_some(ours / theirs);
        row(&format!("on a cluster, a small image: {part}"), &format!("{ours:.1} s"), &compared, ratio, "");
    }
    let mut answers: Vec<f64> = ours.iter().skip(1).map(|parts| parts["answer"]).collect();
    row(
        "on a cluster, a small image: answer to the merge",
        &format!("{:.0} ms", median(&mut answers) * 1e3),
        "",
        None,
        "",
    );
}

/// A repository whose image is one program.
fn small(cluster: &Cluster) -> Repository {
    let folder = cluster.folders.run.join("small");
    fs::create_dir_all(&folder).expect("a folder");
    fs::copy(cluster.folders.assets.programs.join("app"), folder.join("app")).expect("the program");
    fs::write(folder.join("Dockerfile"), dockerfile("none")).expect("a Dockerfile");
    Repository::create(cluster, REPOSITORY, &folder)
}

fn dockerfile(page: &str) -> String {
    format!("FROM scratch\nCOPY app /app\nUSER 65532\nENTRYPOINT [\"/app\", \"serve\", \"{page}\"]\n")
}

/// Merges a new page. Returns the merge and the page.
fn change(repository: &Repository, number: u64) -> (Merge, String) {
    let page = format!("page {number}");
    fs::write(repository.copy.join("Dockerfile"), dockerfile(&page)).expect("a Dockerfile");
    // Merges are compared by the second.
    std::thread::sleep(Duration::from_millis(1100));
    (repository.merge(number, &page), page)
}

/// Delivers a merge and waits for its page. Returns the run, too.
async fn ship(cluster: &Cluster, product: &Product, merge: &Merge, page: &str) -> (Parts, Value) {
    let began = Instant::now();
    let reply = product.deliver("pull_request", &merge.payload).await;
    let answered = began.elapsed().as_secs_f64();
    assert_eq!(reply.status, 201, "{}", reply.body);
    let name = reply.json()["pipelineRuns"][0]["name"].as_str().expect("a run").to_owned();
    let mut parts = follow(cluster, &name, page).await;
    parts.insert("answer", answered);
    (parts, product.wait_for_run(cluster, &reply).object)
}

/// Creates the run of a merge for the other pipeline, from one of the shipped pipeline, and waits for its page.
async fn ship_with_a_volume(cluster: &Cluster, run: &Value, merge: &Merge, page: &str, number: u64) -> Parts {
    let name = format!("with-a-volume-{number}");
    let folder = cluster.folders.run.join(&name);
    fs::create_dir_all(&folder).expect("a folder");
    // The volume is the step's user's.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("a mode");
    let mut annotations = run["metadata"]["annotations"].clone();
    annotations["github-trigger.dev/commit"] = json!(merge.commit);
    annotations["github-trigger.dev/merged-at"] = merge.payload["pull_request"]["merged_at"].clone();
    let mut spec = run["spec"].clone();
    spec["pipelineRef"] = json!({"name": "with-a-volume"});
    let mut params = spec["params"].take();
    for param in params.as_array_mut().expect("params") {
        match param["name"].as_str() {
            Some("revision") => param["value"] = json!(merge.commit),
            Some("image-tag") => param["value"] = json!(merge.commit[..8]),
            _ => {}
        }
    }
    let used = ["git-url", "revision", "image", "image-tag", "service-name"];
    let params = params.as_array().expect("params").iter();
    spec["params"] =
        params.filter(|param| used.contains(&param["name"].as_str().unwrap_or_default())).cloned().collect();
    let claim = json!({"name": "source", "volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}}});
    spec["workspaces"].as_array_mut().expect("workspaces").push(claim);
    cluster.apply(&[json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": folder}}})]);
    let run = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "spec": spec,
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations}});
    cluster.apply(&[run]);
    follow(cluster, &name, page).await
}

/// Waits for a run's page, and measures from now.
async fn follow(cluster: &Cluster, run: &str, page: &str) -> Parts {
    let began = Instant::now();
    let label = format!("tekton.dev/pipelineRun={run}");
    let mut parts = Parts::new();
    let host = format!("hello-sample.default.{DOMAIN}");
    let client = HttpClient::new();
    loop {
        assert!(
            began.elapsed() < PATIENCE,
            "{run}: no {page:?}: {}",
            cluster.kubectl(&["get", "pods,pipelineruns", "-A"])
        );
        if !parts.contains_key("run to first pod") {
            let pods = cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", &label, "-o", "name"]);
            if !pods.is_empty() {
                parts.insert("run to first pod", began.elapsed().as_secs_f64());
            }
        }
        let headers = [("host".to_owned(), host.clone())];
        let seen = client.send(Method::GET, ingress(), "/", &headers, "").await;
        if seen.is_ok_and(|seen| seen.body.trim() == page) {
            break;
        }
        sleep(PAUSE).await;
    }
    parts.insert("run to page", began.elapsed().as_secs_f64());
    let ended =
        ["wait", "-n", NAMESPACE, "--for=jsonpath={.status.completionTime}", "--timeout=120s", "pipelinerun", run];
    cluster.kubectl(&ended);
    let tasks = cluster.json(&["get", "taskruns", "-n", NAMESPACE, "-l", &label]);
    let mut in_tasks = 0.0;
    for task in tasks["items"].as_array().into_iter().flatten() {
        let name = task["metadata"]["labels"]["tekton.dev/pipelineTask"].as_str().unwrap_or_default();
        // Beside the way, or after its end.
        if name.starts_with("report") {
            continue;
        }
        in_tasks += seconds(&task["status"]["startTime"], &task["status"]["completionTime"]);
        for step in task["status"]["steps"].as_array().into_iter().flatten() {
            let part = match step["name"].as_str() {
                Some("clone") => "clone",
                Some("build-and-push") => "build and push",
                Some("deploy") => "deploy",
                _ => continue,
            };
            parts.insert(part, seconds(&step["terminated"]["startedAt"], &step["terminated"]["finishedAt"]));
        }
    }
    parts.insert("tasks", in_tasks);
    parts
}
