//! The manifests, applied with kubectl to an API server that has the real CRDs.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine};
use http::{Method, StatusCode};
use serde_json::Value;

use crate::support::control_plane::{ControlPlane, own, shared};
use crate::support::service::{PROGRAM, Setup};
use crate::support::serving::{Serving, services};
use crate::support::teams;
use crate::support::webhook::{SHA, headers_signed_with, merged};

/// `kubectl apply -k config/direct` is enough: its service account creates the run of the shipped template.
#[tokio::test(flavor = "multi_thread")]
async fn applies_direct_manifests_and_creates_run() {
    let Some(plane) = own() else { return };
    let applied = plane.kubectl(&["apply", "-k", "config/direct"]);
    for object in [
        "namespace/github-trigger",
        "serviceaccount/github-trigger",
        "role.rbac.authorization.k8s.io/github-trigger",
        "rolebinding.rbac.authorization.k8s.io/github-trigger",
        "configmap/github-trigger-templates",
        "secret/github-trigger-webhook",
        "service.serving.knative.dev/github-trigger",
    ] {
        assert!(applied.contains(&format!("{object} created")), "{object} is missing:\n{applied}");
    }
    let rules = plane.kubectl(&["get", "role", "github-trigger", "-n", "github-trigger", "-o", "jsonpath={.rules}"]);
    assert_eq!(rules, r#"[{"apiGroups":["tekton.dev"],"resources":["pipelineruns"],"verbs":["create"]}]"#);
    let args = "jsonpath={.spec.template.spec.containers[0].args}";
    let args = plane.kubectl(&["get", "ksvc", "github-trigger", "-n", "github-trigger", "-o", args]);
    assert_eq!(args, r#"["--trigger-config=/app/config","--webhook-secret-file=/app/secrets","--require-sha256"]"#);

    // A secret that the operator has added survives another apply.
    let patch = r#"{"stringData":{"2026-11":"s3cret"}}"#;
    plane.kubectl(&["patch", "secret", "github-trigger-webhook", "-n", "github-trigger", "-p", patch]);
    plane.kubectl(&["apply", "-k", "config/direct"]);
    let data = "jsonpath={.data}";
    let data = plane.kubectl(&["get", "secret", "github-trigger-webhook", "-n", "github-trigger", "-o", data]);
    assert!(data.contains("2026-11"), "{data}");

    let template = "jsonpath={.data.deployer-trigger\\.yaml}";
    let template = plane.kubectl(&["get", "cm", "github-trigger-templates", "-n", "github-trigger", "-o", template]);
    assert_eq!(template, fs::read_to_string("config/base/deployer-trigger.yaml").expect("the template"));
    let kubeconfig = plane.token_of("github-trigger", "github-trigger");
    let service = Setup::cluster(&kubeconfig).template(&template).start();
    let reply = service.merge("d1", &merged("acme/web", 1, SHA)).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", service.log.text());
    assert_eq!(plane.runs("github-trigger").len(), 1);
}

/// The files that the kubelet would put into the projected volumes of the Service `github-trigger`.
fn project(plane: &ControlPlane, volume: usize, folder: &Path) {
    let get = |kind: &str, name: &str| -> Value {
        let object = plane.kubectl(&["get", kind, name, "-n", "github-trigger", "-o", "json"]);
        serde_json::from_str(&object).expect("JSON")
    };
    let service = get("ksvc", "github-trigger");
    let sources = service["spec"]["template"]["spec"]["volumes"][volume]["projected"]["sources"].as_array();
    for source in sources.expect("a projected volume") {
        let kind = if source["secret"].is_object() { "secret" } else { "configMap" };
        let source = &source[kind];
        let data = get(kind, source["name"].as_str().expect("a name"))["data"].clone();
        for item in source["items"].as_array().expect("items") {
            let file = folder.join(item["path"].as_str().expect("a path"));
            let Some(content) = data[item["key"].as_str().expect("a key")].as_str() else {
                assert_eq!(source["optional"], true, "the pod would not start without {item}");
                continue;
            };
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            let decoded =
                if kind == "secret" { BASE64_STANDARD.decode(content).expect("Base64") } else { content.into() };
            fs::write(file, decoded).expect("a file");
        }
    }
}

/// `config/teams`, and a third team by the words of docs/teams.md.
#[tokio::test(flavor = "multi_thread")]
async fn applies_team_manifests_and_adds_a_third_team() {
    let Some(plane) = own() else { return };
    let checkout = tempfile::tempdir().expect("a folder");
    let copied = Command::new("cp").args(["-r", "config"]).arg(checkout.path()).status();
    assert!(copied.expect("cp").success());
    let page = fs::read_to_string("docs/teams.md").expect("the page");
    let blocks: Vec<&str> = page.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    let install = blocks.iter().filter(|block| block.contains("kubectl apply -k config/teams"));
    for (index, block) in install.enumerate() {
        let commands = block.replace("kubectl apply", "kubectl apply --validate=strict");
        let path = format!("{}:/usr/bin:/bin", plane.kubectl_path().parent().expect("a folder").display());
        let output = Command::new("bash")
            .args(["-euc", &commands])
            .current_dir(checkout.path())
            .env("PATH", path)
            .env("KUBECONFIG", plane.admin_kubeconfig())
            .output()
            .expect("bash");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let teams: &[&str] = if index == 0 { &["team-a", "team-b"] } else { &["team-a", "team-b", "team-c"] };

        let setup = teams::dry_run().without_dry_run(&plane.token_of("github-trigger", "github-trigger"));
        project(&plane, 0, &setup.templates());
        project(&plane, 1, &setup.secrets());
        let lint = Command::new(PROGRAM).arg("lint").arg("--trigger-config").arg(setup.templates()).output();
        assert!(lint.expect("the program").status.success());
        let secret = |team: &str| fs::read_to_string(setup.secrets().join(team).join("github")).expect("a secret");
        let secrets: Vec<String> = teams.iter().map(|team| secret(team)).collect();
        for team in teams {
            plane.wait_until_allowed("github-trigger:github-trigger", team);
        }
        let service = setup.start();
        for (signer, secret) in secrets.iter().enumerate() {
            for (owner, team) in teams.iter().enumerate() {
                let payload = merged(&format!("{team}/web"), index as u64 + 1, SHA).to_string().into_bytes();
                let headers = headers_signed_with(secret, "pull_request", "d1", &payload);
                let reply = service.send(Method::POST, "/", &headers, &payload).await;
                let status = if signer == owner { StatusCode::CREATED } else { StatusCode::OK };
                assert_eq!(reply.status, status, "{}", service.log.text());
            }
        }
        for team in teams {
            let runs = plane.runs(team);
            assert!(runs.iter().all(|run| run["metadata"]["labels"]["github-trigger.dev/team"] == *team), "{runs:?}");
            let expected = if *team == "team-c" { 1 } else { index + 1 };
            assert_eq!(runs.len(), expected, "{team}");
        }
        assert!(plane.runs("github-trigger").is_empty());
    }
}

/// `config/github-source`: all objects are valid, the service is cluster-local, and it needs no webhook secret.
#[test]
fn applies_github_source_manifests() {
    let Some(plane) = own() else { return };
    let applied = plane.kubectl(&["apply", "--validate=strict", "-k", "config/github-source"]);
    for object in [
        "role.rbac.authorization.k8s.io/github-trigger",
        "secret/github-source",
        "service.serving.knative.dev/github-trigger",
        "service.serving.knative.dev/dead-letters",
        "broker.eventing.knative.dev/github",
        "trigger.eventing.knative.dev/merges",
        "githubsource.sources.knative.dev/github",
        "networkpolicy.networking.k8s.io/github-trigger",
    ] {
        assert!(applied.contains(&format!("{object} created")), "{object} is missing:\n{applied}");
    }
    assert!(!applied.contains("github-trigger-webhook"), "{applied}");
    let get = |kind: &str, name: &str, path: &str| {
        plane.kubectl(&["get", kind, name, "-n", "github-trigger", "-o", &format!("jsonpath={path}")])
    };
    let visibility = "{.metadata.labels.networking\\.knative\\.dev/visibility}";
    assert_eq!(get("ksvc", "github-trigger", visibility), "cluster-local");
    let args = get("ksvc", "github-trigger", "{.spec.template.spec.containers[0].args}");
    assert_eq!(args, r#"["--trigger-config=/app/config","--cloudevents-auth=none"]"#);
    assert_eq!(get("ksvc", "github-trigger", "{.spec.template.spec.volumes[*].name}"), "templates");
    // No placeholder that could be mistaken for a secret.
    assert_eq!(get("secret", "github-source", "{.data}"), "");
    let asynchronous = "{.metadata.annotations.messaging\\.knative\\.dev/async-handler}";
    assert_eq!(get("broker", "github", asynchronous), "true");
}

/// `config/github-source-direct`: the source sends to the service, and there is no Broker.
#[tokio::test(flavor = "multi_thread")]
async fn applies_direct_sink_manifests() {
    let Some(plane) = own() else { return };
    plane.namespace("github-trigger");
    let applied = plane.kubectl(&["apply", "--validate=strict", "-k", "config/github-source-direct"]);
    for absent in ["broker", "trigger.eventing", "dead-letters"] {
        assert!(!applied.contains(absent), "{absent}:\n{applied}");
    }
    let sink =
        plane.kubectl(&["get", "githubsource", "github", "-n", "github-trigger", "-o", "jsonpath={.spec.sink.ref}"]);
    assert_eq!(sink, r#"{"apiVersion":"serving.knative.dev/v1","kind":"Service","name":"github-trigger"}"#);
}

/// `config/tekton`: all objects are valid, the Deployer has just the permissions that it needs, and every template sets
/// the pipeline's required params and workspaces.
#[tokio::test(flavor = "multi_thread")]
async fn applies_pipeline_manifests_and_deploys() {
    let Some(plane) = own() else { return };
    plane.namespace("github-trigger");
    let applied = plane.kubectl(&["apply", "--validate=strict", "-k", "config/tekton"]);
    for object in [
        "pipeline.tekton.dev/build-and-deploy",
        "task.tekton.dev/build-image",
        "task.tekton.dev/deploy",
        "task.tekton.dev/report",
        "serviceaccount/pipeline-build",
        "serviceaccount/deployer",
        "role.rbac.authorization.k8s.io/github-trigger-deployer",
    ] {
        assert!(applied.contains(&format!("{object} created")), "{object} is missing:\n{applied}");
    }
    let services = services(plane.admin().await, "default");
    let _serving = Serving::start(services);
    let kubeconfig = plane.token_of("github-trigger", "deployer");
    let deploy = |name: &'static str, tag: u32| {
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("KUBECONFIG", &kubeconfig).args([
            "deploy",
            "--namespace=default",
            "--service-name",
            name,
        ]);
        command.arg(format!("--image=registry.example.com/hello-sample:{tag}"));
        tokio::task::spawn_blocking(move || command.output().expect("the program"))
    };
    for tag in [1, 2] {
        let output = deploy("hello-sample", tag).await.expect("an end");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let output = deploy("another", 1).await.expect("an end");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no right to get"), "the Role allows one Service");

    let pipeline =
        plane.kubectl(&["get", "pipeline.tekton.dev", "build-and-deploy", "-n", "github-trigger", "-o", "json"]);
    let pipeline: Value = serde_json::from_str(&pipeline).expect("JSON");
    let params = pipeline["spec"]["params"].as_array().expect("params");
    for golden in fs::read_dir("tests/data/golden").expect("the folder") {
        let golden = fs::read_to_string(golden.expect("an entry").path()).expect("a golden file");
        for run in serde_saphyr::from_multiple::<Value>(&golden).expect("YAML") {
            let given: Vec<&str> = names(&run["spec"]["params"]).collect();
            for param in params.iter().filter(|param| param.get("default").is_none()) {
                let name = param["name"].as_str().expect("a name");
                assert!(given.contains(&name), "{}: no {name}", run["metadata"]["name"]);
            }
            let workspaces: Vec<&str> = names(&run["spec"]["workspaces"]).collect();
            assert_eq!(workspaces, ["dockerconfig"]);
            assert_eq!(run["spec"]["taskRunSpecs"][0]["serviceAccountName"], "deployer");
        }
    }
    // No script contains a param: it could inject commands.
    for task in ["build-image", "deploy"] {
        let scripts = plane.kubectl(&[
            "get",
            "task.tekton.dev",
            task,
            "-n",
            "github-trigger",
            "-o",
            "jsonpath={.spec.steps[*].script}",
        ]);
        assert!(!scripts.contains("$(params"), "{scripts}");
    }
}

/// `config/spare-superseded`: the build waits for the answer of the first task, and only for that.
#[test]
fn applies_the_pipeline_that_spares_superseded_builds() {
    let Some(plane) = shared() else { return };
    plane.namespace("github-trigger");
    plane.kubectl(&["apply", "--validate=strict", "--dry-run=server", "-k", "config/spare-superseded"]);
    let built = plane.kubectl(&["kustomize", "config/spare-superseded"]);
    let objects = serde_saphyr::from_multiple::<Value>(&built).expect("YAML");
    let pipeline = objects.iter().find(|object| object["kind"] == "Pipeline").expect("the Pipeline");
    let tasks = &pipeline["spec"]["tasks"];
    assert_eq!(names(tasks).collect::<Vec<_>>(), ["check-superseded", "report-pending", "build", "deploy"]);
    let when = |index: usize| tasks[index]["when"].to_string();
    assert!(when(2).contains("$(tasks.check-superseded.results.outcome)") && !when(1).contains("check"), "{tasks}");
    assert!(objects.iter().any(|object| object["kind"] == "Task" && object["metadata"]["name"] == "check-superseded"));
}

fn names(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str())
}

#[test]
fn applies_sample_application() {
    let Some(plane) = shared() else { return };
    plane.namespace("sample");
    let created =
        plane.kubectl(&["create", "--validate=strict", "-f", "examples/hello-sample/service.yaml", "-n", "sample"]);
    assert!(created.contains("service.serving.knative.dev/hello-sample created"), "{created}");
}

/// Checks the tests above: each project's own admission rejects an invalid object.
#[test]
fn admission_of_each_project_rejects_invalid_objects() {
    let Some(plane) = shared() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for (name, manifest, complaint) in [
        (
            "pipeline-run",
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {name: x}\nspec: {params: [{name: a, value: b}]}\n",
            "expected exactly one, got neither: spec.pipelineRef, spec.pipelineSpec",
        ),
        (
            "trigger",
            "apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {name: x}\nspec: {broker: b}\n",
            "expected at least one, got none: spec.subscriber",
        ),
        (
            "service",
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: x}\nspec: {template: {spec: {\
             containers: [{image: x, ports: [{containerPort: 8012}]}]}}}\n",
            "8012 is a reserved port",
        ),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, manifest).expect("a file");
        let refused = plane.kubectl_refuses(&["create", "--dry-run=server", "-f", &file.display().to_string()]);
        assert!(refused.contains(complaint), "{name}: {refused}");
    }
}

/// `config/observability`, and the observability settings of Knative and Tekton.
#[test]
fn applies_observability_manifests() {
    let Some(plane) = own() else { return };
    let applied = plane.kubectl(&["apply", "--validate=strict", "-k", "config/observability"]);
    assert!(applied.contains("service.serving.knative.dev/github-trigger created"), "{applied}");
    let args = "jsonpath={.spec.template.spec.containers[0].args}";
    let args = plane.kubectl(&["get", "ksvc", "github-trigger", "-n", "github-trigger", "-o", args]);
    assert!(args.contains("--require-sha256") && args.contains("--metrics-addr=0.0.0.0:9464"), "{args}");
    for namespace in ["knative-serving", "knative-eventing", "tekton-pipelines"] {
        plane.namespace(namespace);
    }
    let applied = plane.kubectl(&["apply", "--validate=strict", "-f", "config/observability/tekton.yaml"]);
    assert!(applied.contains("configmap/config-tracing created"), "{applied}");
    let applied = plane.kubectl(&["apply", "--validate=strict", "-f", "config/observability/knative.yaml"]);
    assert_eq!(applied.matches("configmap/config-observability created").count(), 2, "{applied}");
}

/// `config/recover`: an account without rights, and flags that the program takes.
#[test]
fn applies_recover_manifests() {
    let Some(plane) = shared() else { return };
    plane.namespace("github-trigger");
    let applied = plane.kubectl(&["apply", "--validate=strict", "-k", "config/recover"]);
    for object in ["cronjob.batch", "networkpolicy.networking.k8s.io", "serviceaccount"] {
        assert!(applied.contains(&format!("{object}/github-trigger-recover created")), "{applied}");
    }
    let account = "--as=system:serviceaccount:github-trigger:github-trigger-recover";
    for (verb, resource) in [("get", "pods"), ("list", "secrets"), ("create", "pipelineruns.tekton.dev")] {
        let refused = plane.kubectl_refuses(&["auth", "can-i", verb, resource, "-n", "github-trigger", account]);
        assert!(refused.trim().starts_with("no") || refused.is_empty(), "{verb} {resource}: {refused}");
    }
    let job = plane.kubectl(&["get", "cronjob", "github-trigger-recover", "-n", "github-trigger", "-o", "json"]);
    let job: Value = serde_json::from_str(&job).expect("JSON");
    let container = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    let args: Vec<&str> = container["args"].as_array().expect("args").iter().filter_map(Value::as_str).collect();
    // Without its volumes, the first thing that is missing is not a flag.
    let output = Command::new(PROGRAM).args(&args).output().expect("the program");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && log.contains("/app/config"), "{log}");
}

