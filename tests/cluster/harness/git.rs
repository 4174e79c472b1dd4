//! A server over HTTPS that stands for GitHub's: bare repositories below a folder, served by `git http-backend`, and GitHub's
//! API.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::body::Body;
use base64::prelude::{BASE64_STANDARD, Engine};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::names::GIT;
use crate::support::github::TOKEN;
use crate::support::http::HttpClient;

/// What the server stands for.
pub struct Host {
    repositories: PathBuf,
    /// Where GitHub's API is answered.
    api: SocketAddr,
    client: HttpClient,
    /// Whether a clone needs a token.
    is_private: AtomicBool,
    /// How many of the next fetches fail.
    failing: AtomicU32,
}

impl Host {
    pub fn new(repositories: &Path, api: SocketAddr) -> Arc<Self> {
        let (is_private, failing) = (AtomicBool::new(false), AtomicU32::new(0));
        Arc::new(Self { repositories: repositories.to_owned(), api, client: HttpClient::new(), is_private, failing })
    }

    /// Asks for [`TOKEN`] from now on.
    pub fn make_private(&self) {
        self.is_private.store(true, Ordering::Relaxed);
    }

    /// Answers the next fetch with 503.
    pub fn fail_once(&self) {
        self.failing.store(1, Ordering::Relaxed);
    }

    /// Whether this fetch is to fail.
    fn fails(&self) -> bool {
        self.failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Serves until the runtime ends.
///
/// # Errors
/// If the address is in use or the certificate cannot be read.
pub async fn serve(host: &Arc<Host>, certificate: &Path, key: &Path) -> io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(certificate, key)));
    let listener = TcpListener::bind(SocketAddr::new(GIT, 443)).await?;
    let host = Arc::clone(host);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, host) = (acceptor.clone(), Arc::clone(&host));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(move |request| {
                    let host = Arc::clone(&host);
                    async move { Ok::<_, Infallible>(answer(request, &host).await) }
                });
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(())
}

fn tls(certificate: &Path, key: &Path) -> ServerConfig {
    let certificates = CertificateDer::pem_file_iter(certificate).expect("a certificate");
    let certificates = certificates.collect::<Result<Vec<_>, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    builder.with_no_client_auth().with_single_cert(certificates, key).expect("a certificate with its key")
}

async fn answer(request: Request<Incoming>, host: &Host) -> Response<Body> {
    let name = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let answered = if name == "api.github.com" {
        forward(request, host).await
    } else if host.is_private.load(Ordering::Relaxed) && !is_authenticated(request.headers()) {
        let unauthorized = Response::builder().status(401).header(header::WWW_AUTHENTICATE, "Basic realm=\"GitHub\"");
        unauthorized.body(Body::from("Repository not found.")).map_err(Into::into)
    } else if request.uri().path().ends_with("/info/refs") && host.fails() {
        Response::builder().status(503).body(Body::from("No server is available.")).map_err(Into::into)
    } else {
        backend(request, &host.repositories).await
    };
    answered.unwrap_or_else(|error| {
        let mut response = Response::new(Body::from(error.to_string()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    })
}

/// Whether a request of git has the token as its password.
fn is_authenticated(headers: &HeaderMap) -> bool {
    let basic = BASE64_STANDARD.encode(format!("x-access-token:{TOKEN}"));
    headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes() == format!("Basic {basic}").as_bytes())
}

/// Sends a request on to the API.
async fn forward(
    request: Request<Incoming>,
    host: &Host,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .filter(|(name, _)| ![header::HOST, header::CONTENT_LENGTH].contains(name))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let reply = host.client.send(head.method, host.api, path, &headers, body).await?;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        if ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING].contains(name) {
            response = response.header(name, value);
        }
    }
    Ok(response.body(Body::from(reply.body))?)
}

/// Runs `git http-backend` as a CGI program.
async fn backend(
    request: Request<Incoming>,
    repositories: &Path,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let header = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", repositories)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", head.method.as_str())
        .env("CONTENT_TYPE", header(&head.headers, "content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header(&head.headers, "content-encoding"))
        .env("GIT_PROTOCOL", header(&head.headers, "git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1")
        // GitHub serves any commit that it knows, too.
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_CONFIG_KEY_1", "uploadpack.allowAnySHA1InWant")
        .env("GIT_CONFIG_VALUE_1", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no stdin")?;
    let written = tokio::spawn(async move { stdin.write_all(&body).await });
    let output = child.wait_with_output().await?.stdout;
    let _ = written.await;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or("git http-backend gave no answer")?;
    let mut response = Response::builder();
    for line in std::str::from_utf8(&output[..end])?.lines() {
        match line.split_once(": ") {
            Some(("Status", status)) => response = response.status(status.split(' ').next().unwrap_or_default()),
            Some((name, value)) => response = response.header(name, value),
            None => {}
        }
    }
    Ok(response.body(Body::from(output[end + 4..].to_vec()))?)
}
