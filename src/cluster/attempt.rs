//! One POST of a run to the API server and what its answer means.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::exchange::{Api, Call};
use super::{Creation, FIELD_MANAGER};
use crate::template::PipelineRun;
use crate::trace::TraceContext;

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
pub(super) async fn attempt(
    api: &Api,
    run: &PipelineRun,
    body: &[u8],
    mode: Mode,
    trace: Option<&TraceContext>,
    until: Instant,
) -> Attempt {
    let dry_run = match mode {
        Mode::Create => "",
        Mode::DryRun => "&dryRun=All",
    };
    let uri = format!(
        "/apis/tekton.dev/v1/namespaces/{}/pipelineruns?fieldValidation=Strict&fieldManager={FIELD_MANAGER}{dry_run}",
        run.namespace
    );
    let call = Call { method: Method::POST, uri: &uri, content_type: "application/json", body: body.to_vec(), trace };
    let reply = match api.send(call, until).await {
        Ok(reply) => reply,
        Err(message) => return Attempt::Later { message, after: None },
    };
    if reply.status.is_success() {
        return Attempt::Done(Creation::Created);
    }
    let (reason, message) = reply.failure();
    judge(reply.status, &reason, message, reply.retry_after)
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
