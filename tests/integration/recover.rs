//! `recover`, against a GitHub that loses deliveries, and a service that creates runs.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::command::{End, run};
use crate::support::fake_api::{FakeApi, Fault};
use crate::support::github::description::description;
use crate::support::github::hooks::{Hook, Loss, payload_problems};
use crate::support::github::{self, APP, GitHub};
use crate::support::process::free_ports;
use crate::support::service::{LOGGED, Service, Setup};
use crate::support::webhook::{SECRET, ago};

const REPOSITORY: &str = "acme/web";

/// A template for merges into `main` alone.
const TEMPLATE: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  generateName: web-
  annotations:
    github-trigger.dev/on-repository: "acme/*"
    github-trigger.dev/on-target-branch: main
spec:
  pipelineRef:
    name: build
"#;

/// The commit of a merge.
fn commit(number: u64) -> String {
    format!("{number:040x}")
}

/// GitHub, a service with its runs, and what `recover` is called with.
struct Stage {
    github: GitHub,
    api: FakeApi,
    service: Service,
}

impl Stage {
    /// With a webhook of the owner. `None` without GitHub's description.
    async fn with_hook(owner: &str) -> Option<Self> {
        let stage = Self::without_hook().await?;
        stage.github.knowledge().hooks.push(Hook::to(owner, 11, stage.service.address, SECRET));
        Some(stage)
    }

    async fn without_hook() -> Option<Self> {
        let github = GitHub::start().await?;
        let api = FakeApi::start().await;
        let service = Setup::cluster(&api.kubeconfig()).template(TEMPLATE).start();
        fs::write(github.folder.path().join("secret"), format!("{SECRET}\n")).expect("a file");
        Some(Self { github, api, service })
    }

    /// With a token, for one repository, posting to the service.
    async fn recover(&self, more: &[&str]) -> End {
        let url = format!("http://{}", self.service.address);
        let secret = self.github.folder.path().join("secret").display().to_string();
        self.ask(&[&["--repository", REPOSITORY, "--url", &url, "--secret-file", &secret], more].concat()).await
    }

    async fn ask(&self, args: &[&str]) -> End {
        let token = self.github.token_file().display().to_string();
        let credential: &[&str] =
            if args.contains(&"--github-app-id") { &[] } else { &["--github-token-file", &token] };
        let address = self.github.url();
        run(&[&["recover", "--github-api-url", &address], credential, args].concat()).await
    }

    /// Each commit that has a run, and how often it was asked for.
    fn built(&self) -> BTreeSet<String> {
        let commit = |run: &Value| {
            run["metadata"]["annotations"]["github-trigger.dev/commit"].as_str().expect("a commit").to_owned()
        };
        let runs = self.api.runs();
        let built: BTreeSet<String> = runs.iter().map(commit).collect();
        assert_eq!(built.len(), runs.len(), "two runs of one merge");
        built
    }

    /// Waits until the service has logged so many deliveries, and no others come.
    async fn expect_deliveries(&self, count: usize) {
        let logged = || {
            self.service
                .log
                .all()
                .iter()
                .filter(|line| line.contains(" delivery ") && line.contains("outcome="))
                .count()
        };
        let until = Instant::now() + LOGGED;
        while logged() < count && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(Duration::from_millis(200)).await;
        assert_eq!(logged(), count, "{}", self.service.log.text());
    }
}

