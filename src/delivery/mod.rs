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

pub mod saved;
mod signature;
mod webhook;

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;

pub use signature::{Algorithm, Key, Proof, SignaturePolicy, Unproven, precheck};
pub use webhook::{Encoding, Malformed};
pub(crate) use webhook::{claimed_id, claimed_kind};

/// Bytes from the network, as they came; nothing of them has been looked at.
pub struct Unverified {
    headers: HeaderMap,
    encoding: Encoding,
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

/// A body whose signature matched one of our secrets.
pub struct Verified {
    headers: HeaderMap,
    encoding: Encoding,
    body: Bytes,
    proof: Proof,
}

/// One authenticated delivery: whose it is, what kind, and its JSON.
#[derive(Debug)]
pub struct Delivery {
    id: DeliveryId,
    kind: EventKind,
    headers: HeaderMap,
    payload: Bytes,
}

/// `X-GitHub-Delivery`: a GUID that GitHub keeps over redeliveries. Printable ASCII, at most 128 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryId(String);

/// `X-GitHub-Event`: the event's name, lower case letters, digits and `_`, at most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventKind(String);

impl Unverified {
    /// Takes a request's headers and its raw body.
    pub fn new(headers: HeaderMap, encoding: Encoding, body: Bytes) -> Self {
        Self { headers, encoding, body }
    }

    /// Checks the signature over the raw bytes.
    ///
    /// # Errors
    /// What was wrong, for the log; the sender is told the same in every case.
    pub fn verify<'k>(
        self,
        keys: impl IntoIterator<Item = &'k Key>,
        policy: SignaturePolicy,
    ) -> Result<Verified, Box<Unverifiable>> {
        match signature::verify(&self.headers, &self.body, keys, policy) {
            Ok(proof) => Ok(Verified { headers: self.headers, encoding: self.encoding, body: self.body, proof }),
            Err(why) => Err(Box::new(Unverifiable { unverified: self, why })),
        }
    }
}

impl Verified {
    /// How it was proven.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// Reads GitHub's headers and takes the payload out of its encoding.
    ///
    /// # Errors
    /// When a required header is missing or the form has no payload.
    pub fn decode(self) -> Result<Delivery, Malformed> {
        webhook::decode(self.headers, self.encoding, self.body)
    }
}

impl Delivery {
    /// A delivery from somebody's own disk, for `render`; nothing that came over a network may be made one this way.
    pub(crate) fn trusted(id: DeliveryId, kind: EventKind, headers: HeaderMap, payload: Bytes) -> Self {
        Self { id, kind, headers, payload }
    }

    /// Takes it apart.
    pub(crate) fn into_parts(self) -> (EventKind, DeliveryId, HeaderMap, Bytes) {
        (self.kind, self.id, self.headers, self.payload)
    }

    /// Whose answer this is.
    pub fn id(&self) -> &DeliveryId {
        &self.id
    }

    /// The event's name.
    pub fn kind(&self) -> &EventKind {
        &self.kind
    }

    /// GitHub's JSON, not yet parsed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

impl DeliveryId {
    /// Takes an id that is safe to print and to put into an annotation.
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
