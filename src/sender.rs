//! Posts deliveries to the service, signed, as GitHub does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use serde_json::Value;

use crate::delivery::{Delivery, Key};
use crate::remote::{RemoteError, Server};

/// The service, and the secret to sign with.
pub(crate) struct Sender {
    server: Server,
    key: Option<Key>,
}

/// The service's answer.
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its body.
    pub(crate) text: String,
    /// Its body, if that is JSON; else null.
    pub(crate) answer: Value,
}

/// Why nothing was sent, or no answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The secret's file cannot be read.
    #[error("cannot read the secret {}: {source}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The secret's file is blank.
    #[error("the secret in {} is empty; write the webhook's secret there", .0.display())]
    EmptySecret(PathBuf),
    /// No answer.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The process has no runtime.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// No HTTP request can be made of it.
    #[error("the delivery cannot be sent: {0}")]
    Request(#[from] http::Error),
}

impl Sender {
    /// The service at `url`; `ca` is a file with the certificates to trust instead of the system's. Nothing is sent yet. Call it
    /// inside a runtime.
    /// Fails when the secret cannot be read, or the address or the CA file is not valid.
    pub(crate) fn new(url: &str, ca: Option<&Path>, secret: Option<&Path>) -> Result<Self, SendError> {
        let key = secret.map(|path| {
            let content = fs::read(path).map_err(|source| SendError::Secret { path: path.to_owned(), source })?;
            let secret = content.strip_suffix(b"\n").map_or(&*content, |line| line.strip_suffix(b"\r").unwrap_or(line));
            if secret.trim_ascii().is_empty() {
                return Err(SendError::EmptySecret(path.to_owned()));
            }
            Ok(Key::new(secret))
        });
        Ok(Self { key: key.transpose()?, server: Server::new(url, ca)? })
    }

    /// Posts once, and reads the answer.
    /// Fails when there is none.
    pub(crate) async fn post(&self, mut headers: HeaderMap, body: Bytes) -> Result<Reply, SendError> {
        if let Some(key) = &self.key {
            headers.extend(key.sign(&body));
        }
        let mut request = Request::post("/").body(body)?;
        *request.headers_mut() = headers;
        let response = self.server.post(request).await?;
        let (status, text) = (response.status(), String::from_utf8_lossy(response.body()).into_owned());
        let answer = serde_json::from_str(&text).unwrap_or_default();
        Ok(Reply { status, text, answer })
    }
}

/// Headers and body as GitHub sends them.
pub(crate) fn webhook(delivery: Delivery) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static("GitHub-Hookshot/github-trigger"));
    // Of a saved delivery, GitHub's own headers go along; its old signature is replaced.
    let own = delivery.headers.iter().filter(|(name, _)| name.starts_with("x-github-"));
    for (name, value) in own {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
            headers.insert(name, value);
        }
    }
    for (name, value) in [("x-github-event", delivery.kind.as_str()), ("x-github-delivery", delivery.id.as_str())] {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    (headers, delivery.payload)
}
