use std::sync::atomic::{AtomicUsize, Ordering};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tokio::time::{advance, sleep};
use tower::BoxError;
use tower::util::BoxCloneSyncService;

use super::*;
use crate::cluster::client::{Answer, Clients};

fn answer(body: Vec<u8>) -> Response<Answer> {
    Response::new(Full::from(body).map_err(|never| match never {}).boxed_unsync())
}

/// An API server that has one key, and counts who asks for it.
#[derive(Clone, Default)]
struct Server(Arc<State>);

#[derive(Default)]
struct State {
    asked: AtomicUsize,
    key: AtomicUsize,
    down: AtomicUsize,
}

impl Server {
    fn issuer(&self) -> Issuer {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<Full<Bytes>>| {
            let server = server.clone();
            async move { Ok::<_, BoxError>(server.answer(request.uri().path()).await) }
        });
        Issuer::new(Api::new(Clients::new(move || BoxCloneSyncService::new(service.clone())), Default::default()), None)
    }

    async fn answer(&self, path: &str) -> Response<Answer> {
        sleep(Duration::from_millis(5)).await;
        if self.0.down.load(Ordering::Relaxed) != 0 {
            let mut response = answer(Vec::new());
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
        answer(body.to_string().into_bytes())
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

async fn knows(issuer: &Issuer, key: &str) -> Result<bool, KeysUnavailable> {
    let headers = headers(key);
    let token = BearerToken::of(&headers).expect("a token");
    let keys = issuer.keys_for(&token, Instant::now() + Duration::from_secs(5)).await?;
    Ok(keys.has_key_of(&token))
}

#[tokio::test(start_paused = true)]
async fn keys_are_asked_for_once() {
    let server = Server::default();
    let issuer = server.issuer();
    let verdicts = join_all((0..50).map(|_| knows(&issuer, "k0"))).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Ok(true)));
    assert_eq!(server.asked(), 1);
    advance(MAX_AGE).await;
    assert_eq!(knows(&issuer, "k0").await, Ok(true));
    assert_eq!(server.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_made_up_key_is_looked_for_once_in_a_while() {
    let server = Server::default();
    let issuer = server.issuer();
    assert_eq!(knows(&issuer, "k0").await, Ok(true));
    for _ in 0..100 {
        assert_eq!(knows(&issuer, "made-up").await, Ok(false));
    }
    assert_eq!(server.asked(), 1);
    advance(UNKNOWN_KEY_PAUSE).await;
    assert_eq!(knows(&issuer, "made-up").await, Ok(false));
    assert_eq!(server.asked(), 2);
    // A real new key is found by the first token that it signs, that much later.
    server.0.key.store(1, Ordering::Relaxed);
    assert_eq!(knows(&issuer, "k1").await, Ok(false));
    advance(UNKNOWN_KEY_PAUSE).await;
    assert_eq!(knows(&issuer, "k1").await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn without_keys_nothing_is_right_or_wrong_and_old_ones_are_better_than_none() {
    let server = Server::default();
    let issuer = server.issuer();
    server.0.down.store(1, Ordering::Relaxed);
    assert!(knows(&issuer, "k0").await.is_err());
    server.0.down.store(0, Ordering::Relaxed);
    advance(FAILURE_PAUSE).await;
    assert_eq!(knows(&issuer, "k0").await, Ok(true));
    server.0.down.store(1, Ordering::Relaxed);
    advance(MAX_AGE).await;
    assert_eq!(knows(&issuer, "k0").await, Ok(true));
}
