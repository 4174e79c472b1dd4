//! Requests to a server that is not the cluster's: GitHub's API, or this service. TLS, proxies and timeouts are those of
//! kube's client, so that the program has one of each.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::proxy::matcher::Matcher;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::time::timeout;

use crate::telemetry::chain;

/// GitHub refuses requests without one.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("github-trigger/", env!("CARGO_PKG_VERSION")));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const MAX_ANSWER: usize = 32 << 20;

/// A server by its address; nothing is sent to any other.
pub(crate) struct Server {
    client: Client,
    address: Uri,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// The address is not `http://` or `https://` with a host.
    #[error("{0:?} is not an address; write https://HOST or http://HOST, with a port and a path if it has them")]
    Address(String),
    /// A CA file that cannot be read, or no certificates at all.
    #[error("cannot use TLS for {0}: {1}; are the system's CA certificates installed (SSL_CERT_FILE)?")]
    Tls(String, String),
    /// No connection, or one that broke.
    #[error("{0} does not answer: {1}")]
    Connection(String, String),
    /// No answer in time.
    #[error("{0} does not answer within {time} s", time = ANSWER_TIMEOUT.as_secs())]
    Timeout(String),
}

impl RemoteError {
    /// Whether the same request may be answered later.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Connection(..) | Self::Timeout(_))
    }
}

impl Server {
    /// Parses an address. Nothing is sent yet. `ca` is a file with the certificates to trust instead of the system's.
    /// Proxies are those of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`). Call it inside a runtime.
    /// Fails when the address or the CA file is not valid.
    pub(crate) fn new(address: &str, ca: Option<&Path>) -> Result<Self, RemoteError> {
        let invalid = || RemoteError::Address(address.to_owned());
        let uri: Uri = address.trim_end_matches('/').parse().map_err(|_| invalid())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(invalid());
        }
        let mut config = Config::new(uri.clone());
        config.proxy_url = Matcher::from_env().intercept(&uri).map(|proxy| proxy.uri().clone());
        config.root_cert_file = ca.map(Path::to_owned);
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.default_retry = false;
        // Without TLS there is nothing to verify, but building a verifier fails on an image without certificates.
        config.accept_invalid_certs = uri.scheme_str() == Some("http");
        let tls = |error: kube::Error| RemoteError::Tls(address.to_owned(), chain(&error));
        let client = ClientBuilder::try_from(config).map_err(tls)?.build();
        Ok(Self { client, address: uri })
    }

    /// Path and query of an address, below the server's own; `None` for any other server.
    pub(crate) fn path_below(&self, target: &Uri) -> Option<String> {
        let is_ours = target.scheme() == self.address.scheme() && target.authority() == self.address.authority();
        let path = target.path_and_query()?.as_str();
        let base = self.address.path().trim_end_matches('/');
        path.strip_prefix(base).filter(|path| is_ours && path.starts_with('/')).map(str::to_owned)
    }

    /// Sends a request to a path below the address, and reads its whole answer. Redirects are not followed.
    /// Fails when there is no answer.
    pub(crate) async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, RemoteError> {
        request.headers_mut().entry(header::USER_AGENT).or_insert(USER_AGENT);
        let host = self.address.authority().map(ToString::to_string).unwrap_or_default();
        let broken = |error: &(dyn Error + 'static)| RemoteError::Connection(host.clone(), chain(error));
        let exchange = async {
            let answer = self.client.send(request.map(Body::from)).await.map_err(|error| broken(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| broken(&*error))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        timeout(ANSWER_TIMEOUT, exchange).await.unwrap_or_else(|_| Err(RemoteError::Timeout(host.clone())))
    }
}
