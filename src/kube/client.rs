//! One call of the API server, through kube's client: its configuration, credentials, TLS and proxies.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::error::{ApiError, ApiErrorKind};
use crate::telemetry::metrics::{Counters, Labels, Registry};
use crate::telemetry::trace::TraceContext;

/// Timeout of one call that no delivery waits for.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection inside a cluster is made in milliseconds or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Minimum time between two attempts to read the credentials again.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// Longest answer that is read.
const MAX_ANSWER: usize = 4 << 20;
/// Keys come as `application/jwk-set+json`, everything else as JSON.
const ACCEPT: HeaderValue = HeaderValue::from_static("application/json, application/jwk-set+json");

/// Why there is no API server to talk to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// Neither a kubeconfig nor a pod's service account.
    #[error("no Kubernetes API server is configured: {0}; run in a pod, or set KUBECONFIG")]
    Infer(#[from] Box<kube::config::InferConfigError>),
    /// A proxy of another kind. Its address may have a password.
    #[error(
        "the proxy of the API server (proxy-url of the kubeconfig, HTTPS_PROXY) has the scheme {0}; http, https and socks5 work"
    )]
    Proxy(String),
    /// A certificate, token or address in the configuration is unusable.
    #[error("the Kubernetes configuration cannot be used: {}", crate::telemetry::chain(.0))]
    Client(#[from] Box<kube::Error>),
}

/// The result of a call, as a label: `ok` or the kind of failure.
struct CallResult(Option<ApiErrorKind>);

impl Labels<1> for CallResult {
    const NAMES: [&'static str; 1] = ["result"];

    fn values(&self) -> [&str; 1] {
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
    connection: Arc<Connection>,
    calls: Counters<CallResult, 1>,
}

/// kube's client, made anew when its credentials or CA no longer work.
struct Connection {
    client: ArcSwap<Client>,
    /// Time of the last attempt to make it anew; `None` for a client that cannot be.
    renewed: Option<Mutex<Instant>>,
}

impl Connection {
    /// Reads the configuration with token and certificates again, unless another call has done so since `used` was taken, or
    /// just now. Returns whether there is another client than `used`.
    async fn renew(&self, used: &Arc<Client>) -> bool {
        let Some(renewed) = &self.renewed else { return false };
        let mut renewed = renewed.lock().await;
        if !Arc::ptr_eq(&self.client.load(), used) {
            return true;
        }
        if renewed.elapsed() < RENEWAL_INTERVAL {
            return false;
        }
        *renewed = Instant::now();
        match client().await {
            Ok(client) => {
                self.client.store(Arc::new(client));
                tracing::debug!("read the credentials for the API server again");
                true
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot read the credentials for the API server again");
                false
            }
        }
    }
}

/// Makes a client from the kubeconfig or the pod's service account; nothing is sent yet.
async fn client() -> Result<Client, ConfigError> {
    let mut config = Config::infer().await.map_err(Box::new)?;
    if config.cluster_url.scheme_str() == Some("http") {
        // There is no TLS to verify, but building a verifier fails on an image without certificates.
        config.accept_invalid_certs = true;
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // kube's own retries do not know our deadline.
    config.default_retry = false;
    match ClientBuilder::try_from(config) {
        Ok(builder) => Ok(builder.build()),
        Err(kube::Error::ProxyProtocolUnsupported { proxy_url, .. }) => {
            Err(ConfigError::Proxy(proxy_url.scheme_str().unwrap_or("none").to_owned()))
        }
        Err(error) => Err(Box::new(error).into()),
    }
}

impl ApiClient {
    /// Reads the kubeconfig or the pod's service account; nothing is sent yet. Registers
    /// `github_trigger_api_calls_total`.
    ///
    /// Returns the client and the namespace that the configuration names.
    /// Fails when there is no configuration, or it cannot be used.
    pub(super) async fn connect(registry: &Registry) -> Result<(Self, String), ConfigError> {
        let client = client().await?;
        let namespace = client.default_namespace().to_owned();
        let calls = registry.counters("api_calls_total", "Calls of the API server by their result.");
        let renewed = Some(Mutex::new(Instant::now()));
        let connection = Arc::new(Connection { client: ArcSwap::from_pointee(client), renewed });
        Ok((Self { connection, calls }, namespace))
    }

    /// A client for tests.
    #[cfg(test)]
    pub(super) fn from_client(client: Client) -> Self {
        let connection = Arc::new(Connection { client: ArcSwap::from_pointee(client), renewed: None });
        Self { connection, calls: Registry::default().counters("api_calls_total", "Calls.") }
    }

    /// Makes a call and reads its whole answer, until `until`.
    /// After a 401 the credentials are read again, and the call is made once more; after a failed connection they are read
    /// for the next call, because the CA may be another.
    /// Fails when the answer is not a success, or the time is over.
    pub(super) async fn send(&self, call: Call<'_>, until: Instant) -> Result<Bytes, ApiError> {
        let attempts = async {
            let client = self.connection.client.load_full();
            let answer = Self::exchange(&client, &call).await;
            match answer.as_ref().err().map(ApiError::kind) {
                Some(ApiErrorKind::Unauthorized) if self.connection.renew(&client).await => {
                    Self::exchange(&self.connection.client.load_full(), &call).await
                }
                Some(ApiErrorKind::Transport) => {
                    self.connection.renew(&client).await;
                    answer
                }
                _ => answer,
            }
        };
        let answer = timeout_at(until, attempts).await.unwrap_or_else(|_| Err(ApiError::timeout()));
        self.calls.with(&CallResult(answer.as_ref().err().map(ApiError::kind))).inc();
        answer
    }

    async fn exchange(client: &Client, call: &Call<'_>) -> Result<Bytes, ApiError> {
        let mut request = Request::builder().method(call.method.clone()).uri(&call.uri).header(header::ACCEPT, ACCEPT);
        if !call.content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, call.content_type);
        }
        if let Some(trace) = call.trace {
            request = request.header("traceparent", trace.traceparent());
            if let Some(state) = trace.tracestate() {
                request = request.header("tracestate", state);
            }
        }
        let request = request.body(Body::from(call.body.clone())).map_err(kube::Error::HttpError)?;
        let (head, body) = client.send(request).await?.into_parts();
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
        match self.connection.client.load_full().send(request).await {
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
