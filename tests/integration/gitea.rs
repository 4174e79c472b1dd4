//! A real Gitea: its webhooks, and the part of GitHub's API that it has.

use std::fs;
use std::process::Command;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::command::run;
use crate::support::fake_api::FakeApi;
use crate::support::gitea::Gitea;
use crate::support::process::eventually;
use crate::support::service::{LOGGED, Setup};
use crate::support::webhook::SECRET;

/// A merge on Gitea starts a run of its commit, and Gitea shows the status that `report` writes. The private repository is
/// cloned with `token`.
#[tokio::test(flavor = "multi_thread")]
async fn a_merge_on_gitea_starts_a_run_and_shows_its_status() {
    let Some(gitea) = Gitea::start().await else { return };
    let api = FakeApi::start().await;
    let service = Setup::cluster(&api.kubeconfig()).arg("--require-sha256").start();
    let repository = gitea.repository("web", true).await;
    let hook = json!({"type": "gitea", "active": true, "events": ["pull_request"],
        "config": {"url": format!("http://{}/", service.address), "content_type": "json", "secret": SECRET}});
    gitea.call(Method::POST, &format!("/repos/{repository}/hooks"), &hook).await;
    let (number, commit) = gitea.merge(&repository, "page").await;
    let runs = || Some(api.runs()).filter(|runs| !runs.is_empty());
    let runs = tokio::task::block_in_place(|| eventually(Duration::from_secs(60), runs));
    let run = &runs.unwrap_or_else(|| panic!("no run: {}", service.log.text()))[0];
    let annotation = |name: &str| run["metadata"]["annotations"][format!("github-trigger.dev/{name}")].clone();
    assert_eq!(annotation("commit"), commit.as_str(), "{run}");
    assert_eq!(annotation("repository"), repository.as_str());
    assert_eq!(run["metadata"]["labels"]["github-trigger.dev/pull-request"], number.to_string());
    assert!(annotation("merged-at").as_str().is_some_and(|time| time.ends_with('Z')), "{run}");
    service.log.wait_for("outcome=created", LOGGED);

    let (url, token) = (gitea.api(), gitea.token_file().display().to_string());
    let report = async |state: &str| {
        let args = ["report", "--repository", &repository, "--commit", &commit, "--state", state, "--strict"];
        let address = ["--github-api-url", &url, "--github-token-file", &token, "--github-patience=5"];
        ends(&[&args[..], &address].concat()).await
    };
    for (state, code) in [("pending", 0), ("pending", 3), ("success", 0), ("success", 3)] {
        let (ended, text) = report(state).await;
        assert_eq!(ended, Some(code), "{state}: {text}");
    }
    let statuses =
        gitea.call(Method::GET, &format!("/repos/{repository}/commits/{commit}/statuses"), &Value::Null).await;
    let mut states: Vec<&str> =
        statuses.as_array().expect("statuses").iter().filter_map(|one| one["status"].as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["pending", "success"]);

    let home = gitea.folder.path().join("home").display().to_string();
    let args = ["token", "--repository", &repository, "--github-token-file", &token, "--github-api-url", &url];
    let (ended, text) = ends(&[&args[..], &["--git-credentials", &home]].concat()).await;
    assert_eq!(ended, Some(0), "{text}");
    let clone = |home: &str, to: &str| {
        let source = format!("http://{}/{repository}.git", gitea.address);
        let to = gitea.folder.path().join(to).display().to_string();
        let mut git = Command::new("git");
        git.args(["clone", "--quiet", &source, &to]).env("HOME", home).env("GIT_TERMINAL_PROMPT", "0");
        git.env("GIT_ASKPASS", "false").output().expect("git").status.success()
    };
    assert!(!clone("/nonexistent", "without"), "it is private");
    assert!(clone(&home, "with"));
    assert_eq!(fs::read_to_string(gitea.folder.path().join("with/page")).expect("the file"), "hello\n");

    // What Gitea does not have is said in one line.
    let recover = ["recover", "--repository", &repository, "--github-api-url", &url, "--github-token-file", &token];
    let (ended, text) = ends(&recover).await;
    assert!(ended == Some(1) && text.contains("does not answer like GitHub's API"), "{text}");
}

/// Runs a command. Returns its exit code, and all that it says.
async fn ends(args: &[&str]) -> (Option<i32>, String) {
    let end = run(args).await;
    (end.code, format!("{}{}", end.out, end.log))
}