#[test]
fn applies_istio_manifests() {
    let Some(plane) = own() else { return };
    plane.namespace("github-trigger");
    let applied = plane.kubectl(&["apply", "--validate=strict", "-k", "config/istio"]);
    assert!(applied.contains("serviceentry.networking.istio.io/github created"), "{applied}");
    assert!(applied.contains("telemetry.telemetry.istio.io/tracing created"), "{applied}");
}

#[test]
fn applies_service_yaml_alone() {
    let Some(plane) = shared() else { return };
    plane.namespace("kn");
    let created = plane.kubectl(&["create", "--validate=strict", "-f", "service.yaml", "-n", "kn"]);
    assert!(created.contains("service.serving.knative.dev/github-trigger created"), "{created}");
}

/// Checks the test above: the API server knows Serving's fields.
#[test]
fn rejects_unknown_field_of_service() {
    let Some(plane) = shared() else { return };
    plane.namespace("kn-broken");
    let folder = tempfile::tempdir().expect("a folder");
    let broken = fs::read_to_string("service.yaml").expect("the service").replace("timeoutSeconds", "timeoutSecond");
    let file = folder.path().join("service.yaml");
    fs::write(&file, broken).expect("a file");
    let file = file.display().to_string();
    let complaint = plane.kubectl_refuses(&["create", "--validate=strict", "-f", &file, "-n", "kn-broken"]);
    assert!(complaint.contains("unknown field \"spec.template.spec.timeoutSecond\""), "{complaint}");
}

/// An image or bundle that is not pinned by its digest is said to be replaced.
#[test]
fn says_of_every_image_that_it_is_to_be_replaced() {
    let mut files: Vec<_> = vec!["service.yaml".into()];
    for folder in fs::read_dir("config").expect("the folder") {
        let folder = folder.expect("a folder").path();
        files.extend(fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path()));
    }
    let mut images = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let text = fs::read_to_string(file).expect("a file");
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let value = line.trim().trim_start_matches("- ");
            let Some((_, reference)) = value.split_once(": ").filter(|(key, _)| ["image", "value"].contains(key))
            else {
                continue;
            };
            // A name in a registry; not a param, nor the image that a template builds.
            let is_image = value.starts_with("image: ") || reference.contains("/bundle:");
            if !is_image || reference.contains("$(") || reference.contains("@sha256:") {
                continue;
            }
            images += 1;
            let comment =
                lines.get(index.wrapping_sub(1)).is_some_and(|line| line.contains("# ") && line.contains("eplace it"));
            assert!(comment, "{}:{}: {line}", file.display(), index + 1);
        }
    }
    assert!(images >= 6, "{images}");
}
