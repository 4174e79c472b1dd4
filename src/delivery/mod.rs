//! From bytes and headers to one authenticated delivery.
//!
//! The order is in the types: bytes from the network are an [`Unverified`] delivery, which can only be verified; a
//! [`Verified`] one can be decoded; only a [`Delivery`] has a payload that can be parsed.
//!
//! ```compile_fail,E0599
//! use github_trigger::delivery::{Delivery, Unverified};
//! fn parse_before_verification(unverified: Unverified) -> Delivery {
//!     unverified.decode().unwrap() // no such method: only a `Verified` can be decoded
//! }
//! ```
//!
//! ```compile_fail,E0451
//! use github_trigger::delivery::Verified;
//! fn forge(verified: Verified) -> Verified {
//!     Verified { body: Default::default(), ..verified } // its fields are private
//! }
//! ```

mod cloudevent;
mod envelope;
pub mod saved;
mod signature;
pub mod token;
mod webhook;

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;

use crate::trace::TraceContext;
pub use envelope::{Encoding, Envelope, Unsupported};
pub use signature::{Algorithm, Key, Proof, SignaturePolicy, Unproven, precheck};
use token::TokenProof;

/// Bytes from the network, as they came; nothing of them has been looked at.
pub struct Unverified {
    headers: HeaderMap,
    envelope: Envelope,
    body: Bytes,
}

/// A delivery that did not verify, to be tried again with other keys or refused.
#[derive(Debug)]
pub struct Unverifiable {
    /// The delivery, as it was.
    pub unverified: Unverified,
    /// What was wrong.
    pub why: Unproven,
}

/// What stands for a CloudEvent instead of a signature over its body.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Its sender showed a token.
    Token(TokenProof),
    /// Its sender is on a network that the operator trusts.
    Network(NetworkTrust),
}

/// An operator's word that nobody reaches this service who may not start a build.
#[derive(Debug, Clone, Copy)]
pub struct NetworkTrust(());

impl NetworkTrust {
    /// To be called where an operator says so (`--cloudevents-auth=none`), and nowhere else.
    pub fn by_operator() -> Self {
        Self(())
    }
}

/// A delivery whose sender is proven.
pub struct Verified {
    headers: HeaderMap,
    envelope: Envelope,
    body: Bytes,
}

/// One authenticated delivery: whose it is, what kind, and its JSON.
#[derive(Debug)]
pub struct Delivery {
    id: DeliveryId,
    kind: EventKind,
    /// What a CloudEvent's type says about the action.
    action: Option<String>,
    trace: Option<TraceContext>,
    headers: HeaderMap,
    payload: Bytes,
}

/// Why a verified delivery has no payload for us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It is not what it claims to be. The sender is told with 400.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A CloudEvent whose data is not JSON. The sender is told with 415.
    #[error("the event's data must be JSON")]
    DataType,
    /// A CloudEvent that is not GitHub's: there is nothing to do.
    #[error("the type must be dev.knative.source.github.<event> or com.github.<event>.<action>, got {0}")]
    Foreign(String),
}

