//! The Deployer with a real API server and Serving's own admission. `support::serving` stands in for Serving's
//! controllers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::command::run_with;
use crate::support::control_plane::{ControlPlane, shared};
use crate::support::process::eventually;
use crate::support::service::{LOGGED, Lines, PROGRAM};
use crate::support::serving::{Fate, Serving, services, write_status};

const IMAGE: &str = "registry.example.com/web";

/// A namespace with a service account that has the Deployer's permissions of `config/tekton`.
pub(crate) struct Stage {
    plane: &'static ControlPlane,
    namespace: String,
    kubeconfig: PathBuf,
    pub(crate) services: Api<DynamicObject>,
}

impl Stage {
    pub(crate) async fn new(namespace: &str) -> Option<Self> {
        let plane = shared()?;
        plane.namespace(namespace);
        let kubeconfig = plane.account(namespace, "deployer");
        for (role, verbs) in [("deployer", "--verb=get,patch"), ("creator", "--verb=create")] {
            let names = if role == "deployer" { vec!["--resource-name=web"] } else { vec![] };
            let resource = "--resource=services.serving.knative.dev";
            plane.kubectl(&[&["create", "role", role, verbs, resource, "-n", namespace], &names[..]].concat());
            let (role_flag, account) = (format!("--role={role}"), format!("--serviceaccount={namespace}:deployer"));
            plane.kubectl(&["create", "rolebinding", role, &role_flag, &account, "-n", namespace]);
        }
        let services = services(plane.admin().await, namespace);
        let stage = Self { plane, namespace: namespace.to_owned(), kubeconfig, services };
        stage.wait_for_rights();
        Some(stage)
    }

    fn wait_for_rights(&self) {
        let user = format!("--as=system:serviceaccount:{}:deployer", self.namespace);
        let may = |verb: &str, what: &str| {
            let question = ["auth", "can-i", verb, what, "-n", &self.namespace, &user];
            let mut command = Command::new(self.plane.kubectl_path());
            command.arg(format!("--kubeconfig={}", self.plane.admin_kubeconfig().display())).args(question);
            command.stdout(Stdio::null()).status().expect("kubectl").success()
        };
        let both = || {
            let allowed =
                may("patch", "services.serving.knative.dev/web") && may("create", "services.serving.knative.dev");
            allowed.then_some(())
        };
        eventually(Duration::from_secs(60), both).expect("the rights of the deployer");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .env_clear()
            .env("KUBECONFIG", &self.kubeconfig)
            .arg("deploy")
            .args(["--service-name", "web"])
            .args(args);
        if !args.iter().any(|arg| arg.starts_with("--failure-window")) {
            command.arg("--failure-window=1");
        }
        command
    }

    /// Runs `deploy` without blocking the simulated controllers.
    pub(crate) async fn deploy(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        tokio::task::spawn_blocking(move || command.output().expect("the program")).await.expect("an end")
    }

