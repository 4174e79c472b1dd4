//! The manifests, applied by the command that users type to an API server with the real CRDs.

use std::fs;
use std::process::Command;

use http::StatusCode;
use serde_json::Value;

use crate::support::control_plane::{own, shared};
use crate::support::service::{PROGRAM, Setup};
use crate::support::serving::{Serving, services};
use crate::support::webhook::{SHA, merged};

/// What a newcomer applies is enough: the service account of the manifests creates the shipped template's run.
#[tokio::test(flavor = "multi_thread")]
async fn the_direct_road_is_applied_and_works() {
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

    // A secret that was put in survives another apply.
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

/// The road of events: everything is valid, only the cluster reaches the service, and no webhook's secret is asked for.
#[test]
fn the_github_source_road_is_applied() {
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
    // Nothing that could be taken for a secret.
    assert_eq!(get("secret", "github-source", "{.data}"), "");
}

/// The pipeline's parts are valid, its Deployer has the rights that it needs and no more, and the templates give it what
/// it asks for.
#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_is_applied_and_its_deployer_can_deploy() {
    let Some(plane) = own() else { return };
    plane.namespace("github-trigger");
    let applied = plane.kubectl(&["apply", "--validate=strict", "-k", "config/tekton"]);
    for object in [
        "pipeline.tekton.dev/build-and-deploy",
        "task.tekton.dev/build-image",
        "task.tekton.dev/deploy",
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
    assert!(String::from_utf8_lossy(&output.stderr).contains("no right to get"), "its Role names one Service");

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
            assert_eq!(workspaces, ["source", "dockerconfig"]);
            assert_eq!(run["spec"]["taskRunSpecs"][0]["serviceAccountName"], "deployer");
        }
    }
    // No param is ever part of a script.
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

fn names(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str())
}

#[test]
fn the_sample_application_is_applied() {
    let Some(plane) = shared() else { return };
    plane.namespace("sample");
    let created =
        plane.kubectl(&["create", "--validate=strict", "-f", "examples/hello-sample/service.yaml", "-n", "sample"]);
    assert!(created.contains("service.serving.knative.dev/hello-sample created"), "{created}");
}

/// What each project's own admission refuses, so that the tests above can fail.
#[test]
fn every_projects_admission_is_asked() {
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

/// The direct road, watched; and Knative's and Istio's own parts of it.
#[test]
fn the_watched_road_is_applied() {
    let Some(plane) = own() else { return };
    let applied = plane.kubectl(&["apply", "--validate=strict", "-k", "config/observability"]);
    assert!(applied.contains("service.serving.knative.dev/github-trigger created"), "{applied}");
    let args = "jsonpath={.spec.template.spec.containers[0].args}";
    let args = plane.kubectl(&["get", "ksvc", "github-trigger", "-n", "github-trigger", "-o", args]);
    assert!(args.contains("--require-sha256") && args.contains("--metrics-addr=0.0.0.0:9464"), "{args}");
    for namespace in ["knative-serving", "knative-eventing"] {
        plane.namespace(namespace);
    }
    let applied = plane.kubectl(&["apply", "--validate=strict", "-f", "config/observability/knative.yaml"]);
    assert_eq!(applied.matches("configmap/config-observability created").count(), 2, "{applied}");
}

#[test]
fn the_mesh_is_told_about_github() {
    let Some(plane) = own() else { return };
    plane.namespace("github-trigger");
    let applied = plane.kubectl(&["apply", "--validate=strict", "-k", "config/istio"]);
    assert!(applied.contains("serviceentry.networking.istio.io/github created"), "{applied}");
    assert!(applied.contains("telemetry.telemetry.istio.io/tracing created"), "{applied}");
}

#[test]
fn the_service_alone_is_applied_too() {
    let Some(plane) = shared() else { return };
    plane.namespace("kn");
    let created = plane.kubectl(&["create", "--validate=strict", "-f", "service.yaml", "-n", "kn"]);
    assert!(created.contains("service.serving.knative.dev/github-trigger created"), "{created}");
}

/// The test above can fail: the API server knows Serving's fields.
#[test]
fn a_field_that_serving_does_not_know_is_refused() {
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
