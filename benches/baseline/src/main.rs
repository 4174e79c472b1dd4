//! `baseline PORT SECRET`: minimal axum handlers for comparison.
//!
//! `GET /healthz` and `POST /ok` answer `ok`. `POST /` is the upper bound: it verifies GitHub's signature, parses the
//! fields that a trigger needs, and answers.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use tokio::net::TcpListener;

#[derive(Deserialize)]
struct Payload {
    action: String,
    pull_request: PullRequest,
    repository: Repository,
}

#[derive(Deserialize)]
struct PullRequest {
    number: u64,
    merged: bool,
    merge_commit_sha: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().ok_or("no port; usage: baseline PORT SECRET")?.parse()?;
    let secret = arguments.next().ok_or("no secret; usage: baseline PORT SECRET")?;
    let key = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    let router = Router::new()
        .route("/", post(verify))
        .route("/ok", post(|| async { "ok" }))
        .route("/healthz", get(|| async { "ok" }))
        .layer(DefaultBodyLimit::disable())
        .with_state(key);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, router).await?;
    Ok(())
}

/// Verifies the signature, parses the payload, and answers with its fields.
async fn verify(State(key): State<Hmac<Sha256>>, headers: HeaderMap, body: Bytes) -> Result<String, StatusCode> {
    let signature = headers.get("x-hub-signature-256").and_then(|value| value.to_str().ok()?.strip_prefix("sha256="));
    let digest = hex::decode(signature.ok_or(StatusCode::UNAUTHORIZED)?).map_err(|_| StatusCode::UNAUTHORIZED)?;
    key.chain_update(&body).verify_slice(&digest).map_err(|_| StatusCode::UNAUTHORIZED)?;
    let payload: Payload = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(format!(
        "{} {} {} {} {:?}",
        payload.action,
        payload.repository.full_name,
        payload.pull_request.number,
        payload.pull_request.merged,
        payload.pull_request.merge_commit_sha
    ))
}
