//! One request to the API server and its answer, read to the end so that the connection can be used again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use kube::core::Status;
use tokio::time::{Instant, timeout_at};
use tower::ServiceExt;

use super::client::{Client, Clients};
use crate::telemetry::metrics::ApiCalls;
use crate::trace::TraceContext;

/// A connection that takes longer to open is not waited for.
const OPENING: Duration = Duration::from_millis(100);
/// No answer that is read here is longer.
const MAX_ANSWER: usize = 4 << 20;
/// A longer pause is no different here, and the clock must be able to hold it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// An answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// The pause that the API server asks for.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// A request to come.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) uri: &'a str,
    /// JSON, or one of its patch formats; empty without a body.
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    /// The trace that it belongs to.
    pub(super) trace: Option<&'a TraceContext>,
}

/// An API server, and the count of its answers.
#[derive(Clone)]
pub(super) struct Api {
    clients: Arc<Clients>,
    calls: ApiCalls,
}

impl Api {
    pub(super) fn new(clients: Clients, calls: ApiCalls) -> Self {
        Self { clients: Arc::new(clients), calls }
    }

    /// Opens the calling thread's first connection by asking what everybody may ask; no delivery's call, and not counted as one. Calls that are
    /// made meanwhile wait for it, for a moment: two handshakes at once take longer than one.
    ///
    /// # Errors
    /// When there is no answer by `until`.
    pub(super) async fn probe(&self, until: Instant) -> Result<StatusCode, String> {
        let call = Call { method: Method::GET, uri: "/version", content_type: "", body: Vec::new(), trace: None };
        let line = self.clients.mine();
        let _opening = line.opening.write().await;
        in_time(exchange(line.client.clone(), call), until).await.map(|reply| reply.status)
    }

    /// Makes a call, until `until` at most.
    ///
    /// # Errors
    /// When there is no whole answer by then.
    pub(super) async fn send(&self, call: Call<'_>, until: Instant) -> Result<Reply, String> {
        let line = self.clients.mine();
        let _ = timeout_at(until.min(Instant::now() + OPENING), line.opening.read()).await;
        let answer = in_time(exchange(line.client.clone(), call), until).await;
        self.calls.count(answer.as_ref().ok().map(|reply| reply.status.as_u16()));
        answer
    }
}

async fn in_time(exchange: impl Future<Output = Result<Reply, String>>, until: Instant) -> Result<Reply, String> {
    timeout_at(until, exchange).await.unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
}

async fn exchange(client: Client, call: Call<'_>) -> Result<Reply, String> {
    // Keys are application/jwk-set+json, and only that.
    let accepted = "application/json, application/jwk-set+json";
    let mut request = Request::builder().method(call.method).uri(call.uri).header(header::ACCEPT, accepted);
    if !call.content_type.is_empty() {
        request = request.header(header::CONTENT_TYPE, call.content_type);
    }
    if let Some(trace) = call.trace {
        request = request.header("traceparent", trace.traceparent());
        if let Some(state) = trace.tracestate() {
            request = request.header("tracestate", state);
        }
    }
    let request = request.body(Full::from(call.body)).map_err(|error| error.to_string())?;
    let response = client.oneshot(request).await.map_err(|error| chain(&*error))?;
    let (head, body) = response.into_parts();
    let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| error.to_string())?.to_bytes();
    let retry_after = retry_after.map(|seconds: u64| Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    Ok(Reply { status: head.status, retry_after, body })
}

impl Reply {
    /// The one-word reason and the message of a failure.
    pub(super) fn failure(&self) -> (String, String) {
        match serde_json::from_slice::<Status>(&self.body) {
            Ok(status) => (status.reason, status.message),
            // What is no Status is for the log, and its beginning is enough.
            Err(_) => {
                let beginning = &self.body[..self.body.len().min(200)];
                (String::new(), String::from_utf8_lossy(beginning).trim().to_owned())
            }
        }
    }
}

/// An error with its causes: the outermost alone often says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    message
}
