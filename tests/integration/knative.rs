//! The service with Knative's own components: GitHubSource's adapter, a Broker, and tokens that a real API server has
//! issued.

use std::fs;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::Value;

use crate::support::cloud_event::{PULL_REQUEST, binary};
use crate::support::control_plane::{own, shared};
use crate::support::fake_api::{FakeApi, Fault};
use crate::support::http::{HttpClient, Reply};
use crate::support::peers::Peer;
use crate::support::receiver::Receiver;
use crate::support::service::{LOGGED, Service, Setup};
use crate::support::tokens::{SigningKey, unsigned};
use crate::support::webhook::{SECRET, SHA, merged, sha1};

const TRIGGER: &str = "config/github-source/trigger.yaml";
const AUDIENCE: &str = "github-trigger";

fn payload(number: u64) -> Vec<u8> {
    merged("acme/web", number, SHA).to_string().into_bytes()
}

fn url(service: &Service) -> String {
    format!("http://{}/", service.address)
}

/// Number of log lines with this delivery id, one for each attempt.
async fn attempts(service: &Service, id: &str) -> usize {
    let needle = format!("delivery={id} ");
    service.logged().await.iter().filter(|line| line.contains(&needle)).count()
}

async fn post(peer: &Peer, headers: &[(String, String)], body: Vec<u8>) -> Reply {
    HttpClient::new().send(Method::POST, peer.address, "/", headers, body).await.expect("an answer")
}

/// Sends a webhook to GitHubSource's adapter, which supports only SHA-1.
async fn webhook(adapter: &Peer, id: &str, number: u64) -> Reply {
    let body = payload(number);
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("x-github-event", "pull_request".to_owned()),
        ("x-github-delivery", id.to_owned()),
        ("x-hub-signature", sha1(SECRET, &body)),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    post(adapter, &headers, body).await
}

/// Sends an event through a Broker and returns its dispatcher's result.
async fn publish(broker: &Peer, id: &str, body: Vec<u8>) -> Value {
    let reply = post(broker, &binary(PULL_REQUEST, id), body).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    reply.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_run_from_webhook_through_githubsource() {
    let Some(plane) = shared() else { return };
    plane.namespace("github-source");
    let service = Setup::cluster(&plane.trigger_account("github-source")).arg("--cloudevents-auth=none").start();
    let args = ["-sink", &url(&service), "-secret", SECRET, "-owner-and-repository", "acme/web"];
    let Some(adapter) = Peer::receive_adapter(&args) else { return };

    let reply = webhook(&adapter, "d1", 5).await;
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::ACCEPTED, "accepted"), "{}", service.log.text());
    let runs = plane.runs("github-source");
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0]["metadata"]["annotations"]["github-trigger.dev/delivery-id"], "d1");
    assert_eq!(runs[0]["spec"]["params"][0]["value"], SHA);
    // GitHub's own delivery of the same merge, then GitHubSource's again.
    let direct = service.merge("d1", &merged("acme/web", 5, SHA)).await;
    assert_eq!((direct.status, direct.outcome().as_str()), (StatusCode::OK, "duplicate"));
    assert_eq!(webhook(&adapter, "d1", 5).await.status, StatusCode::ACCEPTED);
    assert_eq!(plane.runs("github-source").len(), 1);
}

