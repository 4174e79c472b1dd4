//! From a merge on GitHub to the new page, with the shipped manifests, three times.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::Stage;
use crate::harness::Cluster;
use crate::harness::names::{DOMAIN, OWN_REGISTRY};
use crate::product::{NAMESPACE, Product, REPOSITORY, Run, get, seconds};
use crate::support::command::run_with;
use crate::support::github::TOKEN;
use crate::support::go::say;
use crate::support::http::HttpClient;

/// Host name of the sample application.
fn sample() -> String {
    format!("hello-sample.default.{DOMAIN}")
}

/// A client that requests the sample application's health all the time.
struct Visitor {
    stop: Arc<AtomicBool>,
    requests: Arc<AtomicU32>,
    failures: tokio::task::JoinHandle<Vec<String>>,
}

impl Visitor {
    fn start() -> Self {
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&requests));
        let failures = tokio::spawn(async move {
            let client = HttpClient::new();
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let reply = get(&client, &sample(), "/healthz").await;
                count.fetch_add(1, Ordering::Relaxed);
                if reply.status != 200 {
                    failures.push(format!("{}: {}", reply.status, reply.body));
                }
                sleep(Duration::from_millis(20)).await;
            }
            failures
        });
        Self { stop, requests, failures }
    }

    /// Stops, and returns the number of requests. Panics if one has failed.
    async fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.failures.await.expect("the visitor");
        assert!(failures.is_empty(), "failed requests during the update: {failures:?}");
        self.requests.load(Ordering::Relaxed)
    }
}

