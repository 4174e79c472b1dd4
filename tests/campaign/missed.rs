//! Merges that are missed: a GitHub that loses deliveries, whose webhook is switched off at times, and a service that is away
//! at times. Then `recover`, once: each merge has one run. And once more: nothing changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use fastrand::Rng;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::task::block_in_place;

use crate::support::command::{End, run};
use crate::support::control_plane::{ControlPlane, shared};
use crate::support::github::GitHub;
use crate::support::github::hooks::{Hook, Loss};
use crate::support::go::say;
use crate::support::proxy::{Proxy, Weather};
use crate::support::service::{Service, Setup};
use crate::support::webhook::{SECRET, ago};

const NAMESPACE: &str = "missed";
/// Merges at the same time.
const BATCH: usize = 25;
const REPOSITORIES: [&str; 3] = ["acme/web", "acme/api", "acme/docs"];

/// What goes wrong during one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    None,
    /// The service is killed, and comes back afterwards.
    ServiceAway,
    /// Somebody has switched the webhook off.
    HookOff,
    /// Half of the requests are lost, and half of the answers.
    Losses,
    /// The service does not reach the API server.
    ApiServerAway,
    /// The secret of the webhook is another one.
    WrongSecret,
}

const TROUBLES: [Trouble; 6] = [
    Trouble::None,
    Trouble::ServiceAway,
    Trouble::HookOff,
    Trouble::Losses,
    Trouble::ApiServerAway,
    Trouble::WrongSecret,
];

struct Stage {
    plane: &'static ControlPlane,
    api: Proxy,
    service: Service,
    github: GitHub,
}

/// Plays it. Returns what was wrong.
pub async fn play(seed: u64, merges: u64) -> Vec<String> {
    let Some(plane) = shared() else { return Vec::new() };
    let Some(github) = GitHub::start().await else { return Vec::new() };
    let started = Instant::now();
    plane.namespace(NAMESPACE);
    let kubeconfig = plane.trigger_account(NAMESPACE);
    let api = Proxy::start(SocketAddr::from(([127, 0, 0, 1], plane.port())), seed).await;
    let text = std::fs::read_to_string(&kubeconfig).expect("a kubeconfig");
    let through_proxy = text.replace(&plane.port().to_string(), &api.address.port().to_string());
    std::fs::write(&kubeconfig, through_proxy).expect("a kubeconfig");
    let service = Setup::cluster(&kubeconfig).arg("--deadline=2").start();
    github.knowledge().hooks.push(Hook::to("/orgs/acme", 11, service.address, SECRET));
    std::fs::write(github.folder.path().join("secret"), SECRET).expect("a file");
    let mut stage = Stage { plane, api, service, github };

    let mut random = Rng::with_seed(seed);
    let mut expected = BTreeSet::new();
    let mut troubles = BTreeMap::new();
    let numbers: Vec<u64> = (1..=merges).collect();
    for (index, batch) in numbers.chunks(BATCH).enumerate() {
        // Each of them before one is repeated.
        let trouble = TROUBLES[index % TROUBLES.len()];
        *troubles.entry(trouble).or_insert(0) += 1;
        expected.extend(stage.merge(&mut random, batch, trouble).await);
        if index % 20 == 19 {
            say(&format!("campaign: {} of {merges} merges, {} s", batch[0] - 1, started.elapsed().as_secs()));
        }
    }
    let mut problems = stage.verdict(&expected).await;
    let mut found = stage.github.knowledge().problems.clone();
    found.truncate(5);
    problems.extend(found);
    println!(
        "missed: seed {seed}, {} merges, troubles {troubles:?}, {} s",
        expected.len(),
        started.elapsed().as_secs()
    );
    problems
}

fn commit(number: u64) -> String {
    format!("{number:040x}")
}

