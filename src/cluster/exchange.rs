//! One request to the API server and its answer, read to the end so that the connection can be used again.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use kube::core::Status;

/// No answer that is read here is longer.
const MAX_ANSWER: usize = 4 << 20;

/// An answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// The pause that the API server asks for.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// A request with a body of JSON, or of one of JSON's patch formats; without one if `content_type` is empty.
pub(super) fn request(
    method: Method,
    uri: &str,
    content_type: &'static str,
    body: Vec<u8>,
) -> Result<Request<Body>, String> {
    // Keys are application/jwk-set+json, and only that.
    let accepted = "application/json, application/jwk-set+json";
    let mut request = Request::builder().method(method).uri(uri).header(header::ACCEPT, accepted);
    if !content_type.is_empty() {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    request.body(Body::from(body)).map_err(|error| error.to_string())
}

/// Sends a request.
///
/// # Errors
/// When there is no whole answer.
pub(super) async fn exchange(client: &Client, request: Request<Body>) -> Result<Reply, String> {
    let response = client.send(request).await.map_err(|error| chain(&error))?;
    let (head, body) = response.into_parts();
    let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(Reply { status: head.status, retry_after: retry_after.map(Duration::from_secs), body })
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
