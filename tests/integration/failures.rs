//! An API server that fails: retries, answers, and whether the answers are true.

use std::time::Duration;

use http::StatusCode;

use crate::support::fake_api::{FakeApi, Fault};
use crate::support::service::{LOGGED, Service, Setup};
use crate::support::webhook::{SHA, merged};

async fn service(fake: &FakeApi, deadline: u64) -> Service {
    Setup::cluster(&fake.kubeconfig()).arg(&format!("--deadline={deadline}")).start()
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_run_with_one_strict_post() {
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
async fn retries_temporary_errors() {
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
async fn does_not_create_run_twice_if_answer_is_lost() {
    let fake = FakeApi::start().await;
    let service = service(&fake, 8).await;
    fake.fail(Fault::CreateAndReset);
    let reply = service.merge("d1", &merged("acme/web", 1, SHA)).await;
    assert!(reply.status.is_success(), "{}", reply.body);
    assert_eq!((fake.creates().len(), fake.runs().len()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn does_not_retry_permanent_errors() {
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
        assert!(!reply.body.contains("made to fail"), "the answer quotes the API server: {}", reply.body);
        assert_eq!(fake.creates().len(), usize::try_from(count).expect("a count"), "{fault:?}");
    }
    service.log.wait_for("403 made to fail", LOGGED);
    assert_eq!(fake.runs().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn survives_largest_retry_after() {
    let api = FakeApi::start().await;
    api.fail(Fault::RetryAfter(429, u64::MAX));
    let service = Setup::cluster(&api.kubeconfig()).arg("--deadline=1").start();
    let reply = service.merge("d1", &merged("acme/web", 1, SHA)).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.message().contains("send the delivery again"), "{}", reply.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_of_something_else_than_the_api_server_is_no_run() {
    let api = FakeApi::start().await;
    let service = Setup::cluster(&api.kubeconfig()).arg("--deadline=1").start();
    for (number, (code, page)) in (1..).zip([
        (200, "<html>Sign in</html>"),
        (201, ""),
        (201, "{}"),
        (200, r#"{"status": "ok"}"#),
        (200, r#"{"kind": "Status", "status": "Success"}"#),
        (201, r#"{"kind": "PipelineRun", "metadata": {"name": "another"}}"#),
    ]) {
        api.fail_always(Some(Fault::Text(code, page)));
        let reply = service.merge("d1", &merged("acme/web", number, SHA)).await;
        assert_eq!(
            (reply.status, reply.outcome().as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            "{page}"
        );
    }
    service.log.wait_for("something else than the API server answers at its address: <html>Sign in</html>", LOGGED);
    // One such answer, and then the API server's.
    api.fail_always(None);
    api.fail(Fault::Text(200, "<html>"));
    assert_eq!(service.merge("d2", &merged("acme/web", 9, SHA)).await.outcome(), "created");
    assert_eq!(api.runs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_no_time_is_no_reason_to_hurry() {
    let api = FakeApi::start().await;
    api.fail_always(Some(Fault::RetryAfter(503, 0)));
    let service = Setup::cluster(&api.kubeconfig()).arg("--deadline=1").start();
    let reply = service.merge("d1", &merged("acme/web", 1, SHA)).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    let creates = api.creates().len();
    assert!((2..20).contains(&creates), "{creates} creates");
    service.log.wait_for("slow down", LOGGED);
}

/// Operators count ERROR lines: a failed delivery writes exactly one, however many API calls it took.
#[tokio::test(flavor = "multi_thread")]
async fn logs_one_error_line_per_failed_delivery() {
    let api = FakeApi::start().await;
    api.fail_always(Some(Fault::Reset));
    let service = Setup::cluster(&api.kubeconfig()).arg("--deadline=1").start();
    for number in [1, 2] {
        let reply = service.merge(&format!("d{number}"), &merged("acme/web", number, SHA)).await;
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(api.creates().len() > 2, "expected retries");
    let errors: Vec<String> = service.logged().await.into_iter().filter(|line| line.contains(" ERROR ")).collect();
    assert_eq!(errors.len(), 2, "{}", errors.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_within_deadline() {
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

/// A validating webhook may take ten seconds; a stuck connection must not take them all.
#[tokio::test(flavor = "multi_thread")]
async fn waits_for_slow_admission_and_races_stuck_connection() {
    let fake = FakeApi::start().await;
    let service = service(&fake, 8).await;
    fake.fail_always(Some(Fault::Hang(Duration::from_secs(4))));
    let reply = service.merge("d1", &merged("acme/web", 1, SHA)).await;
    assert!(reply.status.is_success(), "{}", reply.body);
    fake.fail_always(None);
    fake.fail(Fault::Hang(Duration::from_secs(600)));
    let reply = service.merge("d2", &merged("acme/web", 2, SHA)).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
    assert_eq!(fake.runs().len(), 2);
}

/// A second attempt may be refused because the first one is under way: a quota that it has used up, an admission that counts.
#[tokio::test(flavor = "multi_thread")]
async fn refusal_of_the_second_attempt_does_not_hide_the_first() {
    let fake = FakeApi::start().await;
    let service = service(&fake, 8).await;
    for (number, refusal) in [(1, Fault::Status(403, "Forbidden")), (2, Fault::Status(422, "Invalid"))] {
        fake.fail(Fault::Hang(Duration::from_secs(4)));
        fake.fail(refusal);
        let reply = service.merge("d1", &merged("acme/web", number, SHA)).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
    }
    // Refused, and the first one never answers.
    fake.fail(Fault::Hang(Duration::from_secs(600)));
    fake.fail(Fault::Status(422, "Invalid"));
    let reply = service.merge("d1", &merged("acme/web", 3, SHA)).await;
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", reply.body);
}
