//! `config/recover` on the cluster: a merge whose webhook never came.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::Stage;
use crate::harness::Cluster;
use crate::product::{NAMESPACE, REPOSITORY, Run, runs};
use crate::support::github::TOKEN;
use crate::support::webhook::{ago, now};

const PAGE: &str = include_str!("../../docs/github.md");

/// Runs the `CronJob` now. Returns its log.
fn look(cluster: &Cluster, name: &str) -> String {
    let job = format!("job/{name}");
    cluster.kubectl(&["-n", NAMESPACE, "create", "job", name, "--from=cronjob/github-trigger-recover"]);
    let ended = cluster.try_kubectl(&["-n", NAMESPACE, "wait", &job, "--for=condition=Complete", "--timeout=120s"]);
    let log = cluster.try_kubectl(&["-n", NAMESPACE, "logs", &job, "--tail=-1"]);
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    assert!(
        ended.status.success(),
        "{log}\n{}",
        cluster.kubectl(&["-n", NAMESPACE, "describe", "pods", "-l", &format!("job-name={name}")])
    );
    log
}

/// The page's commands make the `CronJob`, whose account may do nothing. It builds the merge, once, and has nothing to do
/// for one whose build GitHub shows.
pub async fn builds_a_missed_merge(stage: Arc<Stage>) {
    let (cluster, product) = (&stage.cluster, stage.product());
    let file = product.checkout.join("config/recover/cronjob.yaml");
    let text = fs::read_to_string(&file).expect("the CronJob");
    fs::write(&file, text.replace("acme/web", REPOSITORY)).expect("a file");
    let block = PAGE.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let block = block.into_iter().find(|block| block.contains("apply -k config/recover")).expect("the commands");
    let mut bash = cluster.command("bash");
    let path = format!("{}:/usr/bin:/bin", cluster.folders.assets.control_plane.display());
    let script = block.replace("YOUR-TOKEN", TOKEN);
    let output = bash.args(["-euc", &script]).env("PATH", path).current_dir(&product.checkout).output().expect("bash");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pull = r#"{"imagePullSecrets":[{"name":"registry-push"}]}"#;
    cluster.kubectl(&["-n", NAMESPACE, "patch", "serviceaccount", "github-trigger-recover", "-p", pull]);

    let merge = product.merge(11, "missed");
    cluster.github.pull_request(REPOSITORY, 11, &merge.commit, Some(&ago(60)));
    let before = runs(cluster, NAMESPACE);
    let log = look(cluster, "missed-1");
    assert!(log.contains(&format!("recovered {REPOSITORY}#11 ")), "{log}");
    assert!(log.contains("WARN recovered merges that were missed recovered=1 "), "{log}");
    let after = runs(cluster, NAMESPACE);
    let made: Vec<&String> = after.difference(&before).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let run = cluster.json(&["get", "pipelinerun", made[0], "-n", NAMESPACE]);
    assert_eq!(run["metadata"]["annotations"]["github-trigger.dev/commit"], merge.commit.as_str());

    let log = look(cluster, "missed-2");
    assert!(log.contains(&format!("duplicate {REPOSITORY}#11 ")) && log.contains("INFO nothing is missing"), "{log}");
    assert_eq!(runs(cluster, NAMESPACE), after);
    assert!(!log.contains(TOKEN), "the credential is in the log");
    cluster.kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        "cronjob/github-trigger-recover",
        &format!("pipelinerun/{}", made[0]),
    ]);
    cluster.github.check();
}

