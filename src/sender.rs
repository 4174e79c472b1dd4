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
    /// The file is blank, or the folder has no secret.
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
    /// The service at `url`; `ca` is a file with the certificates to trust instead of the system's, `secret` a file or a mounted
    /// folder. Nothing is sent yet. Call it inside a runtime.
    /// Fails when the secret cannot be read, or the address or the CA file is not valid.
    pub(crate) fn new(url: &str, ca: Option<&Path>, secret: Option<&Path>) -> Result<Self, SendError> {
        Ok(Self { key: secret.map(read_key).transpose()?, server: Server::new(url, ca)? })
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

/// Reads a secret from its file, or the first one in a mounted folder: the service accepts each of them.
fn read_key(path: &Path) -> Result<Key, SendError> {
    let failed = |source| SendError::Secret { path: path.to_owned(), source };
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(failed)?;
        files = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|file| is_secret_file(file)).collect();
        files.sort();
    }
    for file in files {
        let content = fs::read(&file).map_err(failed)?;
        let secret = content.strip_suffix(b"\n").map_or(&*content, |line| line.strip_suffix(b"\r").unwrap_or(line));
        if !secret.trim_ascii().is_empty() {
            return Ok(Key::new(secret));
        }
    }
    Err(SendError::EmptySecret(path.to_owned()))
}

/// Whether a file of a mounted Secret is one of its keys: the kubelet's own entries begin with a dot.
fn is_secret_file(file: &Path) -> bool {
    file.is_file() && file.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
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
