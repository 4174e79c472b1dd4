//! The HTTP client that exporters send with: the one that is in the program anyway.

use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Time for the last export at the end of the process; shorter than a pod's termination grace period.
pub(super) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// A collector that takes longer loses what it was sent.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Of an answer nobody reads more.
const MAX_ANSWER: usize = 64 << 10;

/// Sends over plain HTTP, on the runtime that it was made in, whichever thread asks for it.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Handle,
}

impl Sender {
    pub(super) fn new() -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), runtime: Handle::current() }
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        if request.uri().scheme_str() != Some("http") {
            return Err("a collector is reached by http:// only; put one into the cluster".into());
        }
        let client = self.client.clone();
        let exchange = async move {
            let response = client.request(request.map(Full::new)).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        self.runtime.spawn(async { timeout(TIMEOUT, exchange).await }).await??
    }
}
