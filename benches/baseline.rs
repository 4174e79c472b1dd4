//! What the service is compared with: axum servers that do nothing more than they must.

use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use sha2::Sha256;
use tokio::net::TcpListener;

use crate::support::webhook::SECRET;

/// `--baseline ok` or `--baseline verify`.
pub const FLAG: &str = "--baseline";

/// Starts this program again as a server on `port`.
pub fn spawn(kind: &str, port: u16) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args([FLAG, kind])
        .env("PORT", port.to_string())
        .env("TOKIO_WORKER_THREADS", "1")
        .stdout(Stdio::null())
        .spawn()
        .expect("a server")
}

/// Serves until killed.
pub fn serve(kind: &str) {
    let router = match kind {
        "verify" => Router::new().route("/", post(verify)),
        _ => Router::new().route("/", post(|| async { "ok" })),
    };
    let port: u16 = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).expect("a port");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a listener");
        axum::serve(listener, router).await.expect("a server");
    });
}

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

/// Verifies and parses, and nothing else.
async fn verify(headers: HeaderMap, body: Bytes) -> Result<String, StatusCode> {
    let signature = headers.get("x-hub-signature-256").and_then(|value| value.to_str().ok()?.strip_prefix("sha256="));
    let digest = hex::decode(signature.ok_or(StatusCode::UNAUTHORIZED)?).map_err(|_| StatusCode::UNAUTHORIZED)?;
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key").chain_update(&body);
    mac.verify_slice(&digest).map_err(|_| StatusCode::UNAUTHORIZED)?;
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
