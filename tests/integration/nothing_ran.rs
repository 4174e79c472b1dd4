//! The README's table "Why did nothing run?": each of its rows, played.

use std::fs;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::command::run;
use crate::support::control_plane::shared;
use crate::support::fake_api::{FakeApi, Fault};
use crate::support::github::GitHub;
use crate::support::github::hooks::{Hook, Loss};
use crate::support::http::HttpClient;
use crate::support::peers::Peer;
use crate::support::process::free_ports;
use crate::support::receiver::Receiver;
use crate::support::service::{LOGGED, Service, Setup, TEMPLATE};
use crate::support::teams;
use crate::support::webhook::{SECRET, SHA, merged};

const REPOSITORY: &str = "acme/web";

/// The first two cells of each row of the table.
fn rows() -> Vec<(String, String)> {
    let page = fs::read_to_string("README.md").expect("the page");
    let section =
        page.split("## Why did nothing run?").nth(1).expect("a section").split("\n## ").next().expect("its end");
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| you see"));
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    rows.map(cells).map(|cells| (cells[0].clone(), cells[1].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_the_readme_is_so() {
    let rows = rows();
    assert_eq!(rows.len(), 12, "{rows:?}");
    for (sees, look_at) in rows {
        match sees.as_str() {
            "no delivery on GitHub's *Recent Deliveries*" => no_delivery().await,
            "a delivery without an answer" => no_answer().await,
            "401" => unauthorized().await,
            "200 `ignored`" => ignored().await,
            "200 `ignored`, `unknown_repository`" => unknown_repository().await,
            "200 `duplicate`" => duplicate().await,
            "422 `invalid`" => invalid().await,
            "503 `unavailable`" => unavailable().await,
            "503 `team`" => broken_team().await,
            "201, but no build" => no_build().await,
            "an old template is used" => old_template().await,
            "no event arrives through GitHubSource" => lost_by_github_source().await,
            other => panic!("no test for the row {other:?} ({look_at})"),
        }
    }
}

/// GitHub with a webhook at the service, and the answer that its page shows for the last delivery.
struct Stage {
    github: GitHub,
    api: FakeApi,
    service: Service,
}

impl Stage {
    async fn start() -> Option<Self> {
        Self::with_template(TEMPLATE).await
    }

    async fn with_template(template: &str) -> Option<Self> {
        let github = GitHub::start().await?;
        let api = FakeApi::start().await;
        let service = Setup::cluster(&api.kubeconfig()).template(template).start();
        github.knowledge().hooks.push(Hook::to("/repos/acme/web", 11, service.address, SECRET));
        Some(Self { github, api, service })
    }

    /// Merges, and returns the log line of the delivery and the answer on GitHub's page.
    async fn merge(&self, number: u64) -> (String, Value) {
        let guid = self.github.merge(REPOSITORY, number, SHA, Loss::Nothing).await;
        self.look(&guid)
    }

    fn look(&self, guid: &str) -> (String, Value) {
        let line = self.service.log.wait_for(&format!("delivery={guid} "), LOGGED);
        (line, self.github.knowledge().hooks[0].last_answer())
    }

    async fn why(&self, number: u64) -> String {
        let (token, url) = (self.github.token_file().display().to_string(), self.github.url());
        let target = format!("{REPOSITORY}#{number}");
        run(&["why", &target, "--github-token-file", &token, "--github-api-url", &url]).await.out
    }
}

async fn no_delivery() {
    let Some(stage) = Stage::start().await else { return };
    stage.github.knowledge().hooks[0].events = vec!["push"];
    stage.github.merge(REPOSITORY, 1, SHA, Loss::Nothing).await;
    assert!(stage.github.knowledge().hooks[0].log.is_empty());
    assert!(stage.why(1).await.contains("select *Pull requests*"));
}

async fn no_answer() {
    let Some(stage) = Stage::start().await else { return };
    let [port] = free_ports();
    stage.github.knowledge().hooks[0].url = format!("http://127.0.0.1:{port}/");
    let guid = stage.github.merge(REPOSITORY, 1, SHA, Loss::Nothing).await;
    assert_eq!(stage.github.knowledge().hooks[0].statuses(&guid), [0]);
    assert!(!stage.service.log.text().contains(&guid), "the log has no line");
    assert!(stage.why(1).await.contains("kubectl get ksvc"));
}

async fn unauthorized() {
    for (secret, text) in [("", "no signature"), ("another", "matches none of the secrets")] {
        let Some(stage) = Stage::start().await else { return };
        secret.clone_into(&mut stage.github.knowledge().hooks[0].secret);
        let (line, answer) = stage.merge(1).await;
        assert_eq!(answer["reason"], "signature");
        assert!(line.contains(" status=401 ") && line.contains(text) && line.contains("hook=11"), "{line}");
    }
}

async fn ignored() {
    let branch = "github-trigger.dev/on-target-branch: release\n    github-trigger.dev/on-repository";
    let Some(stage) = Stage::with_template(&TEMPLATE.replace("github-trigger.dev/on-repository", branch)).await else {
        return;
    };
    let (_, answer) = stage.merge(1).await;
    assert_eq!((&answer["outcome"], &answer["reason"]), (&json!("ignored"), &json!("no_template")));
    let message = answer["message"].as_str().expect("a message");
    assert!(message.contains("release") && message.contains("main"), "{message}");
    let unmerged = stage.github.pull_request(REPOSITORY, 2, SHA, None);
    let guid = stage.github.deliver(REPOSITORY, "pull_request", &GitHub::closed(&unmerged), Loss::Nothing).await;
    let (_, answer) = stage.look(&guid);
    assert!(answer["message"].as_str().expect("a message").contains("merged"), "{answer}");
}

async fn unknown_repository() {
    let Some(stage) = Stage::with_template(&TEMPLATE.replace("\"*/*\"", "acme/wep")).await else { return };
    let (line, answer) = stage.merge(1).await;
    assert_eq!(answer["reason"], "unknown_repository");
    assert!(line.contains(" WARN ") && line.contains("acme/wep"), "{line}");
}

async fn duplicate() {
    let Some(stage) = Stage::start().await else { return };
    let (line, answer) = stage.merge(1).await;
    assert_eq!(answer["outcome"], "created", "{line}");
    let again = async |guid: &str| {
        let payload = stage.github.knowledge().hooks[0].log[0].payload.clone();
        stage.service.deliver("pull_request", guid, &payload).await.outcome()
    };
    assert_eq!(again("again").await, "duplicate");
    let line = stage.service.log.wait_for("delivery=again ", LOGGED);
    assert!(line.contains("runs=builds/build-"), "{line}");
    stage.api.delete_runs();
    assert_eq!(again("deleted").await, "created");
}

async fn invalid() {
    let template = TEMPLATE.replace("{{ target_branch }}", "{{ body.pull_request.no_such_field }}");
    let Some(stage) = Stage::with_template(&template).await else { return };
    let (line, answer) = stage.merge(1).await;
    assert_eq!(answer["outcome"], "invalid");
    assert!(line.contains(" ERROR ") && line.contains("no_such_field"), "{line}");
    let payload = stage.github.folder.path().join("payload");
    fs::write(&payload, stage.github.knowledge().hooks[0].log[0].payload.to_string()).expect("a file");
    let (templates, payload) = (stage.service.templates().display().to_string(), payload.display().to_string());
    let end = run(&["render", "--trigger-config", &templates, "--payload", &payload]).await;
    assert!(end.code == Some(1) && end.log.contains("no_such_field"), "{end:?}");
}

async fn unavailable() {
    let Some(stage) = Stage::start().await else { return };
    stage.api.fail_always(Some(Fault::Status(403, "Forbidden")));
    let (line, answer) = stage.merge(1).await;
    assert_eq!(answer["reason"], "forbidden");
    assert!(line.contains(" ERROR ") && line.contains("reason=forbidden") && line.contains("verb create"), "{line}");
    stage.api.fail_always(None);
    let payload = stage.github.knowledge().hooks[0].log[0].payload.clone();
    assert_eq!(stage.service.deliver("pull_request", "again", &payload).await.outcome(), "created");
}

async fn broken_team() {
    let broken = teams::template("bad").replace("pipelineRef", "pipelineReff");
    let service = teams::dry_run().team("good").team("bad").team_file("bad", "template.yaml", &broken).start();
    let reply = service.merge_of("bad", "d1", &merged("bad/web", 1, SHA)).await;
    assert_eq!((reply.status, reply.reason().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "team"));
    let line = service.log.wait_for("ERROR", LOGGED);
    assert!(line.contains("team=bad") && line.contains("did you mean `pipelineRef`?"), "{line}");
}

async fn no_build() {
    let Some(plane) = shared() else { return };
    plane.namespace("no-build");
    let service = Setup::cluster(&plane.trigger_account("no-build")).start();
    assert_eq!(service.merge("d1", &merged(REPOSITORY, 5, SHA)).await.status, StatusCode::CREATED);
    // No controller of Tekton's runs here, so that nothing begins.
    assert!(plane.kubectl(&["get", "pipelinerun", "-n", "no-build"]).contains("build-"));
}

async fn old_template() {
    let service = Setup::dry_run().arg("--metrics-addr=127.0.0.1:0").start();
    fs::write(service.templates().join("template.yaml"), TEMPLATE.replace("pipelineRef", "pipelineReff"))
        .expect("a file");
    let line = service.log.wait_for("changed templates are refused", LOGGED);
    assert!(line.contains(" ERROR ") && line.contains("did you mean `pipelineRef`?"), "{line}");
    assert_eq!(service.merge("d1", &merged(REPOSITORY, 5, SHA)).await.outcome(), "created");
    let line = service.log.wait_for("serving metrics", LOGGED);
    let address = line.split("address=").nth(1).and_then(|address| address.parse().ok()).expect("an address");
    let reply = HttpClient::new().send(Method::GET, address, "/metrics", &[], "").await.expect("metrics");
    assert!(reply.body.contains("github_trigger_config_stale{config=\"templates\"} 1"), "{}", reply.body);
}

async fn lost_by_github_source() {
    let sink = Receiver::answering(StatusCode::FORBIDDEN, "").await;
    let args = ["-sink", &sink.url(), "-secret", SECRET, "-owner-and-repository", REPOSITORY];
    let Some(adapter) = Peer::receive_adapter(&args) else { return };
    let body = merged(REPOSITORY, 5, SHA).to_string().into_bytes();
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("x-github-event", "pull_request".to_owned()),
        ("x-github-delivery", "d1".to_owned()),
        ("x-hub-signature", crate::support::webhook::sha1(SECRET, &body)),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    let reply = HttpClient::new().send(Method::POST, adapter.address, "/", &headers, body).await.expect("an answer");
    assert!(!reply.status.is_success(), "{reply:?}");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(sink.received().len(), 1, "it does not try again");
}
