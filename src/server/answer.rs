//! What a sender is told: one status, one small JSON body, nothing that belongs into the log.

use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::reason::Reason;
use crate::delivery::DeliveryId;

/// Seconds after which a sender may try again; an API server is restarted in less.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");
/// What `/` takes.
pub(super) const ALLOWED: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// What became of a delivery; the closed set of values that answers, logs and metrics use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// At least one run was created, and all runs of this delivery exist.
    Created,
    /// All runs of this delivery existed before.
    Duplicate,
    /// Nothing to do.
    Ignored,
    /// GitHub's ping.
    Pong,
    /// Not proven.
    Rejected,
    /// Not something that this service takes.
    Refused,
    /// Proven, and not an event.
    Malformed,
    /// Proven, and no valid run can be made of it.
    Invalid,
    /// Not now; the same delivery may be sent again.
    Unavailable,
}

/// A run that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The answer to one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// What became of the delivery.
    pub outcome: Outcome,
    /// Why, in one word for metrics.
    pub code: Reason,
    /// Why, in words for the sender.
    pub reason: Option<String>,
    /// Why, in words for the operator; never sent.
    pub detail: Option<String>,
    /// The runs that exist.
    pub runs: Vec<RunRef>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pipeline_runs: &'a [RunRef],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
}

impl Answer {
    fn new(reason: Reason) -> Self {
        Self {
            status: reason.status(),
            outcome: reason.outcome(),
            code: reason,
            reason: None,
            detail: None,
            runs: Vec::new(),
        }
    }

    fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    fn detailed(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    fn with_runs(self, runs: Vec<RunRef>) -> Self {
        Self { runs, ..self }
    }

    /// Runs were created.
    pub fn created(runs: Vec<RunRef>) -> Self {
        Self::new(Reason::Created).with_runs(runs)
    }

    /// Every run existed.
    pub fn duplicate(runs: Vec<RunRef>) -> Self {
        Self::new(Reason::Existed).with_runs(runs)
    }

    /// The answer to a ping.
    pub fn pong() -> Self {
        Self::new(Reason::Ping)
    }

    /// What it is, and why, in words for everybody: nothing to do, refused for its form, or no event.
    pub fn told(reason: Reason, words: impl Into<String>) -> Self {
        Self::new(reason).because(words)
    }

    /// Not proven by its signature or token, or by somebody who may not send; the sender learns no more than which.
    pub fn rejected(reason: Reason, detail: impl Into<String>) -> Self {
        let word = match reason {
            Reason::Subject => "subject",
            Reason::TokenMissing | Reason::TokenMalformed | Reason::TokenKey | Reason::TokenInvalid => "token",
            _ => "signature",
        };
        Self::new(reason).because(word).detailed(detail)
    }

    /// No valid run can be made of it; runs of other templates may exist.
    pub fn invalid(reason: Reason, detail: impl Into<String>, runs: Vec<RunRef>) -> Self {
        Self::new(reason)
            .because("no valid PipelineRun can be made of this event; the service's log says why")
            .detailed(detail)
            .with_runs(runs)
    }

    /// Not now; runs of some templates may exist, and sending it again is safe.
    pub fn unavailable(reason: Reason, words: &'static str, detail: impl Into<String>, runs: Vec<RunRef>) -> Self {
        Self::new(reason).because(words).detailed(detail).with_runs(runs)
    }

    /// The words for the log: the operator's if there are any.
    pub fn explanation(&self) -> Option<&str> {
        self.detail.as_deref().or(self.reason.as_deref())
    }

    /// The HTTP response.
    pub fn respond(&self, delivery: Option<&DeliveryId>, dry_run: bool) -> Response {
        let proven = !matches!(self.outcome, Outcome::Rejected | Outcome::Refused);
        let body = Body {
            outcome: self.outcome,
            reason: self.reason.as_deref(),
            delivery_id: delivery.filter(|_| proven).map(DeliveryId::as_str),
            pipeline_runs: &self.runs,
            dry_run,
        };
        // Strings and lists of strings always serialise.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.status, [(CONTENT_TYPE, "application/json")], body).into_response();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                response.headers_mut().insert(ALLOW, ALLOWED);
            }
            _ => {}
        }
        response
    }
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 9] = [
        Self::Created,
        Self::Duplicate,
        Self::Ignored,
        Self::Pong,
        Self::Rejected,
        Self::Refused,
        Self::Malformed,
        Self::Invalid,
        Self::Unavailable,
    ];

    /// The outcome's name in answers, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Pong => "pong",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}
