//! The service in front of a real kube-apiserver, with a token that may create PipelineRuns and nothing else.

use http::StatusCode;

use crate::support::control_plane::shared;
use crate::support::service::Setup;
use crate::support::webhook::{SHA, merged};

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_is_created_and_its_redelivery_is_a_duplicate() {
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

    let again = service.merge("d1", &payload).await;
    assert_eq!((again.status, again.outcome().as_str()), (StatusCode::OK, "duplicate"));
    assert_eq!(again.json()["pipelineRuns"][0], run);
    assert_eq!(plane.runs("created").len(), 1);
}