/// With `config/spare-superseded`, a merge that is older than the deployed one is not built; with `on-path`, one that changes no
/// such path neither. GitHub says so.
pub async fn leaves_out_builds_that_nobody_needs(stage: Arc<Stage>) {
    let (cluster, product) = (&stage.cluster, stage.product());
    let kubectl = |args: &[&str]| {
        let output = cluster.command("kubectl").args(args).current_dir(&product.checkout).output().expect("kubectl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    // Without the tests before.
    let token = format!("--from-literal=token={TOKEN}");
    let _ = cluster.try_kubectl(&["-n", NAMESPACE, "create", "secret", "generic", "github-credential", &token]);
    if !cluster.try_kubectl(&["get", "ksvc", "hello-sample", "-n", "default"]).status.success() {
        let annotations = json!({"github-trigger.dev/merged-at": now(), "github-trigger.dev/commit": "0".repeat(40)});
        cluster.apply(&[json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {"name": "hello-sample", "namespace": "default", "annotations": annotations},
            "spec": {"template": {"spec": {"containers": [{"image": "registry.example.com/none:1"}]}}}})]);
    }
    kubectl(&["apply", "-k", "config/spare-superseded"]);
    let template = product.checkout.join("config/base/deployer-trigger.yaml");
    let text = fs::read_to_string(&template).expect("the template");
    let account = "      serviceAccountName: deployer\n";
    let more = format!("{account}    - pipelineTaskName: check-superseded\n{account}");
    let paths = "    github-trigger.dev/on-path: docs/**\n    github-trigger.dev/on-target-branch";
    let text = text.replace(account, &more).replace("    github-trigger.dev/on-target-branch", paths);
    fs::write(&template, text).expect("the template");
    kubectl(&["apply", "-k", "config/direct"]);
    let before = cluster.json(&["get", "ksvc", "hello-sample", "-n", "default"]);
    let mut merge = product.merge(4, "superseded");
    merge.payload["pull_request"]["merged_at"] = ago(86_400).into();
    // The kubelet brings the template after a while.
    let reply = loop {
        let reply = product.deliver("pull_request", &merge.payload).await;
        assert!(reply.status.is_success(), "{}", reply.body);
        let name = reply.json()["pipelineRuns"][0]["name"].as_str().expect("a run").to_owned();
        let run = cluster.json(&["get", "pipelinerun", &name, "-n", NAMESPACE]);
        if run["spec"]["taskRunSpecs"].to_string().contains("check-superseded") {
            break reply;
        }
        cluster.kubectl(&["delete", "pipelinerun", &name, "-n", NAMESPACE]);
        sleep(Duration::from_secs(5)).await;
    };
    let run = product.wait_for_run(cluster, &reply);
    let skipped = |run: &Run| {
        assert_eq!(run.object["status"]["conditions"][0]["reason"], "Completed", "{}", run.object["status"]);
        run.object["status"]["skippedTasks"].to_string()
    };
    assert!(skipped(&run).contains("\"build\"") && skipped(&run).contains("\"deploy\""), "{}", skipped(&run));
    let told = |commit: &str| {
        let statuses = cluster.github.knowledge().statuses[&(REPOSITORY.to_owned(), commit.to_owned())].clone();
        statuses.last().expect("a status")["description"].clone()
    };
    assert_eq!(told(&merge.commit), "Not built: something newer is deployed");

    // A new merge, which changes the Dockerfile alone.
    let mut merge = product.merge(5, "elsewhere");
    merge.payload["pull_request"]["commits"] = 1.into();
    let reply = product.deliver("pull_request", &merge.payload).await;
    let run = product.wait_for_run(cluster, &reply);
    assert!(!skipped(&run).contains("\"build\"") && skipped(&run).contains("\"deploy\""), "{}", skipped(&run));
    assert_eq!(told(&merge.commit), "No changed path needs a build");

    // A build that fails after it has seen that a path has changed.
    let merge = product.merge_broken(6);
    let reply = product.deliver("pull_request", &merge.payload).await;
    product.wait_for_run(cluster, &reply);
    assert_eq!(told(&merge.commit), "The task build failed");
    assert_eq!(cluster.github.states(REPOSITORY, &merge.commit), ["pending", "failure"]);
    assert_eq!(cluster.json(&["get", "ksvc", "hello-sample", "-n", "default"])["spec"], before["spec"]);
}