    pub(crate) async fn deployed(&self, args: &[&str]) -> String {
        let output = self.deploy(args).await;
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    pub(crate) async fn get(&self) -> Value {
        let service = self.services.get("web").await.expect("the Service");
        serde_json::to_value(service).expect("JSON")
    }

    /// Waits up to a minute until the Service exists and fulfils a condition.
    pub(crate) async fn wait_until(&self, what: &str, fulfils: impl Fn(&Value) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let service = self.services.get_opt("web").await.expect("an answer");
            if service.is_some_and(|service| fulfils(&serde_json::to_value(service).expect("JSON"))) {
                return;
            }
            assert!(Instant::now() < end, "{what}: not within a minute");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn spec_traffic(&self) -> Value {
        self.get().await["spec"]["traffic"].clone()
    }

    /// Revisions with traffic, and their percentages.
    pub(crate) async fn users(&self) -> Vec<(String, i64)> {
        let service = self.get().await;
        let targets = service["status"]["traffic"].as_array().cloned().unwrap_or_default();
        let user = |target: &Value| Some((target["revisionName"].as_str()?.to_owned(), target["percent"].as_i64()?));
        targets.iter().filter_map(user).filter(|(_, percent)| *percent > 0).collect()
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn image(tag: u32) -> String {
    format!("--image={IMAGE}:{tag}")
}

pub(crate) fn one(revision: &str) -> Vec<(String, i64)> {
    vec![(revision.to_owned(), 100)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_knative_has_never_seen_is_not_deployed() {
    let Some(stage) = Stage::new("deploy-unseen").await else { return };
    // The second one finds what the first one made.
    for _ in 0..2 {
        let output = stage.deploy(&[&image(1), "--wait-timeout=1"]).await;
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        assert!(text(&output.stderr).contains("not ready in time (--wait-timeout)"), "{}", text(&output.stderr));
    }
    assert!(stage.deployed(&[&image(1), "--wait-timeout=0"]).await.contains("outcome: unchanged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn quotes_no_password_of_a_proxy() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let cluster = json!({"server": "https://127.0.0.1:1", "proxy-url": "socks4://octocat:hunter2@127.0.0.1:1"});
    let config = json!({"clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x"});
    std::fs::write(file.path(), config.to_string()).expect("a kubeconfig");
    let end = run_with(Some(file.path()), &["deploy", "--service-name=web", "--image=web:1"]).await;
    assert!(end.code == Some(1) && end.log.contains("has the scheme socks4"), "{end:?}");
    assert!(!end.log.contains("hunter2"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_and_updates_service_and_skips_unchanged_one() {
    let Some(stage) = Stage::new("deploy-life").await else { return };
    let _serving = Serving::start(stage.services.clone());
    let results = tempfile::tempdir().expect("a folder");
    let results_dir = format!("--results-dir={}", results.path().display());
    let said = stage.deployed(&[&image(1), &results_dir]).await;
    let lines = "outcome: deployed\nrevision: web-00001\nurl: http://web.default.example.com\npercent: 100\n";
    assert_eq!(said, lines);
    let result = |name: &str| std::fs::read_to_string(results.path().join(name)).expect("a result");
    assert_eq!((result("revision").as_str(), result("tag-url").as_str()), ("web-00001", ""));
    assert_eq!(result("url"), "http://web.default.example.com");
    assert_eq!((result("outcome").as_str(), result("percent").as_str()), ("deployed", "100"));
    assert_eq!(result("previous-revision"), "");
    let created = stage.get().await;
    assert_eq!(created["metadata"]["labels"]["app.kubernetes.io/managed-by"], "github-trigger");
    let creator = "system:serviceaccount:deploy-life:deployer";
    assert_eq!(created["metadata"]["annotations"]["serving.knative.dev/creator"], creator, "set by Serving's defaults");

    let nowhere = stage.deploy(&[&image(9), "--results-dir=/no/such/folder"]).await;
    assert!(!nowhere.status.success(), "results cannot be written");
    assert!(text(&nowhere.stderr).contains("/no/such/folder"), "{}", text(&nowhere.stderr));
    assert_eq!(stage.users().await, one("web-00001"), "nothing is changed then");
    assert_eq!(stage.get().await["metadata"]["generation"], 1);

    // The original program's command line (the seed), with its misspelled flag.
    let namespace = format!("--namespace={}", stage.namespace);
    let mut seed = Command::new(PROGRAM);
    seed.env_clear().env("KUBECONFIG", &stage.kubeconfig);
    seed.args(["deploy", &namespace, "--serivce-name=web", &image(2), "--port=8080"]);
    let output = tokio::task::spawn_blocking(move || seed.output().expect("the program")).await.expect("an end");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("revision: web-00002"), "{}", text(&output.stdout));
    assert_eq!(stage.users().await, one("web-00002"));

    let before = stage.get().await["metadata"]["resourceVersion"].clone();
    let again = stage.deploy(&[&image(2)]).await;
    assert!(again.status.success() && text(&again.stderr).contains("nothing to change"), "{}", text(&again.stderr));
    assert_eq!(stage.get().await["metadata"]["resourceVersion"], before);
}

#[tokio::test(flavor = "multi_thread")]
async fn exposes_tagged_revision_without_traffic_and_promotes_it() {
    let Some(stage) = Stage::new("deploy-tag").await else { return };
    let _serving = Serving::start(stage.services.clone());
    let first = stage.deploy(&[&image(1), "--no-traffic"]).await;
    let log = text(&first.stderr);
    assert!(first.status.success() && log.contains("the Service is new: its first revision gets all users"), "{log}");
    let said = stage.deployed(&[&image(2), "--no-traffic"]).await;
    assert!(said.contains("revision: web-00002\n") && said.contains("tag-url: http://test-web."), "{said}");
    assert_eq!(stage.users().await, one("web-00001"));
    // Once more: the tag moves to the new revision, traffic stays.
    stage.deployed(&[&image(3), "--no-traffic"]).await;
    assert_eq!(stage.users().await, one("web-00001"));
    assert_eq!(stage.spec_traffic().await.as_array().map(Vec::len), Some(2));
    stage.deployed(&[&image(3), "--to-latest"]).await;
    assert_eq!(stage.users().await, one("web-00003"));
    // From here on, every deployment takes all traffic again.
    stage.deployed(&[&image(4)]).await;
    assert_eq!(stage.users().await, one("web-00005"), "generation 4 was the promotion, so that this is revision 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn increases_canary_and_promotes_it() {
    let Some(stage) = Stage::new("deploy-canary").await else { return };
    let _serving = Serving::start(stage.services.clone());
    stage.deployed(&[&image(1)]).await;
    stage.deployed(&[&image(2), "--canary=10", "--tag=next"]).await;
    let (old, new) = ("web-00001".to_owned(), "web-00002".to_owned());
    assert_eq!(stage.users().await, [(old.clone(), 90), (new.clone(), 10)]);
    stage.deployed(&[&image(2), "--canary=50", "--tag=next"]).await;
    assert_eq!(stage.users().await, [(old, 50), (new.clone(), 50)]);
    // A new canary replaces the old one only when it is ready, so that it takes two changes.
    stage.deployed(&[&image(3), "--canary=20"]).await;
    let users = stage.users().await;
    assert_eq!(users.iter().map(|(_, percent)| percent).sum::<i64>(), 100);
    assert_eq!(users.last().map(|(_, percent)| *percent), Some(20), "{users:?}");
    stage.deployed(&[&image(3), "--to-latest"]).await;
    assert_eq!(stage.users().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_traffic_when_revision_fails() {
    let Some(stage) = Stage::new("deploy-fail").await else { return };
    let serving = Serving::start(stage.services.clone());
    stage.deployed(&[&image(1)]).await;
    stage.deployed(&[&image(2), "--canary=30"]).await;
    let users = stage.users().await;
    serving.set(Fate::Failed("Unable to fetch image \"registry.example.com/web:3\""));
    for (tag, mode) in [(3, "--to-latest"), (4, "--canary=60"), (5, "--no-traffic")] {
        let output = stage.deploy(&[&image(tag), mode]).await;
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{mode}: {errors}");
        let lines: Vec<&str> = errors.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(lines.len(), 1, "{errors}");
        assert!(
            lines[0].contains("Unable to fetch image") && lines[0].contains("users: 70 % on web-00001"),
            "{errors}"
        );
        assert_eq!(stage.users().await, users, "{mode}");
    }
    // Repeating a failed deployment fails again, although it changes nothing.
    assert_eq!(stage.deploy(&[&image(5), "--no-traffic"]).await.status.code(), Some(1));
    serving.set(Fate::Ready);
    stage.deployed(&[&image(6), "--to-latest"]).await;
    assert_eq!(stage.users().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_waiting_at_timeout_or_signal() {
    let Some(stage) = Stage::new("deploy-wait").await else { return };
    let serving = Serving::start(stage.services.clone());
    stage.deployed(&[&image(1)]).await;
    serving.set(Fate::Never);
    let output = stage.deploy(&[&image(2), "--wait-timeout=1"]).await;
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("not ready in time (--wait-timeout): web-00002 is not ready yet"), "{errors}");
    assert!(errors.contains("describe pods -l serving.knative.dev/revision=web-00002"), "{errors}");
    stage.deployed(&[&image(3), "--wait-timeout=0"]).await;

    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut child = stage.command(&[&image(code)]).stderr(Stdio::piped()).spawn().expect("the program");
        let log = Lines::of(child.stderr.take().expect("stderr"));
        log.wait_for("is not ready yet", Duration::from_secs(20));
        let status = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status();
        assert!(status.expect("kill").success());
        assert_eq!(child.wait().expect("an end").code(), i32::try_from(code).ok());
        let line = log.wait_for("interrupted: the Service web has the new image", LOGGED);
        assert!(line.contains("users stay on ready revisions"), "{line}");
    }
    assert_eq!(stage.users().await, one("web-00001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_on_concurrent_writes() {
    let Some(stage) = Stage::new("deploy-conflict").await else { return };
    let _serving = Serving::start(stage.services.clone());
    stage.deployed(&[&image(1)]).await;
    let services = stage.services.clone();
    let others = tokio::spawn(async move {
        for index in 0.. {
            let patch = json!({"metadata": {"annotations": {"example.com/touched": index.to_string()}}});
            let _ = services.patch("web", &Default::default(), &kube::api::Patch::Merge(patch)).await;
        }
    });
    for tag in 2..6 {
        stage.deployed(&[&image(tag), "--no-traffic"]).await;
    }
    others.abort();
    let service = stage.get().await;
    assert!(service["metadata"]["annotations"]["example.com/touched"].is_string());
    assert_eq!(service["spec"]["template"]["spec"]["containers"][0]["image"], format!("{IMAGE}:5"));
    assert_eq!(stage.users().await, one("web-00001"));
}

#[test]
fn rejects_invalid_arguments_before_any_api_call() {
    let nowhere = |args: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.env_clear().arg("deploy").args(args);
        if !args.iter().any(|arg| arg.starts_with("--service-name")) {
            command.arg("--service-name=web");
        }
        let output = command.output().expect("the program");
        (output.status.code(), text(&output.stderr))
    };
    for (image, why) in [
        ("registry.example.com/web:", "empty tag"),
        ("registry.example.com/web:${inputs.params.tag}", "placeholder"),
        ("registry.example.com/we b:1", "white space"),
        ("", "is empty"),
    ] {
        let (code, said) = nowhere(&[&format!("--image={image}")]);
        assert!(code == Some(1) && said.contains(why) && said.lines().count() == 1, "{image}: {said}");
    }
    let (code, said) = nowhere(&["--image=web", "--tag=test"]);
    assert!(code == Some(1) && said.contains("--no-traffic or --canary"), "{said}");
    let (code, said) = nowhere(&["--image=web", "--wait-timeout=18446744073709551615"]);
    assert!(code == Some(2) && said.contains("604800"), "{said}");
    for name in [
        "--namespace=ci/services?dryRun=All&x=",
        "--container=a/b",
        "--service-name=hello?dryRun=All&x=",
        "--service-name=he llo",
        "--tag=Test",
    ] {
        let (code, said) = nowhere(&["--image=web", "--no-traffic", name]);
        assert!(code == Some(1) && said.contains("not a valid name") && said.lines().count() == 1, "{name}: {said}");
    }
    for args in [["--canary=0", "--image=web"], ["--canary=100", "--image=web"]] {
        let (code, said) = nowhere(&args);
        assert!(code == Some(2), "{args:?}: {said}");
    }
    let (code, said) = nowhere(&["--image=web", "--canary=1", "--to-latest"]);
    assert!(code == Some(2) && said.contains("cannot be used with"), "{said}");
    let (code, said) = nowhere(&["--image=web"]);
    assert!(code == Some(1) && said.contains("no Kubernetes"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn states_missing_permission_or_namespace_in_one_line() {
    let Some(plane) = shared() else { return };
    plane.namespace("deploy-rights");
    let run = |kubeconfig: &Path, namespace: &str| {
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("KUBECONFIG", kubeconfig).args(["deploy", "--service-name=web", "--image=web:1"]);
        let output = command.args(["--namespace", namespace]).output().expect("the program");
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        let lines: Vec<String> = errors.lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
        assert_eq!(lines.len(), 1, "{errors}");
        lines[0].clone()
    };
    let stranger = plane.account("deploy-rights", "stranger");
    let line = run(&stranger, "deploy-rights");
    assert!(line.contains("no right to get services.serving.knative.dev in the namespace deploy-rights"), "{line}");
    assert!(line.contains("the verb get"), "{line}");
    let line = run(&plane.admin_kubeconfig(), "no-such-namespace");
    assert!(line.contains("the namespace no-such-namespace does not exist"), "{line}");
}

/// Every kind of Service in every mode: the Deployer's change passes Serving's own admission.
#[tokio::test(flavor = "multi_thread")]
async fn changes_pass_serving_admission() {
    let Some(stage) = Stage::new("deploy-matrix").await else { return };
    let container = |image: &str| json!([{"image": image}]);
    let latest = json!([{"latestRevision": true, "percent": 100}]);
    let serving = json!([{"revisionName": "web-1", "latestRevision": true, "percent": 100}]);
    let pinned = json!([{"revisionName": "web-1", "percent": 100}]);
    let tags = json!([{"revisionName": "web-1", "percent": 100, "tag": "live"},
        {"revisionName": "web-0", "percent": 0, "tag": "old"}, {"latestRevision": true, "percent": 0, "tag": "test"}]);
    let tagged = json!([{"revisionName": "web-1", "percent": 100, "tag": "live"},
        {"revisionName": "web-0", "percent": 0, "tag": "old"},
        {"revisionName": "web-2", "latestRevision": true, "percent": 0, "tag": "test"}]);
    let rolling = json!([{"revisionName": "web-1", "latestRevision": true, "percent": 70},
        {"revisionName": "web-2", "latestRevision": true, "percent": 20}, {"revisionName": "web-1", "percent": 10}]);
    let named = json!({"metadata": {"name": "web-green"}, "spec": {"containers": container("web:0")}});
    let many = json!({"spec": {"containers": [{"name": "proxy", "image": "proxy:1"},
        {"name": "app", "image": "web:0", "ports": [{"containerPort": 8080}]}]}});
    let plain = json!({"spec": {"containers": container("web:0")}});
    let cases = [
        ("default", &plain, &latest, Some(&serving)),
        ("pinned", &plain, &pinned, Some(&pinned)),
        ("tags", &plain, &tags, Some(&tagged)),
        ("rolling", &plain, &latest, Some(&rolling)),
        ("never ready", &plain, &latest, None),
        ("named", &named, &latest, Some(&serving)),
        ("many", &many, &latest, Some(&serving)),
    ];
    for (case, template, traffic, shown) in cases {
        for mode in [&["--to-latest"][..], &["--no-traffic"], &["--canary=25"], &["--canary=25", "--tag=test"], &[]] {
            for waits in ["0", "1"] {
                let service = json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service",
                    "metadata": {"name": "web"}, "spec": {"template": template, "traffic": traffic}});
                let service = serde_json::from_value(service).expect("a Service");
                let created = stage.services.create(&PostParams::default(), &service).await.expect(case);
                let mut status = json!({"observedGeneration": created.metadata.generation,
                    "latestCreatedRevisionName": "web-2",
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T12:00:00Z"}]});
                if let Some(shown) = shown {
                    status["traffic"] = shown.clone();
                    status["latestReadyRevisionName"] = "web-2".into();
                }
                write_status(&stage.services, "web", &status).await;
                let timeout = format!("--wait-timeout={waits}");
                let output = stage.deploy(&[&[&*image(7), &timeout], mode].concat()).await;
                let errors = text(&output.stderr);
                // No controller runs here: waiting ends with the timeout.
                let waited_in_vain = waits == "1" && errors.contains("not ready in time");
                assert!(output.status.success() || waited_in_vain, "{case} {mode:?} {waits}: {errors}");
                let after = stage.get().await;
                let containers = after["spec"]["template"]["spec"]["containers"].to_string();
                assert!(containers.contains(&format!("{IMAGE}:7")), "{case} {mode:?}: {containers}");
                stage.services.delete("web", &Default::default()).await.expect("a deletion");
            }
        }
    }
    // The admission does reject: the seed's first update wrote this traffic, which sums to 0 percent.
    let broken = json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"template": plain, "traffic": [{"latestRevision": true, "tag": "test"}]}});
    let broken = serde_json::from_value(broken).expect("a Service");
    let refused = stage.services.create(&PostParams::default(), &broken).await.expect_err("a sum of zero");
    assert!(refused.to_string().contains("Traffic targets sum to 0, want 100"), "{refused}");
}
