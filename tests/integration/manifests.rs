//! The manifests, applied by the command that users type to an API server with the real CRDs.

use std::fs;

use http::StatusCode;

use crate::support::control_plane::{own, shared};
use crate::support::service::Setup;
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

#[test]
fn the_mesh_is_told_about_github() {
    let Some(plane) = own() else { return };
    plane.namespace("github-trigger");
    let applied = plane.kubectl(&["apply", "--validate=strict", "-k", "config/istio"]);
    assert!(applied.contains("serviceentry.networking.istio.io/github created"), "{applied}");
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
