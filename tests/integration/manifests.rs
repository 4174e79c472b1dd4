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
