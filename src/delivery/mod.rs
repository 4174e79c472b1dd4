//! From bytes and headers to one authenticated delivery.
//!
//! The order is in the types: bytes from the network are an [`Unverified`] delivery, which can only be verified; only a
//! [`Verified`] one can be decoded; only a [`Delivery`] has a payload that can be parsed. Their fields are private, so
//! that no other module can make one.

mod claims;
mod cloudevent;
mod decoded;
mod envelope;
mod event_kind;
mod headers;
mod key;
mod keyring;
pub(crate) mod saved;
mod signature;
pub(crate) mod token;
mod webhook;

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;

use crate::team::Team;
pub(crate) use claims::Claims;
pub(crate) use decoded::{ClaimedHook, DecodeError, Delivery, DeliveryId, trace_of};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use envelope::Encoding;
pub(crate) use envelope::{Envelope, Unsupported};
pub(crate) use event_kind::EventKind;
pub(crate) use headers::Headers;
pub(crate) use key::{Algorithm, Key};
pub(crate) use keyring::{Keyring, TeamKey};
pub(crate) use signature::{Proof, SignatureError, SignaturePolicy, precheck};
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
