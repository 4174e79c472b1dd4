//! One call of the API server, through kube's client: its configuration, credentials, TLS and proxies.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, ApiErrorKind};
use crate::telemetry::metrics::{Counters, Labels, Registry};
use crate::telemetry::trace::TraceContext;

/// A connection inside a cluster is made in milliseconds or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer that is read.
const MAX_ANSWER: usize = 4 << 20;
/// Keys come as `application/jwk-set+json`, everything else as JSON.
const ACCEPT: HeaderValue = HeaderValue::from_static("application/json, application/jwk-set+json");

/// Why there is no API server to talk to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Neither a kubeconfig nor a pod's service account.
    #[error("no Kubernetes to create runs in: {0}; run in a pod, set KUBECONFIG, or use --dry-run")]
    Infer(#[from] Box<kube::config::InferConfigError>),
    /// A certificate, token, address or proxy in the configuration is unusable.
    #[error("the Kubernetes configuration cannot be used: {}", crate::telemetry::chain(.0))]
    Client(#[from] Box<kube::Error>),
}

/// The result of a call, as a label: `ok` or the kind of failure.
struct CallResult(Option<ApiErrorKind>);

impl Labels<1> for CallResult {
    const NAMES: [&'static str; 1] = ["result"];

    fn values(&self) -> [&'static str; 1] {
        [self.0.map_or("ok", ApiErrorKind::code)]
    }

    fn all() -> Vec<Self> {
        ApiErrorKind::ALL.iter().copied().map(Some).chain([None]).map(Self).collect()
    }
}

/// A request to the API server.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Path and query.
    pub(super) uri: String,
    /// Media type of the body; empty without a body.
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
    /// The trace that the call belongs to.
    pub(super) trace: Option<&'a TraceContext>,
}

/// A client of the API server that counts its calls; cheap to clone.
#[derive(Clone)]
pub(super) struct ApiClient {
    client: Client,
    calls: Counters<CallResult, 1>,
}

impl ApiClient {
    /// Reads the kubeconfig or the pod's service account; nothing is sent yet. Registers
    /// `github_trigger_api_calls_total`.
    ///
    /// Returns the client and the namespace that the configuration names.
    /// Fails when there is no configuration, or it cannot be used.
    pub(super) async fn connect(registry: &Registry) -> Result<(Self, String), ConfigError> {
        let mut config = Config::infer().await.map_err(Box::new)?;
        if config.cluster_url.scheme_str() == Some("http") {
            // There is no TLS to verify, but building a verifier fails on an image without certificates.
            config.accept_invalid_certs = true;
        }
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // kube's own retries do not know our deadline.
        config.default_retry = false;
        let client = ClientBuilder::try_from(config).map_err(Box::new)?.build();
        let namespace = client.default_namespace().to_owned();
        let calls = registry.counters("api_calls_total", "Calls of the API server by their result.");
        Ok((Self { client, calls }, namespace))
    }

    /// A client for tests.
    #[cfg(test)]
    pub(super) fn from_client(client: Client) -> Self {
        Self { client, calls: Registry::default().counters("api_calls_total", "Calls.") }
    }

    /// Makes a call and reads its whole answer, until `until`.
    /// Fails when the answer is not a success, or the time is over.
    pub(super) async fn send(&self, call: Call<'_>, until: Instant) -> Result<Bytes, ApiError> {
        let answer = timeout_at(until, self.exchange(call)).await.unwrap_or_else(|_| Err(ApiError::timeout()));
        self.calls.with(&CallResult(answer.as_ref().err().map(ApiError::kind))).inc();
        answer
    }

    async fn exchange(&self, call: Call<'_>) -> Result<Bytes, ApiError> {
        let mut request = Request::builder().method(call.method).uri(call.uri).header(header::ACCEPT, ACCEPT);
        if !call.content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, call.content_type);
        }
        if let Some(trace) = call.trace {
            request = request.header("traceparent", trace.traceparent());
            if let Some(state) = trace.tracestate() {
                request = request.header("tracestate", state);
            }
        }
        let request = request.body(Body::from(call.body)).map_err(kube::Error::HttpError)?;
        let (head, body) = self.client.send(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(ApiError::body)?.to_bytes();
        if head.status.is_success() {
            return Ok(body);
        }
        let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(ApiError::from_answer(head.status, retry_after, &body))
    }

    /// Opens the first connection by asking for the version, which every account may do. The result is only logged.
    pub(super) async fn open_connection(&self) {
        let request = Request::get("/version").body(Body::empty());
        let Ok(request) = request else { return };
        match self.client.send(request).await {
            Ok(answer) if answer.status() == StatusCode::OK => {
                // A connection is used again only when its answer was read.
                let _ = answer.into_body().collect_bytes().await;
            }
            Ok(answer) => tracing::debug!(status = answer.status().as_u16(), "the API server answers"),
            Err(error) => {
                tracing::warn!(error = %crate::telemetry::chain(&error), "the API server does not answer yet");
            }
        }
    }
}
