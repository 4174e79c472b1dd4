//! Requests to a server that is not the cluster's: GitHub's API, or this service. TLS, proxies and timeouts are those of
//! kube's client, so that the program has one of each.

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::client::proxy::matcher::Matcher;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::timeout;

use crate::telemetry::chain;

/// GitHub refuses requests without one.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("github-trigger/", env!("CARGO_PKG_VERSION")));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read.
const MAX_ANSWER: usize = 32 << 20;

/// A server by its address; nothing is sent to any other.
pub(crate) struct Server {
    client: Client,
    address: Uri,
    /// Path of the address, without `/` at its end.
    base: String,
    /// ` through the proxy HOST (HTTPS_PROXY)`, if it is reached through one.
    through: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// The address is not `http://` or `https://` with a host.
    #[error("{0:?} is not an address; write https://HOST or http://HOST, with a port and a path if it has them")]
    Address(String),
    /// An address with a user or password, which would be seen in a list of processes and in logs.
    #[error("an address must not have a user or password; give the credential in a file")]
    UserInfo,
    /// A CA file that cannot be used.
    #[error("cannot use the CA certificates in {0}: {1}")]
    CaFile(String, String),
    /// No certificates at all, or an unusable proxy.
    #[error("cannot connect to {0}: {1}; are the system's CA certificates installed (SSL_CERT_FILE)?")]
    Tls(String, String),
    /// A certificate that nobody we trust has signed.
    #[error(
        "the certificate of {0} is not trusted: {1}; name the file with its CA (--github-ca-file, for send --ca-file)"
    )]
    Certificate(String, String),
    /// No connection, or one that broke.
    #[error("{0} does not answer: {1}")]
    Connection(String, String),
    /// No answer in time.
    #[error("{0} does not answer within {1} s")]
    Timeout(String, u64),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl RemoteError {
    /// Whether the same request may be answered later.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Connection(..) | Self::Timeout(..))
    }
}

