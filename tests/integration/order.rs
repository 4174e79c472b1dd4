//! Which of several deployments wins: the newest merge, whatever the order in which they come.

use std::time::Duration;

use futures_util::future::join_all;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::deploy::{Stage, image, one, text};
use crate::support::serving::{Fate, Serving, write_status};

const EARLY: &str = "2026-11-22T12:00:00Z";
const LATE: &str = "2026-11-22T12:00:11Z";

/// The flags of a deployment of an image, with a commit of this digit and a time of merge.
fn merge(tag: u32, commit: char, merged_at: &str) -> Vec<String> {
    vec![image(tag), format!("--commit={}", commit.to_string().repeat(40)), format!("--merged-at={merged_at}")]
}

async fn deploy(stage: &Stage, flags: &[String], more: &[&str]) -> (bool, String, String) {
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let output = stage.deploy(&flags).await;
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn image_of(service: &Value) -> &str {
    service["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}

/// Whether the simulated controllers have seen the last change.
fn is_observed(service: &Value) -> bool {
    service["status"]["observedGeneration"] == service["metadata"]["generation"]
}

fn stamp(object: &Value) -> (&str, &str) {
    let annotations = &object["metadata"]["annotations"];
    let text = |key: &str| annotations[format!("github-trigger.dev/{key}")].as_str().unwrap_or_default();
    (text("commit"), text("merged-at"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_merge_does_not_replace_a_newer_one() {
    let Some(stage) = Stage::new("order-late").await else { return };
    let _serving = Serving::start(stage.services.clone());
    let (ok, said, errors) =
        deploy(&stage, &merge(2, 'b', LATE), &["--pull-request-url=https://github.com/a/b/pull/7"]).await;
    assert!(ok && said.contains("outcome: deployed"), "{said}{errors}");
    let service = stage.get().await;
    assert_eq!(stamp(&service), ("b".repeat(40).as_str(), LATE));
    assert_eq!(stamp(&service["spec"]["template"]), ("b".repeat(40).as_str(), LATE));
    assert_eq!(
        service["metadata"]["annotations"]["github-trigger.dev/pull-request-url"],
        "https://github.com/a/b/pull/7"
    );

    let results = tempfile::tempdir().expect("a folder");
    let results_dir = format!("--results-dir={}", results.path().display());
    let (ok, said, errors) = deploy(&stage, &merge(1, 'a', EARLY), &[&results_dir]).await;
    assert!(ok && said.contains("outcome: superseded"), "{said}{errors}");
    assert!(errors.contains("outcome=superseded") && errors.contains("commit bbbbbbbb"), "{errors}");
    let result = |name: &str| std::fs::read_to_string(results.path().join(name)).expect("a result");
    assert_eq!(
        (result("outcome").as_str(), result("revision").as_str()),
        ("superseded", ""),
        "the other's is not ours"
    );
    assert_eq!(stage.get().await["metadata"]["resourceVersion"], service["metadata"]["resourceVersion"]);

    // The same image of a newer commit is stamped, and makes no revision.
    let (ok, said, errors) = deploy(&stage, &merge(2, 'c', "2026-11-22T13:00:00Z"), &[]).await;
    assert!(ok && said.contains("revision: web-00001"), "{said}{errors}");
    assert_eq!(stamp(&stage.get().await), ("c".repeat(40).as_str(), "2026-11-22T13:00:00Z"));
    // Deliberately an old one.
    let (ok, said, errors) = deploy(&stage, &merge(1, 'a', EARLY), &["--force"]).await;
    assert!(ok && said.contains("outcome: deployed"), "{said}{errors}");
    assert_eq!(stamp(&stage.get().await), ("a".repeat(40).as_str(), EARLY));
    assert!(image_of(&stage.get().await).ends_with(":1"));
    // An empty value, of a run without the annotation, counts as none.
    let (ok, said, errors) = deploy(&stage, &[image(3)], &["--commit=", "--merged-at=", "--order="]).await;
    assert!(ok && said.contains("outcome: deployed"), "{said}{errors}");
    for wrong in ["--commit=abc", "--merged-at=yesterday", "--order=x"] {
        let (ok, _, errors) = deploy(&stage, &[image(9)], &[wrong]).await;
        assert!(!ok && errors.contains(wrong.split('=').next().expect("a flag")), "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn order_decides_between_merges_of_one_time() {
    let Some(stage) = Stage::new("order-equal").await else { return };
    let _serving = Serving::start(stage.services.clone());
    deploy(&stage, &merge(1, 'a', EARLY), &["--order=7"]).await;
    let (_, said, errors) = deploy(&stage, &merge(2, 'b', EARLY), &["--order=6"]).await;
    assert!(said.contains("outcome: superseded"), "{said}{errors}");
    let (_, said, errors) = deploy(&stage, &merge(3, 'c', EARLY), &["--order=8"]).await;
    assert!(said.contains("outcome: deployed") && !errors.contains("WARN"), "{said}{errors}");
    let (_, said, errors) = deploy(&stage, &merge(4, 'd', EARLY), &[]).await;
    assert!(
        said.contains("outcome: deployed") && errors.contains("WARN another commit with the same time"),
        "{said}{errors}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_deployment_gives_way_to_a_newer_one() {
    let Some(stage) = Stage::new("order-wait").await else { return };
    let serving = Serving::start(stage.services.clone());
    serving.set(Fate::Never);
    let waiting = merge(1, 'a', EARLY);
    let newer = async {
        let is_created = |service: &Value| service["status"]["latestCreatedRevisionName"].is_string();
        stage.wait_until("the first revision", is_created).await;
        serving.set(Fate::Ready);
        deploy(&stage, &merge(2, 'b', LATE), &[]).await
    };
    let (first, second) = tokio::join!(deploy(&stage, &waiting, &[]), newer);
    assert!(first.0 && first.1.contains("outcome: superseded"), "{first:?}");
    assert!(second.0 && second.1.contains("outcome: deployed"), "{second:?}");
    assert!(image_of(&stage.get().await).ends_with(":2"));
}

/// Builds end in any order, at the same time, and some come twice: the newest merge is deployed, and no one is red.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_merge_wins_in_every_interleaving() {
    let Some(stage) = Stage::new("order-many").await else { return };
    let _serving = Serving::start(stage.services.clone());
    for round in 0..4_u32 {
        let merges: Vec<(u32, Vec<String>)> = (1..=6)
            .map(|number| {
                let time = format!("2026-11-22T1{round}:00:{number:02}Z");
                let digit = char::from_digit(round * 3 + number, 16).expect("a digit");
                (number, merge(round * 10 + number, digit, &time))
            })
            .collect();
        // Each twice, shuffled by a fixed rule, with pauses of their own.
        let deployments = merges.iter().chain(&merges).enumerate().map(|(index, (number, flags))| {
            let pause = (index as u64 * 7 + u64::from(number * 5 + round * 3)) % 11;
            let stage = &stage;
            async move {
                sleep(Duration::from_millis(pause * 40)).await;
                deploy(stage, flags, &[]).await
            }
        });
        for (ok, said, errors) in join_all(deployments).await {
            assert!(ok, "{said}{errors}");
        }
        let service = stage.get().await;
        assert!(image_of(&service).ends_with(&format!(":{}", round * 10 + 6)), "{}", image_of(&service));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rolls_back_and_resumes() {
    let Some(stage) = Stage::new("order-rollback").await else { return };
    let _serving = Serving::start(stage.services.clone());
    let nothing = stage.deploy(&["--rollback"]).await;
    assert!(!nothing.status.success() && text(&nothing.stderr).contains("does not exist"), "{}", text(&nothing.stderr));
    stage.deployed(&[&image(1)]).await;
    let said = stage.deployed(&[&image(2)]).await;
    assert!(said.contains("previous-revision: web-00001"), "{said}");
    let said = stage.deployed(&["--rollback"]).await;
    assert!(said.contains("outcome: rolled-back\nrevision: web-00001\n"), "{said}");
    assert_eq!(stage.users().await, one("web-00001"));
    // A merge meanwhile is deployed, and gets no users.
    let output = stage.deploy(&[&image(3)]).await;
    let errors = text(&output.stderr);
    assert!(output.status.success() && text(&output.stdout).contains("percent: 0\n"), "{errors}");
    assert!(errors.contains("WARN") && errors.contains("users see 0 %") && errors.contains("--to-latest"), "{errors}");
    assert_eq!(stage.users().await, one("web-00001"));
    let said = stage.deployed(&[&image(3), "--to-latest"]).await;
    assert!(said.contains("outcome: deployed") && said.contains("percent: 100"), "{said}");
    let newest = said.lines().find(|line| line.starts_with("revision: ")).expect("a revision").to_owned();
    let said = stage.deployed(&["--rollback", "--to=web-00002"]).await;
    assert!(said.contains("outcome: rolled-back\nrevision: web-00002\n"), "{said}");
    // A preview, which no users have seen, is nothing to go back from.
    stage.deployed(&[&image(4), "--no-traffic", "--tag=preview"]).await;
    let said = stage.deployed(&["--rollback"]).await;
    assert!(said.contains(&format!("outcome: rolled-back\n{newest}\n")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_stay_and_are_made_when_asked_for() {
    let Some(stage) = Stage::new("order-tags").await else { return };
    let _serving = Serving::start(stage.services.clone());
    stage.deployed(&[&image(1)]).await;
    let said = stage.deployed(&[&image(1), "--no-traffic", "--tag=pr-7"]).await;
    assert!(said.contains("tag-url: http://pr-7-web."), "{said}");
    // The tag of somebody else does not follow a new revision.
    stage.deployed(&[&image(2), "--no-traffic", "--tag=preview"]).await;
    stage.deployed(&[&image(3)]).await;
    let traffic = stage.get().await["status"]["traffic"].clone();
    let of_tag = |tag: &str| {
        let targets = traffic.as_array().expect("targets");
        targets.iter().find(|target| target["tag"] == tag).map(|target| target["revisionName"].clone())
    };
    assert_eq!(of_tag("pr-7"), Some("web-00001".into()), "{traffic}");
    let preview = of_tag("preview").expect("the tag");
    let revision = stage.get().await["status"]["latestCreatedRevisionName"].clone();
    assert_ne!(preview, revision, "{traffic}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_a_failed_revision_again_and_waits_for_one_that_recovers() {
    let Some(stage) = Stage::new("order-again").await else { return };
    let serving = Serving::start(stage.services.clone());
    stage.deployed(&[&image(1)]).await;
    serving.set(Fate::Failed("0 of 3 nodes are available"));
    let output = stage.deploy(&[&image(2)]).await;
    let errors = text(&output.stderr);
    assert!(!output.status.success() && errors.contains("WARN") && errors.contains("--failure-window"), "{errors}");
    assert_eq!(stage.users().await, one("web-00001"));
    serving.set(Fate::Ready);
    let said = stage.deployed(&[&image(2)]).await;
    assert!(said.contains("outcome: deployed\nrevision: web-00003\n"), "{said}");
    assert_eq!(stage.users().await, one("web-00003"));

    // The node comes before the window is over.
    serving.set(Fate::Failed("0 of 3 nodes are available"));
    let recovering = async {
        let has_failed = |service: &Value| {
            let is_new = image_of(service).ends_with(":4");
            is_new && service["status"]["conditions"][0]["status"] == "False" && is_observed(service)
        };
        stage.wait_until("the failure", has_failed).await;
        // As long as the command needs to see it.
        sleep(Duration::from_secs(1)).await;
        let created = stage.get().await["status"]["latestCreatedRevisionName"].clone();
        let ready = json!({"type": "ConfigurationsReady", "status": "True"});
        let status = json!({"latestReadyRevisionName": created,
            "traffic": [{"revisionName": created, "percent": 100, "latestRevision": true}],
            "conditions": [ready, {"type": "RoutesReady", "status": "True"}, {"type": "Ready", "status": "True"}]});
        write_status(&stage.services, "web", &status).await;
    };
    let window = [image(4)];
    let ((ok, said, errors), ()) = tokio::join!(deploy(&stage, &window, &["--failure-window=60"]), recovering);
    assert!(ok && said.contains("outcome: deployed"), "{said}{errors}");
    assert!(errors.contains("Knative may still recover"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moving_tag_gets_a_new_revision_and_a_deleted_service_none() {
    let Some(stage) = Stage::new("order-moving").await else { return };
    let _serving = Serving::start(stage.services.clone());
    let latest = "--image=registry.example.com/web:latest";
    stage.deployed(&[latest]).await;
    let output = stage.deploy(&[latest]).await;
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(
        said.contains("revision: web-00002") && errors.contains("WARN the image has a tag that moves"),
        "{said}{errors}"
    );

    let finalizer = json!({"metadata": {"finalizers": ["example.com/keep"]}});
    stage.services.patch("web", &PatchParams::default(), &Patch::Merge(finalizer)).await.expect("a finalizer");
    stage.services.delete("web", &Default::default()).await.expect("a deletion");
    let output = stage.deploy(&[&image(5)]).await;
    assert!(!output.status.success() && text(&output.stderr).contains("is being deleted"), "{}", text(&output.stderr));
    let keep = json!({"metadata": {"finalizers": null}});
    stage.services.patch("web", &PatchParams::default(), &Patch::Merge(keep)).await.expect("no finalizer");
}

/// A rollback is for the time when the newest revision does not work.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_waits_for_its_users_alone_and_is_put_back_if_it_fails() {
    let Some(stage) = Stage::new("order-rolled-back").await else { return };
    let serving = Serving::start(stage.services.clone());
    for tag in [1, 2] {
        let (ok, said, errors) = deploy(&stage, &[image(tag)], &[]).await;
        assert!(ok, "{said}{errors}");
    }
    serving.set(Fate::Failed("does not start"));
    let (ok, _, errors) = deploy(&stage, &[image(3)], &[]).await;
    assert!(!ok && errors.contains("does not start"), "{errors}");
    let roll_back = async |more: &[&str]| {
        let output = stage.deploy(&[&["--rollback"], more].concat()).await;
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    // A revision that does not exist: the traffic is as it was, and so is the next merge's.
    let before = stage.get().await["spec"]["traffic"].clone();
    let (ok, _, errors) = roll_back(&["--to=web-gone"]).await;
    assert!(!ok && errors.contains("the traffic is as it was before"), "{errors}");
    assert_eq!(stage.get().await["spec"]["traffic"], before);

    let (ok, said, errors) = roll_back(&[]).await;
    assert!(ok && said.contains("outcome: rolled-back") && said.contains("revision: web-00001"), "{said}{errors}");
    assert!(said.contains("percent: 100"), "{said}");
    // Once more, as Tekton or a tired operator does: it goes neither forward nor further back.
    let (ok, said, errors) = roll_back(&[]).await;
    assert!(ok && said.contains("outcome: unchanged") && said.contains("revision: web-00001"), "{said}{errors}");
    assert_eq!(stage.users().await, [("web-00001".to_owned(), 100)]);
    // A merge at 0 % says so each time.
    serving.set(Fate::Ready);
    for outcome in ["deployed", "unchanged"] {
        let (ok, said, errors) = deploy(&stage, &[image(4)], &[]).await;
        assert!(ok && said.contains(&format!("outcome: {outcome}")), "{said}{errors}");
        assert!(errors.contains("WARN users see 0 %"), "{errors}");
    }
    let (ok, said, errors) = deploy(&stage, &[image(4)], &["--to-latest"]).await;
    assert!(ok && said.contains("percent: 100"), "{said}{errors}");
    let (ok, said, errors) = deploy(&stage, &[image(5)], &["--wait-timeout=0"]).await;
    assert!(
        ok && !said.contains("revision: web-00004") && !said.contains("percent"),
        "no word of the old one: {said}{errors}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_may_ask_first_whether_something_newer_is_deployed() {
    let Some(stage) = Stage::new("order-check").await else { return };
    let _serving = Serving::start(stage.services.clone());
    let check = async |merged_at: &str, commit: char| {
        let results = tempfile::tempdir().expect("a folder");
        let folder = format!("--results-dir={}", results.path().display());
        let commit = format!("--commit={}", commit.to_string().repeat(40));
        let output = stage.deploy(&["--check", &commit, &format!("--merged-at={merged_at}"), &folder]).await;
        assert!(output.status.success(), "{}", text(&output.stderr));
        let outcome = std::fs::read_to_string(results.path().join("outcome")).expect("a result");
        assert_eq!(text(&output.stdout), format!("outcome: {outcome}\n"));
        (outcome, text(&output.stderr))
    };
    assert_eq!(check(EARLY, 'a').await.0, "needed", "there is no Service yet");
    let (ok, _, errors) = deploy(&stage, &merge(2, 'b', LATE), &[]).await;
    assert!(ok, "{errors}");
    let before = stage.get().await["metadata"]["resourceVersion"].clone();
    let (outcome, log) = check(EARLY, 'a').await;
    assert!(outcome == "superseded" && log.contains("commit bbbbbbbb"), "{log}");
    for (merged_at, commit) in [(LATE, 'b'), (LATE, 'c'), ("2026-11-22T13:00:00Z", 'c'), ("", 'a')] {
        assert_eq!(check(merged_at, commit).await.0, "needed", "{merged_at} {commit}");
    }
    assert_eq!(stage.get().await["metadata"]["resourceVersion"], before, "nothing is changed");
    // Without a cluster, everything is built.
    let output = std::process::Command::new(crate::support::service::PROGRAM)
        .env_clear()
        .args(["deploy", "--check", "--service-name=web", &format!("--merged-at={EARLY}")])
        .output()
        .expect("the program");
    assert!(output.status.success() && text(&output.stdout) == "outcome: needed\n", "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("WARN"), "{}", text(&output.stderr));
}
