use std::sync::atomic::{AtomicUsize, Ordering};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::time::{advance, sleep};

use super::*;

/// An API server with one key; counts the reads of its keys.
#[derive(Clone, Default)]
struct Server(Arc<State>);

#[derive(Default)]
struct State {
    asked: AtomicUsize,
    key: AtomicUsize,
    down: AtomicUsize,
}

impl Server {
    fn issuer(&self) -> TokenIssuer {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, tower::BoxError>(server.answer(request.uri().path()).await) }
        });
        TokenIssuer::new(ApiClient::from_client(Client::new(service, "default")), None)
    }

    async fn answer(&self, path: &str) -> Response<Body> {
        sleep(Duration::from_millis(5)).await;
        if self.0.down.load(Ordering::Relaxed) != 0 {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return response;
        }
        let body = match path {
            DISCOVERY => json!({"issuer": "https://issuer", "jwks_uri": "https://10.0.0.1:6443/openid/v1/jwks"}),
            KEYS => {
                self.0.asked.fetch_add(1, Ordering::Relaxed);
                let id = format!("k{}", self.0.key.load(Ordering::Relaxed));
                json!({"keys": [{"kty": "RSA", "kid": id, "n": "AQAB", "e": "AQAB"}]})
            }
            other => panic!("{other}"),
        };
        Response::new(Body::from(body.to_string().into_bytes()))
    }

    fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }
}

fn headers(key: &str) -> HeaderMap {
    let encode = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
    let token = format!("{}.{}.x", encode(json!({"alg": "RS256", "kid": key}).to_string()), encode("{}".to_owned()));
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).expect("a value"));
    headers
}

async fn knows(issuer: &TokenIssuer, key: &str) -> Option<bool> {
    let headers = headers(key);
    let token = BearerToken::from_headers(&headers).expect("a token");
    let keys = issuer.keys_for(&token, Instant::now() + Duration::from_secs(5)).await.ok()?;
    Some(keys.has_key_of(&token))
}

#[tokio::test(start_paused = true)]
async fn caches_keys_until_maximum_age() {
    let server = Server::default();
    let issuer = server.issuer();
    let verdicts = join_all((0..50).map(|_| knows(&issuer, "k0"))).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Some(true)));
    assert_eq!(server.asked(), 1);
    advance(MAX_AGE).await;
    assert_eq!(knows(&issuer, "k0").await, Some(true));
    assert_eq!(server.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn limits_reads_for_unknown_keys() {
    let server = Server::default();
    let issuer = server.issuer();
    assert_eq!(knows(&issuer, "k0").await, Some(true));
    let begun = Instant::now();
    let verdicts = join_all((0..100).map(|_| knows(&issuer, "made-up"))).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Some(false)));
    assert_eq!(server.asked(), 2);
    for _ in 0..4 {
        assert_eq!(knows(&issuer, "made-up").await, Some(false));
    }
    assert_eq!(server.asked(), 6);
    assert!(begun.elapsed() >= READ_INTERVAL * 5);
}

#[tokio::test(start_paused = true)]
async fn finds_a_rotated_key_while_a_stranger_asks_for_made_up_ones() {
    let server = Server::default();
    let issuer = server.issuer();
    assert_eq!(knows(&issuer, "k0").await, Some(true));
    for _ in 0..3 {
        assert_eq!(knows(&issuer, "made-up").await, Some(false));
    }
    server.0.key.store(1, Ordering::Relaxed);
    let (stranger, rotated) = tokio::join!(knows(&issuer, "made-up"), knows(&issuer, "k1"));
    assert_eq!((stranger, rotated), (Some(false), Some(true)));
}

#[tokio::test(start_paused = true)]
async fn does_not_refuse_an_unknown_key_while_keys_cannot_be_read() {
    let server = Server::default();
    let issuer = server.issuer();
    assert_eq!(knows(&issuer, "k0").await, Some(true));
    server.0.down.store(1, Ordering::Relaxed);
    assert_eq!(knows(&issuer, "k1").await, None);
    assert_eq!(knows(&issuer, "k0").await, Some(true));
    server.0.key.store(1, Ordering::Relaxed);
    server.0.down.store(0, Ordering::Relaxed);
    assert_eq!(knows(&issuer, "k1").await, Some(true));
}

#[tokio::test(start_paused = true)]
async fn keeps_expired_keys_while_api_server_is_unavailable() {
    let server = Server::default();
    let issuer = server.issuer();
    server.0.down.store(1, Ordering::Relaxed);
    assert_eq!(knows(&issuer, "k0").await, None);
    server.0.down.store(0, Ordering::Relaxed);
    assert_eq!(knows(&issuer, "k0").await, Some(true));
    server.0.down.store(1, Ordering::Relaxed);
    advance(MAX_AGE).await;
    assert_eq!(knows(&issuer, "k0").await, Some(true));
}
