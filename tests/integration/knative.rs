//! The service among Knative's own parts: what GitHubSource's adapter and a Broker make of it, and tokens that a real API
//! server has issued.

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

/// How often a delivery with this id came.
async fn attempts(service: &Service, id: &str) -> usize {
    let needle = format!("delivery={id} ");
    service.logged().await.iter().filter(|line| line.contains(&needle)).count()
}

async fn post(peer: &Peer, headers: &[(String, String)], body: Vec<u8>) -> Reply {
    HttpClient::new().send(Method::POST, peer.address, "/", headers, body).await.expect("an answer")
}

/// A webhook for GitHubSource, which knows SHA-1 only.
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

/// Sends an event through a Broker; what its dispatcher says became of it.
async fn publish(broker: &Peer, id: &str, body: Vec<u8>) -> Value {
    let reply = post(broker, &binary(PULL_REQUEST, id), body).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    reply.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_goes_through_githubsource_into_a_run() {
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
    // GitHub's own delivery of the same merge, and the source's again.
    let direct = service.merge("d1", &merged("acme/web", 5, SHA)).await;
    assert_eq!((direct.status, direct.outcome().as_str()), (StatusCode::OK, "duplicate"));
    assert_eq!(webhook(&adapter, "d1", 5).await.status, StatusCode::ACCEPTED);
    assert_eq!(plane.runs("github-source").len(), 1);
}

/// The adapter of these tests sends what was captured from the real one, header by header.
#[tokio::test(flavor = "multi_thread")]
async fn the_adapter_sends_what_githubsource_sends() {
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
    // Parsed and written anew: no signature could match it.
    assert_ne!(event.body, payload(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn githubsource_shows_github_a_failure_and_no_secret_of_it() {
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
async fn a_broker_treats_every_status_as_it_is_meant() {
    let api = FakeApi::start().await;
    let setup = Setup::cluster(&api.kubeconfig()).arg("--cloudevents-auth=none").arg("--deadline=1");
    let service = setup.start();
    let dead = Receiver::start().await;
    let args = ["-trigger", TRIGGER, "-subscriber", &url(&service), "-dead-letter-sink", &dead.url()];
    let Some(broker) = Peer::broker(&args) else { return };

    // 2xx: once, whatever the outcome is.
    let unmerged = String::from_utf8_lossy(&payload(5)).replace("\"merged\":true", "\"merged\":false").into_bytes();
    for (id, body, code) in [("created", payload(5), 201), ("duplicate", payload(5), 200), ("ignored", unmerged, 200)] {
        let answer = publish(&broker, id, body).await;
        assert_eq!((answer["code"].as_u64(), answer["body"].as_str()), (Some(code), Some("")), "{answer}");
        assert_eq!(attempts(&service, id).await, 1, "{}", service.log.text());
    }
    assert_eq!(api.runs().len(), 1);

    // 503: again and again, until the run exists.
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
    assert!(dead.received().is_empty(), "nothing is lost so far");

    // 400 and 422: to the dead letters at once.
    let short = merged("acme/web", 7, "ec26c3e").to_string().into_bytes();
    let expanded = String::from_utf8_lossy(&payload(8)).replace("\"ref\":\"main\"", "\"ref\":\"$(x)\"").into_bytes();
    for (count, (id, body, code)) in [("malformed", short, "400"), ("invalid", expanded, "422")].into_iter().enumerate()
    {
        publish(&broker, id, body).await;
        let letters = dead.wait_for(count + 1, Duration::from_secs(10)).await;
        assert_eq!(letters.len(), count + 1);
        assert_eq!(letters[count].header("ce-id"), id);
        assert_eq!(letters[count].header("ce-knativeerrorcode"), code);
        assert_eq!(attempts(&service, id).await, 1, "{}", service.log.text());
    }

    // What the Trigger does not want does not arrive.
    let mut opened = binary(PULL_REQUEST, "opened");
    opened.retain(|(name, _)| name != "ce-action");
    opened.push(("ce-action".to_owned(), "opened".to_owned()));
    post(&broker, &opened, payload(9)).await;
    assert_eq!(attempts(&service, "opened").await, 0);
}

/// The test above can fail: a Broker does send again what was answered with JSON, and gives up in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_repeats_a_success_that_talks() {
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
async fn a_broker_takes_replies_that_are_events() {
    let api = FakeApi::start().await;
    let setup = Setup::cluster(&api.kubeconfig()).arg("--cloudevents-auth=none").arg("--reply-events");
    let service = setup.start();
    let (dead, replies) = (Receiver::start().await, Receiver::start().await);
    let (subscriber, dead_url, reply_url) = (url(&service), dead.url(), replies.url());
    let args = ["-trigger", TRIGGER, "-subscriber", &subscriber, "-dead-letter-sink", &dead_url, "-reply", &reply_url];
    let Some(broker) = Peer::broker(&args) else { return };
    for (index, outcome) in ["created", "duplicate"].into_iter().enumerate() {
        publish(&broker, "d1", payload(5)).await;
        let replies = replies.wait_for(index + 1, Duration::from_secs(10)).await;
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
async fn tokens_of_the_api_server_are_told_apart() {
    let Some(plane) = shared() else { return };
    plane.namespace("oidc");
    let kubeconfig = plane.trigger_account("oidc");
    plane.account("oidc", "merges-oidc-trigger");
    plane.account("oidc", "stranger");
    let service = oidc(&kubeconfig, "system:serviceaccount:oidc:merges-oidc-*").start();
    let token = plane.token_for("oidc", "merges-oidc-trigger", AUDIENCE);

    let reply = with_token(&service, Some(&token), 1).await;
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::CREATED, ""), "{}", service.log.text());
    assert_eq!(plane.runs("oidc").len(), 1);

    // The API server gives no token for less than ten minutes, so that an expired one is made with its key.
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
        let line = service.log.wait_for(why, Duration::from_secs(5));
        assert!(line.contains("outcome=rejected") && line.contains("delivery=d1"), "{line}");
    }
    let reply = with_token(&service, Some(&plane.token_for("oidc", "stranger", AUDIENCE)), 2).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    service.log.wait_for("system:serviceaccount:oidc:stranger is not one of --oidc-subject", Duration::from_secs(5));

    // A token is not a signature, and a signature is not a token.
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
    // With both, the one that is asked for counts.
    signed.push(("authorization".to_owned(), format!("Bearer {token}")));
    signed.iter_mut().filter(|(name, _)| name == "x-hub-signature-256").for_each(|(_, value)| value.push('0'));
    assert_eq!(service.send(Method::POST, "/", &signed, &body).await.status, StatusCode::CREATED);
    assert!(!service.log.text().contains(&token[..40]), "no token is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_an_identity_is_let_in_and_another_is_not() {
    let Some(plane) = shared() else { return };
    plane.namespace("broker-oidc");
    let kubeconfig = plane.trigger_account("broker-oidc");
    // The name that Eventing gives the account of a Trigger called `merges`.
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
    assert_eq!(dead.wait_for(1, Duration::from_secs(10)).await[0].header("ce-knativeerrorcode"), "403");
    assert_eq!(attempts(&service, "d2").await, 1);
    assert_eq!(plane.runs("broker-oidc").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_verified_as_soon_as_the_api_server_is_there() {
    let Some(mut plane) = own() else { return };
    plane.namespace("early");
    let kubeconfig = plane.trigger_account("early");
    let token = plane.token_for("early", "github-trigger", AUDIENCE);
    plane.kill_api_server();
    let service = oidc(&kubeconfig, "system:serviceaccount:early:*").arg("--deadline=2").start();
    assert_eq!(service.send(Method::GET, "/readyz", &[], b"").await.status, StatusCode::OK);
    let reply = with_token(&service, Some(&token), 1).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "neither right nor wrong: {}", reply.body);
    assert!(reply.headers.contains_key("retry-after"));
    plane.start_api_server();
    plane.wait_until_ready();
    // The API server was asked a moment ago, and is asked again a second after that.
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