/// The adapter of these tests sends the same headers as the real one, from which they were captured.
#[tokio::test(flavor = "multi_thread")]
async fn test_adapter_sends_headers_of_githubsource() {
    let sink = Receiver::start().await;
    let args = ["-sink", &sink.url(), "-secret", SECRET, "-owner-and-repository", "acme/web"];
    let Some(adapter) = Peer::receive_adapter(&args) else { return };
    assert_eq!(webhook(&adapter, "d1", 5).await.status, StatusCode::ACCEPTED);
    let event = &sink.received()[0];
    let mut names: Vec<&str> = event.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let captured = "accept-encoding ce-action ce-id ce-installation ce-label ce-number ce-owner ce-repository ce-sender \
                    ce-source ce-specversion ce-subject ce-time ce-type content-length content-type host kn-namespace \
                    user-agent";
    assert_eq!(names.join(" "), captured);
    for (name, value) in [
        ("ce-action", "closed"),
        ("ce-id", "d1"),
        ("ce-label", ""),
        ("ce-source", "https://github.com/acme/web"),
        ("ce-subject", "5"),
        ("ce-type", PULL_REQUEST),
        ("content-type", "application/json"),
        ("user-agent", "Go-http-client/1.1"),
    ] {
        assert_eq!(event.header(name), value, "{name}");
    }
    // The adapter parses and rewrites the body, so that GitHub's signature does not match it any more.
    assert_ne!(event.body, payload(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn githubsource_reports_failure_without_details() {
    let api = FakeApi::start().await;
    let setup = Setup::cluster(&api.kubeconfig()).arg("--cloudevents-auth=none").arg("--deadline=1");
    let service = setup.start();
    let args = ["-sink", &url(&service), "-secret", SECRET, "-owner-and-repository", "acme/web"];
    let Some(adapter) = Peer::receive_adapter(&args) else { return };
    api.fail_always(Some(Fault::Status(500, "InternalError")));
    let reply = webhook(&adapter, "d1", 5).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert!(reply.body.starts_with("503: "), "{}", reply.body);
    assert!(!reply.body.contains("made to fail"), "{}", reply.body);
    api.fail_always(None);
    assert_eq!(webhook(&adapter, "d1", 5).await.status, StatusCode::ACCEPTED);
    assert_eq!(api.runs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_retries_503_and_dead_letters_400_and_422() {
    let api = FakeApi::start().await;
    let setup = Setup::cluster(&api.kubeconfig()).arg("--cloudevents-auth=none").arg("--deadline=1");
    let service = setup.start();
    let dead = Receiver::start().await;
    let args = ["-trigger", TRIGGER, "-subscriber", &url(&service), "-dead-letter-sink", &dead.url()];
    let Some(broker) = Peer::broker(&args) else { return };

    // 2xx: delivered once, for every outcome.
    let unmerged = String::from_utf8_lossy(&payload(5)).replace("\"merged\":true", "\"merged\":false").into_bytes();
    for (id, body, code) in [("created", payload(5), 201), ("duplicate", payload(5), 200), ("ignored", unmerged, 200)] {
        let answer = publish(&broker, id, body).await;
        assert_eq!((answer["code"].as_u64(), answer["body"].as_str()), (Some(code), Some("")), "{answer}");
        assert_eq!(attempts(&service, id).await, 1, "{}", service.log.text());
    }
    assert_eq!(api.runs().len(), 1);

    // 503: retried until the run exists.
    api.fail_always(Some(Fault::Status(500, "InternalError")));
    let recovery = async {
        let log = service.log.clone();
        let waiting = tokio::task::spawn_blocking(move || log.wait_for("outcome=unavailable", LOGGED));
        waiting.await.expect("a line");
        api.fail_always(None);
    };
    let (answer, ()) = tokio::join!(publish(&broker, "later", payload(6)), recovery);
    assert_eq!(answer["code"].as_u64(), Some(201), "{answer}");
    assert!(attempts(&service, "later").await >= 2, "{}", service.log.text());
    assert_eq!(api.runs().len(), 2);
    assert!(dead.received().is_empty(), "no dead letters so far");

    // 400 and 422: dead-lettered without a retry.
    let short = merged("acme/web", 7, "ec26c3e").to_string().into_bytes();
    let expanded = String::from_utf8_lossy(&payload(8)).replace("\"ref\":\"main\"", "\"ref\":\"$(x)\"").into_bytes();
    for (count, (id, body, code)) in [("malformed", short, "400"), ("invalid", expanded, "422")].into_iter().enumerate()
    {
        publish(&broker, id, body).await;
        let letters = dead.wait_for(count + 1, LOGGED).await;
        assert_eq!(letters.len(), count + 1);
        assert_eq!(letters[count].header("ce-id"), id);
        assert_eq!(letters[count].header("ce-knativeerrorcode"), code);
        assert_eq!(attempts(&service, id).await, 1, "{}", service.log.text());
    }

    // The Trigger filters out other events.
    let mut opened = binary(PULL_REQUEST, "opened");
    opened.retain(|(name, _)| name != "ce-action");
    opened.push(("ce-action".to_owned(), "opened".to_owned()));
    post(&broker, &opened, payload(9)).await;
    assert_eq!(attempts(&service, "opened").await, 0);
}

/// Checks the test above: a Broker retries an event that was answered with a JSON body, and then dead-letters it.
#[tokio::test(flavor = "multi_thread")]
async fn broker_retries_success_with_json_body() {
    let dead = Receiver::start().await;
    let talking = Receiver::answering(StatusCode::OK, "{\"outcome\":\"created\"}").await;
    let folder = tempfile::tempdir().expect("a folder");
    let trigger = folder.path().join("trigger.yaml");
    let manifest = fs::read_to_string(TRIGGER).expect("the trigger").replace("retry: 10", "retry: 1");
    fs::write(&trigger, manifest).expect("a file");
    let trigger = trigger.display().to_string();
    let args = ["-trigger", &trigger, "-subscriber", &talking.url(), "-dead-letter-sink", &dead.url()];
    let Some(broker) = Peer::broker(&args) else { return };
    publish(&broker, "d1", payload(5)).await;
    assert_eq!(talking.received().len(), 2);
    assert_eq!(dead.received()[0].header("ce-knativeerrorcode"), "502");
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_accepts_reply_events() {
    let api = FakeApi::start().await;
    let setup = Setup::cluster(&api.kubeconfig()).arg("--cloudevents-auth=none").arg("--reply-events");
    let service = setup.start();
    let (dead, replies) = (Receiver::start().await, Receiver::start().await);
    let (subscriber, dead_url, reply_url) = (url(&service), dead.url(), replies.url());
    let args = ["-trigger", TRIGGER, "-subscriber", &subscriber, "-dead-letter-sink", &dead_url, "-reply", &reply_url];
    let Some(broker) = Peer::broker(&args) else { return };
    for (index, outcome) in ["created", "duplicate"].into_iter().enumerate() {
        publish(&broker, "d1", payload(5)).await;
        let replies = replies.wait_for(index + 1, LOGGED).await;
        let reply = &replies[index];
        assert_eq!(reply.header("ce-type"), format!("dev.github-trigger.pipelinerun.{outcome}"));
        let data: Value = serde_json::from_slice(&reply.body).expect("JSON");
        assert_eq!((data["outcome"].as_str(), data["deliveryId"].as_str()), (Some(outcome), Some("d1")));
    }
    assert_eq!((attempts(&service, "d1").await, dead.received().len()), (2, 0));
}

fn oidc(kubeconfig: &std::path::Path, subject: &str) -> Setup {
    Setup::cluster(kubeconfig)
        .arg("--cloudevents-auth=oidc")
        .arg(&format!("--oidc-audience={AUDIENCE}"))
        .arg(&format!("--oidc-subject={subject}"))
}

async fn with_token(service: &Service, token: Option<&str>, number: u64) -> Reply {
    let mut headers = binary(PULL_REQUEST, "d1");
    headers.extend(token.map(|token| ("authorization".to_owned(), format!("Bearer {token}"))));
    service.send(Method::POST, "/", &headers, &payload(number)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_only_valid_tokens_of_allowed_subjects() {
    let Some(plane) = shared() else { return };
    plane.namespace("oidc");
    let kubeconfig = plane.trigger_account("oidc");
    plane.account("oidc", "merges-oidc-trigger");
    plane.account("oidc", "stranger");
    let service = oidc(&kubeconfig, "system:serviceaccount:oidc:merges-oidc-*").start();
    let token = plane.token_for("oidc", "merges-oidc-trigger", AUDIENCE);

    let reply = with_token(&service, Some(&token), 1).await;
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::CREATED, ""), "{}", service.log.text());
    let runs = plane.runs("oidc");
    assert_eq!(runs.len(), 1);
    let subject = "system:serviceaccount:oidc:merges-oidc-trigger";
    assert_eq!(runs[0]["metadata"]["annotations"]["github-trigger.dev/token-subject"], subject);
    service.log.wait_for(&format!("subject={subject}"), LOGGED);

    // The API server issues no token for less than ten minutes, so that the expired one is signed with its key here.
    let issuer_key = SigningKey::of_pem(&plane.token_key());
    let expired = issuer_key.sign_again(&token, |claims| claims["exp"] = 1_700_000_000.into());
    let elsewhere = issuer_key.sign_again(&token, |claims| claims["iss"] = "https://elsewhere.example.com".into());
    let foreign_key = SigningKey::generate().sign_again(&token, |_| ());
    let audience = plane.token_for("oidc", "merges-oidc-trigger", "somebody-else");
    let wrong = [
        (None, "no bearer token"),
        (Some(&audience), "InvalidAudience"),
        (Some(&expired), "ExpiredSignature"),
        (Some(&elsewhere), "InvalidIssuer"),
        (Some(&foreign_key), "InvalidSignature"),
        (Some(&unsigned(&token)), "malformed"),
    ];
    for (token, why) in wrong {
        let reply = with_token(&service, token.map(String::as_str), 2).await;
        assert_eq!((reply.status, reply.json()["reason"].as_str()), (StatusCode::UNAUTHORIZED, Some("token")), "{why}");
        let line = service.log.wait_for(why, LOGGED);
        assert!(line.contains("outcome=rejected") && line.contains("delivery=d1"), "{line}");
    }
    let reply = with_token(&service, Some(&plane.token_for("oidc", "stranger", AUDIENCE)), 2).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    service.log.wait_for("system:serviceaccount:oidc:stranger is not one of --oidc-subject", LOGGED);

    // A signature does not replace the token of an event, nor a token the signature of a webhook.
    let body = payload(2);
    let mut signed = binary(PULL_REQUEST, "d1");
    signed.push(("x-hub-signature-256".to_owned(), crate::support::webhook::sha256(SECRET, &body)));
    assert_eq!(service.send(Method::POST, "/", &signed, &body).await.json()["reason"], "token");
    let direct = [
        ("content-type", "application/json"),
        ("x-github-event", "pull_request"),
        ("x-github-delivery", "d1"),
        ("authorization", &format!("Bearer {token}")),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(service.send(Method::POST, "/", &direct, &body).await.json()["reason"], "signature");
    // With both, both must be right.
    signed.push(("authorization".to_owned(), format!("Bearer {token}")));
    let mut wrong = signed.clone();
    wrong.iter_mut().filter(|(name, _)| name == "x-hub-signature-256").for_each(|(_, value)| value.push('0'));
    assert_eq!(service.send(Method::POST, "/", &wrong, &body).await.json()["reason"], "signature");
    assert_eq!(service.send(Method::POST, "/", &signed, &body).await.status, StatusCode::CREATED);
    assert!(!service.log.text().contains(&token[..40]), "no token is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_broker_with_allowed_identity_only() {
    let Some(plane) = shared() else { return };
    plane.namespace("broker-oidc");
    let kubeconfig = plane.trigger_account("broker-oidc");
    // Name of the service account that Eventing creates for the Trigger `merges`.
    let account = "merges-oidc-eventing.knative.dev-trigger";
    plane.account("broker-oidc", account);
    plane.account("broker-oidc", "other");
    let service = oidc(&kubeconfig, &format!("system:serviceaccount:broker-oidc:{account}")).start();
    let dead = Receiver::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let trigger = folder.path().join("trigger.yaml");
    let manifest = fs::read_to_string(TRIGGER).expect("the trigger");
    fs::write(&trigger, manifest.replacen("  name: merges", "  name: merges\n  namespace: broker-oidc", 1))
        .expect("a file");
    let start = |account: &str| {
        Peer::broker(&[
            "-trigger",
            &trigger.display().to_string(),
            "-subscriber",
            &url(&service),
            "-dead-letter-sink",
            &dead.url(),
            "-audience",
            AUDIENCE,
            "-service-account",
            account,
            "-kubeconfig",
            &plane.admin_kubeconfig().display().to_string(),
        ])
    };
    let (Some(merges), Some(other)) = (start(account), start("other")) else { return };
    let answer = publish(&merges, "d1", payload(5)).await;
    assert_eq!(answer["code"].as_u64(), Some(201), "{answer} {}", service.log.text());
    publish(&other, "d2", payload(6)).await;
    assert_eq!(dead.wait_for(1, LOGGED).await[0].header("ce-knativeerrorcode"), "403");
    assert_eq!(attempts(&service, "d2").await, 1);
    assert_eq!(plane.runs("broker-oidc").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn verifies_tokens_once_api_server_is_reachable() {
    let Some(mut plane) = own() else { return };
    plane.namespace("early");
    let kubeconfig = plane.trigger_account("early");
    let token = plane.token_for("early", "github-trigger", AUDIENCE);
    plane.kill_api_server();
    let service = oidc(&kubeconfig, "system:serviceaccount:early:*").arg("--deadline=2").start();
    assert_eq!(service.send(Method::GET, "/readyz", &[], b"").await.status, StatusCode::OK);
    let reply = with_token(&service, Some(&token), 1).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "the token cannot be checked yet: {}", reply.body);
    assert!(reply.headers.contains_key("retry-after"));
    plane.start_api_server();
    plane.wait_until_ready();
    // The service fetches the keys again a second after the last try.
    let mut answer = with_token(&service, Some(&token), 1).await.status;
    for _ in 0..100 {
        if answer == StatusCode::CREATED {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        answer = with_token(&service, Some(&token), 1).await.status;
    }
    assert_eq!(answer, StatusCode::CREATED, "{}", service.log.text());
}
