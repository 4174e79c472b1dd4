//! `config/recover` on the cluster: a merge whose webhook never came.

use std::fs;
use std::sync::Arc;

use crate::Stage;
use crate::harness::Cluster;
use crate::product::{NAMESPACE, REPOSITORY, runs};
use crate::support::github::TOKEN;
use crate::support::webhook::ago;

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

    let merge = product.merge(3, "missed");
    cluster.github.pull_request(REPOSITORY, 3, &merge.commit, Some(&ago(60)));
    let before = runs(cluster, NAMESPACE);
    let log = look(cluster, "missed-1");
    assert!(log.contains(&format!("recovered {REPOSITORY}#3 ")), "{log}");
    assert!(log.contains("WARN recovered merges that were missed recovered=1 "), "{log}");
    let after = runs(cluster, NAMESPACE);
    let made: Vec<&String> = after.difference(&before).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let run = cluster.json(&["get", "pipelinerun", made[0], "-n", NAMESPACE]);
    assert_eq!(run["metadata"]["annotations"]["github-trigger.dev/commit"], merge.commit.as_str());

    let log = look(cluster, "missed-2");
    assert!(log.contains(&format!("duplicate {REPOSITORY}#3 ")) && log.contains("INFO nothing is missing"), "{log}");
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
