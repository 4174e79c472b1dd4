//! A small HTTP client for tests, on real sockets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that has not answered by then never does, on the busiest machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// `outcome` of the JSON body; empty if it has none.
    pub fn outcome(&self) -> String {
        self.json()["outcome"].as_str().unwrap_or_default().to_owned()
    }

    /// `message` of the JSON body; empty if it has none.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// `reason` of the JSON body; empty if it has none.
    pub fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or_default().to_owned()
    }
}

/// A client that reuses its connections.
#[derive(Clone)]
pub struct HttpClient(Client<HttpConnector, Body>);

impl HttpClient {
    pub fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// Sends one request.
    ///
    /// # Errors
    /// If there is no complete answer.
    pub async fn send(
        &self,
        method: Method,
        address: SocketAddr,
        path: &str,
        headers: &[(String, String)],
        body: impl Into<Body>,
    ) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(body.into())?;
        let exchange = async {
            let (head, body) = self.0.request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Reply { status: head.status, headers: head.headers, body: String::from_utf8_lossy(&body).into_owned() })
        };
        timeout(ANSWER_TIMEOUT, exchange).await?
    }
}

/// Writes raw bytes to a new connection, then reads as [`read_until`].
///
/// # Errors
/// If the connection cannot be opened or breaks.
pub async fn raw(address: SocketAddr, bytes: &[u8], enough: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    read_until(&mut stream, enough).await
}

/// Reads until the peer closes the connection or the text contains `enough`; an empty `enough` reads to the end.
///
/// # Errors
/// If the connection breaks before that.
pub async fn read_until(stream: &mut TcpStream, enough: &str) -> io::Result<String> {
    let mut seen = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = timeout(ANSWER_TIMEOUT, stream.read(&mut chunk)).await??;
        seen.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&seen);
        if count == 0 || (!enough.is_empty() && text.contains(enough)) {
            return Ok(text.into_owned());
        }
    }
}
