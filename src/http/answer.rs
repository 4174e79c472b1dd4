//! The answer to one delivery: a reason, a message for the sender, details for the log, and the runs that exist.

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::outcome::{Outcome, RETRY_AFTER_SECONDS, Reason};
use crate::delivery::DeliveryId;

/// Methods of `/`.
pub(super) const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// Longest sentence in bytes: it may quote what senders and authors have written.
const MAX_SENTENCE: usize = 8 << 10;

/// A run that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RunRef {
    /// Namespace of the run.
    pub(super) namespace: String,
    /// Name of the run.
    pub(super) name: String,
}

/// The answer to one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    reason: Reason,
    message: Option<String>,
    detail: Option<String>,
    runs: Vec<RunRef>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pipeline_runs: &'a [RunRef],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

impl Answer {
    /// An answer with the message of the table.
    pub(super) fn new(reason: Reason) -> Self {
        Self { reason, message: None, detail: None, runs: Vec::new() }
    }

    /// With a more precise message, for the sender and the log. It must hold nothing secret.
    pub(super) fn with_message(self, message: impl ToString) -> Self {
        Self { message: Some(sentence(message.to_string())), ..self }
    }

    /// With details for the log only.
    pub(super) fn with_detail(self, detail: impl ToString) -> Self {
        Self { detail: Some(sentence(detail.to_string())), ..self }
    }

    /// With the runs that exist.
    pub(super) fn with_runs(self, runs: Vec<RunRef>) -> Self {
        Self { runs, ..self }
    }

    /// Why it is the answer.
    pub(super) fn reason(&self) -> Reason {
        self.reason
    }

    /// The runs that exist.
    pub(super) fn runs(&self) -> &[RunRef] {
        &self.runs
    }

    /// The sentence for the log: the details, else the message. `None` for a success.
    pub(super) fn explanation(&self) -> Option<&str> {
        self.detail.as_deref().or(Some(self.message())).filter(|text| !text.is_empty())
    }

    fn message(&self) -> &str {
        self.message.as_deref().unwrap_or(self.reason.message())
    }

    /// The HTTP response with a JSON body.
    pub(super) fn to_response(&self, delivery: Option<&DeliveryId>, dry_run: bool) -> Response {
        let reason = self.reason;
        // The outcome of a success says it all.
        let is_success = matches!(reason.outcome(), Outcome::Created | Outcome::Duplicate | Outcome::Pong);
        let body = Body {
            outcome: reason.outcome(),
            reason: (!is_success).then(|| reason.code()),
            message: self.message(),
            delivery_id: delivery.filter(|_| reason.is_authenticated()).map(DeliveryId::as_str),
            pipeline_runs: &self.runs,
            dry_run,
        };
        // Strings and lists of strings always serialise.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (reason.status(), [(CONTENT_TYPE, "application/json")], body).into_response();
        match reason.status() {
            StatusCode::SERVICE_UNAVAILABLE => {
                response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                response.headers_mut().insert(ALLOW, ALLOWED_METHODS);
            }
            _ => {}
        }
        response
    }
}

fn sentence(text: String) -> String {
    if text.len() <= MAX_SENTENCE { text } else { format!("{}...", cut(&text, MAX_SENTENCE)) }
}

/// The beginning of a text, at most `limit` bytes, at the boundary of a character.
pub(super) fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_long_sentences_between_characters() {
        let answer = |text: &str| Answer::new(Reason::Payload).with_message(text);
        assert_eq!(answer("short").explanation(), Some("short"));
        let long = answer(&"ä".repeat(MAX_SENTENCE));
        assert_eq!(long.explanation(), Some(format!("{}...", "ä".repeat(MAX_SENTENCE / 2)).as_str()));
    }
}
