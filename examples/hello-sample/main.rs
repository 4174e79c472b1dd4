//! A small web service to build and deploy: it greets, logs, sometimes fails on purpose, and forwards trace context.
//!
//! | environment | default | meaning |
//! |---|---|---|
//! | `PORT` | 8080 | port to listen on |
//! | `TARGET` | World | name in the greeting |
//! | `FAIL_PERCENT` | 40 | percentage of requests that fail, to trigger the alert |
//! | `NEXT_URL` | | `http://` URL of a service to call for each request, in the same trace |
//!
//! Run it with `cargo run --example hello-sample` in the repository, or with `cargo run` in this folder.

use std::env;
use std::io::{self, Write};
use std::net::Ipv6Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Headers to forward: W3C trace context and baggage, and Istio's request id.
const PASSED_ON: [&str; 4] = ["traceparent", "tracestate", "baggage", "x-request-id"];
/// Maximum size of the next service's answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Settings from the environment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name in the greeting.
    pub target: String,
    /// Percentage of requests that fail, 0 to 100.
    pub fail_percent: u8,
    /// `http://` URL of a service to call for each request. `None`: no call.
    pub next: Option<String>,
    /// Name of the Knative revision (`K_REVISION`).
    pub revision: String,
}

struct App {
    settings: Settings,
    client: Client<HttpConnector, Body>,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let port = variable("PORT").and_then(|port| port.parse().ok()).unwrap_or(8080);
    let settings = Settings {
        target: variable("TARGET").unwrap_or_else(|| "World".to_owned()),
        fail_percent: variable("FAIL_PERCENT").and_then(|percent| percent.parse().ok()).unwrap_or(40),
        next: variable("NEXT_URL"),
        revision: variable("K_REVISION").unwrap_or_else(|| "hello-sample".to_owned()),
    };
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    log("INFO", &format!("{} greets {} on {}", settings.revision, settings.target, listener.local_addr()?));
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    axum::serve(listener, router(settings)).with_graceful_shutdown(stop).await
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The routes: `/` greets, `/healthz` answers `ok`.
pub fn router(settings: Settings) -> Router {
    let client = Client::builder(TokioExecutor::new()).build_http();
    Router::new()
        .route("/", get(greet))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(Arc::new(App { settings, client }))
}

async fn greet(State(app): State<Arc<App>>, headers: HeaderMap) -> (StatusCode, String) {
    let trace =
        headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(|parent| parent.split('-').nth(1));
    let trace = trace.map(|id| format!(" trace_id={id}")).unwrap_or_default();
    if fastrand::u8(..100) < app.settings.fail_percent {
        log("ERROR", &format!("request failed on purpose; see FAIL_PERCENT{trace}"));
        return (StatusCode::INTERNAL_SERVER_ERROR, "failed on purpose\n".to_owned());
    }
    let mut greeting = format!("Hello {} from {}!\n", app.settings.target, app.settings.revision);
    if let Some(next) = &app.settings.next {
        match call(&app.client, next, &headers).await {
            Ok(answer) => greeting.push_str(&answer),
            Err(error) => {
                log("ERROR", &format!("{next} does not answer: {error}{trace}"));
                return (StatusCode::BAD_GATEWAY, "the next service does not answer\n".to_owned());
            }
        }
    }
    log("INFO", &format!("greeted {}{trace}", app.settings.target));
    (StatusCode::OK, greeting)
}

/// Calls another service with the trace headers of this request, and returns its body.
async fn call(
    client: &Client<HttpConnector, Body>,
    url: &str,
    headers: &HeaderMap,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut request = Request::get(url);
    for name in PASSED_ON {
        for value in headers.get_all(name) {
            request = request.header(name, value);
        }
    }
    let answer = client.request(request.body(Body::empty())?).await?;
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Writes one line to stderr: `2026-11-22 12:00:00 LEVEL message`, in UTC.
fn log(level: &str, message: &str) {
    let line = message.replace(['\n', '\r'], " ");
    let _ = writeln!(io::stderr().lock(), "{} {level} {line}", Timestamp::now().strftime("%Y-%m-%d %H:%M:%S"));
}
