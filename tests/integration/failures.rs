//! An API server that fails: what is retried, what is answered, and that an answer is the truth.

use std::time::Duration;

use http::StatusCode;

use crate::support::fake_api::{FakeApi, Fault};
use crate::support::service::{Service, Setup};
use crate::support::webhook::{SHA, merged};

async fn service(fake: &FakeApi, deadline: u64) -> Service {
    Setup::cluster(&fake.kubeconfig()).arg(&format!("--deadline={deadline}")).start()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_create_is_one_strict_post() {
    let fake = FakeApi::start().await;
    let service = service(&fake, 8).await;
    let reply = service.merge("d1", &merged("acme/web", 1, SHA)).await;
    assert_eq!(reply.outcome(), "created");
    assert_eq!(
        fake.creates(),
        ["/apis/tekton.dev/v1/namespaces/builds/pipelineruns?fieldValidation=Strict&fieldManager=github-trigger"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again() {
    let fake = FakeApi::start().await;
    let service = service(&fake, 8).await;
    let faults = [
        Fault::Status(500, "InternalError"),
        Fault::Status(503, "ServiceUnavailable"),
        Fault::Status(504, "Timeout"),
        Fault::Status(409, "Conflict"),
        Fault::Text(502, "bad gateway"),
        Fault::RetryAfter(429, 1),
        Fault::Reset,
    ];
    for (number, fault) in (1..).zip(faults) {
        fake.fail(fault.clone());
        let reply = service.merge("d1", &merged("acme/web", number, SHA)).await;
        assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::CREATED, "created"), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_creation_was_not_answered_is_not_created_twice() {
    let fake = FakeApi::start().await;
    let service = service(&fake, 8).await;
    fake.fail(Fault::CreateAndReset);
    let reply = service.merge("d1", &merged("acme/web", 1, SHA)).await;
    assert!(reply.status.is_success(), "{}", reply.body);
    assert_eq!((fake.creates().len(), fake.runs().len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_pass_is_not_tried_again() {
    let fake = FakeApi::start().await;
    let service = service(&fake, 8).await;
    let cases = [
        (Fault::Status(401, "Unauthorized"), StatusCode::SERVICE_UNAVAILABLE),
        (Fault::Status(403, "Forbidden"), StatusCode::SERVICE_UNAVAILABLE),
        (Fault::Status(404, "NotFound"), StatusCode::SERVICE_UNAVAILABLE),
        (Fault::Text(404, "404 page not found"), StatusCode::SERVICE_UNAVAILABLE),
        (Fault::Status(400, "BadRequest"), StatusCode::UNPROCESSABLE_ENTITY),
        (Fault::Status(422, "Invalid"), StatusCode::UNPROCESSABLE_ENTITY),
    ];
    for (count, (fault, status)) in (1..).zip(cases) {
        fake.fail(fault.clone());
        let reply = service.merge("d1", &merged("acme/web", count, SHA)).await;
        assert_eq!(reply.status, status, "{fault:?}");
        assert!(!reply.body.contains("made to fail"), "an answer quotes no API server: {}", reply.body);
        assert_eq!(fake.creates().len(), usize::try_from(count).expect("a count"), "{fault:?}");
    }
    service.log.wait_for("403 made to fail", Duration::from_secs(5));
    assert_eq!(fake.runs().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_past_the_end_of_time_is_no_defect() {
    let api = FakeApi::start().await;
    api.fail(Fault::RetryAfter(429, u64::MAX));
    let service = Setup::cluster(&api.kubeconfig()).arg("--deadline=1").start();
    let reply = service.merge("d1", &merged("acme/web", 1, SHA)).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.message().contains("send the delivery again"), "{}", reply.body);
}

/// An operator counts ERROR lines: there is one for each delivery, however often the API server was asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_one_error_line() {
    let api = FakeApi::start().await;
    api.fail_always(Some(Fault::Reset));
    let service = Setup::cluster(&api.kubeconfig()).arg("--deadline=1").start();
    for number in [1, 2] {
        let reply = service.merge(&format!("d{number}"), &merged("acme/web", number, SHA)).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(api.creates().len() > 2, "it was asked again");
    let errors: Vec<String> = service.logged().await.into_iter().filter(|line| line.contains(" ERROR ")).collect();
    assert_eq!(errors.len(), 2, "{}", errors.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_comes_within_the_deadline() {
    let fake = FakeApi::start().await;
    let service = service(&fake, 2).await;
    for fault in [
        Fault::Hang(Duration::from_secs(60)),
        Fault::Status(503, "ServiceUnavailable"),
        Fault::RetryAfter(429, 3600),
        Fault::Reset,
    ] {
        fake.fail_always(Some(fault.clone()));
        let payload = merged("acme/web", 1, SHA);
        let answer = tokio::time::timeout(Duration::from_secs(6), service.merge("d1", &payload));
        let reply = answer.await.unwrap_or_else(|_| panic!("no answer: {fault:?}"));
        assert_eq!(
            (reply.status, reply.outcome().as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            "{fault:?}"
        );
        assert!(reply.headers.contains_key("retry-after"));
    }
    fake.fail_always(None);
    assert_eq!(service.merge("d1", &merged("acme/web", 1, SHA)).await.outcome(), "created");
}
