//! `why`: where the road of a merge can end, and what it says there.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::command::{End, run, run_with};
use crate::support::control_plane::{ControlPlane, shared};
use crate::support::fake_api::{FakeApi, Fault};
use crate::support::github::hooks::{Hook, Loss};
use crate::support::github::{APP, GitHub};
use crate::support::service::{Service, Setup};
use crate::support::webhook::{SECRET, SHA, ago};

const REPOSITORY: &str = "acme/web";

/// Each line as `state place`, and the line that says what to do.
fn road(end: &End) -> (Vec<String>, String) {
    let is_advice = |line: &&str| line.trim_start().starts_with("what to do: ");
    let places = end.out.lines().filter(|line| !is_advice(line));
    let places = places.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    let mut advice = end.out.lines().filter(is_advice);
    let first = advice.next().unwrap_or_default().trim().to_owned();
    assert_eq!(advice.next(), None, "one line says what to do: {}", end.out);
    (places, first)
}

/// GitHub and a service behind its webhook.
struct Stage {
    github: GitHub,
    api: FakeApi,
    service: Service,
}

impl Stage {
    async fn with_secret(secret: &str) -> Option<Self> {
        let github = GitHub::start().await?;
        let api = FakeApi::start().await;
        let service = Setup::cluster(&api.kubeconfig()).start();
        github.knowledge().hooks.push(Hook::to("/repos/acme/web", 11, service.address, secret));
        Some(Self { github, api, service })
    }