/// What is missing in a verified delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A header that GitHub always sends is missing, repeated or not of GitHub's form.
    #[error("the header {0} is missing or malformed")]
    Header(&'static str),
    /// A form without `payload`, or with several.
    #[error("the form must have exactly one field `payload`")]
    Form,
    /// A structured event that is none.
    #[error("the body is not a CloudEvent: {0}")]
    Event(String),
    /// A required attribute of a CloudEvent.
    #[error("the CloudEvent's attribute {0} {1}")]
    Attribute(&'static str, &'static str),
    /// A CloudEvent's data.
    #[error("the CloudEvent's data is not a GitHub event: {0}")]
    Data(&'static str),
}

/// `X-GitHub-Delivery` or a CloudEvent's `id`: a GUID that GitHub keeps over redeliveries. Printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryId(String);

/// `X-GitHub-Event`: the event's name, lower case letters, digits and `_`, at most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventKind(String);

impl Unverified {
    /// Takes a request's headers and its raw body.
    pub fn new(headers: HeaderMap, envelope: Envelope, body: Bytes) -> Self {
        Self { headers, envelope, body }
    }

    /// Checks the signature over the raw bytes, and says how it was proven.
    ///
    /// # Errors
    /// What was wrong, for the log; the sender is told the same in every case.
    pub fn verify<'k>(
        self,
        keys: impl IntoIterator<Item = &'k Key>,
        policy: SignaturePolicy,
    ) -> Result<(Verified, Proof), Box<Unverifiable>> {
        match signature::verify(&self.headers, &self.body, keys, policy) {
            Ok(proof) => Ok((self.verified(), proof)),
            Err(why) => Err(Box::new(Unverifiable { unverified: self, why })),
        }
    }

    /// Lets a credential stand for a CloudEvent.
    ///
    /// # Errors
    /// When it is a webhook: that needs its signature, whoever brings it.
    pub fn accept(self, _credential: &Credential) -> Result<Verified, Box<Unverifiable>> {
        if self.envelope.is_cloud_event() {
            return Ok(self.verified());
        }
        Err(Box::new(Unverifiable { unverified: self, why: Unproven::Missing }))
    }

    fn verified(self) -> Verified {
        Verified { headers: self.headers, envelope: self.envelope, body: self.body }
    }
}

impl Verified {
    /// Reads the attributes and takes the payload out of its envelope.
    ///
    /// # Errors
    /// When something required is missing, or the event is not one of GitHub's.
    pub fn decode(self) -> Result<Delivery, DecodeError> {
        match self.envelope {
            Envelope::Webhook(encoding) => Ok(webhook::decode(self.headers, encoding, self.body)?),
            Envelope::Binary => cloudevent::binary(self.headers, self.body),
            Envelope::Structured => cloudevent::structured(self.headers, &self.body),
        }
    }
}

/// The delivery id that a request's headers claim, for answers and logs; nothing if it is missing or unfit to print.
pub(crate) fn claimed_id(headers: &HeaderMap) -> Option<DeliveryId> {
    webhook::claimed_id(headers).or_else(|| cloudevent::claimed_id(headers))
}

/// The event's name that a request's headers claim.
pub(crate) fn claimed_kind(headers: &HeaderMap) -> Option<EventKind> {
    webhook::claimed_kind(headers).or_else(|| cloudevent::claimed_kind(headers))
}

impl Delivery {
    /// A delivery from somebody's own disk, for `render`; nothing that came over a network may be made one this way.
    pub(crate) fn trusted(id: DeliveryId, kind: EventKind, headers: HeaderMap, payload: Bytes) -> Self {
        Self { id, kind, action: None, trace: None, headers, payload }
    }

    /// Takes it apart.
    pub(crate) fn into_parts(self) -> (EventKind, DeliveryId, Option<TraceContext>, HeaderMap, Bytes) {
        (self.kind, self.id, self.trace, self.headers, self.payload)
    }

    /// Whose answer this is.
    pub fn id(&self) -> &DeliveryId {
        &self.id
    }

    /// The event's name.
    pub fn kind(&self) -> &EventKind {
        &self.kind
    }

    /// The action, where the type of a CloudEvent names one.
    pub fn action(&self) -> Option<&str> {
        self.action.as_deref()
    }

    /// The trace that it belongs to.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// GitHub's JSON, not yet parsed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

impl DeliveryId {
    /// Takes an id that is safe to print and to put into an annotation, of at most 128 characters.
    pub fn parse(text: &str) -> Option<Self> {
        let legal = !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
        legal.then(|| Self(text.to_owned()))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl EventKind {
    /// Takes a name of the form that GitHub uses.
    pub fn parse(text: &str) -> Option<Self> {
        let legal = !text.is_empty()
            && text.len() <= 64
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        legal.then(|| Self(text.to_owned()))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// GitHub's own test of a new webhook.
    pub fn is_ping(&self) -> bool {
        self.0 == "ping"
    }

    /// The event that can be a merge.
    pub fn is_pull_request(&self) -> bool {
        self.0 == "pull_request"
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for EventKind {
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