impl Server {
    /// Parses an address. Nothing is sent yet. `ca` is a file with the certificates to trust instead of the system's.
    /// Proxies are those of the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`). Call it inside a runtime.
    /// Fails when the address or the CA file is not valid.
    pub(crate) fn new(address: &str, ca: Option<&Path>) -> Result<Self, RemoteError> {
        // It may be a password that makes it invalid.
        let invalid =
            || if address.contains('@') { RemoteError::UserInfo } else { RemoteError::Address(address.to_owned()) };
        let uri: Uri = address.parse().map_err(|_| invalid())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(invalid());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(RemoteError::UserInfo);
        }
        // The library would take the scheme's port instead of one that is out of range.
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str() != authority.host() && authority.port_u16().is_none())
        {
            return Err(invalid());
        }
        let origin =
            format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", Authority::as_str));
        let mut config = Config::new(origin.parse().map_err(|_| invalid())?);
        config.proxy_url = proxy(&uri);
        let through = config.proxy_url.as_ref().and_then(|proxy| {
            let host = proxy.host()?;
            let port = proxy.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
            Some(format!(" through the proxy {host}{port} (HTTPS_PROXY, NO_PROXY)"))
        });
        if let Some(file) = ca {
            config.root_cert = Some(certificates(file)?);
        }
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.default_retry = false;
        // Without TLS there is nothing to verify, but building a verifier fails on an image without certificates.
        config.accept_invalid_certs = uri.scheme_str() == Some("http");
        let tls = |error: kube::Error| RemoteError::Tls(origin.clone(), chain(&error));
        let client = ClientBuilder::try_from(config).map_err(tls)?.build();
        let base = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { client, base, address: uri, through: through.unwrap_or_default() })
    }

    /// Path and query of the address itself.
    pub(crate) fn path(&self) -> &str {
        self.address.path_and_query().map_or("/", |path| path.as_str())
    }

    /// Path and query of an address, below the server's own; `None` for any other server.
    pub(crate) fn path_below(&self, target: &Uri) -> Option<String> {
        // An address without a host is on the same one.
        let is_ours = target.authority().is_none()
            || (target.scheme() == self.address.scheme() && target.authority() == self.address.authority());
        let path = target.path_and_query()?.as_str();
        let below = path.strip_prefix(&self.base).filter(|path| path.starts_with('/'))?;
        (is_ours && !below.split(['/', '?']).any(|part| part == "..")).then(|| below.to_owned())
    }

    /// Sends a request to a path below the address, and reads its whole answer, within `limit`. Redirects are not followed.
    /// Fails when there is no answer.
    pub(crate) async fn send(
        &self,
        mut request: Request<Bytes>,
        limit: Duration,
    ) -> Result<Response<Bytes>, RemoteError> {
        let path = format!("{}{}", self.base, request.uri());
        if let Ok(uri) = path.parse() {
            *request.uri_mut() = uri;
        }
        self.exchange(request, limit).await
    }

    /// Sends a request to the address itself.
    /// Fails when there is no answer.
    pub(crate) async fn post(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, RemoteError> {
        if let Ok(uri) = self.path().parse() {
            *request.uri_mut() = uri;
        }
        self.exchange(request, ANSWER_TIMEOUT).await
    }

    async fn exchange(&self, mut request: Request<Bytes>, limit: Duration) -> Result<Response<Bytes>, RemoteError> {
        let limit = limit.clamp(Duration::from_secs(1), ANSWER_TIMEOUT);
        request.headers_mut().entry(header::USER_AGENT).or_insert(USER_AGENT);
        let host = self.address.authority().map(ToString::to_string).unwrap_or_default();
        let broken = |error: &(dyn Error + 'static)| {
            let text = chain(error);
            match text.contains("certificate") {
                true => RemoteError::Certificate(host.clone(), text),
                false => RemoteError::Connection(format!("{host}{}", self.through), text),
            }
        };
        let exchange = async {
            let answer = self.client.send(request.map(Body::from)).await.map_err(|error| broken(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| broken(&*error))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let late = || RemoteError::Timeout(host.clone(), limit.as_secs());
        timeout(limit, exchange).await.unwrap_or_else(|_| Err(late()))
    }
}

/// The environment's proxy for an address, with its user and password.
fn proxy(uri: &Uri) -> Option<Uri> {
    let proxy = Matcher::from_env().intercept(uri)?;
    let plain = proxy.uri().clone();
    // kube reads them from the address. The matcher has already decoded them.
    let Some((user, password)) = proxy.basic_auth().and_then(basic) else { return Some(plain) };
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let authority = plain.authority()?;
    format!("{}://{}:{}@{authority}", plain.scheme_str()?, encode(&user), encode(&password)).parse().ok()
}

/// User and password of a `Basic` header.
fn basic(header: &HeaderValue) -> Option<(String, String)> {
    let encoded = header.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// The certificates of a PEM file.
fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, RemoteError> {
    let invalid = |why: String| RemoteError::CaFile(file.display().to_string(), why);
    let text = fs::read_to_string(file).map_err(|error| invalid(error.to_string()))?;
    let parts = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let bodies = parts.filter_map(|part| part.split_once("-----END CERTIFICATE-----"));
    let decoded = bodies.map(|(body, _)| BASE64_STANDARD.decode(body.split_whitespace().collect::<String>()));
    let decoded = decoded.collect::<Result<Vec<_>, _>>().map_err(|_| invalid("it is not PEM".to_owned()))?;
    if decoded.is_empty() { Err(invalid("it holds no certificate".to_owned())) } else { Ok(decoded) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refuses_invalid_addresses_and_quotes_no_password() {
        for address in [
            "ftp://user:hunter2@host/",
            "user:hunter2@host.example.com",
            "https://user:hun ter2@host",
            "https://u:hunter2@h",
        ] {
            let error = Server::new(address, None).err().expect(address).to_string();
            assert!(
                !error.contains("ter2") && error.contains("must not have a user or password"),
                "{address}: {error}"
            );
        }
        for address in ["https://host:99999/", "https://host:", "http://127.0.0.1:84430/api"] {
            let error = Server::new(address, None).err().expect(address).to_string();
            assert!(error.contains("is not an address"), "{address}: {error}");
        }
        assert!(Server::new("http://[::1]:8080/x", None).is_ok());
        let error = Server::new("host.example.com", None).err().expect("an error").to_string();
        assert!(error.contains("\"host.example.com\" is not an address"), "{error}");
    }
}