impl Stage {
    /// Merges a batch during some trouble. Returns the merge commits.
    async fn merge(&mut self, random: &mut Rng, numbers: &[u64], trouble: Trouble) -> Vec<String> {
        match trouble {
            Trouble::ServiceAway => self.service.signal("KILL"),
            Trouble::HookOff => self.github.knowledge().hooks[0].is_active = false,
            Trouble::ApiServerAway => self.api.set(Weather::Resets(1)),
            Trouble::WrongSecret => "another".clone_into(&mut self.github.knowledge().hooks[0].secret),
            Trouble::None | Trouble::Losses => {}
        }
        let mut commits = Vec::new();
        let deliveries: Vec<_> = numbers
            .iter()
            .map(|number| {
                let repository = REPOSITORIES[random.usize(..REPOSITORIES.len())];
                let loss = match (trouble, random.u8(..4)) {
                    (Trouble::Losses, 0 | 1) => Loss::Request,
                    (Trouble::Losses, 2) => Loss::Answer,
                    (Trouble::Losses, _) => Loss::Everything,
                    _ => Loss::Nothing,
                };
                let is_merged = random.u8(..8) > 0;
                if is_merged {
                    commits.push(commit(*number));
                }
                (repository, *number, loss, is_merged)
            })
            .collect();
        let github = &self.github;
        let send = |(repository, number, loss, is_merged): (&'static str, u64, Loss, bool)| async move {
            let merged_at = Some(ago(60)).filter(|_| is_merged);
            let pull = github.pull_request(repository, number, &commit(number), merged_at.as_deref());
            github.deliver(repository, "pull_request", &GitHub::closed(&pull), loss).await;
        };
        join_all(deliveries.into_iter().map(send)).await;
        match trouble {
            Trouble::ServiceAway => {
                block_in_place(|| self.service.restart());
                let mut knowledge = self.github.knowledge();
                knowledge.hooks[0].url = format!("http://{}/", self.service.address);
            }
            Trouble::HookOff => self.github.knowledge().hooks[0].is_active = true,
            Trouble::ApiServerAway => self.api.set(Weather::Fair),
            Trouble::WrongSecret => SECRET.clone_into(&mut self.github.knowledge().hooks[0].secret),
            Trouble::None | Trouble::Losses => {}
        }
        commits
    }

    async fn recover(&self) -> End {
        let folder = self.github.folder.path();
        let (token, secret) =
            (self.github.token_file().display().to_string(), folder.join("secret").display().to_string());
        let (url, service) = (self.github.url(), format!("http://{}", self.service.address));
        run(&[
            "recover",
            "--organization=acme",
            "--github-api-url",
            &url,
            "--github-token-file",
            &token,
            "--url",
            &service,
            "--secret-file",
            &secret,
        ])
        .await
    }

    /// The commit of each run.
    fn built(&self) -> Vec<String> {
        let commit = |run: &Value| {
            run["metadata"]["annotations"]["github-trigger.dev/commit"].as_str().unwrap_or_default().to_owned()
        };
        block_in_place(|| self.plane.runs(NAMESPACE)).iter().map(commit).collect()
    }

    /// What is wrong after one recovery, and after another.
    async fn verdict(&self, expected: &BTreeSet<String>) -> Vec<String> {
        let mut problems = Vec::new();
        let before = self.built().len();
        for round in ["first", "second"] {
            let end = self.recover().await;
            let count = |outcome: &str| end.out.lines().filter(|line| line.starts_with(outcome)).count();
            let (recovered, failed) = (count("recovered "), count("failed "));
            println!(
                "missed: {before} runs before; {round} recovery: {recovered} recovered, {} duplicates, {failed} failed",
                count("duplicate ")
            );
            let built = self.built();
            let unique: BTreeSet<String> = built.iter().cloned().collect();
            if end.code != Some(if round == "first" { 0 } else { 3 }) {
                problems.push(format!("the {round} recovery ends with {:?}: {}", end.code, end.log));
            }
            if unique != *expected || built.len() != expected.len() {
                problems.push(format!(
                    "after the {round} recovery: {} runs of {} commits for {} merges",
                    built.len(),
                    unique.len(),
                    expected.len()
                ));
            }
            if recovered != if round == "first" { expected.len() - before } else { 0 } {
                problems
                    .push(format!("the {round} recovery says {recovered} recovered of {}", expected.len() - before));
            }
        }
        problems
    }
}
