//! From bytes and headers to one authenticated delivery.
//!
//! The order is in the types: bytes from the network are an [`Unverified`] delivery, which can only be verified; only a
//! [`Verified`] one can be decoded; only a [`Delivery`] has a payload that can be parsed. Their fields are private, so
//! that no other module can make one.

mod claims;
mod cloudevent;
mod envelope;
mod event_kind;
mod headers;
mod keyring;
pub(crate) mod saved;
mod signature;
pub(crate) mod token;
mod webhook;

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;

use crate::team::Team;
use crate::telemetry::trace::TraceContext;
pub(crate) use claims::Claims;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use envelope::Encoding;
pub(crate) use envelope::{Envelope, Unsupported};
pub(crate) use event_kind::EventKind;
pub(crate) use headers::Headers;
pub(crate) use keyring::{Keyring, TeamKey};
pub(crate) use signature::{Algorithm, Key, Proof, SignatureError, SignaturePolicy, precheck};
use token::TokenProof;

/// A request as it came from the network; its content is not looked at.
pub(crate) struct Unverified {
    headers: HeaderMap,
    envelope: Envelope,
    body: Bytes,
}

/// A delivery that could not be verified, to be tried again with other keys or rejected.
#[derive(Debug)]
pub(crate) struct VerificationFailed {
    /// The delivery, unchanged.
    pub(crate) unverified: Unverified,
    /// What was wrong.
    pub(crate) error: SignatureError,
}

/// The proof of a CloudEvent that carries no signature.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// Its sender has a valid token, and the team whose subject it is.
    Token(TokenProof, Team),
    /// It came over a network that the operator trusts.
    Network(NetworkTrust),
}

/// The operator's decision that every client that can reach this service may start builds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NetworkTrust(());

impl NetworkTrust {
    /// For `--cloudevents-auth=none` only.
    pub(crate) fn from_operator() -> Self {
        Self(())
    }
}

/// A delivery whose sender is authenticated.
pub(crate) struct Verified {
    headers: HeaderMap,
    envelope: Envelope,
    body: Bytes,
    /// The team that the sender is proven to send for.
    team: Team,
    /// Subject of the token that the sender proved itself with.
    token_subject: Option<String>,
}

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
    _sealed: (),
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
pub(crate) struct DeliveryId(String);

/// The webhook that a request says it comes from; no signature covers it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClaimedHook {
    /// GitHub's number of the hook.
    pub(crate) id: String,
    /// What the hook belongs to: `repository/<id>`, `organization/<id>` or `integration/<id>`.
    pub(crate) target: Option<String>,
}

impl Unverified {
    /// A request's headers and raw body.
    pub(crate) fn new(headers: HeaderMap, envelope: Envelope, body: Bytes) -> Self {
        Self { headers, envelope, body }
    }

    /// Whether there is a signature header, valid or not.
    pub(crate) fn has_signature(&self) -> bool {
        signature::is_present(&self.headers)
    }

    /// Verifies the signature over the raw bytes with each of the keys.
    /// Fails when no key matches, or there is no well-formed signature. The error is for the log: the sender gets the same
    /// answer in every case.
    pub(crate) fn verify<'k>(
        self,
        keys: impl IntoIterator<Item = &'k TeamKey>,
        policy: SignaturePolicy,
    ) -> Result<(Verified, Proof<'k>), Box<VerificationFailed>> {
        match signature::verify(&self.headers, &self.body, keys, policy) {
            Ok(proof) => Ok((self.into_verified(proof.key.team().clone()), proof)),
            Err(error) => Err(Box::new(VerificationFailed { unverified: self, error })),
        }
    }

    /// Accepts a CloudEvent by its credential.
    /// Fails when it is a webhook, which always needs its signature.
    pub(crate) fn accept(self, credential: &Credential) -> Result<Verified, Box<VerificationFailed>> {
        if self.envelope.is_cloud_event() {
            let team = match credential {
                Credential::Token(_, team) => team.clone(),
                Credential::Network(_) => Team::TOP,
            };
            return Ok(self.into_verified(team).with_subject(credential));
        }
        Err(Box::new(VerificationFailed { unverified: self, error: SignatureError::Missing }))
    }

    /// Bytes of the body.
    pub(crate) fn len(&self) -> usize {
        self.body.len()
    }

    /// What the request says about where it comes from.
    pub(crate) fn claims(&self) -> Claims {
        Claims::new(self.headers.clone(), self.body.clone())
    }

    fn into_verified(self, team: Team) -> Verified {
        Verified { headers: self.headers, envelope: self.envelope, body: self.body, team, token_subject: None }
    }
}

impl Verified {
    /// Keeps the subject of a token that was proven besides.
    pub(crate) fn with_subject(self, credential: &Credential) -> Self {
        let token_subject = match credential {
            Credential::Token(proof, _) => Some(proof.subject().to_owned()),
            Credential::Network(_) => None,
        };
        Self { token_subject, ..self }
    }

    /// The team that the sender is proven to send for.
    pub(crate) fn team(&self) -> &Team {
        &self.team
    }

    /// Reads the attributes, and takes the payload out of its envelope.
    /// Fails when a required part is missing or malformed, or the event is not GitHub's.
    pub(crate) fn decode(self) -> Result<Delivery, DecodeError> {
        let delivery = match self.envelope {
            Envelope::Webhook(encoding) => webhook::decode(self.headers, encoding, self.body)?,
            Envelope::Binary => cloudevent::binary(self.headers, self.body)?,
            Envelope::Structured => cloudevent::structured(self.headers, &self.body)?,
        };
        Ok(Delivery { token_subject: self.token_subject, team: self.team, ..delivery })
    }
}

/// The delivery id in a request's headers, before it is authenticated. Returns `None` if it is missing or malformed.
pub(crate) fn claimed_id(headers: &HeaderMap) -> Option<DeliveryId> {
    webhook::claimed_id(headers).or_else(|| cloudevent::claimed_id(headers))
}

/// The event's name in a request's headers, before it is authenticated. Returns `None` if it is missing or malformed.
pub(crate) fn claimed_kind(headers: &HeaderMap) -> Option<EventKind> {
    webhook::claimed_kind(headers).or_else(|| cloudevent::claimed_kind(headers))
}

/// The hook in a webhook's headers, before it is authenticated. Returns `None` if there is none, or it is malformed.
pub(crate) fn claimed_hook(headers: &HeaderMap) -> Option<ClaimedHook> {
    webhook::claimed_hook(headers)
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

    /// The parts that every envelope has. Its sender is known only to [`Verified::decode`].
    fn unproven(id: DeliveryId, kind: EventKind, headers: HeaderMap, payload: Bytes) -> Self {
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

impl fmt::Debug for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unverified").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
