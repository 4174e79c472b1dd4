//! The parts of a delivery: what is known once it is decoded, what its headers claim, and why one cannot be decoded.

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;

use super::event_kind::EventKind;
use super::headers::Headers;
use crate::team::Team;
use crate::telemetry::trace::TraceContext;

/// One authenticated delivery.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// GitHub's id of the delivery.
    pub(crate) id: DeliveryId,
    /// The event's name.
    pub(crate) kind: EventKind,
    /// The action that a CloudEvent's type names; `None` for a webhook.
    pub(crate) action: Option<String>,
    /// The trace that the sender belongs to.
    pub(crate) trace: Option<TraceContext>,
    /// The headers it came with.
    pub(crate) headers: Headers,
    /// Subject of the sender's token, if it has proven itself with one.
    pub(crate) token_subject: Option<String>,
    /// The team that the sender is proven to send for.
    pub(crate) team: Team,
    /// GitHub's JSON, not yet parsed.
    pub(crate) payload: Bytes,
    /// Keeps other modules from making one.
    pub(super) _sealed: (),
}

/// Why a verified delivery has no payload for this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// A required part is missing or malformed. The sender gets 400.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A CloudEvent whose data is not JSON. The sender gets 415.
    #[error("the event's data must be JSON")]
    DataType,
    /// A CloudEvent of another type than GitHub's. The sender gets 200, ignored.
    #[error("the type must be dev.knative.source.github.<event> or com.github.<event>.<action>, got {0}")]
    Foreign(String),
}

/// The malformed part of a verified delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    /// A header that GitHub always sends.
    #[error("the header {0} is missing or malformed")]
    Header(&'static str),
    /// A form without `payload`, or with several.
    #[error("the form must have exactly one field `payload`")]
    Form,
    /// The body of a CloudEvent in structured mode.
    #[error("the body is not a CloudEvent: {0}")]
    Event(String),
    /// A required attribute of a CloudEvent.
    #[error("the CloudEvent's attribute {0} {1}")]
    Attribute(&'static str, &'static str),
    /// A CloudEvent's data.
    #[error("the CloudEvent's data is not a GitHub event: {0}")]
    Data(&'static str),
}

/// `X-GitHub-Delivery`, or a CloudEvent's `id`: a GUID that stays the same when GitHub delivers again. Visible ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeliveryId(pub(super) String);

/// The webhook that a request says it comes from; no signature covers it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClaimedHook {
    /// GitHub's number of the hook.
    pub(crate) id: String,
    /// What the hook belongs to: `repository/<id>`, `organization/<id>` or `integration/<id>`.
    pub(crate) target: Option<String>,
}

/// The trace in a request's headers `traceparent` and `tracestate`.
pub(crate) fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    TraceContext::parse(text("traceparent")?, text("tracestate"))
}

impl Delivery {
    /// A delivery from a local file, for `render`; no network input may become one this way.
    pub(crate) fn from_local_file(id: DeliveryId, kind: EventKind, headers: HeaderMap, payload: Bytes) -> Self {
        Self::unproven(id, kind, headers, payload)
    }

    /// The parts that every envelope has. Its sender is known only to [`Verified::decode`](super::Verified::decode).
    pub(super) fn unproven(id: DeliveryId, kind: EventKind, headers: HeaderMap, payload: Bytes) -> Self {
        Self {
            id,
            kind,
            action: None,
            trace: None,
            headers: headers.into(),
            token_subject: None,
            team: Team::TOP,
            payload,
            _sealed: (),
        }
    }
}

impl DeliveryId {
    /// Parses an id. Returns `None` if it is empty, longer than 128 characters or not visible ASCII.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let legal = !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
        legal.then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
