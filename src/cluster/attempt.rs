//! One POST to the API server and what its answer means.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use kube::core::Status;

use super::{Creation, chain};
use crate::template::PipelineRun;

/// Who we are in an object's `managedFields`.
const FIELD_MANAGER: &str = "github-trigger";
/// Of an answer we want a message, not megabytes.
const MAX_ANSWER: usize = 4 << 20;

/// Whether the API server is to keep what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is.
    Create,
    /// It only says whether it would.
    DryRun,
}

/// What one POST came to.
pub(super) enum Attempt {
    /// The run exists.
    Done(Creation),
    /// The object is invalid.
    Invalid(String),
    /// Another try would be answered the same.
    Refused(String),
    /// Another try may succeed, after a pause if the API server asks for one.
    Later { message: String, after: Option<Duration> },
}

/// Posts the run once, strictly: an unknown field is an error instead of being dropped.
pub(super) async fn attempt(client: &Client, run: &PipelineRun, body: &[u8], mode: Mode) -> Attempt {
    let dry_run = match mode {
        Mode::Create => "",
        Mode::DryRun => "&dryRun=All",
    };
    let uri = format!(
        "/apis/tekton.dev/v1/namespaces/{}/pipelineruns?fieldValidation=Strict&fieldManager={FIELD_MANAGER}{dry_run}",
        run.namespace
    );
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(Body::from(body.to_vec()));
    let request = match request {
        Ok(request) => request,
        Err(error) => return Attempt::Invalid(error.to_string()),
    };
    let response = match client.send(request).await {
        Ok(response) => response,
        Err(error) => {
            return Attempt::Later { message: chain(&error), after: None };
        }
    };
    let (head, body) = response.into_parts();
    let after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    // Read to the end in every case, so that the connection can be used again.
    let body = Limited::new(body, MAX_ANSWER).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if head.status.is_success() {
        return Attempt::Done(Creation::Created);
    }
    let (reason, message) = match serde_json::from_slice::<Status>(&body) {
        Ok(status) => (status.reason, status.message),
        Err(_) => (String::new(), excerpt(&body)),
    };
    judge(head.status, &reason, message, after.map(Duration::from_secs))
}

/// What an answer other than success means.
fn judge(status: StatusCode, reason: &str, message: String, after: Option<Duration>) -> Attempt {
    let message = format!("{} {message}", status.as_u16());
    match status {
        StatusCode::CONFLICT if reason == "AlreadyExists" => Attempt::Done(Creation::Existed),
        // A quota that changed at the same moment, for example: nothing was created, and a second try decides.
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Attempt::Later { message, after }
        }
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
            Attempt::Invalid(message)
        }
        StatusCode::NOT_FOUND => {
            Attempt::Refused(format!("{message} (does the namespace exist, and is Tekton Pipelines installed?)"))
        }
        StatusCode::FORBIDDEN => {
            Attempt::Refused(format!("{message} (the Role needs the verb create on pipelineruns.tekton.dev)"))
        }
        status if status.is_server_error() => Attempt::Later { message, after },
        _ => Attempt::Refused(message),
    }
}

/// The beginning of an answer that is no Status, for the log.
fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned()
}