/// The first words of each line: outcome and pull request.
fn outcomes(end: &End) -> Vec<String> {
    let mut outcomes: Vec<String> =
        end.out.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    outcomes.sort();
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_what_was_missed_once() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    let github = &stage.github;
    for (number, loss) in
        [(1, Loss::Nothing), (2, Loss::Request), (3, Loss::Answer), (4, Loss::Everything), (5, Loss::Nothing)]
    {
        github.merge(REPOSITORY, number, &commit(number), loss).await;
    }
    // Not merged, merged into a branch without a template, merged long ago, and an event of another kind.
    let unmerged = github.pull_request(REPOSITORY, 6, &commit(6), None);
    github.deliver(REPOSITORY, "pull_request", &GitHub::closed(&unmerged), Loss::Nothing).await;
    let mut other = github.pull_request(REPOSITORY, 7, &commit(7), Some(&ago(60)));
    other["base"]["ref"] = json!("experiment");
    github.knowledge().pulls.get_mut(REPOSITORY).expect("pulls").pop();
    github.knowledge().pulls.get_mut(REPOSITORY).expect("pulls").push(other.clone());
    github.deliver(REPOSITORY, "pull_request", &GitHub::closed(&other), Loss::Request).await;
    github.pull_request(REPOSITORY, 8, &commit(8), Some(&ago(200_000)));
    assert_eq!(stage.built(), [1, 3, 5].map(commit).into(), "before");

    let end = stage.recover(&["--dry-run"]).await;
    assert_eq!((end.code, stage.built().len()), (Some(0), 3), "{end:?}");
    assert_eq!(
        outcomes(&end),
        ["missing acme/web#2", "missing acme/web#3", "missing acme/web#4", "missing acme/web#7"],
        "{end:?}"
    );

    let end = stage.recover(&[]).await;
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(
        outcomes(&end),
        ["duplicate acme/web#3", "ignored acme/web#7", "recovered acme/web#2", "recovered acme/web#4"],
        "{end:?}"
    );
    assert!(end.log.contains("keep runs for longer"), "{}", end.log);
    assert!(end.log.contains("WARN recovered merges that were missed recovered=2 "), "{}", end.log);
    assert_eq!(stage.built(), [1, 2, 3, 4, 5].map(commit).into(), "after");
    let line = end.out.lines().find(|line| line.contains("#4")).expect("a line");
    assert!(line.contains(" posted: ") && line.contains("builds/web-"), "{line}");

    // Again: GitHub's page has a success for each delivery, and only what it knows no delivery of is asked for.
    // Three were answered before, two delivered again, one was ignored, and one was posted.
    stage.expect_deliveries(8).await;
    let attempts = github.knowledge().attempts;
    let end = stage.recover(&["--output=json"]).await;
    assert_eq!(github.knowledge().attempts, attempts, "{end:?}");
    stage.expect_deliveries(9).await;
    let line: Value = serde_json::from_str(&end.out).expect("one JSON line");
    assert_eq!(
        (&line["outcome"], &line["pullRequest"], &line["road"]),
        (&json!("duplicate"), &json!(4), &json!("post"))
    );
    assert_eq!(stage.built().len(), 5);
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn has_nothing_to_do_if_all_was_delivered() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Nothing).await;
    for (args, code) in [(&[][..], 3), (&["--scheduled"], 0), (&["--dry-run"], 3)] {
        let end = stage.recover(args).await;
        assert_eq!((end.code, end.out.as_str()), (Some(code), ""), "{args:?}: {end:?}");
        assert!(end.log.contains("INFO nothing is missing"), "{}", end.log);
    }
    stage.expect_deliveries(1).await;
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn says_what_is_still_missing_and_recovers_it_later() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    stage.api.fail_always(Some(Fault::Status(403, "Forbidden")));
    let guid = stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Nothing).await;
    stage.github.merge(REPOSITORY, 2, &commit(2), Loss::Everything).await;
    let end = stage.recover(&[]).await;
    assert_eq!((end.code, outcomes(&end)), (Some(1), vec!["failed acme/web#1".into(), "failed acme/web#2".into()]));
    assert!(end.out.lines().all(|line| line.contains("answered with 503 (forbidden)")), "{end:?}");
    assert!(end.log.contains("ERROR some are still missing"), "{}", end.log);
    stage.api.fail_always(None);
    let end = stage.recover(&[]).await;
    assert_eq!(
        (end.code, outcomes(&end)),
        (Some(0), vec!["recovered acme/web#1".into(), "recovered acme/web#2".into()])
    );
    assert_eq!(stage.github.knowledge().hooks[0].statuses(&guid), [503, 503, 201]);

    // The folder of a mounted Secret, with a blank key beside the real one.
    let folder = stage.github.folder.path().join("mounted");
    fs::create_dir(&folder).expect("a folder");
    for (name, content) in [("..data", "x"), ("1", "\n"), ("2", SECRET)] {
        fs::write(folder.join(name), content).expect("a file");
    }
    stage.github.merge(REPOSITORY, 4, &commit(4), Loss::Everything).await;
    let (url, secrets) = (format!("http://{}", stage.service.address), folder.display().to_string());
    let end = stage.ask(&["--repository", REPOSITORY, "--url", &url, "--secret-file", &secrets]).await;
    assert!(end.code == Some(0) && end.out.contains("recovered acme/web#4"), "{end:?}");

    // Without an address, what GitHub knows no delivery of is named.
    stage.github.merge(REPOSITORY, 3, &commit(3), Loss::Everything).await;
    let end = stage.ask(&["--repository", REPOSITORY]).await;
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.out.contains("failed acme/web#3") && end.out.contains("give --url and --secret-file"), "{end:?}");
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_what_github_refuses_to_deliver_again() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Request).await;
    stage.github.knowledge().hooks[0].is_active = false;
    stage.github.knowledge().hooks[0].refuses_redelivery = true;
    stage.github.merge(REPOSITORY, 2, &commit(2), Loss::Nothing).await;
    let end = stage.recover(&[]).await;
    assert_eq!(outcomes(&end), ["recovered acme/web#1", "recovered acme/web#2"], "{end:?}");
    assert!(end.log.contains("is not active: switch it on"), "{}", end.log);
    assert_eq!(stage.built().len(), 2);

    // No webhook at all, or another one.
    for (hook, what) in
        [(true, "has no webhook with the address https://elsewhere.example.com"), (false, "has no webhook;")]
    {
        stage.github.merge(REPOSITORY, 3 + u64::from(hook), &commit(3 + u64::from(hook)), Loss::Everything).await;
        if !hook {
            stage.github.knowledge().hooks.clear();
        }
        let more: &[&str] = if hook { &["--hook-url=https://elsewhere.example.com"] } else { &[] };
        let end = stage.recover(more).await;
        assert!(end.code == Some(0) && end.log.contains(what), "{end:?}");
        assert!(end.out.contains(&format!("recovered acme/web#{}", 3 + u64::from(hook))), "{end:?}");
    }
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_no_pruned_run_again_that_github_was_told_of() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    for (number, loss) in [(1, Loss::Answer), (2, Loss::Everything)] {
        stage.github.merge(REPOSITORY, number, &commit(number), loss).await;
        // The template's own, below ours.
        let status = json!({"state": "failure", "context": format!("github-trigger/{number}"), "description": "", "target_url": null});
        stage.github.knowledge().statuses.insert((REPOSITORY.to_owned(), commit(number)), vec![status]);
    }
    let end = stage.recover(&[]).await;
    assert_eq!(
        (end.code, outcomes(&end)),
        (Some(3), vec!["duplicate acme/web#1".into(), "duplicate acme/web#2".into()])
    );
    assert!(end.out.contains("GitHub shows its status, failure"), "{end:?}");
    stage.expect_deliveries(1).await;
    // Another context, or none, is not ours.
    let end = stage.recover(&["--context="]).await;
    assert_eq!(outcomes(&end), ["duplicate acme/web#1", "recovered acme/web#2"], "{end:?}");
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_all_pages() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    for number in 1..=130 {
        let pull = stage.github.pull_request(
            REPOSITORY,
            number,
            &commit(number),
            Some(&ago(60)).filter(|_| number % 2 == 0).map(String::as_str),
        );
        let loss = if number == 2 { Loss::Request } else { Loss::Nothing };
        let loss = if number == 4 { Loss::Everything } else { loss };
        stage.github.deliver(REPOSITORY, "pull_request", &GitHub::closed(&pull), loss).await;
    }
    let end = stage.recover(&[]).await;
    assert_eq!(outcomes(&end), ["recovered acme/web#2", "recovered acme/web#4"], "{end:?}");
    assert_eq!(stage.built().len(), 65);
    let asked =
        stage.github.knowledge().requests.iter().filter(|request| request.ends_with("/hooks/11/deliveries")).count();
    assert!(asked >= 2, "{asked} pages of deliveries");
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn asks_an_organisation_or_an_app_for_all_its_repositories() {
    for (owner, credential) in [("/orgs/acme", false), ("/orgs/acme", true), ("/app", true)] {
        let Some(stage) = Stage::with_hook(owner).await else { return };
        for (number, repository) in [(1, "acme/web"), (2, "acme/api"), (3, "other/web")] {
            let loss = if number == 1 { Loss::Request } else { Loss::Everything };
            stage.github.merge(repository, number, &commit(number), loss).await;
        }
        stage.github.knowledge().installed.extend(["acme/web".to_owned(), "acme/api".to_owned()]);
        let (key, url) = (stage.github.key_file().display().to_string(), format!("http://{}", stage.service.address));
        let secret = stage.github.folder.path().join("secret").display().to_string();
        let app = ["--github-app-id", APP, "--github-app-key-file", &key];
        let app = if credential { &app[..] } else { &[] };
        let args = ["--organization", "acme", "--url", &url, "--secret-file", &secret];
        let end = stage.ask(&[&args[..], app].concat()).await;
        assert_eq!(outcomes(&end), ["recovered acme/api#2", "recovered acme/web#1"], "{owner}: {end:?}");
        // Only some of its repositories.
        stage.github.merge("acme/api", 4, &commit(4), Loss::Request).await;
        stage.github.merge("acme/web", 5, &commit(5), Loss::Request).await;
        stage.github.knowledge().broken.insert("GET /repos/acme/gone".to_owned(), 404);
        let end = stage.ask(&[&args[..], app, &["--repository=acme/gone,acme/api"]].concat()).await;
        assert!(end.out.contains("recovered acme/api#4") && !end.out.contains("acme/web"), "{owner}: {end:?}");
        // One that cannot be read holds up no other.
        assert!(end.code == Some(1) && end.log.contains("acme/gone"), "{owner}: {end:?}");
        if owner == "/app" {
            // A repository's App has its own webhook.
            let end = stage.recover(app).await;
            assert!(end.out.contains("recovered acme/web#5"), "{end:?}");
        }
        stage.github.check();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn says_what_is_wrong_in_one_line() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    let second = Hook::to("/repos/acme/web", 12, "127.0.0.1:9".parse().expect("an address"), SECRET);
    stage.github.knowledge().hooks.push(second);
    let end = stage.recover(&[]).await;
    assert!(end.code == Some(1) && end.log.contains("has several webhooks"), "{end:?}");
    assert!(end.log.contains("http://127.0.0.1:9/") && end.log.contains("--hook-url"), "{end:?}");
    let end = stage.recover(&["--hook-url", &format!("http://{}", stage.service.address)]).await;
    assert_eq!(end.code, Some(3), "without a slash at its end: {end:?}");

    let end = stage.recover(&["--since=4d", "--github-api-url=https://api.github.com"]).await;
    assert_eq!(end.code, Some(2), "the address twice: {end:?}");
    for (args, code, what) in [
        (&["--since=8d"][..], 1, "--since may be at most 7d"),
        (&["--since=1w"], 2, "write a number with s, m, h or d"),
        (&["--repository=web"], 2, "write OWNER/NAME"),
        (&["--organization=a/b"], 2, "without `/`"),
    ] {
        let end = stage.recover(args).await;
        assert!(end.code == Some(code) && end.log.contains(what), "{args:?}: {end:?}");
    }
    let [port] = free_ports();
    let token = stage.github.token_file().display().to_string();
    let away = format!("http://127.0.0.1:{port}");
    let asked = ["recover", "--repository=acme/web", "--github-patience=1", "--github-token-file", &token];
    let end = run(&[&asked[..], &["--github-api-url", &away]].concat()).await;
    assert!(
        end.code == Some(1) && end.log.contains("ERROR acme/web: ") && end.log.contains("does not answer"),
        "{end:?}"
    );
    assert!(end.log.contains("outcome=unknown"), "the alert looks for it: {end:?}");
    let end = run(&["recover", "--repository=acme/web"]).await;
    assert!(end.code == Some(1) && end.log.contains("no credential for GitHub"), "{end:?}");

    // A token that may not see webhooks.
    stage.github.knowledge().tokens.insert(github::TOKEN.to_owned(), Some(json!({"pull_requests": "read"})));
    let end = stage.recover(&[]).await;
    assert!(end.code == Some(1) && end.log.contains("repository_hooks: write"), "{end:?}");
    // One repository that cannot be asked does not hold up another.
    stage.github.knowledge().tokens.insert(github::TOKEN.to_owned(), None);
    stage.github.knowledge().hooks.remove(1);
    stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Request).await;
    stage.github.knowledge().faults.push_back(github::Fault::Answer(404, Vec::new(), json!({"message": "Not Found"})));
    let end = stage.ask(&["--repository=acme/gone,acme/web"]).await;
    assert!(end.code == Some(1) && end.out.contains("recovered acme/web#1"), "{end:?}");
    assert!(end.log.contains("ERROR acme/gone: ") && end.log.contains("outcome=unknown"), "{end:?}");
    assert!(end.log.contains("WARN recovered merges that were missed recovered=1 "), "the alert: {end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apps_token_that_ended_is_taken_anew() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    stage.github.knowledge().installed.push(REPOSITORY.to_owned());
    stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Request).await;
    let ended = || github::Fault::Answer(401, Vec::new(), json!({"message": "Bad credentials"}));
    // The App's webhook, its installation, its token; then the first call with it.
    stage.github.knowledge().faults.extend([github::Fault::Pass, github::Fault::Pass, github::Fault::Pass, ended()]);
    let key = stage.github.key_file().display().to_string();
    let end = stage.recover(&["--github-app-id", APP, "--github-app-key-file", &key]).await;
    assert_eq!((end.code, outcomes(&end)), (Some(0), vec!["recovered acme/web#1".into()]), "{end:?}");
    let tokens = stage.github.knowledge().requests.iter().filter(|request| request.ends_with("/access_tokens")).count();
    assert_eq!(tokens, 2);
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apps_token_that_is_never_accepted_is_taken_anew_once() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    stage.github.knowledge().installed.push(REPOSITORY.to_owned());
    stage.github.knowledge().broken.insert("GET /repos/acme/web/hooks".to_owned(), 401);
    let key = stage.github.key_file().display().to_string();
    let end = stage.recover(&["--github-app-id", APP, "--github-app-key-file", &key]).await;
    assert!(end.code == Some(1) && end.log.contains("does not accept"), "{end:?}");
    let tokens = stage.github.knowledge().requests.iter().filter(|request| request.ends_with("/access_tokens")).count();
    assert_eq!(tokens, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_log_costs_nothing() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Request).await;
    // The service takes three seconds, in which GitHub is asked for the result again and again.
    stage.api.fail(Fault::Hang(Duration::from_secs(3)));
    let end = stage.recover(&[]).await;
    assert_eq!((end.code, outcomes(&end)), (Some(0), vec!["recovered acme/web#1".into()]), "{end:?}");
    assert!(stage.github.knowledge().not_modified >= 1, "no answer of {:?}", stage.github.knowledge().requests);
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_posted_merge_is_like_githubs_own_delivery() {
    let Some(stage) = Stage::without_hook().await else { return };
    let received = crate::support::receiver::Receiver::start().await;
    let pull = stage.github.pull_request(REPOSITORY, 1, &commit(1), Some(&ago(60)));
    let secret = stage.github.folder.path().join("secret").display().to_string();
    let url = received.url();
    let end = stage.ask(&["--repository", REPOSITORY, "--url", &url, "--secret-file", &secret]).await;
    assert!(end.code == Some(1) && end.out.contains("by something else than this service"), "{end:?}");
    let request = received.received().first().expect("a request").clone();
    assert_eq!(request.header("x-github-event"), "pull_request");
    assert_eq!(request.header("x-github-delivery"), format!("recover-{}", commit(1)));
    let body = request.body;
    let posted: Value = serde_json::from_slice(&body).expect("JSON");
    let problems = payload_problems(description().expect("GitHub's description"), &posted);
    assert!(problems.is_empty(), "not like GitHub's payload: {problems:#?}");
    // The shipped templates make the same run of it and of GitHub's own payload.
    let folder = stage.github.folder.path();
    let render = async |templates: &str, payload: &Value| {
        let file = folder.join("payload").display().to_string();
        fs::write(&file, payload.to_string()).expect("a file");
        let end = run(&["render", "--trigger-config", templates, "--payload", &file]).await;
        assert_eq!(end.code, Some(0), "{end:?}");
        end.out
    };
    for templates in ["config/base/deployer-trigger.yaml", "config/templates"] {
        assert_eq!(render(templates, &GitHub::closed(&pull)).await, render(templates, &posted).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_no_template_takes_is_not_posted_again_and_again() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    for (number, branch) in [(1, "main"), (2, "experiment")] {
        stage.github.pull_request(REPOSITORY, number, &commit(number), Some(&ago(60)));
        stage.github.knowledge().pulls.get_mut(REPOSITORY).expect("pulls").last_mut().expect("one")["base"]["ref"] =
            json!(branch);
    }
    let templates = stage.service.templates().display().to_string();
    let end = stage.recover(&["--trigger-config", &templates]).await;
    assert_eq!(outcomes(&end), ["ignored acme/web#2", "recovered acme/web#1"], "{end:?}");
    assert!(end.out.contains("experiment"), "it says why: {end:?}");
    stage.expect_deliveries(1).await;
    let end = stage.recover(&["--trigger-config", &templates, "--target-branch=experiment"]).await;
    assert_eq!((end.code, outcomes(&end)), (Some(3), vec!["ignored acme/web#2".into()]), "{end:?}");
    let end = stage.recover(&["--target-branch=main,release"]).await;
    assert_eq!(outcomes(&end), ["duplicate acme/web#1"], "{end:?}");
    let end = stage.recover(&["--trigger-config=/no/such/file"]).await;
    assert!(end.code == Some(1) && end.log.contains("/no/such/file"), "{end:?}");
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_object_that_cannot_be_had_does_not_hold_up_the_others() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    for (number, loss) in [(1, Loss::Request), (2, Loss::Request), (3, Loss::Everything), (4, Loss::Everything)] {
        stage.github.merge(REPOSITORY, number, &commit(number), loss).await;
    }
    let broken = ["GET /repos/acme/web/hooks/11/deliveries/1", "POST /repos/acme/web/hooks/11/deliveries/1/attempts"];
    stage.github.knowledge().broken = broken.map(|path| (path.to_owned(), 500)).into();
    stage.github.knowledge().broken.insert("GET /repos/acme/web/pulls/3".to_owned(), 404);
    let end = stage.recover(&["--github-patience=1"]).await;
    assert_eq!(end.code, Some(1), "{end:?}");
    // What GitHub cannot deliver again is posted, because it is a merge of the time.
    assert_eq!(
        outcomes(&end),
        ["failed acme/web#3", "recovered acme/web#1", "recovered acme/web#2", "recovered acme/web#4"],
        "{end:?}"
    );
    assert!(end.log.contains("WARN recovered merges that were missed recovered=3 "), "the alert: {end:?}");
    // A delivery that was accepted and cannot be read may be the merge's own: it is not built again.
    stage.github.merge(REPOSITORY, 5, &commit(5), Loss::Nothing).await;
    stage.github.knowledge().pulls.get_mut(REPOSITORY).expect("pulls").retain(|pull| pull["number"] == 5);
    let last = stage.github.knowledge().attempts;
    stage.github.knowledge().broken.insert(format!("GET /repos/acme/web/hooks/11/deliveries/{last}"), 404);
    let end = stage.recover(&["--github-patience=1"]).await;
    assert!(end.out.contains("failed acme/web#5") && end.out.contains("which may have it"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_the_organisations_webhook_of_a_repository() {
    let Some(stage) = Stage::with_hook("/orgs/acme").await else { return };
    stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Request).await;
    stage.github.merge("acme/api", 2, &commit(2), Loss::Request).await;
    stage.github.merge(REPOSITORY, 3, &commit(3), Loss::Nothing).await;
    let end = stage.ask(&["--repository=acme/web", "--repository=Acme/Web"]).await;
    assert_eq!((end.code, outcomes(&end)), (Some(0), vec!["recovered acme/web#1".into()]), "{end:?}");
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_may_do_without_statuses_and_asks_for_no_more_than_it_needs() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    stage.github.knowledge().installed.push(REPOSITORY.to_owned());
    stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Request).await;
    let key = stage.github.key_file().display().to_string();
    let app = ["--github-app-id", APP, "--github-app-key-file", &key];
    let granted = || stage.github.knowledge().granted.clone();
    let end = stage.recover(&[&app[..], &["--dry-run", "--context="]].concat()).await;
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(granted().last(), Some(&json!({"pull_requests": "read", "repository_hooks": "read"})));
    stage.github.knowledge().refused_permission = Some("statuses");
    let end = stage.recover(&app).await;
    assert_eq!((end.code, outcomes(&end)), (Some(0), vec!["recovered acme/web#1".into()]), "{end:?}");
    assert!(end.log.contains("WARN asking for a token that cannot read commit statuses"), "{end:?}");
    assert_eq!(granted().last(), Some(&json!({"pull_requests": "read", "repository_hooks": "write"})));
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_pages_of_a_server_that_has_another_name_for_itself() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Request).await;
    for number in 2..=120 {
        let pull = stage.github.pull_request(REPOSITORY, number, &commit(number), None);
        stage.github.deliver(REPOSITORY, "pull_request", &GitHub::closed(&pull), Loss::Nothing).await;
    }
    stage.github.knowledge().link_base = Some("https://ghes.example.com/api/v3".to_owned());
    let end = stage.recover(&[]).await;
    assert_eq!((end.code, outcomes(&end)), (Some(0), vec!["recovered acme/web#1".into()]), "{end:?}");
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn says_recovered_of_what_it_has_recovered_even_if_it_asked_twice() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Request).await;
    // GitHub delivers again, and its answer to that is lost.
    stage.github.knowledge().lost = Some("POST /repos/acme/web/hooks/11/deliveries/1/attempts".to_owned());
    let end = stage.recover(&[]).await;
    assert_eq!((end.code, outcomes(&end)), (Some(0), vec!["recovered acme/web#1".into()]), "{end:?}");
    assert!(stage.github.knowledge().hooks[0].log.len() >= 3, "asked twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_of_another_run_hides_no_delivery() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    stage.github.knowledge().hooks[0].events.push("push");
    // One of two templates made its run, which GitHub was told of; the service said that the other one did not.
    stage.api.fail_always(Some(Fault::Status(403, "Forbidden")));
    stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Nothing).await;
    stage.api.fail_always(None);
    let push = json!({"ref": "refs/heads/main", "before": commit(9), "after": commit(1), "deleted": false,
        "repository": {"id": 1, "full_name": REPOSITORY}, "commits": [], "head_commit": null});
    stage.github.deliver(REPOSITORY, "push", &push, Loss::Request).await;
    let status = json!({"state": "pending", "context": "github-trigger/api", "description": "", "target_url": null});
    stage.github.knowledge().statuses.insert((REPOSITORY.to_owned(), commit(1)), vec![status]);
    let end = stage.recover(&[]).await;
    assert_eq!((end.code, outcomes(&end)), (Some(0), vec!["ignored acme/web".into(), "recovered acme/web#1".into()]));
    assert_eq!(stage.built().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_what_it_has_asked_for_before_github_refuses() {
    let Some(stage) = Stage::with_hook("/repos/acme/web").await else { return };
    stage.github.merge(REPOSITORY, 1, &commit(1), Loss::Request).await;
    // The token ends after GitHub was asked to deliver again.
    let result = "GET /repos/acme/web/hooks/11/deliveries/2".to_owned();
    stage.github.knowledge().broken.insert(result, 401);
    let end = stage.recover(&[]).await;
    assert_eq!((end.code, outcomes(&end)), (Some(1), vec!["failed acme/web#1".into()]), "{end:?}");
    assert!(end.out.contains("GitHub delivers it again; the result is not known: "), "{end:?}");
}