/// Each of three merges is answered with 201, built, pushed, deployed, stamped, and seen through the ingress; between them,
/// no visitor sees a failure. The first one is of a public repository, without a credential for GitHub; then the repository
/// is private, and GitHub is told, and the build uses overlay and a cache. The third one's first fetch fails, and its layers
/// come from the cache.
pub async fn leads_from_merge_to_page(stage: Arc<Stage>) {
    let (cluster, product) = (&stage.cluster, stage.product());
    let mut visitor = None;
    for (number, version) in [(1, "first"), (2, "second"), (3, "third")] {
        if number == 3 {
            cluster.git_host.fail_once();
        }
        if number == 2 {
            use_cache(cluster, product);
            let token = format!("--from-literal=token={TOKEN}");
            cluster.kubectl(&["-n", NAMESPACE, "create", "secret", "generic", "github-credential", &token]);
            cluster.git_host.make_private();
        }
        let merge = product.merge(number, version);
        let merged = Instant::now();
        let reply = product.deliver("pull_request", &merge.payload).await;
        let answered = merged.elapsed();
        assert_eq!(reply.status, 201, "{}", reply.body);
        let run = product.wait_for_run(cluster, &reply);
        assert_succeeded(cluster, &run);

        let image = image_of(cluster, &merge.commit[..8]).await;
        assert_eq!(result(&run, "IMAGE_DIGEST"), image.1, "the pushed image");
        assert_eq!(result(&run, "CHAINS-GIT_COMMIT"), merge.commit);
        assert_eq!(result(&run, "CHAINS-GIT_URL"), format!("https://github.com/{REPOSITORY}"));

        let service = cluster.json(&["get", "ksvc", "hello-sample", "-n", "default"]);
        let annotations = &service["metadata"]["annotations"];
        assert_eq!(annotations["github-trigger.dev/commit"], merge.commit.as_str());
        assert_eq!(annotations["github-trigger.dev/merged-at"], merge.payload["pull_request"]["merged_at"]);
        assert_eq!(
            annotations["github-trigger.dev/pull-request-url"],
            format!("https://github.com/{REPOSITORY}/pull/{number}")
        );
        let deployed = &service["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(*deployed, format!("{}@{}", image.0, image.1));

        let states = cluster.github.states(REPOSITORY, &merge.commit);
        assert_eq!(states, if number == 1 { vec![] } else { vec!["pending", "success"] });
        if number == 2 {
            assert_deployed_on_github(cluster, &merge.commit, &run);
            assert_credential_is_nowhere(cluster, &run);
            assert_why_follows(cluster, &merge.commit).await;
        }
        if number == 3 {
            let log = log_of_build(cluster, &run);
            assert!(log.contains("trying again in 2 s"), "the fetch was not tried again:\n{log}");
            assert!(log.contains("Cache pulled from remote"), "nothing came from the cache:\n{log}");
        }
        let page = get(&HttpClient::new(), &sample(), "/").await;
        assert!(page.body.starts_with(&format!("Hello {version} from hello-sample-")), "{}", page.body);
        say(&format!(
            "cluster: merge {number}: answered after {} ms, seen after {:.0} s; {}",
            answered.as_millis(),
            merged.elapsed().as_secs_f32(),
            parts(cluster, &run)
        ));
        visitor.get_or_insert_with(Visitor::start);
    }
    let requests = visitor.expect("a visitor").stop().await;
    assert!(requests > 100, "{requests} requests");

    let claims = cluster.json(&["get", "persistentvolumeclaims", "-A"]);
    assert_eq!(claims["items"], serde_json::json!([]), "a merge leaves no volume behind");
}

/// Lets builds use overlay and a cache, and waits until the service has the changed template.
fn use_cache(cluster: &Cluster, product: &Product) {
    let logs =
        ["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=github-trigger", "-c", "user-container", "--tail=-1"];
    let reloads = || cluster.kubectl(&logs).matches("templates changed and are in use").count();
    let before = reloads();
    let template = product.checkout.join("config/base/deployer-trigger.yaml");
    let text = fs::read_to_string(&template).expect("the template");
    let params = format!(
        "    - name: storage-driver\n      value: overlay\n    - name: cache\n      value: {OWN_REGISTRY}/cache\n"
    );
    fs::write(&template, text.replace("  params:\n", &format!("  params:\n{params}"))).expect("the template");
    let mut kubectl = cluster.command("kubectl");
    let applied =
        kubectl.args(["apply", "-k", "config/direct"]).current_dir(&product.checkout).output().expect("kubectl");
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    cluster.wait_for("the changed template", || reloads() > before);
}

fn log_of_build(cluster: &Cluster, run: &Run) -> String {
    let label = format!("tekton.dev/pipelineRun={},tekton.dev/pipelineTask=build", run.name);
    cluster.kubectl(&["logs", "-n", NAMESPACE, "-l", &label, "--all-containers", "--tail=-1"])
}

/// `why` finds the whole road on the real objects.
async fn assert_why_follows(cluster: &Cluster, commit: &str) {
    let target = format!("{REPOSITORY}#2");
    let end = run_with(Some(&cluster.kubeconfig()), &["why", &target, "--namespace", NAMESPACE]).await;
    assert_eq!(end.code, Some(0), "{end:?}");
    for line in [
        "ok       run ",
        "ok       service   default/hello-sample",
        "ok       revision ",
        "ok       traffic   all users of",
    ] {
        assert!(end.out.contains(line), "no {line:?} in {end:?}");
    }
    let by_commit = run_with(Some(&cluster.kubeconfig()), &["why", commit, "--namespace", NAMESPACE]).await;
    assert_eq!(by_commit.out, end.out);
}

/// GitHub knows the deployment, with the Service's URL and the link to the run.
fn assert_deployed_on_github(cluster: &Cluster, commit: &str, run: &Run) {
    cluster.github.check();
    let knowledge = cluster.github.knowledge();
    let deployment = knowledge.deployments.iter().find(|deployment| deployment["sha"] == commit).expect("a deployment");
    assert_eq!(deployment["environment"], "production");
    let states = &knowledge.deployment_statuses[&deployment["id"].as_u64().expect("an id")];
    let latest = states.last().expect("a state");
    assert_eq!(
        (&latest["state"], &latest["environment_url"]),
        (&"success".into(), &format!("http://{}", sample()).into())
    );
    let statuses = &knowledge.statuses[&(REPOSITORY.to_owned(), commit.to_owned())];
    let target = format!("https://tekton.example.com/#/{}", run.name);
    assert!(statuses.iter().all(|status| status["target_url"] == target.as_str()), "{statuses:?}");
}

/// Neither an object of the run nor a log line has the credential.
fn assert_credential_is_nowhere(cluster: &Cluster, run: &Run) {
    let label = format!("tekton.dev/pipelineRun={}", run.name);
    let objects = cluster.kubectl(&["get", "pipelineruns,taskruns,pods,events", "-n", NAMESPACE, "-o", "json"]);
    assert!(objects.contains(&run.name) && !objects.contains(TOKEN), "the credential is in an object");
    let logs = cluster.kubectl(&["logs", "-n", NAMESPACE, "-l", &label, "--all-containers", "--tail=-1"]);
    assert!(
        logs.contains("reported: ") && !logs.contains(TOKEN),
        "the credential is in a log, or nothing was reported"
    );
}

fn assert_succeeded(cluster: &Cluster, run: &Run) {
    let condition = &run.object["status"]["conditions"][0];
    if condition["status"] != "True" {
        let label = format!("tekton.dev/pipelineRun={}", run.name);
        let logs = ["logs", "-n", NAMESPACE, "-l", &label, "--all-containers", "--tail=40", "--prefix"];
        let logs = cluster.try_kubectl(&logs).stdout;
        panic!("{}: {condition}\n{}", run.name, String::from_utf8_lossy(&logs));
    }
}

fn result(run: &Run, name: &str) -> String {
    let mut results = run.object["status"]["results"].as_array().into_iter().flatten();
    let result = results.find(|result| result["name"] == name).unwrap_or_else(|| panic!("no result {name}"));
    result["value"].as_str().unwrap_or_default().to_owned()
}

/// Name and digest of the sample application's image in the registry.
async fn image_of(cluster: &Cluster, tag: &str) -> (String, String) {
    let digest = cluster.registry().digest("hello-sample", tag).await;
    (format!("registry.example.com/hello-sample:{tag}"), digest.expect("a pushed image"))
}

/// How long each part of a run took, from its tasks and their steps.
fn parts(cluster: &Cluster, run: &Run) -> String {
    let label = format!("tekton.dev/pipelineRun={}", run.name);
    let tasks = cluster.json(&["get", "taskruns", "-n", NAMESPACE, "-l", &label, "--sort-by=.status.startTime"]);
    let mut parts = Vec::new();
    for task in tasks["items"].as_array().into_iter().flatten() {
        let (status, name) = (&task["status"], task["metadata"]["labels"]["tekton.dev/pipelineTask"].as_str());
        let steps = status["steps"].as_array().into_iter().flatten();
        let steps: Vec<String> = steps
            .map(|step| {
                let ran = &step["terminated"];
                let name = step["name"].as_str().unwrap_or_default();
                format!("{name} {} s", seconds(&ran["startedAt"], &ran["finishedAt"]))
            })
            .collect();
        let took = seconds(&status["startTime"], &status["completionTime"]);
        parts.push(format!("{} {took} s ({})", name.unwrap_or_default(), steps.join(", ")));
    }
    parts.join(", ")
}
