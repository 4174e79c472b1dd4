//! The service with a real kube-apiserver, and a token that may only create PipelineRuns.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Method, StatusCode};

use crate::support::control_plane::{own, shared, without_admission};
use crate::support::service::{LOGGED, Setup, TEMPLATE};
use crate::support::webhook::{SHA, headers, merged};

#[tokio::test(flavor = "multi_thread")]
async fn creates_run_once_and_answers_redelivery_as_duplicate() {
    let Some(plane) = shared() else { return };
    plane.namespace("created");
    let service = Setup::cluster(&plane.trigger_account("created")).start();

    let payload = merged("acme/web", 5, SHA);
    let reply = service.merge("d1", &payload).await;
    assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::CREATED, "created"), "{}", service.log.text());
    let run = reply.json()["pipelineRuns"][0].clone();
    assert_eq!(run["namespace"], "created");

    let runs = plane.runs("created");
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0]["metadata"]["name"], run["name"]);
    assert_eq!(runs[0]["spec"]["params"][0]["value"], SHA);
    assert_eq!(runs[0]["metadata"]["managedFields"][0]["manager"], "github-trigger");
    assert_eq!(runs[0]["metadata"]["annotations"]["github-trigger.dev/delivery-id"], "d1");

    // Another delivery of the same merge, for example from a webhook of the organisation.
    for delivery in ["d1", "d2"] {
        let again = service.merge(delivery, &payload).await;
        assert_eq!((again.status, again.outcome().as_str()), (StatusCode::OK, "duplicate"));
        assert_eq!(again.json()["pipelineRuns"][0], run);
    }
    assert_eq!(plane.runs("created").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_deliveries_of_one_merge_at_once_create_one_run() {
    let Some(plane) = shared() else { return };
    plane.namespace("twenty");
    let service = Setup::cluster(&plane.trigger_account("twenty")).start();
    let payload = merged("acme/web", 6, SHA);
    let deliveries: Vec<String> = (0..20).map(|index| format!("d{index}")).collect();
    let replies = join_all(deliveries.iter().map(|delivery| service.merge(delivery, &payload))).await;
    let count = |outcome: &str| replies.iter().filter(|reply| reply.outcome() == outcome).count();
    assert_eq!((count("created"), count("duplicate")), (1, 19));
    assert_eq!(plane.runs("twenty").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_run_per_template_and_completes_partial_success_on_redelivery() {
    let Some(plane) = shared() else { return };
    plane.namespace("several");
    let kubeconfig = plane.trigger_account("several");
    let elsewhere = TEMPLATE.replace("generateName: build-", "name: deploy\n  namespace: several-elsewhere");
    let both = format!("{TEMPLATE}---{elsewhere}");
    let service = Setup::cluster(&kubeconfig).template(&both).arg("--deadline=2").start();

    let payload = merged("acme/web", 7, SHA);
    let reply = service.merge("d1", &payload).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", service.log.text());
    assert_eq!(reply.json()["pipelineRuns"].as_array().map(Vec::len), Some(1), "{}", reply.body);
    assert_eq!(plane.runs("several").len(), 1);

    plane.namespace("several-elsewhere");
    plane.allow("several:github-trigger", "several-elsewhere");
    let reply = service.merge("d1", &payload).await;
    assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::CREATED, "created"), "{}", service.log.text());
    assert_eq!(reply.json()["pipelineRuns"].as_array().map(Vec::len), Some(2));
    assert_eq!((plane.runs("several").len(), plane.runs("several-elsewhere").len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_unknown_fields_of_template() {
    let Some(plane) = shared() else { return };
    plane.namespace("strict");
    let template = format!("{TEMPLATE}  taskRunTemplate:\n    podTemplate:\n      nodeSelectors: {{}}\n");
    let service = Setup::cluster(&plane.trigger_account("strict")).template(&template).start();
    let reply = service.merge("d1", &merged("acme/web", 8, SHA)).await;
    assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"));
    assert!(!reply.body.contains("nodeSelectors"), "the answer quotes the template: {}", reply.body);
    let line = service.log.wait_for("outcome=invalid", LOGGED);
    assert!(
        line.contains("ERROR") && line.contains("unknown field \"spec.taskRunTemplate.podTemplate.nodeSelectors\""),
        "{line}"
    );
    assert_eq!(plane.runs("strict").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_503_and_logs_missing_permission() {
    let Some(plane) = shared() else { return };
    plane.namespace("norights");
    let service = Setup::cluster(&plane.account("norights", "stranger")).start();
    let reply = service.merge("d1", &merged("acme/web", 9, SHA)).await;
    assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    assert!(reply.headers.contains_key("retry-after"));
    assert!(!reply.body.contains("stranger"), "the answer quotes the API server: {}", reply.body);
    let line = service.log.wait_for("outcome=unavailable", LOGGED);
    assert!(line.contains("User \"system:serviceaccount:norights:stranger\" cannot create resource"), "{line}");
    assert!(line.contains("the Role needs the verb create"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_503_and_logs_missing_namespace() {
    let Some(plane) = shared() else { return };
    plane.namespace("nowhere-from");
    let kubeconfig = plane.account("nowhere-from", "everywhere");
    plane.kubectl(&["create", "clusterrole", "everywhere", "--verb=create", "--resource=pipelineruns.tekton.dev"]);
    let account = "--serviceaccount=nowhere-from:everywhere";
    plane.kubectl(&["create", "clusterrolebinding", "everywhere", "--clusterrole=everywhere", account]);
    plane.wait_until_allowed("nowhere-from:everywhere", "nowhere");
    let service = Setup::cluster(&kubeconfig).arg("--namespace=nowhere").start();
    let reply = service.merge("d1", &merged("acme/web", 10, SHA)).await;
    assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    let line = service.log.wait_for("outcome=unavailable", LOGGED);
    assert!(line.contains("namespaces \"nowhere\" not found"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_503_if_token_is_invalid() {
    let Some(plane) = shared() else { return };
    plane.namespace("unknown");
    let kubeconfig = plane.trigger_account("unknown");
    let broken = std::fs::read_to_string(&kubeconfig).expect("a kubeconfig").replace("\"token\":\"", "\"token\":\"x");
    std::fs::write(&kubeconfig, broken).expect("a kubeconfig");
    let service = Setup::cluster(&kubeconfig).start();
    let reply = service.merge("d1", &merged("acme/web", 11, SHA)).await;
    assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    let line = service.log.wait_for("outcome=unavailable", LOGGED);
    assert!(line.contains("401 Unauthorized"), "{line}");
}

/// Kills the API server under load: every acknowledged merge has its run, and every other one can be redelivered.
#[tokio::test(flavor = "multi_thread")]
async fn loses_no_acknowledged_merge_when_api_server_is_killed() {
    let Some(mut plane) = own() else { return };
    plane.namespace("crash");
    let service = Setup::cluster(&plane.trigger_account("crash")).arg("--deadline=3").start();
    let deliver = async |number: u64| {
        let body = merged("acme/web", number, SHA).to_string().into_bytes();
        let reply = service.try_post(&headers("pull_request", &format!("d{number}"), &body), &body).await;
        reply.unwrap_or_else(|| panic!("a delivery was not answered:\n{}", service.log.text()))
    };

    let sending = async {
        let mut replies = Vec::new();
        for batch in 0..16 {
            let numbers: Vec<u64> = (batch * 10..batch * 10 + 10).collect();
            let answers = join_all(numbers.iter().map(|&number| deliver(number))).await;
            replies.extend(numbers.into_iter().zip(answers));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        replies
    };
    let crashing = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            tokio::task::block_in_place(|| plane.kill_api_server());
            tokio::time::sleep(Duration::from_millis(400)).await;
            plane.start_api_server();
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
    };
    let (replies, ()) = tokio::join!(sending, crashing);
    plane.wait_until_ready();

    let (acknowledged, refused): (Vec<_>, Vec<_>) =
        replies.into_iter().partition(|(_, reply)| reply.status.is_success());
    assert!(!acknowledged.is_empty() && !refused.is_empty(), "{} and {}", acknowledged.len(), refused.len());
    for (number, reply) in &refused {
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{number}: {}", reply.body);
    }
    let existing = |plane: &crate::support::control_plane::ControlPlane| -> BTreeSet<String> {
        let name = |run: &serde_json::Value| run["metadata"]["labels"]["github-trigger.dev/pull-request"].to_string();
        let runs = plane.runs("crash");
        let names: BTreeSet<String> = runs.iter().map(name).collect();
        assert_eq!(names.len(), runs.len(), "a merge has more than one run");
        names
    };
    let names = existing(&plane);
    for (number, _) in &acknowledged {
        assert!(names.contains(&format!("\"{number}\"")), "acknowledged, but without a run: {number}");
    }
    for (number, _) in &refused {
        assert!(deliver(*number).await.status.is_success(), "{number}:\n{}", service.log.text());
    }
    assert_eq!(existing(&plane).len(), 160);
}

#[tokio::test(flavor = "multi_thread")]
async fn is_ready_before_api_server() {
    let Some(mut plane) = own() else { return };
    plane.namespace("early");
    let kubeconfig = plane.trigger_account("early");
    plane.kill_api_server();
    let service = Setup::cluster(&kubeconfig).arg("--deadline=1").start();
    assert_eq!(service.send(Method::GET, "/readyz", &[], b"").await.status, StatusCode::OK);
    let payload = merged("acme/web", 1, SHA);
    assert_eq!(service.merge("d1", &payload).await.status, StatusCode::SERVICE_UNAVAILABLE);
    plane.start_api_server();
    plane.wait_until_ready();
    assert_eq!(service.merge("d1", &payload).await.status, StatusCode::CREATED, "{}", service.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_being_deleted_is_not_a_duplicate() {
    let Some(plane) = shared() else { return };
    plane.namespace("deleting");
    let service = Setup::cluster(&plane.trigger_account("deleting")).arg("--deadline=1").start();
    let payload = merged("acme/web", 20, SHA);
    let name =
        service.merge("d1", &payload).await.json()["pipelineRuns"][0]["name"].as_str().expect("a name").to_owned();
    let run = format!("pipelineruns.tekton.dev/{name}");
    let finalizers = |list: &str| format!(r#"{{"metadata":{{"finalizers":{list}}}}}"#);
    plane.kubectl(&["patch", &run, "-n", "deleting", "--type=merge", "-p", &finalizers(r#"["example.com/chains"]"#)]);
    plane.kubectl(&["delete", &run, "-n", "deleting", "--wait=false"]);
    let reply = service.merge("d1", &payload).await;
    assert_eq!((reply.status, reply.reason().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "being_deleted"));
    plane.kubectl(&["patch", &run, "-n", "deleting", "--type=merge", "-p", &finalizers("null")]);
    let reply = service.merge("d1", &payload).await;
    assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::CREATED, "created"), "{}", service.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminating_namespace_and_a_quota_are_unavailable_and_advise_no_role() {
    let Some(plane) = shared() else { return };
    plane.namespace("quota");
    let service = Setup::cluster(&plane.trigger_account("quota")).start();
    let quota = ["create", "quota", "runs", "--hard=count/pipelineruns.tekton.dev=0", "-n", "quota"];
    plane.kubectl(&quota);
    // No controller fills the status in here.
    let status =
        r#"{"status":{"hard":{"count/pipelineruns.tekton.dev":"0"},"used":{"count/pipelineruns.tekton.dev":"0"}}}"#;
    plane.kubectl(&["patch", "quota", "runs", "-n", "quota", "--subresource=status", "--type=merge", "-p", status]);
    let reply = service.merge("d1", &merged("acme/web", 21, SHA)).await;
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "quota_exceeded"),
        "{}",
        service.log.text()
    );

    plane.namespace("terminating");
    let service = Setup::cluster(&plane.trigger_account("terminating")).start();
    plane.kubectl(&["delete", "namespace", "terminating", "--wait=false"]);
    let reply = service.merge("d1", &merged("acme/web", 22, SHA)).await;
    assert_eq!(
        (reply.status, reply.reason().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "namespace"),
        "{}",
        service.log.text()
    );
    assert!(!service.logged().await.join("\n").contains("the Role needs"), "{}", service.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_too_large_is_invalid_at_once() {
    let Some(plane) = shared() else { return };
    plane.namespace("large");
    let kubeconfig = plane.trigger_account("large");
    // More than etcd takes, than its client sends, and than the API server reads.
    for (number, kib) in [(23, 1700), (24, 2048), (25, 3500)] {
        let template = TEMPLATE.replace("{{.Commitid}}", &"x".repeat(kib << 10));
        let service = Setup::cluster(&kubeconfig).template(&template).start();
        let reply = service.merge("d1", &merged("acme/web", number, SHA)).await;
        assert_eq!(
            (reply.status, reply.reason().as_str()),
            (StatusCode::UNPROCESSABLE_ENTITY, "object_too_large"),
            "{kib} KiB: {:?}",
            service.logged().await
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_a_rotated_ca_and_a_replaced_token_without_a_restart() {
    let Some(mut plane) = without_admission() else { return };
    plane.namespace("rotated");
    plane.trigger_account("rotated");
    let token = plane.kubectl(&["create", "token", "github-trigger", "-n", "rotated", "--duration=1h"]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "void").expect("a file");
    let service = Setup::cluster(&plane.kubeconfig_of_token_file(&file, "rotated")).start();
    let reply = service.merge("d1", &merged("acme/web", 1, SHA)).await;
    assert_eq!((reply.status, reply.reason().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "unauthorized"));

    std::fs::write(&file, token.trim()).expect("a file");
    // The file is read at most once a second; GitHub's redelivery comes later than that.
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let reply = service.merge("d1", &merged("acme/web", 1, SHA)).await;
        if reply.status == StatusCode::CREATED {
            break;
        }
        assert!(Instant::now() < end, "{}", service.log.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    plane.rotate_ca();
    let reply = service.merge("d3", &merged("acme/web", 2, SHA)).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", service.log.text());
    assert_eq!(plane.runs("rotated").len(), 2);
}