    async fn why(&self, more: &[&str]) -> End {
        let (token, url) = (self.github.token_file().display().to_string(), self.github.url());
        run(&[&["why", "acme/web#1", "--github-token-file", &token, "--github-api-url", &url], more].concat()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_merged_needs_nothing() {
    let Some(stage) = Stage::with_secret(SECRET).await else { return };
    stage.github.pull_request(REPOSITORY, 1, SHA, None);
    let end = stage.why(&[]).await;
    let (places, advice) = road(&end);
    assert!(end.code == Some(3) && places == ["ended merge"] && advice.contains("reopen it, and merge it"), "{end:?}");
    stage.github.knowledge().pulls.get_mut(REPOSITORY).expect("pulls")[0]["state"] = json!("open");
    let end = stage.why(&["--output=json"]).await;
    let line: Value = serde_json::from_str(&end.out).expect("one JSON line");
    assert_eq!((&line["state"], &line["place"]), (&json!("ended"), &json!("merge")));
    assert_eq!(line["advice"], "only a merge is built: merge it");
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_a_token_says_why_it_has_none() {
    let Some(stage) = Stage::with_secret(SECRET).await else { return };
    stage.github.pull_request(REPOSITORY, 1, SHA, None);
    let (key, url) = (stage.github.key_file().display().to_string(), stage.github.url());
    let app = ["--github-app-id", APP, "--github-app-key-file", &key, "--github-api-url", &url];
    let end = run(&[&["why", "acme/web#1"][..], &app].concat()).await;
    assert!(end.code == Some(1) && end.out.contains("is not installed on acme/web"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_may_be_missing_or_wrong() {
    let Some(stage) = Stage::with_secret(SECRET).await else { return };
    stage.github.merge(REPOSITORY, 1, SHA, Loss::Everything).await;
    let ends = async |what: &str, text: &str| {
        let end = stage.why(&[]).await;
        let (places, advice) = road(&end);
        assert_eq!((end.code, places[1].as_str()), (Some(1), what), "{end:?}");
        assert!(advice.contains(text), "{advice}");
    };
    let build = "github-trigger recover --repository acme/web --since 1h --github-token-file TOKEN --url SERVICE-URL";
    ends("ok webhook", build).await;
    stage.github.knowledge().hooks[0].events = vec!["push"];
    ends("wrong webhook", "select *Pull requests*").await;
    // An organisation's webhook is as good as the repository's.
    stage.github.knowledge().hooks[0].owner = "/orgs/acme".to_owned();
    ends("wrong webhook", "select *Pull requests*").await;
    stage.github.knowledge().hooks[0].is_active = false;
    ends("wrong webhook", "switch it on").await;
    stage.github.knowledge().hooks.clear();
    ends("wrong webhook", "add it on GitHub").await;
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_says_how_it_was_answered() {
    // A wrong secret.
    let Some(stage) = Stage::with_secret("another").await else { return };
    stage.github.merge(REPOSITORY, 1, SHA, Loss::Nothing).await;
    let end = stage.why(&[]).await;
    let (places, advice) = road(&end);
    assert_eq!((end.code, places[2].as_str()), (Some(1), "wrong delivery"), "{end:?}");
    assert!(advice.contains("secret on GitHub and the mounted one the same"), "{advice}");
    // No answer, a failure, a template that is not for it, a success.
    stage.github.knowledge().hooks[0].secret = SECRET.to_owned();
    for (number, loss, fault, state, text) in [
        (2, Loss::Request, None, "wrong delivery", "kubectl get ksvc"),
        (3, Loss::Nothing, Some(Fault::Status(403, "Forbidden")), "wrong delivery", "log line with delivery="),
        (4, Loss::Nothing, None, "ok delivery", ""),
    ] {
        stage.api.fail_always(fault);
        stage.github.merge(REPOSITORY, number, &format!("{number:040x}"), loss).await;
        let (token, url) = (stage.github.token_file().display().to_string(), stage.github.url());
        let target = format!("acme/web#{number}");
        let end = run(&["why", &target, "--github-token-file", &token, "--github-api-url", &url]).await;
        let (places, advice) = road(&end);
        assert_eq!(places[2], state, "{end:?}");
        assert!(advice.contains(text), "{advice}");
        assert_eq!(end.code, Some(i32::from(state == "wrong delivery")));
    }
    stage.github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_templates_may_not_be_for_it() {
    let Some(stage) = Stage::with_secret(SECRET).await else { return };
    let pull = stage.github.pull_request("other/web", 1, SHA, Some(&ago(60)));
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let payload = file("payload", &GitHub::closed(&pull).to_string());
    let template = crate::support::service::TEMPLATE.replace("\"*/*\"", "acme/*");
    let templates = file("template.yaml", &template);
    let end = run(&["why", "other/web#1", "--payload", &payload, "--trigger-config", &templates]).await;
    let (places, advice) = road(&end);
    assert_eq!(end.code, Some(3), "{end:?}");
    assert_eq!(places, ["unknown merge", "ended template", "unknown run"], "{end:?}");
    assert!(advice.contains("change the template's conditions"), "{advice}");
    let end = run(&["why", "other/web#2", "--payload", &payload, "--trigger-config", &templates]).await;
    assert!(end.code == Some(1) && end.log.contains("it is of other/web#1, and not of the merge"), "{end:?}");
    let list = file("list", "[{}]");
    let end = run(&["why", "other/web#1", "--payload", &list]).await;
    assert!(end.code == Some(1) && end.log.contains("looks like a list; save one delivery of it"), "{end:?}");
    let end = run(&["why", "other/web#1"]).await;
    assert!(end.code == Some(1) && end.log.contains("nothing could be asked"), "{end:?}");
    let templates = file("template.yaml", &template.replace("acme/*", "other/*"));
    let end = run(&["why", "other/web#1", "--payload", &payload, "--trigger-config", &templates]).await;
    assert!(end.code == Some(0) && end.out.contains("makes default/build-"), "{end:?}");
    for (args, what) in [
        (&["other/web#1", "--payload=/no/such/file"][..], "cannot read the payload"),
        (&["other/web#1", "--trigger-config=/no/such/file"], "/no/such/file"),
        (&["other/web#1", "--namespace=a/b"], "not a valid name"),
        (&["other/web#1", "--service-name=a?b"], "not a valid name"),
    ] {
        let end = run(&[&["why"], args].concat()).await;
        assert!(end.code == Some(1) && end.log.contains(what) && end.log.lines().count() == 1, "{end:?}");
    }
    for target in ["web#1", "acme/web#0", "acme/web#x", "abcdefg", "0123456", "acme/web"] {
        assert_eq!(run(&["why", target]).await.code, Some(2), "{target}");
    }
    drop(stage.service);
}

/// Creates an object, and its status.
fn put(plane: &ControlPlane, namespace: &str, mut object: Value) {
    let status = object["status"].take();
    let (kind, name) = (object["kind"].as_str().expect("a kind").to_owned(), object["metadata"]["name"].clone());
    let file = tempfile::NamedTempFile::new().expect("a file");
    object.as_object_mut().expect("an object").remove("status");
    std::fs::write(file.path(), object.to_string()).expect("a file");
    let path = file.path().display().to_string();
    plane.kubectl(&["apply", "-n", namespace, "--server-side", "--force-conflicts", "-f", &path]);
    let (kind, name) = (
        format!("{kind}s.{}", object["apiVersion"].as_str().expect("a group").split('/').next().expect("one")),
        name.as_str().expect("a name").to_owned(),
    );
    set_status(plane, namespace, &kind, &name, &status);
}

fn set_status(plane: &ControlPlane, namespace: &str, kind: &str, name: &str, status: &Value) {
    let patch = json!({"status": status}).to_string();
    plane.kubectl(&["patch", kind, name, "-n", namespace, "--subresource=status", "--type=merge", "-p", &patch]);
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!([{"type": kind, "status": status, "reason": reason, "message": "what it says", "lastTransitionTime": ago(1)}])
}

fn task(run: &str, name: &str, params: &Value, status: &Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun",
        "metadata": {"name": format!("{run}-{name}"), "labels": {"tekton.dev/pipelineRun": run, "tekton.dev/pipelineTask": name}},
        "spec": {"params": params, "taskRef": {"name": name}}, "status": status})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_road_goes_on_to_the_users() {
    const NAMESPACE: &str = "why";
    let Some(plane) = shared() else { return };
    let Some(github) = GitHub::start().await else { return };
    plane.namespace(NAMESPACE);
    let service = Setup::cluster(&plane.trigger_account(NAMESPACE)).start();
    github.knowledge().hooks.push(Hook::to("/repos/acme/web", 11, service.address, SECRET));
    let (token, url): (String, String) = (github.token_file().display().to_string(), github.url());
    let admin: PathBuf = plane.admin_kubeconfig();
    let why = async |target: &str, more: &[&str]| {
        let args = ["why", target, "--namespace", NAMESPACE, "--github-api-url", &url];
        run_with(Some(&admin), &[&args[..], more].concat()).await
    };
    let credential = ["--github-token-file", token.as_str()];

    // Missed, and then recovered by a post: GitHub knows of no delivery, but there is a run.
    github.merge(REPOSITORY, 1, SHA, Loss::Everything).await;
    let end = why("acme/web#1", &credential).await;
    assert!(end.code == Some(1) && road(&end).1.contains("recover"), "{end:?}");
    let secret = github.folder.path().join("secret");
    std::fs::write(&secret, SECRET).expect("a file");
    let (address, secret) = (format!("http://{}", service.address), secret.display().to_string());
    let recover =
        ["recover", "--repository=acme/web", "--github-api-url", &url, "--url", &address, "--secret-file", &secret];
    let end = run(&[&recover[..], &credential].concat()).await;
    assert!(end.code == Some(0) && end.out.starts_with("recovered acme/web#1"), "{end:?}");
    let end = why("acme/web#1", &credential).await;
    let (places, advice) = road(&end);
    assert_eq!(
        (end.code, &places[1..]),
        (Some(0), &["ok webhook", "past delivery", "unknown template", "waiting run"].map(String::from)[..]),
        "{end:?}"
    );
    assert!(advice.contains("is Tekton's controller running?"), "{advice}");
    let name = plane.runs(NAMESPACE)[0]["metadata"]["name"].as_str().expect("a name").to_owned();

    // The build fails, and is repeated.
    let steps = json!([{"name": "build", "container": "step-build", "terminated": {"exitCode": 1, "reason": "Error"}}]);
    let failed = json!({"conditions": condition("Succeeded", "False", "Failed"), "podName": "pod-1", "steps": steps});
    put(plane, NAMESPACE, task(&name, "build", &json!([]), &failed));
    set_status(
        plane,
        NAMESPACE,
        "pipelineruns",
        &name,
        &json!({"conditions": condition("Succeeded", "False", "Failed")}),
    );
    let end = why("acme/web#1", &[]).await;
    let (places, advice) = road(&end);
    assert_eq!((end.code, &places[2..]), (Some(1), &["wrong run", "wrong task"].map(String::from)[..]), "{end:?}");
    let log = format!("kubectl -n {NAMESPACE} logs pod-1 -c step-build");
    let again = format!("github-trigger rerun {NAMESPACE}/{name}");
    assert!(advice.contains(&log) && advice.ends_with(&again), "{advice}");
    let end = run_with(Some(&admin), &["rerun", &format!("{NAMESPACE}/{name}")]).await;
    assert_eq!(end.code, Some(0), "the advice works: {end:?}");
    let name = format!("{name}-r2");

    // By its commit alone: the run knows the rest.
    set_status(
        plane,
        NAMESPACE,
        "pipelineruns",
        &name,
        &json!({"conditions": condition("Succeeded", "True", "Completed")}),
    );
    let end = why(&SHA[..8], &credential).await;
    assert!(end.out.contains("acme/web#1 was merged into main"), "{end:?}");
    assert!(end.out.contains(&format!("{name} succeeded")) && end.out.contains("give --service-name"), "{end:?}");

    let params = json!([{"name": "service-name", "value": "hello"}, {"name": "service-namespace", "value": NAMESPACE}]);
    let results = json!([{"name": "outcome", "type": "string", "value": "deployed"}, {"name": "revision", "type": "string", "value": "hello-00001"}]);
    let done =
        json!({"conditions": condition("Succeeded", "True", "Succeeded"), "podName": "pod-2", "results": results});
    put(plane, NAMESPACE, task(&name, "deploy", &params, &done));
    let ends = async |place: &str, code: i32, text: &str| {
        let end = why("acme/web#1", &[]).await;
        let (places, advice) = road(&end);
        assert_eq!((end.code, places.last().expect("a place").as_str()), (Some(code), place), "{end:?}");
        assert!(advice.contains(text), "{advice}");
        advice
    };
    ends("wrong service", 1, "github-trigger rerun").await;
    let ksvc = |commit: &str, percent: u64| {
        json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {"name": "hello", "annotations": {"github-trigger.dev/commit": commit}},
            "spec": {"template": {"spec": {"containers": [{"image": "registry.example.com/hello:1"}]}}},
            "status": {"url": "http://hello.example.com", "latestCreatedRevisionName": "hello-00001",
                "traffic": [{"revisionName": "hello-00001", "percent": percent, "latestRevision": false}]}})
    };
    put(plane, NAMESPACE, ksvc(&"b".repeat(40), 100));
    ends("ended service", 3, "deploy --rollback --to hello-00001 --service-name hello").await;
    put(plane, NAMESPACE, ksvc(SHA, 10));
    ends("wrong revision", 1, "describe ksvc hello").await;
    let revision = |status: &str| {
        json!({"apiVersion": "serving.knative.dev/v1", "kind": "Revision", "metadata": {"name": "hello-00001"},
            "spec": {"containers": [{"image": "registry.example.com/hello:1"}]},
            "status": {"conditions": condition("Ready", status, "ContainerMissing")}})
    };
    put(plane, NAMESPACE, revision("False"));
    ends("wrong revision", 1, "describe revision hello-00001").await;
    set_status(plane, NAMESPACE, "revisions.serving.knative.dev", "hello-00001", &revision("Unknown")["status"]);
    ends("waiting revision", 0, "get pods -l serving.knative.dev/revision=hello-00001").await;
    set_status(plane, NAMESPACE, "revisions.serving.knative.dev", "hello-00001", &revision("True")["status"]);
    ends("waiting traffic", 0, "deploy --to-latest --image registry.example.com/hello:1 --service-name hello").await;
    put(plane, NAMESPACE, ksvc(SHA, 100));
    assert_eq!(ends("ok traffic", 0, "").await, "");

    // Without rights, it says which are missing.
    let nobody = plane.account(NAMESPACE, "nobody");
    let end = run_with(Some(&nobody), &["why", "acme/web#1", "--namespace", NAMESPACE]).await;
    assert!(
        end.code == Some(1) && end.out.contains("wrong    run       cannot read pipelineruns.tekton.dev in"),
        "{end:?}"
    );
    // Wherever the runs are, with the right to look everywhere; with the README's command, too.
    let templates = service.templates().display().to_string();
    let args = ["why", "acme/web#1", "--github-api-url", &url, "--trigger-config", &templates];
    let end = run_with(Some(&admin), &[&args[..], &credential].concat()).await;
    assert!(end.code == Some(0) && end.out.contains("ok       traffic"), "{end:?}");
    assert!(end.out.contains(&format!("ok       template  makes {NAMESPACE}/build-")), "{end:?}");
    // A run that was pruned.
    plane.kubectl(&["delete", "pipelineruns", "-n", NAMESPACE, "--all"]);
    let end = why("acme/web#1", &[]).await;
    assert!(end.code == Some(1) && road(&end).1.contains("GitHub's *Recent Deliveries*"), "{end:?}");
    let end = why("acme/web#1", &credential).await;
    assert!(end.code == Some(1) && road(&end).1.contains("github-trigger recover --repository acme/web"), "{end:?}");
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_one_template_hides_no_other() {
    const NAMESPACE: &str = "why-some";
    // Of no other test's runs.
    const COMMIT: &str = "5a1ec0de5a1ec0de5a1ec0de5a1ec0de5a1ec0de";
    let Some(plane) = shared() else { return };
    let Some(github) = GitHub::start().await else { return };
    plane.namespace(NAMESPACE);
    plane.namespace("why-other");
    let template = crate::support::service::TEMPLATE;
    let other = template.replace("  generateName: build-\n", "  generateName: build-\n  namespace: why-other\n");
    assert_ne!(template, other);
    let service =
        Setup::cluster(&plane.trigger_account(NAMESPACE)).template(&format!("{template}---\n{other}")).start();
    github.knowledge().hooks.push(Hook::to("/repos/acme/web", 11, service.address, SECRET));
    let (token, url): (String, String) = (github.token_file().display().to_string(), github.url());
    let (admin, templates): (PathBuf, String) = (plane.admin_kubeconfig(), service.templates().display().to_string());
    let why = async |more: &[&str]| {
        let args = ["why", "acme/web#1", "--github-api-url", &url, "--github-token-file", &token];
        run_with(Some(&admin), &[&args[..], more].concat()).await
    };
    // The service has no right in the other namespace.
    github.merge(REPOSITORY, 1, COMMIT, Loss::Nothing).await;
    let name = plane.runs(NAMESPACE)[0]["metadata"]["name"].as_str().expect("a name").to_owned();
    let succeeded = json!({"conditions": condition("Succeeded", "True", "Completed")});
    set_status(plane, NAMESPACE, "pipelineruns", &name, &succeeded);
    for more in [&["--trigger-config", templates.as_str(), "--namespace", NAMESPACE][..], &[]] {
        let end = why(more).await;
        assert!(end.code == Some(1) && end.out.contains("wrong    delivery"), "{end:?}");
        assert!(end.out.contains(&format!("ok       run       {NAMESPACE}/{name} succeeded")), "{end:?}");
    }
    // The other one is made, and fails: it has the same name of a template.
    let mut run = plane.runs(NAMESPACE).remove(0);
    let metadata = run["metadata"].as_object_mut().expect("metadata");
    metadata.retain(|key, _| ["labels", "annotations"].contains(&key.as_str()));
    metadata.insert("name".to_owned(), "build-0123456789ab".into());
    put(plane, "why-other", run);
    let failed = json!({"conditions": condition("Succeeded", "False", "Failed")});
    set_status(plane, "why-other", "pipelineruns", "build-0123456789ab", &failed);
    let end = why(&[]).await;
    assert!(end.code == Some(1) && end.out.contains("past     delivery"), "{end:?}");
    assert!(end.out.contains("wrong    run       why-other/build-0123456789ab failed"), "{end:?}");
}
